"""How often the photograph check flags good photographs, and dark, blurred or shifted ones.

    python -m benchmarks.drift OUT --data FOLDER ... [--shots 5 10] [--draws 10]

Measures the flags of other normal images, of degraded ones and of real defects, for each
MVTec-style folder and number of shots, over several draws of the shots. Writes ``drift.md``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from rich.progress import track

from benchmarks.accuracy.datasets import DataSet, mvtec_style
from fsad_edge.cli.console import err
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.images import load_resized
from fsad_edge.runtime.photograph import (
    FLAGS,
    PhotographCheck,
    Quality,
    image_quality,
    measure_appearance,
)

#: Side of the model's input in pixels.
SIZE = 224

#: The approximate number of good images and of defective images.
IMAGES = 100


def darker(image: UInt8Array) -> UInt8Array:
    return (image * 0.5).astype(np.uint8)


def brighter(image: UInt8Array) -> UInt8Array:
    return (image * 1.8).clip(0, 255).astype(np.uint8)


def foggy(image: UInt8Array) -> UInt8Array:
    return (image * 0.4 + 100).clip(0, 255).astype(np.uint8)


def blurred(image: UInt8Array, sigma: float) -> UInt8Array:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def shifted(image: UInt8Array) -> UInt8Array:
    """Shift by an eighth of the side and mirror what comes in."""
    step = SIZE // 8
    return np.pad(image, ((step, 0), (0, 0), (0, 0)), mode="reflect")[:SIZE]


#: How a good image is degraded, and the flag that it should get.
DEGRADED: dict[str, tuple[Callable[[UInt8Array], UInt8Array], str]] = {
    "half as bright": (darker, "dark"),
    "1.8 times as bright": (brighter, "bright"),
    "fog": (foggy, "flat"),
    "blurred, 1 px": (lambda image: blurred(image, 1), "blurred"),
    "blurred, 2 px": (lambda image: blurred(image, 2), "blurred"),
    "shifted by 1/8": (shifted, "shifted"),
}


class Photographs:
    """The measures of one data set's images, and of the same images degraded."""

    def __init__(self, data: DataSet) -> None:
        self.name = data.name
        order = np.random.RandomState(99).permutation(len(data.normal_images))
        normal = [data.normal_images[index] for index in order]
        self.shots = [load_resized(path, SIZE, SIZE) for path in normal[: IMAGES // 2]]
        good = normal[IMAGES // 2 :] + [one.path for one in data.samples if one.defect is None]
        bad = [one.path for one in data.samples if one.defect is not None]
        self.good, self.bad = (
            [load_resized(path, SIZE, SIZE) for path in paths[:: max(1, len(paths) // IMAGES)]]
            for paths in (good, bad)
        )
        self.measured: dict[str, list[Quality]] = {
            "good": list(map(image_quality, self.good)),
            "defective": list(map(image_quality, self.bad)),
        }
        for name, (degrade, _) in track(DEGRADED.items(), self.name, console=err, transient=True):
            self.measured[name] = [image_quality(degrade(image)) for image in self.good]

    def rates(self, shots: int, draws: int) -> list[str]:
        """Cells of the table: fractions flagged, as means over draws of shots."""
        rng = np.random.RandomState(shots)
        found: dict[str, list[float]] = {name: [] for name in self.measured}
        each: dict[str, list[float]] = {flag: [] for flag in _flags()}
        with_similarity = 0
        for _ in range(draws):
            drawn = [self.shots[index] for index in rng.permutation(len(self.shots))[:shots]]
            appearance = measure_appearance(drawn)
            check = PhotographCheck(appearance)
            with_similarity += appearance.similarity is not None
            for name, qualities in self.measured.items():
                flags = [check.flags(quality) for quality in qualities]
                wanted = DEGRADED[name][1] if name in DEGRADED else None
                hits = [bool(one) if wanted is None else wanted in one for one in flags]
                found[name].append(statistics.fmean(hits))
                if name == "good":
                    for flag, values in each.items():
                        values.append(statistics.fmean(flag in one for one in flags))
        cells = [f"{statistics.fmean(values):.1%}" for values in found.values()]
        if not with_similarity:
            cells[-1] = "–"
        most = max(each, key=lambda flag: statistics.fmean(each[flag]))
        cells[0] += f" ({most} {statistics.fmean(each[most]):.1%})" if sum(each[most]) else ""
        return [self.name, str(shots), *cells, f"{with_similarity} of {draws}"]


def milliseconds(images: Sequence[UInt8Array]) -> str:
    """The time of one check, in words."""
    check = PhotographCheck(measure_appearance(images[:5]))
    times = []
    for image in [*images] * 3:
        start = time.perf_counter()
        check.check(image)
        times.append(1e3 * (time.perf_counter() - start))
    return f"{np.quantile(times, 0.1):.2f} ms at the 10th percentile, {np.median(times):.2f} median"


def _flags() -> list[str]:
    return [flag for pair in FLAGS.values() for flag in pair if flag] + ["shifted"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Flags of good and degraded photographs.")
    parser.add_argument("out", type=Path, help="existing folder")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="MVTec-style folders")
    parser.add_argument("--shots", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--draws", type=int, default=10)
    chosen = parser.parse_args()
    head = ["data", "shots", "good (most)", "defective", *DEGRADED, "shift looked for"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for folder in chosen.data:
        photographs = Photographs(mvtec_style(folder))
        for shots in chosen.shots:
            lines.append(f"| {' | '.join(photographs.rates(shots, chosen.draws))} |")
    lines += ["", f"A check of a {SIZE} px image takes {milliseconds(photographs.good)}.", ""]
    write_bytes(chosen.out / "drift.md", "\n".join(lines).encode())
    print("\n".join(lines), end="")


if __name__ == "__main__":
    main()
