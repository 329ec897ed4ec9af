"""Small sets of industrial parts the project renders itself, in MVTec-AD layout.

    python -m benchmarks.rendered_parts OUT [--part bracket|wood|print] [--seed N] [--train N]
        [--good N] [--bad N] [--size 320]

writes OUT/train/good, OUT/test/good, OUT/test/<defect> (JPEG) and OUT/ground_truth/<defect>
(PNG masks, 255 where the defect shows). The same arguments, numpy and Pillow give the same
files. They stand in for photographs where none may be shipped: a number measured on them says
that the code works, not how well the method does in a factory.
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

from benchmarks.rendered_brushes import Array, Rng, axes, blur
from benchmarks.rendered_scenes import bracket, label, wood

Scene = Callable[[int, Rng, str, Rng], Array]
Pixels = NDArray[np.uint8]

PARTS: dict[str, tuple[Scene, tuple[str, ...]]] = {
    "bracket": (bracket, ("chip", "dent", "missing_hole", "scratch", "stain")),
    "wood": (wood, ("crack", "dent", "hole", "scratch", "stain")),
    "print": (label, ("bubble", "misprint", "missing_print", "smear", "stain")),
}
MIN_PIXELS = 12  # of a 320 px picture: a defect that shows on fewer is drawn again
MIN_CONTRAST = 0.07  # of full scale, at the defect's strongest pixel


@dataclass(frozen=True)
class Shot:
    """One picture: `image` uint8 [S, S, 3] RGB, noise and all; `seen` float64 [S, S, 3] 0..1, the
    same before noise; `clean`, the same part and light without the defect (`seen` itself where
    there is none); `mask` bool [S, S], where the two differ."""

    image: Pixels
    seen: Array
    clean: Array
    mask: NDArray[np.bool_]
    quality: int  # of its JPEG


def _expose(rgb: Array, rng: Rng) -> Array:
    """Lens and exposure: linear light [S, S, 3] in, display values 0..1 out, without noise."""
    size = rgb.shape[0]
    x, y = axes(size)
    gain = 1.25 * math.exp(rng.normal(0.0, 0.17)) * (1.0 + rng.normal(0.0, 0.02, 3))
    tilt = 1.0 + rng.normal(0.0, 0.06) * x + rng.normal(0.0, 0.06) * y - 0.1 * (x * x + y * y)
    sigma = rng.uniform(0.45, 0.8) * size / 320
    seen = np.clip(blur(rgb, sigma) * gain * tilt[..., None], 0.0, None)
    shoulder = np.where(seen > 0.7, 0.7 + 0.3 * np.tanh((seen - 0.7) / 0.3), seen)
    return np.asarray(shoulder ** (1 / 2.2))


def _develop(seen: Array, rng: Rng) -> Pixels:
    """Sensor noise and 8 bits: display values [S, S, 3] in, uint8 [S, S, 3] out."""
    size, level = seen.shape[0], rng.uniform(0.006, 0.013)
    grain = 0.6 * rng.standard_normal((size, size, 3))
    luma = rng.standard_normal((size, size, 1))  # smeared over neighbours, as demosaicing does
    grain += 0.6 * luma + 0.35 * (np.roll(luma, 1, 0) + np.roll(luma, 1, 1))
    noisy = seen + level * (0.6 + 0.6 * np.sqrt(np.clip(1.0 - seen, 0, 1))) * grain
    return np.asarray(np.clip(noisy * 255.0 + 0.5, 0, 255), dtype=np.uint8)


def _mask(difference: Array) -> NDArray[np.bool_]:
    """Where a defect shows, bool [S, S], from the absolute difference [S, S] to the clean part.

    The limit follows the defect, so that the soft flanks of a strong one and the whole of a
    weak one are both in; gaps of a pixel or two are filled, as a person drawing it would.
    """
    raw = difference > np.clip(0.15 * difference.max(), 0.012, 0.04)
    return np.asarray(raw | (blur(raw.astype(np.float64), 1.5) > 0.4))


def render(part: str, key: Sequence[int], defect: str = "", size: int = 320) -> Shot:
    """The picture of one part. `key` seeds it; "" as `defect` is a good one."""
    scene, _ = PARTS[part]

    def shown(kind: str, hit: Rng) -> tuple[Array, Rng]:
        rng = np.random.default_rng([*key, 0])
        rgb = scene(size, rng, kind, hit)
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
    """The picture's file."""
    stream = io.BytesIO()
    Image.fromarray(shot.image).save(stream, "JPEG", quality=shot.quality)
    return stream.getvalue()


def plan(part: str, train: int, good: int, bad: int) -> Iterator[tuple[str, str, int, int]]:
    """Every picture of a set: split, kind, number in its folder, stream of random numbers."""
    folders = [("train", "good", train), ("test", "good", good)]
    folders += [("test", defect, bad) for defect in PARTS[part][1]]
    for stream, (split, kind, count) in enumerate(folders):
        yield from ((split, kind, i, stream) for i in range(count))


def write_set(
    out: Path, part: str, seed: int, train: int, good: int, bad: int, size: int = 320
) -> int:
    """Render a set into `out` and return how many pictures it has; masks are not counted."""
    written = 0
    for split, kind, i, stream in plan(part, train, good, bad):
        shot = render(part, (seed, stream, i), "" if kind == "good" else kind, size)
        folder = out / split / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:03d}.jpg").write_bytes(jpeg(shot))
        if kind != "good":
            truth = out / "ground_truth" / kind
            truth.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shot.mask).convert("L").save(truth / f"{i:03d}_mask.png")
        written += 1
    return written


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1000")
    return value


def _pixels(text: str) -> int:
    value = int(text)
    if not 64 <= value <= 1024:
        raise argparse.ArgumentTypeError(f"{text} is not between 64 and 1024")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rendered_parts",
        description="Render a small set of parts, good and defective, in MVTec-AD layout.",
    )
    parser.add_argument("out", type=Path, help="folder to write; must be new or empty")
    parser.add_argument("--part", choices=sorted(PARTS), default="bracket")
    parser.add_argument("--seed", type=_count, default=0, help="0 to 1000 (default 0)")
    parser.add_argument("--train", type=_count, default=12, help="good parts to learn from")
    parser.add_argument("--good", type=_count, default=40, help="good parts to test on")
    parser.add_argument("--bad", type=_count, default=12, help="parts of each defect")
    parser.add_argument("--size", type=_pixels, default=320, help="pixels a side")
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
    print(f"{written} pictures of part '{args.part}' in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
