"""Small sets of industrial parts that the project renders itself, in the layout of MVTec AD.

    python -m benchmarks.rendered_parts OUT [--part bracket|wood|print] [--seed N] [--train N]
        [--good N] [--bad N] [--size 320]

writes OUT/train/good, OUT/test/good, OUT/test/<defect> (JPEG) and OUT/ground_truth/<defect>
(PNG masks, 255 where the defect shows). The same arguments with the same versions of numpy and
Pillow give the same files. They replace photographs where none may be shipped: a number measured on
them says that the code works, not how well the method does in a factory.

A scene, such as :func:`benchmarks.rendered_bracket.bracket`, is a function ``(size, rng, defect,
defect_rng) -> rgb``. ``rng`` draws everything that varies between good parts (pose, texture,
illumination); ``defect_rng`` draws the defect and nothing else, so that two calls with equal states
of ``rng`` differ only where the defect is. ``rgb`` is float64 ``[size, size, 3]``, linear light,
about 0 to 1.2. Lengths in a scene are in part coordinates, in which the picture is 2 wide.
"""

from __future__ import annotations

import argparse
import io
import math
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.rendered_bracket import bracket
from benchmarks.rendered_brushes import Array, Rng, axes, blur
from benchmarks.rendered_label import label
from benchmarks.rendered_wood import wood
from fsad_edge.runtime.side_by_side import side_by_side

Scene = Callable[[int, Rng, str, Rng], Array]
Pixels = NDArray[np.uint8]

PARTS: dict[str, tuple[Scene, tuple[str, ...]]] = {
    "bracket": (bracket, ("chip", "dent", "missing_hole", "scratch", "stain")),
    "wood": (wood, ("crack", "dent", "hole", "scratch", "stain")),
    "print": (label, ("bubble", "misprint", "missing_print", "smear", "stain")),
}
#: A defect that shows on fewer pixels of a 320 px image is drawn again.
MIN_PIXELS = 12
#: A weaker defect is drawn again: contrast of its strongest pixel as a fraction of full scale.
MIN_CONTRAST = 0.07


@dataclass(frozen=True)
class Shot:
    """One rendered image.

    Attributes:
        image: the photograph, uint8 ``[S, S, 3]``, RGB.
        seen: the same without sensor noise, float64 ``[S, S, 3]``, 0 to 1.
        clean: ``seen`` of the same part without the defect.
        mask: where ``seen`` and ``clean`` differ, bool ``[S, S]``.
        quality: JPEG quality of its file.
    """

    image: Pixels
    seen: Array
    clean: Array
    mask: NDArray[np.bool_]
    quality: int


def _expose(rgb: Array, rng: Rng) -> Array:
    """Lens and exposure: from linear light ``[S, S, 3]`` to display values, 0 to 1."""
    size = rgb.shape[0]
    x, y = axes(size)
    gain = 1.25 * math.exp(rng.normal(0.0, 0.17)) * (1.0 + rng.normal(0.0, 0.02, 3))
    tilt = 1.0 + rng.normal(0.0, 0.06) * x + rng.normal(0.0, 0.06) * y - 0.1 * (x * x + y * y)
    sigma = rng.uniform(0.45, 0.8) * size / 320
    seen = np.clip(blur(rgb, sigma) * gain * tilt[..., None], 0.0, None)
    shoulder = np.where(seen > 0.7, 0.7 + 0.3 * np.tanh((seen - 0.7) / 0.3), seen)
    return np.asarray(shoulder ** (1 / 2.2))


def _develop(seen: Array, rng: Rng) -> Pixels:
    """Sensor noise and rounding: from display values ``[S, S, 3]`` to uint8 ``[S, S, 3]``."""
    size, level = seen.shape[0], rng.uniform(0.006, 0.013)
    grain = 0.6 * rng.standard_normal((size, size, 3))
    luma = rng.standard_normal((size, size, 1))  # smeared over neighbours, as demosaicing does
    grain += 0.6 * luma + 0.35 * (np.roll(luma, 1, 0) + np.roll(luma, 1, 1))
    noisy = seen + level * (0.6 + 0.6 * np.sqrt(np.clip(1.0 - seen, 0, 1))) * grain
    return np.asarray(np.clip(noisy * 255.0 + 0.5, 0, 255), dtype=np.uint8)


def _mask(difference: Array) -> NDArray[np.bool_]:
    """Where a defect shows, bool ``[S, S]``.

    The limit follows the strength of the defect, so that both the soft flanks of a strong defect
    and the whole of a weak one are in the mask. Gaps of a pixel or two are filled, as a person who
    draws a mask would fill them.

    Args:
        difference: absolute difference to the clean part, ``[S, S]``.
    """
    raw = difference > np.clip(0.15 * difference.max(), 0.012, 0.04)
    return np.asarray(raw | (blur(raw.astype(np.float64), 1.5) > 0.4))


def render(part: str, key: Sequence[int], defect: str = "", size: int = 320) -> Shot:
    """Render one part; ``key`` is the random seed, and the defect "" stands for a good part."""
    scene, _ = PARTS[part]

    def shown(kind: str, defect_rng: Rng) -> tuple[Array, Rng]:
        rng = np.random.default_rng([*key, 0])
        rgb = scene(size, rng, kind, defect_rng)
        return _expose(rgb, rng), rng

    clean, rng = shown("", np.random.default_rng(0))
    seen, mask, strongest = clean, np.zeros((size, size), dtype=np.bool_), 0.0
    for attempt in range(1, 20 if defect else 1):
        drawn, _ = shown(defect, np.random.default_rng([*key, attempt]))
        difference = np.abs(drawn - clean).max(axis=-1)
        shows = _mask(difference)
        wide = shows.sum() >= MIN_PIXELS * (size / 320) ** 2
        if wide and difference.max() > strongest:
            seen, mask, strongest = drawn, shows, float(difference.max())
        if strongest > MIN_CONTRAST:
            break
    return Shot(_develop(seen, rng), seen, clean, mask, int(rng.integers(87, 96)))


def jpeg(shot: Shot) -> bytes:
    """The bytes of the image as a JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(shot.image).save(stream, "JPEG", quality=shot.quality)
    return stream.getvalue()


def plan(part: str, train: int, good: int, bad: int) -> Iterator[tuple[str, str, int, int]]:
    """Each image of a set: split, kind, number in its folder and the second part of its seed."""
    folders = [("train", "good", train), ("test", "good", good)]
    folders += [("test", defect, bad) for defect in PARTS[part][1]]
    for stream, (split, kind, count) in enumerate(folders):
        yield from ((split, kind, i, stream) for i in range(count))


def write_set(
    out: Path, part: str, seed: int, train: int, good: int, bad: int, size: int = 320
) -> int:
    """Render a set into ``out``; returns the number of images, masks not counted."""

    def write(one: tuple[str, str, int, int]) -> None:
        split, kind, i, stream = one
        shot = render(part, (seed, stream, i), "" if kind == "good" else kind, size)
        folder = out / split / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:03d}.jpg").write_bytes(jpeg(shot))
        if kind != "good":
            truth = out / "ground_truth" / kind
            truth.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shot.mask).convert("L").save(truth / f"{i:03d}_mask.png")

    return len(side_by_side(write, plan(part, train, good, bad)))


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text} must be 0 to 1000")
    return value


def _pixels(text: str) -> int:
    value = int(text)
    if not 64 <= value <= 2048:
        raise argparse.ArgumentTypeError(f"{text} must be 64 to 2048")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rendered_parts",
        description="Render a small set of good and defective parts in the layout of MVTec AD.",
    )
    parser.add_argument("out", type=Path, help="folder to write; must be new or empty")
    parser.add_argument("--part", choices=sorted(PARTS), default="bracket")
    parser.add_argument("--seed", type=_count, default=0, help="random seed, 0 to 1000")
    parser.add_argument("--train", type=_count, default=12, help="images in train/good")
    parser.add_argument("--good", type=_count, default=40, help="images in test/good")
    parser.add_argument("--bad", type=_count, default=12, help="test images of each defect")
    parser.add_argument("--size", type=_pixels, default=320, help="side of an image in pixels")
    parser.add_argument(
        "--force", action="store_true", help="replace train, test and ground_truth in OUT"
    )
    args = parser.parse_args(argv)
    out: Path = args.out
    if out.exists() and not out.is_dir():
        print(f"error: {out} is a file; name a new folder", file=sys.stderr)
        return 2
    if out.is_dir() and any(out.iterdir()):
        if not args.force:
            print(
                f"error: {out} is not empty; name a new folder, or pass --force to replace "
                "its train, test and ground_truth folders",
                file=sys.stderr,
            )
            return 2
        for name in ("train", "test", "ground_truth"):
            if (out / name).is_dir():
                shutil.rmtree(out / name)
    written = write_set(out, args.part, args.seed, args.train, args.good, args.bad, args.size)
    print(f"{written} images of part '{args.part}' in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
