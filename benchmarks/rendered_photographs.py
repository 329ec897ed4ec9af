"""Sets of large rendered photographs of single parts, in the layout of MVTec AD.

:mod:`benchmarks.rendered_small` and :mod:`benchmarks.rendered_scattered` have the scenes; here is
what makes photographs and folders of them.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.rendered_brushes import Array, Rng
from benchmarks.rendered_parts import Pixels, _develop, _mask

#: A scene as the camera sees it, in display values, square, with the random generator after it.
#: Given are the defect, "" for a good part, and the random generator that draws it.
Shown = Callable[[str, Rng], tuple[Array, Rng]]


@dataclass(frozen=True)
class Photograph:
    """One rendered photograph.

    Attributes:
        image: uint8 ``[H, W, 3]``, RGB.
        mask: where the defect shows, bool ``[H, W]``.
        quality: JPEG quality of its file.
    """

    image: Pixels
    mask: NDArray[np.bool_]
    quality: int

    def jpeg(self) -> bytes:
        """The bytes of the image as a JPEG file."""
        stream = io.BytesIO()
        Image.fromarray(self.image).save(stream, "JPEG", quality=self.quality)
        return stream.getvalue()


#: Renders a part: its name, the random seed, and the defect, "" for a good part.
Render = Callable[[str, Sequence[int], str], Photograph]


def photograph(
    shown: Shown, key: Sequence[int], defect: str, height: int, least: tuple[int, float]
) -> Photograph:
    """Photograph a scene; the middle rows are kept.

    Args:
        shown: the scene.
        key: random seed of the defect.
        defect: "" for a good part.
        height: rows of the photograph.
        least: a defect that shows on fewer pixels is drawn again, and so is a weaker one: contrast
            of its strongest pixel as a fraction of full scale.
    """
    seen, rng = shown("", np.random.default_rng(0))
    clean, mask = seen, np.zeros(seen.shape[:2], dtype=np.bool_)
    for attempt in range(1, 20 if defect else 1):
        drawn, _ = shown(defect, np.random.default_rng([*key, attempt]))
        difference = np.abs(drawn - clean).max(axis=-1)
        seen, mask = drawn, _mask(difference)
        if mask.sum() >= least[0] and difference.max() >= least[1]:
            break
    image = _develop(seen, rng)
    width = len(image)
    rows = slice((width - height) // 2, (width + height) // 2)
    return Photograph(image[rows], mask[rows], int(rng.integers(90, 97)))


def main(
    argv: Sequence[str] | None,
    prog: str,
    description: str,
    parts: Mapping[str, Sequence[str]],
    render: Render,
) -> int:
    """The command line of a set; returns the exit status.

    Args:
        argv: its arguments; None takes those of the process.
        prog: its name.
        description: what it renders.
        parts: the names of the parts, the default one first, and the defects of each.
        render: renders one.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("out", type=Path, help="folder to write; must be new or empty")
    parser.add_argument("--part", choices=sorted(parts), default=next(iter(parts)))
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--train", type=int, default=20, help="photographs in train/good")
    parser.add_argument("--good", type=int, default=40, help="photographs in test/good")
    parser.add_argument("--bad", type=int, default=15, help="test photographs of each defect")
    args = parser.parse_args(argv)
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        print(f"error: {args.out} is not an empty folder; name a new one", file=sys.stderr)
        return 2
    folders = [("train", "good", args.train), ("test", "good", args.good)]
    folders += [("test", defect, args.bad) for defect in parts[args.part]]
    for stream, (split, kind, count) in enumerate(folders):
        folder, truth = args.out / split / kind, args.out / "ground_truth" / kind
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            shot = render(args.part, (args.seed, stream, index), "" if kind == "good" else kind)
            (folder / f"{index:03d}.jpg").write_bytes(shot.jpeg())
            if kind != "good":
                truth.mkdir(parents=True, exist_ok=True)
                mask = Image.fromarray(shot.mask).convert("L")
                mask.save(truth / f"{index:03d}_mask.png")
    written = sum(count for _, _, count in folders)
    print(f"{written} photographs of part '{args.part}' in {args.out}")
    return 0
