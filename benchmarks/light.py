"""How decisions change under a darker or brighter lamp, with and without aligned features.

    python -m benchmarks.light OUT --data DATASET ... [--options "image_size=224 strides=16"]

For each data set and draw of shots, one model is made with features that are steady against light
(``align=true``, the default) and one without. Test images are then made darker and brighter, all by
the same factor. Writes OUT/light.md and OUT/light.png.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.progress import track

from benchmarks.accuracy.datasets import DataSet, mvtec_style
from benchmarks.accuracy.ours import make_part, parse_options
from benchmarks.accuracy.systems import Run
from fsad_edge import FinetuneOptions, Model
from fsad_edge.cli.console import err
from fsad_edge.evaluation.metrics import image_auroc
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.images import load_resized

FACTORS = (0.5, 0.7, 0.85, 1.0, 1.18, 1.4, 2.0)
SHOTS = 5

#: The most good, and the most defective, test images.
IMAGES = 120

#: The option ``align`` of each row.
FEATURES = {"aligned": True, "not aligned": False}
COLOURS = {"aligned": "#0072b2", "not aligned": "#d55e00"}
FIGURES = ("image AUROC", "false alarms", "misses")


def figures(model: Model, images: Sequence[UInt8Array], defective: Sequence[bool]) -> list[float]:
    """Image AUROC, false alarm rate and miss rate for each factor, one after another."""
    found: list[float] = []
    for factor in FACTORS:
        relit = [(image * factor).clip(0, 255).astype(np.uint8) for image in images]
        scores = np.array([model.score(image).score for image in relit])
        area = image_auroc(scores.tolist(), defective)
        assert area is not None  # a test split has both kinds
        rejected, bad = scores > model.threshold, np.array(defective)
        found += [area, float(rejected[~bad].mean()), float((~rejected[bad]).mean())]
    return found


def measure(data: DataSet, seed: int, options: FinetuneOptions) -> dict[str, list[float]]:
    """The figures of one draw of shots, with and without aligned features."""
    found = {}
    for features, align in FEATURES.items():
        with tempfile.TemporaryDirectory() as folder:
            run = Run(data, data.draw(SHOTS, seed), seed)
            _, file = make_part(run, Path(folder), replace(options, align=align))
            model = Model.load(file)
        samples = data.subset(IMAGES)
        side = model.metadata.height
        images = [load_resized(sample.path, side, side) for sample in samples]
        found[features] = figures(model, images, [sample.defect is not None for sample in samples])
    return found


def table(means: dict[str, dict[str, np.ndarray]]) -> str:
    """One row for each data set and kind of features; cells hold AUROC, false alarms and misses."""
    head = ["data", "features", *(f"x {factor:g}" for factor in FACTORS)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, by_features in means.items():
        for features, values in by_features.items():
            cells = [f"{a:.3f} / {b:.0%} / {c:.0%}" for a, b, c in values]
            lines.append(f"| {' | '.join([name, features, *cells])} |")
    return "\n".join([*lines, ""])


def plot(mean: dict[str, np.ndarray], path: Path) -> None:
    """Plot the mean over data sets, one panel for each figure."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for place, (axes, name) in enumerate(
        zip(figure.subplots(1, len(FIGURES)), FIGURES, strict=True)
    ):
        for features, values in mean.items():
            color = COLOURS[features]
            axes.plot(FACTORS, values[:, place], "o-", ms=4, color=color, label=features)
        axes.set_xscale("log")
        axes.set_xticks(FACTORS, [f"{factor:g}" for factor in FACTORS])
        axes.minorticks_off()
        axes.set_xlabel("brightness of the test images")
        axes.set_title(name, loc="left", fontweight="bold")
        axes.grid(axis="y", lw=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        if place:
            axes.set_ylim(0, 1)
    figure.axes[0].legend(title="features", frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=140)
    write_bytes(path, stream.getvalue())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Decisions under a darker or brighter lamp.")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="folders like MVTec AD's"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--options", default="image_size=224 strides=16", help="of finetune")
    arguments = parser.parse_args()
    options, _ = parse_options(arguments.options)
    arguments.out.mkdir(parents=True, exist_ok=True)
    means: dict[str, dict[str, np.ndarray]] = {}
    for folder in arguments.data:
        data = mvtec_style(folder)
        draws = [
            measure(data, seed, options) for seed in track(arguments.seeds, data.name, console=err)
        ]
        means[data.name] = {
            features: np.mean([draw[features] for draw in draws], axis=0).reshape(len(FACTORS), -1)
            for features in FEATURES
        }
    overall = {
        features: np.mean([by_features[features] for by_features in means.values()], axis=0)
        for features in FEATURES
    }
    text = table({**means, "mean": overall})
    write_bytes(arguments.out / "light.md", text.encode())
    plot(overall, arguments.out / "light.png")
    print(text, end="")


if __name__ == "__main__":
    main()
