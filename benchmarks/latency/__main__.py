"""Latency of exported files and of peers, interleaved in one process.

    python -m benchmarks.latency OUT --models OURS.onnx ... [--peers-python PYTHON]
        [--peers NAME ...] [--image FILE.jpg] [--minutes 3]

Each file is timed as a model alone and from JPEG bytes to a decision. Writes latency.md,
latency.json (every time) and latency.png into OUT. The peers' ONNX files and the rendered image
stay there too, and a second run uses the peers' files again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from benchmarks.latency.report import make_report, write_report
from benchmarks.latency.systems import PEERS, camera_jpeg, export_peers, load_own, load_peer
from fsad_edge.bench.benchmark import Configuration, make_labels
from fsad_edge.bench.images import read_images
from fsad_edge.bench.latency import interleave
from fsad_edge.bench.machine import describe_machine
from fsad_edge.cli.console import err
from fsad_edge.errors import FsadEdgeError, InputError
from fsad_edge.runtime.files import write_bytes


def run(
    out: Path,
    files: Sequence[Path],
    python: Path | None = None,
    peers: Sequence[str] = PEERS,
    image: Path | None = None,
    threads: int = 0,
    seconds: float = 180.0,
) -> str:
    """Measure and write OUT; returns the Markdown.

    Args:
        out: folder to write into.
        files: files that ``fsad-edge export`` wrote; the others are compared with the first.
        python: interpreter of the peers' environment; None measures no peers.
        peers: which of ``PEERS`` to measure.
        image: JPEG to decode; None renders a part at a camera's size.
        threads: threads for one image in every session; 0 leaves the choice to the engine.
        seconds: time for all measurements together, after the warm-up.

    Raises:
        FsadEdgeError: a file, the image or the peers' environment cannot be used.
    """
    machine = describe_machine()  # now, because the benchmark itself adds to the load
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made: {error.strerror or error}.") from error
    jpeg, about_image = _load_image(out, image)
    labels = make_labels([Configuration(file) for file in files])
    systems = [
        load_own(file, label.removesuffix(".onnx"), jpeg, threads)
        for file, label in zip(files, labels, strict=True)
    ]
    versions: dict[str, str] = {}
    if python is not None:
        exported = export_peers(python, out)
        versions = {"anomalib": exported.anomalib, "torch": exported.torch}
        systems += [
            load_peer(out / f"{model.name}.onnx", model, jpeg, threads)
            for model in exported.models
            if model.name in peers
        ]
    calls = {f"alone/{system.name}": system.alone for system in systems}
    calls |= {f"whole/{system.name}": system.whole for system in systems}
    with Progress(console=err) as bar:
        task = bar.add_task("measuring", total=1.0)
        measured = interleave(
            calls,
            seconds=seconds / len(calls),
            on_progress=lambda fraction: bar.update(task, completed=fraction),
        )
    report = make_report(systems, measured, machine, versions, about_image, threads)
    return write_report(out, report)


def _load_image(out: Path, image: Path | None) -> tuple[bytes, str]:
    """The bytes of the image and what it is, in words."""
    if image is not None:
        image_set = read_images([image])
        (width, height), jpeg = image_set.sizes[0], image_set.encoded[0]
        return jpeg, f"{image.name}, {width}x{height}, {len(jpeg) / 1e3:.0f} kB"
    jpeg = camera_jpeg()
    write_bytes(out / "part.jpg", jpeg)
    return jpeg, f"a rendered part, 1280x960 with sensor noise, JPEG of {len(jpeg) / 1e3:.0f} kB"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", type=Path, nargs="+", required=True, metavar="OURS.onnx")
    parser.add_argument("--peers-python", type=Path, metavar="PYTHON")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS, metavar="NAME")
    parser.add_argument("--image", type=Path, metavar="FILE.jpg")
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        help="threads for one image; 0 leaves the choice to the engine",
    )
    parser.add_argument(
        "--minutes", type=float, default=3.0, help="time for all measurements together"
    )
    chosen = parser.parse_args(argv)
    if chosen.threads < 0 or not 0 < chosen.minutes < 1000:
        parser.error("--threads takes 0 or more, --minutes more than 0")
    try:
        text = run(
            chosen.out,
            chosen.models,
            chosen.peers_python,
            chosen.peers,
            chosen.image,
            chosen.threads,
            chosen.minutes * 60,
        )
    except FsadEdgeError as error:
        print(error, file=sys.stderr)
        return 2
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
