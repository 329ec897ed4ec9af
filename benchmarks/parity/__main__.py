"""Scores before and after export, from images of camera size, for fsad-edge and for anomalib.

    python -m benchmarks.parity OUT --images DATASET --model PART [FILE.onnx ...]
        [--peers-python PYTHON --weights FOLDER]

DATASET is an MVTec-style folder. Good and defective images of its test split are scored as they are
and enlarged to the sizes of cameras (``SIZES``). PART is a model directory, and each FILE is what
``fsad-edge export`` wrote of it in one precision (PART.onnx by default). PYTHON is the interpreter
that ``benchmarks.peers.install`` made: it fits PatchCore to PART's shots with the network in FOLDER
(timm's ``local-dir:`` layout) and exports it. Writes ``parity.md``, ``parity.json`` and
``parity.png``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.parity.camera import SIZES, Size, camera_images, evenly_spaced
from benchmarks.parity.report import write_report
from benchmarks.parity.systems import score_anomalib, score_own
from fsad_edge.errors import FsadEdgeError, InputError
from fsad_edge.evaluation.dataset import read_dataset
from fsad_edge.pipeline.model_directory import read_manifest, shot_paths


def run(
    out: Path,
    dataset: Path,
    part: Path,
    files: Sequence[Path],
    count: int = 10,
    sizes: Sequence[Size] = SIZES,
    peers: tuple[Path, Path] | None = None,
) -> str:
    """Run the benchmark and write OUT; returns the Markdown.

    Args:
        out: folder to write into.
        dataset: MVTec-style folder.
        part: model directory.
        files: files that were exported from it.
        count: number of good images and of defective images that are scored. Up to twice as many
            others of each set anomalib's threshold.
        sizes: sizes to enlarge the images to.
        peers: interpreter of the peers' environment and folder of their weights; None measures no
            peers.

    Raises:
        FsadEdgeError: the data set, the model or the peers' environment cannot be used.
    """
    samples = read_dataset(dataset).samples
    good = [sample.path.absolute() for sample in samples if sample.defect is None]
    defective = [sample.path.absolute() for sample in samples if sample.defect is not None]
    chosen = evenly_spaced(good, count) + evenly_spaced(defective, count)
    job: dict[str, Any] = {"seed": 0, "threads": 1}
    if peers is not None:
        manifest = read_manifest(part)
        job |= {"weights": str(peers[1].absolute()), "size": manifest.encoder.height}
        job["shots"] = [str(path.absolute()) for path in shot_paths(part, manifest)]
        for name, kind in (("good", good), ("defect", defective)):
            others = evenly_spaced([path for path in kind if path not in chosen], 2 * count)
            job[name] = [str(path) for path in others]
            if not others:
                raise InputError(f"{dataset} has too few {name} images: give a smaller --count.")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        photos = camera_images(chosen, sizes, Path(folder))
        scored = score_own(part, files, photos)
        notes: list[str] = []
        if peers is not None:
            anomalib, notes = score_anomalib(peers[0], job, photos)
            scored += anomalib
    return write_report(out, scored, notes)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=Path, required=True, metavar="DATASET")
    parser.add_argument("--model", type=Path, nargs="+", required=True, metavar="PART [FILE]")
    parser.add_argument(
        "--count", type=int, default=10, help="number of good images and of defective images"
    )
    parser.add_argument("--peers-python", type=Path, metavar="PYTHON")
    parser.add_argument("--weights", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    part, *files = chosen.model
    if chosen.count < 1:
        parser.error("--count takes 1 or more")
    if bool(chosen.peers_python) != bool(chosen.weights):
        parser.error("--peers-python and --weights go together")
    peers = (chosen.peers_python, chosen.weights) if chosen.peers_python else None
    files = files or [part.absolute().with_name(f"{part.absolute().name}.onnx")]
    try:
        print(run(chosen.out, chosen.images, part, files, chosen.count, peers=peers), end="")
    except (FsadEdgeError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
