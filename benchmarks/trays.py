"""Large photographs of many parts at once, made of a set's own photographs.

    python -m benchmarks.trays OUT --data DATASET [--columns 4] [--side 2048] [--train 8]
        [--good 24] [--bad 48] [--seed 0]

writes a set in the layout of MVTec AD, without masks. Each photograph is a square of ``--columns``
times as many parts: those of ``train`` from ``train/good``, those of ``test`` from ``test/good``,
and a defective one has one defective part at a random place. The defects are small in it, and how
many pixels a model has decides whether they can be seen. The same arguments with the same versions
of numpy and Pillow give the same files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.accuracy.datasets import mvtec_style
from fsad_edge.errors import InputError
from fsad_edge.runtime.directories import new_directory
from fsad_edge.runtime.files import check_output
from fsad_edge.runtime.images import load_image

#: Quality of a photograph as JPEG.
QUALITY = 92


def tray(parts: Sequence[Path], side: int) -> Image.Image:
    """A square photograph of a square number of parts.

    Args:
        parts: files, row by row.
        side: of the photograph, pixels.
    """
    columns = round(len(parts) ** 0.5)
    edges = np.linspace(0, side, columns + 1).astype(int)
    photograph = Image.new("RGB", (side, side))
    for place, file in enumerate(parts):
        row, column = divmod(place, columns)
        box = (edges[column], edges[row], edges[column + 1], edges[row + 1])
        part = Image.fromarray(load_image(file)).resize((box[2] - box[0], box[3] - box[1]))
        photograph.paste(part, (int(box[0]), int(box[1])))
    return photograph


def write_trays(
    out: Path, data: Path, columns: int, side: int, counts: tuple[int, int, int], seed: int
) -> None:
    """Write a set.

    Args:
        out: the folder to write, new or empty.
        data: a set in the layout of MVTec AD.
        columns: parts along a side of a photograph.
        side: of a photograph, pixels.
        counts: photographs of ``train/good``, of ``test/good`` and of ``test/defective``.
        seed: random seed.

    Raises:
        InputError: ``data`` is no such set, or ``out`` holds something.
    """
    source, rng = mvtec_style(data), np.random.default_rng(seed)
    good = [sample.path for sample in source.samples if sample.defect is None]
    bad = [sample.path for sample in source.samples if sample.defect is not None]
    check_output(out, force=False)
    names, kinds = ("train/good", "test/good", "test/defective"), (source.normal_images, good, good)
    with new_directory(out) as folder:
        for name, parts, count in zip(names, kinds, counts, strict=True):
            (folder / name).mkdir(parents=True)
            for index in range(count):
                chosen = [parts[k] for k in rng.choice(len(parts), columns**2)]
                if name == names[2]:
                    chosen[rng.integers(columns**2)] = bad[index % len(bad)]
                tray(chosen, side).save(folder / name / f"{index:03}.jpg", quality=QUALITY)


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more")
    return value


def main(words: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trays",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="folder to write; must be new or empty")
    parser.add_argument("--data", type=Path, required=True, help="folder like MVTec AD's")
    for name, default, words_of in (
        ("--columns", 4, "parts along a side"),
        ("--side", 2048, "of a photograph, pixels"),
        ("--train", 8, "images in train/good"),
        ("--good", 24, "images in test/good"),
        ("--bad", 48, "images in test/defective"),
        ("--seed", 0, "random seed"),
    ):
        parser.add_argument(name, type=_whole, default=default, help=words_of)
    arguments = parser.parse_args(words)
    if not 1 <= arguments.columns <= arguments.side:
        parser.error("--columns is at least 1 and at most --side")
    counts = arguments.train, arguments.good, arguments.bad
    try:
        write_trays(
            arguments.out, arguments.data, arguments.columns, arguments.side, counts, arguments.seed
        )
    except InputError as error:
        sys.exit(f"error: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
