"""What is measured: a system takes a run, learns from its shots and gives figures of its tests.

Scores of all systems become figures by the functions of :mod:`fsad_edge.evaluation`.
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy.datasets import DataSet
from benchmarks.accuracy.features import Features, colour, patches, pixels
from fsad_edge.evaluation import Sample, evaluate_results
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.images import load_image

Figures = dict[str, Any]

#: Rules that know nothing of defects: where one of them does well, the data set is no test.
TRIVIAL = {"colour": colour, "pixels": pixels}
PEERS = ("patchcore", "padim", "efficientad")
REPOSITORY = Path(__file__).resolve().parents[2]


class SkipError(Exception):
    """This system cannot do this run; the message is one sentence that says why."""


@dataclass(frozen=True)
class Run:
    """One draw of shots.

    Attributes:
        data: where they come from.
        shots: in the order in which they were drawn.
        seed: of the draw, and of all chance in the system.
    """

    data: DataSet
    shots: Sequence[Path]
    seed: int


@dataclass(frozen=True)
class System:
    """A way to score images.

    Attributes:
        settings: its options or weights, in words; empty where there are none.
        figures: of a run; raises :class:`SkipError`.
    """

    settings: str
    figures: Callable[[Run], Figures]


@dataclass(frozen=True)
class _Scored:
    score: float
    anomaly_map: Float32Array
    map_threshold: float = math.inf


def measure(
    samples: Sequence[Sample], scores: Float32Array, maps: Float32Array | None = None
) -> Figures:
    """Figures that need no threshold.

    Args:
        samples: what was scored.
        scores: float ``[N]``, higher is worse.
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


def trivial(name: str) -> System:
    """Distance to the nearest shot: of 24x24 pixels, or of colour statistics.

    Colour statistics are divided by how much they vary over the shots, and at least by 2 % of
    full scale: a single shot does not show what varies.
    """
    features = Features(TRIVIAL[name])

    def figures(run: Run) -> Figures:
        shots = features.of(run.data.group, run.shots)
        tests = features.of(run.data.group, [sample.path for sample in run.data.samples])
        scale = shots.std(axis=0) + 0.02 if name == "colour" else np.float32(1)
        scores = [np.linalg.norm((shots - test) / scale, axis=1).min() for test in tests]
        return measure(run.data.samples, np.array(scores, dtype=np.float32))

    return System("", figures)


def plain_bank(weights: str, size: int, rows: int = 1500) -> System:
    """The plain reference: random rows of patch features, cosine distance to the nearest one.

    An image's score is the mean of its three worst patches.
    """
    compute = patches(weights, size)
    features = Features(lambda path: compute(load_image(path)))

    def figures(run: Run) -> Figures:
        shots = torch.from_numpy(features.of(run.data.group, run.shots)).flatten(0, 2)
        drawn = torch.randperm(len(shots), generator=torch.Generator().manual_seed(run.seed))
        bank = shots[drawn[:rows]].T.contiguous()
        tests = features.of(run.data.group, [sample.path for sample in run.data.samples])
        maps = torch.stack([1 - (torch.from_numpy(test) @ bank).amax(dim=-1) for test in tests])
        scores = maps.flatten(1).topk(3, dim=1).values.mean(dim=1)
        return measure(run.data.samples, scores.numpy(), maps.numpy())

    return System(f"{short(weights)}, {size} px", figures)


def peer(name: str, python: str, weights: str, size: int, threads: int) -> System:
    """A system of others, run by ``python -m benchmarks.peers`` in its own environment."""
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
        with tempfile.TemporaryDirectory() as place:
            asked, answer = Path(place, "job.json"), Path(place, "out.npz")
            asked.write_text(json.dumps(job))
            line = [python, "-m", "benchmarks.peers", str(asked), str(answer)]
            done = subprocess.run(
                line, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            if done.returncode:
                said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}."]
                raise SkipError(said[-1])
            try:
                with np.load(answer) as arrays:
                    scores, seconds = arrays["scores"], float(arrays["seconds"])
                    maps = arrays["maps"].astype(np.float32) if job["maps"] else None
            except (OSError, KeyError, ValueError) as error:
                raise SkipError(f"{name} did not write its scores ({error}).") from error
        numbers = all(np.isfinite(given).all() for given in (scores, maps) if given is not None)
        if scores.shape != (len(samples),) or not numbers:
            raise SkipError(f"{name} did not give a number for each of {len(samples)} images.")
        return {**measure(samples, scores, maps), "peer_seconds": seconds}

    return System(f"{short(weights)}, {size} px", figures)


def short(options: str) -> str:
    """Options without the folders that paths lead through, which say where and not what."""
    words = []
    for word in options.split():
        before, form, path = word.rpartition("local-dir:")
        local = form or path.startswith("/")
        words.append(before + form + (Path(path).name if local else path))
    return " ".join(words)
