"""The figures of a model on labelled images, from the results of scoring them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fsad_edge.errors import InputError
from fsad_edge.evaluation.dataset import Sample
from fsad_edge.evaluation.masks import image_size
from fsad_edge.evaluation.metrics import PixelMetrics, image_auroc, rates
from fsad_edge.runtime.arrays import Float32Array


class Scored(Protocol):
    """The fields of a result that the figures need; :class:`fsad_edge.Result` has them."""

    @property
    def score(self) -> float: ...

    @property
    def anomaly_map(self) -> Float32Array: ...

    @property
    def map_threshold(self) -> float: ...


@dataclass(frozen=True)
class DefectFigures:
    """The figures of one kind of defect.

    Attributes:
        defect: name of the kind.
        n: number of images with this kind of defect.
        image_auroc: AUROC of these images against all good ones.
        missed: number of these images at or below the threshold.
        miss_rate: ``missed / n``.
    """

    defect: str
    n: int
    image_auroc: float
    missed: int
    miss_rate: float


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on a dataset. Rates and areas run from 0 to 1.

    Attributes:
        threshold: the boundary that the rates hold for: ``score > threshold`` is an anomaly.
        n_good: number of good images.
        n_defective: number of images with a defect.
        n_masked: number of images with a defect and a mask that marks it. The pixel figures leave
            out the other defective images.
        image_auroc: AUROC of the image scores; None without defective images.
        pixel_auroc: AUROC of the anomaly maps' pixels; None without masks.
        aupro: area under the per-region overlap up to a false positive rate of 0.3, divided by 0.3;
            None without masks.
        false_alarms: number of good images above the threshold.
        false_alarm_rate: ``false_alarms / n_good``.
        missed: number of defective images at or below the threshold.
        miss_rate: ``missed / n_defective``; None without defective images.
        by_defect: the figures of each kind of defect, sorted by name.
    """

    threshold: float
    n_good: int
    n_defective: int
    n_masked: int
    image_auroc: float | None
    pixel_auroc: float | None
    aupro: float | None
    false_alarms: int
    false_alarm_rate: float
    missed: int
    miss_rate: float | None
    by_defect: tuple[DefectFigures, ...]


def evaluate_results(
    samples: Sequence[Sample], results: Sequence[Scored], threshold: float
) -> Evaluation:
    """Compute all figures. Masks are read one at a time.

    Args:
        samples: the labelled images, at least one of them good.
        results: one result for each sample, in the same order.
        threshold: the boundary, in the unit of the scores.

    Raises:
        InputError: there is no good sample, a score is not a number, or a mask cannot be read.
        ValueError: the numbers of samples and results differ.
    """
    if len(samples) != len(results):
        raise ValueError(f"{len(results)} results for {len(samples)} samples")
    for sample, result in zip(samples, results, strict=True):
        if not (math.isfinite(result.score) and np.isfinite(result.anomaly_map).all()):
            raise InputError(
                f"{sample.path} got a score that is not a number: export the model again."
            )
    scores = [result.score for result in results]
    defective = [sample.defect is not None for sample in samples]
    false_alarm_rate, miss_rate = rates(scores, defective, threshold)
    if false_alarm_rate is None:
        raise InputError("the dataset has no good image to compare with: add some to test/good.")
    flagged = [score > threshold for score in scores]
    pixels = _pixel_metrics(samples, results)
    return Evaluation(
        threshold=threshold,
        n_good=defective.count(False),
        n_defective=defective.count(True),
        n_masked=sum(bool(sample.defect and sample.mask) for sample in samples),
        image_auroc=image_auroc(scores, defective),
        pixel_auroc=pixels.auroc() if pixels else None,
        aupro=pixels.aupro() if pixels else None,
        false_alarms=sum(f and not d for f, d in zip(flagged, defective, strict=True)),
        false_alarm_rate=false_alarm_rate,
        missed=sum(d and not f for f, d in zip(flagged, defective, strict=True)),
        miss_rate=miss_rate,
        by_defect=_by_defect(samples, scores, threshold),
    )


def _by_defect(
    samples: Sequence[Sample], scores: Sequence[float], threshold: float
) -> tuple[DefectFigures, ...]:
    good: list[float] = []
    by_kind: dict[str, list[float]] = {}
    for sample, score in zip(samples, scores, strict=True):
        (good if sample.defect is None else by_kind.setdefault(sample.defect, [])).append(score)
    figures = []
    for kind, found in sorted(by_kind.items()):
        auroc = image_auroc(good + found, [False] * len(good) + [True] * len(found))
        assert auroc is not None  # neither class is empty
        missed = sum(score <= threshold for score in found)
        figures.append(DefectFigures(kind, len(found), auroc, missed, missed / len(found)))
    return tuple(figures)


def _pixel_metrics(samples: Sequence[Sample], results: Sequence[Scored]) -> PixelMetrics | None:
    """The pixel metrics of all maps; None where no sample has a mask."""
    if not any(sample.mask for sample in samples):
        return None
    # All maps are in memory, so the bins can cover exactly the range of their values.
    low = min(float(result.anomaly_map.min()) for result in results)
    high = max(float(result.anomaly_map.max()) for result in results)
    pixels = PixelMetrics(low, high if high > low else low + 1.0)
    for sample, result in zip(samples, results, strict=True):
        if sample.mask is not None:
            pixels.add(result.anomaly_map, sample.mask.read())
        elif sample.defect is None:
            pixels.add(result.anomaly_map, np.zeros(image_size(sample.path), dtype=bool))
    return pixels
