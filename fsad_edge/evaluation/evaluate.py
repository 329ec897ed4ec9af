"""From labelled images and their results to figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fsad_edge.errors import InputError
from fsad_edge.evaluation.dataset import Sample, image_size, load_mask
from fsad_edge.evaluation.metrics import PixelMetrics, image_auroc, rates


class Scored(Protocol):
    """What is needed of a result: :class:`fsad_edge.runtime.Result` is one."""

    @property
    def score(self) -> float: ...

    @property
    def anomaly_map(self) -> npt.NDArray[np.float32]: ...

    @property
    def map_threshold(self) -> float: ...


@dataclass(frozen=True)
class DefectRow:
    """Figures of one kind of defect.

    Attributes:
        defect: the kind.
        n: images of it.
        image_auroc: of these images against all good ones.
        missed: images at or under the threshold.
        miss_rate: ``missed / n``.
    """

    defect: str
    n: int
    image_auroc: float
    missed: int
    miss_rate: float


@dataclass(frozen=True)
class Evaluation:
    """How a model does on a dataset; rates and areas run from 0 to 1, None is 'not to be had'.

    Attributes:
        threshold: what the rates hold for: ``score > threshold`` is an anomaly.
        n_good: good images.
        n_defective: images with a defect.
        n_masked: of those, with a mask; the pixel figures leave the others out.
        image_auroc: None without defective images.
        pixel_auroc: None without masks.
        aupro: up to a false positive rate of 0.3; None without masks.
        false_alarms: good images over the threshold.
        false_alarm_rate: ``false_alarms / n_good``.
        missed: defective images at or under the threshold.
        miss_rate: ``missed / n_defective``; None without defective images.
        by_defect: sorted by name.
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
    by_defect: tuple[DefectRow, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        return dataclasses.asdict(self)


def evaluate(samples: Sequence[Sample], results: Sequence[Scored], threshold: float) -> Evaluation:
    """Compute all figures; masks are read one by one.

    Args:
        samples: at least one good one.
        results: one for each sample, in the same order.
        threshold: in the unit of the scores.

    Raises:
        InputError: no good sample, a score that is not a number, or an unreadable mask.
        ValueError: not one result for each sample.
    """
    if len(samples) != len(results):
        raise ValueError(f"{len(results)} results for {len(samples)} samples")
    for sample, result in zip(samples, results, strict=True):
        if not (math.isfinite(result.score) and np.isfinite(result.anomaly_map).all()):
            raise InputError(f"{sample.path} got a score that is not a number: export again.")
    scores = [result.score for result in results]
    defective = [sample.defect is not None for sample in samples]
    false_alarm_rate, miss_rate = rates(scores, defective, threshold)
    if false_alarm_rate is None:
        raise InputError("there is no good image to compare with: add some to test/good.")
    called = [score > threshold for score in scores]
    pixels = _pixel_metrics(samples, results)
    return Evaluation(
        threshold=threshold,
        n_good=defective.count(False),
        n_defective=defective.count(True),
        n_masked=sum(sample.mask is not None for sample in samples),
        image_auroc=image_auroc(scores, defective),
        pixel_auroc=pixels.auroc() if pixels else None,
        aupro=pixels.aupro() if pixels else None,
        false_alarms=sum(c and not d for c, d in zip(called, defective, strict=True)),
        false_alarm_rate=false_alarm_rate,
        missed=sum(d and not c for c, d in zip(called, defective, strict=True)),
        miss_rate=miss_rate,
        by_defect=_by_defect(samples, scores, threshold),
    )


def _by_defect(
    samples: Sequence[Sample], scores: Sequence[float], threshold: float
) -> tuple[DefectRow, ...]:
    kinds: dict[str | None, list[float]] = {}
    for sample, score in zip(samples, scores, strict=True):
        kinds.setdefault(sample.defect, []).append(score)
    good = kinds.pop(None)
    rows = []
    for kind, found in sorted((kind, found) for kind, found in kinds.items() if kind is not None):
        auroc = image_auroc(good + found, [False] * len(good) + [True] * len(found))
        assert auroc is not None  # both classes are there
        missed = sum(score <= threshold for score in found)
        rows.append(DefectRow(kind, len(found), auroc, missed, missed / len(found)))
    return tuple(rows)


def _pixel_metrics(samples: Sequence[Sample], results: Sequence[Scored]) -> PixelMetrics | None:
    """None where no sample has a mask."""
    if not any(sample.mask for sample in samples):
        return None
    # The small maps are all here, so the bins can lie where the values are.
    low = min(float(result.anomaly_map.min()) for result in results)
    high = max(float(result.anomaly_map.max()) for result in results)
    pixels = PixelMetrics(low, high if high > low else low + 1.0)
    for sample, result in zip(samples, results, strict=True):
        if sample.mask is not None:
            pixels.add(result.anomaly_map, load_mask(sample.mask))
        elif sample.defect is None:
            pixels.add(result.anomaly_map, np.zeros(image_size(sample.path), dtype=bool))
    return pixels
