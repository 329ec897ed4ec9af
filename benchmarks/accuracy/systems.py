"""What is measured: a system learns from the shots of a run and is judged by its test images.

The scores of all systems become figures in the same way, through :mod:`fsad_edge.evaluation`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy.datasets import DataSet
from benchmarks.accuracy.features import Features, colour, patches, pixels
from benchmarks.peers.client import run_job
from fsad_edge.errors import InputError
from fsad_edge.evaluation import Sample, evaluate_results
from fsad_edge.options import Doubt
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.found_regions import Region
from fsad_edge.runtime.images import load_image

Figures = dict[str, Any]

#: Baselines without an encoder. A data set on which one of them does well proves little.
BASELINES = {"colour": colour, "pixels": pixels}

#: Other systems, which :mod:`benchmarks.peers` runs.
PEERS = ("patchcore", "padim", "efficientad")


class SkipError(Exception):
    """A system cannot do a run; the message says why in one sentence."""


@dataclass(frozen=True)
class Run:
    """One draw of shots.

    Attributes:
        data: the data set.
        shots: the normal images to learn from, in the order in which they were drawn.
        seed: random seed of the draw and of the system.
    """

    data: DataSet
    shots: Sequence[Path]
    seed: int


@dataclass(frozen=True)
class System:
    """A way to score images.

    Attributes:
        settings: its options or weights as text; empty where there are none.
        figures: computes the figures of a run; raises :class:`SkipError`.
    """

    settings: str
    figures: Callable[[Run], Figures]


@dataclass(frozen=True)
class _Scored:
    score: float
    anomaly_map: Float32Array
    map_threshold: float = math.inf
    doubts: tuple[Doubt, ...] = ()
    regions: tuple[Region, ...] = ()  # without a threshold there are none
    more_regions: int = 0


def measure(
    samples: Sequence[Sample], scores: Float32Array, maps: Float32Array | None = None
) -> Figures:
    """Compute the figures that need no threshold.

    Args:
        samples: the images that were scored.
        scores: float ``[N]``; a higher score is more anomalous.
        maps: float ``[N, h, w]``; None where the system makes none.

    Returns:
        image_auroc, pixel_auroc and aupro (None where there are no maps or masks), and the image
        AUROC by defect.
    """
    if maps is None:
        samples = [replace(sample, mask=None) for sample in samples]
        maps = np.zeros((len(samples), 1, 1), dtype=np.float32)
    results = [
        _Scored(float(score), np.asarray(map_, dtype=np.float32))
        for score, map_ in zip(scores, maps, strict=True)
    ]
    found = evaluate_results(samples, results, threshold=math.inf)
    return {
        "image_auroc": found.image_auroc,
        "pixel_auroc": found.pixel_auroc,
        "aupro": found.aupro,
        "by_defect": {row.defect: round(row.image_auroc, 4) for row in found.by_defect},
    }


def baseline(name: str) -> System:
    """Distance to the nearest shot in 24x24 raw pixels or in colour statistics.

    Colour statistics are divided by their standard deviation over the shots plus 2 % of full scale,
    because a single shot does not show what varies.
    """
    features = Features(BASELINES[name])

    def figures(run: Run) -> Figures:
        shots = features.of_images(run.data.group, run.shots)
        tests = features.of_images(run.data.group, [sample.path for sample in run.data.samples])
        scale = shots.std(axis=0) + 0.02 if name == "colour" else np.float32(1)
        scores = [np.linalg.norm((shots - test) / scale, axis=1).min() for test in tests]
        return measure(run.data.samples, np.array(scores, dtype=np.float32))

    return System("", figures)


def plain_bank(weights: str, size: int, rows: int = 1500) -> System:
    """A plain memory bank: random patch features and the cosine distance to the nearest one.

    The score of an image is the mean distance of its three worst patches.
    """
    compute = patches(weights, size)
    features = Features(lambda path: compute(load_image(path)))

    def figures(run: Run) -> Figures:
        shots = torch.from_numpy(features.of_images(run.data.group, run.shots)).flatten(0, 2)
        drawn = torch.randperm(len(shots), generator=torch.Generator().manual_seed(run.seed))
        bank = shots[drawn[:rows]].T.contiguous()
        tests = features.of_images(run.data.group, [sample.path for sample in run.data.samples])
        maps = torch.stack([1 - (torch.from_numpy(test) @ bank).amax(dim=-1) for test in tests])
        scores = maps.flatten(1).topk(3, dim=1).values.mean(dim=1)
        return measure(run.data.samples, scores.numpy(), maps.numpy())

    return System(f"{without_folders(weights)}, {size} px", figures)


def peer(name: str, python: Path, weights: str, size: int, threads: int) -> System:
    """Another system, which :mod:`benchmarks.peers` runs in the environment of ``python``."""
    folder = Path(weights.removeprefix("local-dir:")).absolute()

    def figures(run: Run) -> Figures:
        samples = run.data.samples
        job = {
            "system": name,
            "shots": [str(path.absolute()) for path in run.shots],
            "test": [str(sample.path.absolute()) for sample in samples],
            "weights": str(folder),
            "size": size,
            "seed": run.seed,
            "threads": threads,
            "maps": any(sample.mask for sample in samples),
        }
        try:
            arrays = run_job(python, "benchmarks.peers", job)
            scores, seconds = arrays["scores"], float(arrays["seconds"])
            maps = arrays["maps"].astype(np.float32) if job["maps"] else None
        except InputError as error:
            raise SkipError(str(error)) from error
        except (OSError, KeyError, ValueError) as error:
            raise SkipError(f"{name} did not write its scores ({error}).") from error
        finite = all(np.isfinite(values).all() for values in (scores, maps) if values is not None)
        if scores.shape != (len(samples),) or not finite:
            raise SkipError(f"{name} did not give a number for each of {len(samples)} images.")
        return {**measure(samples, scores, maps), "peer_seconds": seconds}

    return System(f"{without_folders(weights)}, {size} px", figures)


def without_folders(options: str) -> str:
    """Options without the folders of local paths, which say where weights are and not which."""
    return re.sub(r"(?:(?<=local-dir:)|(?<==)/)\S*/(?=[^/\s])", "", options)
