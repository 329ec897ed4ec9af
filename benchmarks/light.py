"""What a darker or brighter lamp does to decisions, with features made steady and as they are.

    python -m benchmarks.light OUT --data DATASET ... [--options "--image-size 224 --strides 16"]

For each MVTec-style folder and draw of shots a model is made with and without ``--no-align``; test
images are then made darker and brighter, all by the same factor. Writes OUT/light.md and
OUT/light.png.
"""

from __future__ import annotations

import argparse
import io
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.progress import track

from benchmarks.accuracy.datasets import DataSet, mvtec_style
from benchmarks.accuracy.systems import Run
from benchmarks.accuracy.tool import make
from fsad_edge import Model
from fsad_edge.cli.console import err
from fsad_edge.evaluation.metrics import image_auroc
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.images import load_resized

FACTORS = (0.5, 0.7, 0.85, 1.0, 1.18, 1.4, 2.0)
SHOTS = 5

#: Test images of each kind at most.
IMAGES = 120

WAYS = {"steady": [], "as they are": ["--no-align"]}
COLOURS = {"steady": "#0072b2", "as they are": "#d55e00"}
FIGURES = ("image AUROC", "false alarms", "misses")


def figures(model: Model, images: Sequence[UInt8Array], defective: Sequence[bool]) -> list[float]:
    """Of each factor and figure, one after the other."""
    found: list[float] = []
    for factor in FACTORS:
        lit = [(image * factor).clip(0, 255).astype(np.uint8) for image in images]
        scores = np.array([model.score(image).score for image in lit])
        area = image_auroc(scores.tolist(), defective)
        assert area is not None  # a test split has both kinds
        rejected, bad = scores > model.threshold, np.array(defective)
        found += [area, float(rejected[~bad].mean()), float((~rejected[bad]).mean())]
    return found


def measure(data: DataSet, seed: int, options: list[str]) -> dict[str, list[float]]:
    """The figures of one draw, each way."""
    found = {}
    for way, more in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            make(Run(data, data.draw(SHOTS, seed), seed), Path(folder), [*options, *more])
            model = Model.load(Path(folder) / "part.onnx")
        samples = data.some(IMAGES)
        side = model.metadata.height
        images = [load_resized(sample.path, side, side) for sample in samples]
        found[way] = figures(model, images, [sample.defect is not None for sample in samples])
    return found


def table(means: dict[str, dict[str, np.ndarray]]) -> str:
    """A row a data set and way; each cell AUROC, false alarms and misses."""
    head = ["data", "features", *(f"x {factor:g}" for factor in FACTORS)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, ways in means.items():
        for way, values in ways.items():
            cells = [f"{a:.3f} / {b:.0%} / {c:.0%}" for a, b, c in values]
            lines.append(f"| {' | '.join([name, way, *cells])} |")
    return "\n".join([*lines, ""])


def plot(mean: dict[str, np.ndarray], path: Path) -> None:
    """The mean over data sets, a panel a figure."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for place, (axes, name) in enumerate(
        zip(figure.subplots(1, len(FIGURES)), FIGURES, strict=True)
    ):
        for way, values in mean.items():
            axes.plot(FACTORS, values[:, place], "o-", ms=4, color=COLOURS[way], label=way)
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
    parser = argparse.ArgumentParser(description="Decisions under other light.")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="MVTec-style folders")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--options", default="--image-size 224 --strides 16", help="of finetune")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    means: dict[str, dict[str, np.ndarray]] = {}
    for folder in chosen.data:
        data = mvtec_style(folder)
        draws = [
            measure(data, seed, shlex.split(chosen.options))
            for seed in track(chosen.seeds, data.name, console=err)
        ]
        means[data.name] = {
            way: np.mean([draw[way] for draw in draws], axis=0).reshape(len(FACTORS), -1)
            for way in WAYS
        }
    overall = {way: np.mean([ways[way] for ways in means.values()], axis=0) for way in WAYS}
    text = table({**means, "mean": overall})
    write_bytes(chosen.out / "light.md", text.encode())
    plot(overall, chosen.out / "light.png")
    print(text, end="")


if __name__ == "__main__":
    main()
