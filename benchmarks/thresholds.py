"""Rules that set a threshold from a few normal images, compared on images they have not seen.

    python -m benchmarks.thresholds DATASET ... [--weights NAME] [--shots 2 3 5 10] [--draws 40]

For many draws of shots, each rule sets a threshold for a bank of those shots; what it rejects of
other normal images, and lets pass of defective ones, is averaged over draws, data sets and
weights, and printed as a table in Markdown. Patches come from the graph, and the bank is nearly
the tool's: the shots turned in twelve steps, thinned to ``ROWS`` each; without means of patches,
repeated rows, and the projection that makes features steady against light.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor

from benchmarks.accuracy.datasets import mvtec_style
from benchmarks.accuracy.systems import short
from fsad_edge.calibration.calibrate import BATCH, ROTATIONS, run_batches
from fsad_edge.calibration.threshold import (
    ROTATED_STD,
    threshold_from_scores,
)
from fsad_edge.cli.console import err
from fsad_edge.graph.scoring_graph import ScoringGraph, build_graph
from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.bank import NEIGHBOURS, WORST_PATCHES, greedy_coreset, similarity
from fsad_edge.runtime.images import load_resized
from fsad_edge.runtime.student_t import student_quantile
from fsad_edge.synthesis import Views, load_shot, random_view, rotate
from fsad_edge.training.encoder import pretrained_encoder

#: Images that shots are drawn from; normal and defective ones to judge by, about; input, pixels.
CANDIDATES, IMAGES, SIZE = 40, 150, 224

#: Bank rows of each shot.
ROWS = 400

#: Takes the shots' left-out scores ``[n]``, those of their views ``[n, V]`` and a rate.
Rule = Callable[[Float32Array, Float32Array, float], float]


def _conformal(scores: Float32Array, rate: float) -> float:
    """The score of rank ceil((n + 1)(1 - rate)), or the largest (Vovk et al. 2005)."""
    ordered = np.sort(scores)
    return float(ordered[min(math.ceil((len(ordered) + 1) * (1 - rate)), len(ordered)) - 1])


def _plain_bound(scores: Float32Array, rate: float) -> float:
    width = student_quantile(1 - rate, len(scores) - 1) * math.sqrt(1 + 1 / len(scores))
    return float(scores.mean() + width * scores.std(ddof=1))


RULES: dict[str, Rule] = {
    "leave one out, conformal rank": lambda own, views, rate: _conformal(own, rate),
    "with augmented views, conformal rank": lambda own, views, rate: _conformal(
        np.concatenate([own, views.ravel()]), rate
    ),
    "prediction bound": lambda own, views, rate: _plain_bound(own, rate),
    "prediction bound of logarithms": lambda own, views, rate: math.exp(
        _plain_bound(np.log(own), rate)
    ),
    "the same, spread pooled with a prior (taken)": lambda own, views, rate: (
        threshold_from_scores(own.tolist(), rate, ROTATED_STD).value
    ),
}


def distances(queries: Float32Array, banks: Sequence[Float32Array]) -> Tensor:
    """Distance of each patch to each candidate shot's nearest rows.

    Args:
        queries: float32 ``[N, P, D + 1]``, as the graph gives them.
        banks: M of float32 ``[ROWS, D + 1]``.

    Returns:
        float ``[N, M, P, NEIGHBOURS]``: what any union of them needs to find its own nearest.
    """
    rows = np.concatenate(banks)
    found = []
    for query in queries:
        alike = torch.from_numpy(similarity(query, rows)).reshape(len(query), len(banks), -1)
        found.append(1 - alike.topk(NEIGHBOURS, dim=2).values.transpose(0, 1))
    return torch.stack(found)


def scores(found: Tensor, shots: npt.NDArray[np.intp]) -> Float32Array:
    """Scores ``[N]`` against a bank of some candidates, of what :func:`distances` gave."""
    nearest = found[:, shots].permute(0, 2, 1, 3).flatten(2)
    each = nearest.topk(NEIGHBOURS, dim=2, largest=False).values.mean(dim=2).clamp(min=0)
    worst: Float32Array = each.topk(WORST_PATCHES, dim=1).values.mean(dim=1).numpy()
    return worst


@dataclass(frozen=True)
class Material:
    """Distances to each of M candidate shots, as :func:`distances` gives them.

    Attributes:
        own: of the candidates, ``[M, M, P, NEIGHBOURS]``.
        views: of each candidate's augmented views, ``[M * V, M, P, NEIGHBOURS]``.
        normal: of normal images that are no candidates, ``[N, M, P, NEIGHBOURS]``.
        defective: of defective ones.
    """

    own: Tensor
    views: Tensor
    normal: Tensor
    defective: Tensor


def measure(folder: Path, weights: str) -> Material:
    """All distances in one data set."""
    data = mvtec_style(folder)
    encoder = pretrained_encoder(weights, None, SIZE, SIZE, [16])
    graph = build_graph(ScoringGraph(encoder, "patch"), 1)
    session = OnnxSession(graph.SerializeToString(), "the graph just built", "cpu")

    def features(images: Sequence[UInt8Array], what: str) -> Float32Array:
        label = f"{data.name}, {short(weights)}, {what}"
        starts = track(range(0, len(images), BATCH), label, console=err)
        found = [
            run_batches(session, images[start : start + BATCH], ["patches"])[0] for start in starts
        ]
        return np.concatenate(found)

    order = np.random.RandomState(99).permutation(len(data.normal_images))
    shots = [load_shot(data.normal_images[index], SIZE, SIZE) for index in order[:CANDIDATES]]
    rng, still = np.random.default_rng(0), Views(rotate=0, shift=0, zoom=0)
    views = [random_view(shot.canvas, SIZE, SIZE, still, rng) for shot in shots for _ in range(8)]
    rest = [data.normal_images[index] for index in order[CANDIDATES:]]
    good = rest + [sample.path for sample in data.samples if sample.defect is None]
    bad = [sample.path for sample in data.samples if sample.defect is not None]
    rotated = [
        rotate(shot.image, 360 * turn / ROTATIONS) for shot in shots for turn in range(ROTATIONS)
    ]
    of_shots = features(rotated, "turned shots")
    banks = [
        rows[greedy_coreset(rows[:, :-1], ROWS)]
        for rows in of_shots.reshape(len(shots), -1, of_shots.shape[2])
    ]
    return Material(
        distances(features([shot.image for shot in shots], "shots"), banks),
        distances(features(views, "views"), banks),
        *(
            distances(
                features([load_resized(path, SIZE, SIZE) for path in paths[::step]], what), banks
            )
            for what, paths in (("normal", good), ("defective", bad))
            for step in [max(1, len(paths) // IMAGES)]
        ),
    )


def rates_of(
    material: Material, rule: Rule, shots: int, rate: float, draws: int
) -> tuple[float, float]:
    """False alarm rate and miss rate of a rule, means over draws."""
    rng = np.random.RandomState(shots)
    alarms, misses = [], []
    for _ in range(draws):
        chosen = rng.permutation(len(material.own))[:shots]
        own, varied = [], []
        for shot in chosen:
            others = chosen[chosen != shot]
            own.append(scores(material.own[[shot]], others))
            its = material.views.view(len(material.own), -1, *material.views.shape[1:])[shot]
            varied.append(scores(its, others))
        threshold = rule(np.concatenate(own), np.stack(varied), rate)
        alarms.append(np.mean(scores(material.normal, chosen) > threshold))
        misses.append(np.mean(scores(material.defective, chosen) <= threshold))
    return float(np.mean(alarms)), float(np.mean(misses))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Rules for a threshold, compared.")
    parser.add_argument("datasets", type=Path, nargs="+", help="MVTec-style folders")
    parser.add_argument("--weights", nargs="+", default=["fsad_edge"], help="in timm's forms")
    parser.add_argument("--shots", type=int, nargs="+", default=[2, 3, 5, 10])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.05])
    parser.add_argument("--draws", type=int, default=40)
    chosen = parser.parse_args()
    materials = {
        (folder.name, short(weights)): measure(folder, weights)
        for weights in chosen.weights
        for folder in chosen.datasets
    }
    names = [f"{data}, {weights}" for data, weights in materials]
    print(f"| shots | asked | rule | mean | {' | '.join(names)} |")
    print("|---" * (4 + len(names)) + "|")
    for shots in chosen.shots:
        for rate in chosen.rates:
            for name, rule in RULES.items():
                found = [
                    rates_of(its, rule, shots, rate, chosen.draws) for its in materials.values()
                ]
                cells = [f"{alarms:.1%} / {misses:.0%}" for alarms, misses in found]
                mean, missed = np.mean(found, axis=0)
                print(
                    f"| {shots} | {rate:.0%} | {name} | {mean:.1%} / {missed:.0%} "
                    f"| {' | '.join(cells)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
