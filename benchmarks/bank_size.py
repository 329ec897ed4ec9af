"""How large the memory bank must be: accuracy and time against its rows.

    python -m benchmarks.bank_size OUT --data DATASET ... [--weights fsad_edge] [--seeds 0 1 2]

For each size, the shots are embedded and their patches thinned as ``finetune`` does it; up to
``IMAGES`` good and as many defective test images are scored. Milliseconds are those of the exported
graph with a bank of that size, all sizes interleaved in one run. Writes OUT/bank_size.md and
OUT/bank_size.png.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.progress import track

from benchmarks.accuracy.datasets import mvtec_style
from fsad_edge.bench.latency import Call, interleave
from fsad_edge.calibration.batches import run_batches
from fsad_edge.calibration.calibrate import ROTATIONS, CalibrationSettings, embed_shot, fit_shots
from fsad_edge.cli.console import err
from fsad_edge.evaluation.metrics import image_auroc
from fsad_edge.graph.scoring_graph import ScoringGraph, build_graph
from fsad_edge.options import ScoreKind
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.bank import (
    NEIGHBOURS,
    WORST_PATCHES,
    ReferenceModel,
    projected_patches,
    similarity,
)
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.images import load_resized
from fsad_edge.synthesis import load_shot
from fsad_edge.training.encoder import Encoder, pretrained_encoder

SIZES = (250, 500, 750, 1000, 2000)
SIDE, SHOTS, TIMED_RUNS = 224, 5, 100

#: The most good, and the most defective, test images.
IMAGES = 150


def scores(patches: Float32Array, reference: ReferenceModel) -> Float32Array:
    """Scores ``[N]`` of images from their patches ``[N, P, D + 1]``, as the graph computes them."""
    bank = reference.patches
    found = []
    for image in patches:
        near = torch.from_numpy(similarity(image, bank)).topk(NEIGHBOURS, dim=1).values.mean(dim=1)
        found.append((1 - near).clamp(min=0).topk(WORST_PATCHES).values.mean())
    return torch.stack(found).numpy()


def accuracy(encoder: Encoder, folder: Path, seeds: Sequence[int]) -> dict[int, list[float]]:
    """Image AUROC of each bank size, one value for each seed."""
    data = mvtec_style(folder)
    session = _session(encoder, SIZES[0])
    samples = data.subset(IMAGES)
    images = [load_resized(sample.path, SIDE, SIDE) for sample in samples]
    defective = [sample.defect is not None for sample in samples]
    patches = run_batches(session, images, ["patches"])[0]
    found: dict[int, list[float]] = {size: [] for size in SIZES}
    for seed in seeds:
        shots = [load_shot(path, SIDE, SIDE) for path in data.draw(SHOTS, seed)]
        for size in track(SIZES, f"{data.name}, seed {seed}", console=err):
            settings = CalibrationSettings(
                bank_size=size, bank_rotations=ROTATIONS, gaussian_views=0
            )
            rng = np.random.default_rng(seed)
            embedded = [embed_shot(session, shot, settings, SHOTS, rng) for shot in shots]
            reference = fit_shots(embedded, size)
            area = image_auroc(
                scores(projected_patches(patches, reference.projection), reference).tolist(),
                defective,
            )
            assert area is not None  # a test split has both kinds
            found[size].append(area)
    return found


def milliseconds(encoder: Encoder) -> dict[int, float]:
    """Median milliseconds of the model alone with each bank size, interleaved."""
    image = {"image": np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)}

    def timed(session: OnnxSession) -> Call:
        def call(repetition: int) -> dict[str, float]:
            session.run(["score", "anomaly_map"], image)
            return {}

        return call

    run = interleave({str(size): timed(_session(encoder, size)) for size in SIZES}, runs=TIMED_RUNS)
    return {size: float(np.median(run.samples[str(size)].total)) for size in SIZES}


def _session(encoder: Encoder, size: int) -> OnnxSession:
    model = build_graph(ScoringGraph(encoder, ScoreKind.PATCH), size)
    return OnnxSession(model.SerializeToString(), "the graph just built", "cpu")


def _table(found: dict[str, dict[int, list[float]]], times: dict[int, float]) -> str:
    lines = [
        f"| rows | {' | '.join(found)} | mean | model alone, ms |",
        "|---" * (len(found) + 3) + "|",
    ]
    for size in SIZES:
        means = [statistics.mean(by_size[size]) for by_size in found.values()]
        cells = [
            f"{mean:.3f} ({statistics.pstdev(by_size[size]):.3f})"
            for mean, by_size in zip(means, found.values(), strict=True)
        ]
        row = [str(size), *cells, f"{statistics.mean(means):.3f}", f"{times[size]:.2f}"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _plot(found: dict[str, dict[int, list[float]]], times: dict[int, float], path: Path) -> None:
    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, by_size in found.items():
        left.errorbar(
            SIZES,
            [statistics.mean(by_size[size]) for size in SIZES],
            [statistics.pstdev(by_size[size]) for size in SIZES],
            marker="o",
            capsize=3,
            label=name,
        )
    left.set(xscale="log", xlabel="memory bank rows", ylabel="image AUROC, 5 shots")
    left.legend(loc="center right", fontsize="small")
    right.plot(SIZES, [times[size] for size in SIZES], marker="o")
    right.set(xscale="log", xlabel="memory bank rows", ylabel="model alone, ms", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_xticks(SIZES, [str(size) for size in SIZES])
        axes.minorticks_off()
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="folders like MVTec AD's"
    )
    parser.add_argument(
        "--weights", default="fsad_edge", help="encoder, as finetune --backbone takes it"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args(argv)
    encoder = pretrained_encoder(arguments.weights, None, SIDE, SIDE, [16])
    found = {path.name: accuracy(encoder, path, arguments.seeds) for path in arguments.data}
    times = milliseconds(encoder)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_bytes(arguments.out / "bank_size.md", _table(found, times).encode())
    _plot(found, times, arguments.out / "bank_size.png")
    print(_table(found, times))
    return 0


if __name__ == "__main__":
    sys.exit(main())
