"""Rules that set a threshold from a few normal images, compared on images they have not seen.

    python -m benchmarks.thresholds OUT --data DATASET ... [--shots 2 3 5 10] [--draws 40]

For many draws of shots, each rule sets a threshold for a memory bank of these shots. The share of
other normal images that it rejects and the share of defective ones that it misses are averaged over
the draws. Writes OUT/thresholds.md. Patches come from the exported graph. The bank is simpler than
the one that ``finetune`` builds: the shots are rotated in twelve steps and thinned to ``ROWS`` rows
each, without means of patches, repeated rows and alignment.
"""

from __future__ import annotations

import argparse
import itertools
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
from benchmarks.accuracy.systems import without_folders
from fsad_edge.calibration.batches import BATCH, run_batches
from fsad_edge.calibration.calibrate import ROTATIONS
from fsad_edge.calibration.threshold import threshold_from_scores
from fsad_edge.cli.console import err
from fsad_edge.graph.scoring_graph import ScoringGraph, build_graph
from fsad_edge.options import ScoreKind
from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.bank import NEIGHBOURS, WORST_PATCHES, greedy_coreset, similarity
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.images import load_resized
from fsad_edge.runtime.student_t import student_quantile
from fsad_edge.synthesis import Views, load_shot, random_view, rotate
from fsad_edge.training.encoder import pretrained_encoder

#: Images that shots are drawn from; about how many normal and how many defective images are judged;
#: side of the model's input in pixels.
CANDIDATES, IMAGES, SIZE = 40, 150, 224

#: Bank rows of each shot.
ROWS = 400

#: A prior for rotated banks at this size. ``finetune`` takes one from the shots' own maps.
PRIOR_STD = 0.15

#: From the leave-one-out scores of the shots ``[n]``, those of their views ``[n, V]`` and a rate to
#: a threshold.
Rule = Callable[[Float32Array, Float32Array, float], float]


def _conformal(scores: Float32Array, rate: float) -> float:
    """The score of rank ceil((n + 1)(1 - rate)), or the largest (Vovk et al. 2005)."""
    ordered = np.sort(scores)
    return float(ordered[min(math.ceil((len(ordered) + 1) * (1 - rate)), len(ordered)) - 1])


def _plain_bound(scores: Float32Array, rate: float) -> float:
    width = student_quantile(1 - rate, len(scores) - 1) * math.sqrt(1 + 1 / len(scores))
    return float(scores.mean() + width * scores.std(ddof=1))


RULES: dict[str, Rule] = {
    "conformal rank": lambda own, views, rate: _conformal(own, rate),
    "conformal rank with augmented views": lambda own, views, rate: _conformal(
        np.concatenate([own, views.ravel()]), rate
    ),
    "prediction bound": lambda own, views, rate: _plain_bound(own, rate),
    "prediction bound of logarithms": lambda own, views, rate: math.exp(
        _plain_bound(np.log(own), rate)
    ),
    f"prediction bound with a prior of {PRIOR_STD:g}": lambda own, views, rate: (
        threshold_from_scores(own.tolist(), rate, PRIOR_STD).value
    ),
}


def distances(queries: Float32Array, banks: Sequence[Float32Array]) -> Tensor:
    """Distances of each patch to the nearest rows of each candidate shot.

    Args:
        queries: patches as the graph gives them, float32 ``[N, P, D + 1]``.
        banks: the rows of each of M candidates, float32 ``[ROWS, D + 1]``.

    Returns:
        float ``[N, M, P, NEIGHBOURS]``, which give the nearest rows of any union of candidates.
    """
    rows = np.concatenate(banks)
    found = []
    for query in queries:
        alike = torch.from_numpy(similarity(query, rows)).reshape(len(query), len(banks), -1)
        found.append(1 - alike.topk(NEIGHBOURS, dim=2).values.transpose(0, 1))
    return torch.stack(found)


def scores(found: Tensor, shots: npt.NDArray[np.intp]) -> Float32Array:
    """Scores ``[N]`` against a bank of some candidates, from the result of :func:`distances`."""
    nearest = found[:, shots].permute(0, 2, 1, 3).flatten(2)
    each = nearest.topk(NEIGHBOURS, dim=2, largest=False).values.mean(dim=2).clamp(min=0)
    worst: Float32Array = each.topk(WORST_PATCHES, dim=1).values.mean(dim=1).numpy()
    return worst


@dataclass(frozen=True)
class Material:
    """The distances in one data set to each of M candidate shots, as :func:`distances` gives them.

    Attributes:
        own: from the candidates, ``[M, M, P, NEIGHBOURS]``.
        views: from augmented views of the candidates, ``[M * V, M, P, NEIGHBOURS]``.
        normal: from normal images that are not candidates, ``[N, M, P, NEIGHBOURS]``.
        defective: from defective images, ``[N, M, P, NEIGHBOURS]``.
    """

    own: Tensor
    views: Tensor
    normal: Tensor
    defective: Tensor


def measure(folder: Path, weights: str) -> Material:
    """Compute all distances in one data set."""
    data = mvtec_style(folder)
    encoder = pretrained_encoder(weights, None, SIZE, SIZE, [16])
    graph = build_graph(ScoringGraph(encoder, ScoreKind.PATCH), 1)
    session = OnnxSession(graph.SerializeToString(), "the graph just built", "cpu")

    def features(images: Sequence[UInt8Array], what: str) -> Float32Array:
        label = f"{data.name}, {without_folders(weights)}, {what}"
        starts = track(range(0, len(images), BATCH), label, console=err)
        found = [
            run_batches(session, images[start : start + BATCH], ["patches"])[0] for start in starts
        ]
        return np.concatenate(found)

    order = np.random.RandomState(99).permutation(len(data.normal_images))
    shots = [load_shot(data.normal_images[index], SIZE, SIZE) for index in order[:CANDIDATES]]
    rng, unmoved = np.random.default_rng(0), Views(rotate=0, shift=0, zoom=0)
    views = [random_view(shot.canvas, SIZE, SIZE, unmoved, rng) for shot in shots for _ in range(8)]
    rest = [data.normal_images[index] for index in order[CANDIDATES:]]
    good = rest + [sample.path for sample in data.samples if sample.defect is None]
    bad = [sample.path for sample in data.samples if sample.defect is not None]
    rotated = [
        rotate(shot.image, 360 * step / ROTATIONS) for shot in shots for step in range(ROTATIONS)
    ]
    of_shots = features(rotated, "rotated shots")
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
    """False alarm rate and miss rate of a rule, each the mean over the draws."""
    rng = np.random.RandomState(shots)
    views_by_shot = material.views.view(len(material.own), -1, *material.views.shape[1:])
    alarms, misses = [], []
    for _ in range(draws):
        chosen = rng.permutation(len(material.own))[:shots]
        own, varied = [], []
        for shot in chosen:
            others = chosen[chosen != shot]
            own.append(scores(material.own[[shot]], others))
            varied.append(scores(views_by_shot[shot], others))
        threshold = rule(np.concatenate(own), np.stack(varied), rate)
        alarms.append(np.mean(scores(material.normal, chosen) > threshold))
        misses.append(np.mean(scores(material.defective, chosen) <= threshold))
    return float(np.mean(alarms)), float(np.mean(misses))


def table(
    materials: dict[str, Material], shots: Sequence[int], rates: Sequence[float], draws: int
) -> str:
    """One row for each number of shots, rate and rule; cells hold false alarms and misses."""
    lines = [
        f"| shots | asked | rule | mean | {' | '.join(materials)} |",
        "|---" * (4 + len(materials)) + "|",
    ]
    for count, rate, (name, rule) in itertools.product(shots, rates, RULES.items()):
        found = [rates_of(material, rule, count, rate, draws) for material in materials.values()]
        means = tuple(np.mean(found, axis=0))
        cells = [f"{alarms:.1%} / {misses:.0%}" for alarms, misses in [means, *found]]
        lines.append(f"| {count} | {rate:.0%} | {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Rules for a threshold, compared.")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="folders like MVTec AD's"
    )
    parser.add_argument(
        "--weights", default="fsad_edge", help="encoder, as for finetune --backbone"
    )
    parser.add_argument("--shots", type=int, nargs="+", default=[2, 3, 5, 10])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.05])
    parser.add_argument("--draws", type=int, default=40)
    arguments = parser.parse_args()
    materials = {folder.name: measure(folder, arguments.weights) for folder in arguments.data}
    text = table(materials, arguments.shots, arguments.rates, arguments.draws)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_bytes(arguments.out / "thresholds.md", text.encode())
    print(text, end="")


if __name__ == "__main__":
    main()
