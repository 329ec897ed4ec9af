"""The figures of a model on labelled images, from the results of scoring them."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fsad_edge.errors import InputError
from fsad_edge.evaluation.best_threshold import BestThresholds, best_thresholds
from fsad_edge.evaluation.dataset import Sample
from fsad_edge.evaluation.masks import image_size
from fsad_edge.evaluation.metrics import PixelMetrics, image_auroc
from fsad_edge.evaluation.rate import Rate, joined
from fsad_edge.evaluation.region_figures import Polygon, RegionCounts, RegionFigures, meet
from fsad_edge.options import Decision, Doubt
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.clopper_pearson import both_bounds
from fsad_edge.runtime.found_regions import Region, find_regions


class Scored(Protocol):
    """The fields of a result that the figures need; :class:`fsad_edge.Result` has them."""

    @property
    def score(self) -> float: ...

    @property
    def doubts(self) -> Sequence[Doubt]: ...

    @property
    def anomaly_map(self) -> Float32Array: ...

    @property
    def map_threshold(self) -> float: ...

    @property
    def regions(self) -> Sequence[Region]: ...

    @property
    def more_regions(self) -> int: ...


@dataclass(frozen=True)
class DefectFigures:
    """The figures of one kind of defect.

    Attributes:
        defect: name of the kind.
        n: number of images with this kind of defect.
        image_auroc: AUROC of these images against all good ones.
        missed: number of these images that were judged good.
        miss_rate: ``missed / n``.
        not_judged: number of these images that are not judged.
        miss_bounds: the true miss rate is between these two, in 95 % of such counts.
        regions: the regions of these defects that are found; None where no image of them that is
            judged has a mask.
        rejected_elsewhere: number of these images that are rejected at places that touch no
            defect that their mask marks.
    """

    defect: str
    n: int
    image_auroc: float
    missed: int
    miss_rate: float
    not_judged: int
    miss_bounds: tuple[float, float]
    regions: Rate | None
    rejected_elsewhere: int = 0


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on a dataset. Rates and areas run from 0 to 1.

    An image that is not judged is no false alarm and no miss: it is counted apart. The areas are of
    scores, and so of all images. Bounds hold the true rate, that of the parts to come, in 95 % of
    all such counts (Clopper & Pearson 1934), if those parts are like these.

    Attributes:
        threshold: the boundary that the rates hold for: an image that is judged is an anomaly where
            its score is above it.
        n_good: number of good images.
        n_defective: number of images with a defect.
        n_masked: number of images with a defect and a mask that marks it. The pixel figures leave
            out the other defective images.
        image_auroc: AUROC of the image scores; None without defective images.
        pixel_auroc: AUROC of the anomaly maps' pixels; None without masks.
        aupro: area under the per-region overlap up to a false positive rate of 0.3, divided by 0.3;
            None without masks.
        false_alarms: number of good images that were judged anomalies.
        false_alarm_rate: ``false_alarms / n_good``.
        missed: number of defective images that were judged good.
        miss_rate: ``missed / n_defective``; None without defective images.
        not_judged_good: number of good images that are not judged.
        not_judged_defective: number of defective images that are not judged.
        false_alarm_bounds: the bounds of the false alarm rate.
        miss_bounds: the bounds of the miss rate; None without defective images.
        by_defect: the figures of each kind of defect, sorted by name.
        regions: how well the regions found are the defects.
        best: the best thresholds for these very images; its rates are of the images that are
            judged. None without good or without defective ones among them.
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
    not_judged_good: int
    not_judged_defective: int
    false_alarm_bounds: tuple[float, float]
    miss_bounds: tuple[float, float] | None
    by_defect: tuple[DefectFigures, ...]
    regions: RegionFigures
    best: BestThresholds | None = None


def evaluate_results(
    samples: Sequence[Sample],
    results: Sequence[Scored],
    threshold: float,
    false_alarm_rate: float = 0.01,
) -> Evaluation:
    """Compute all figures. Masks are read one at a time.

    Args:
        samples: the labelled images, at least one of them good.
        results: one result for each sample, in the same order.
        threshold: the boundary, in the unit of the scores.
        false_alarm_rate: the share of good images that the best threshold may reject.

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
    good: list[Scored] = []
    by_defect: dict[str, list[Scored]] = {}
    for sample, result in zip(samples, results, strict=True):
        (good if sample.defect is None else by_defect.setdefault(sample.defect, [])).append(result)
    if not good:
        raise InputError("the dataset has no good image to compare with: add some to test/good.")
    defective = [result for found in by_defect.values() for result in found]
    decisions = Counter(decide(result, threshold) for result in good)
    of_defects = Counter(decide(result, threshold) for result in defective)
    missed = of_defects[Decision.GOOD]
    pixels = _pixel_metrics(samples, results)
    regions, recalls, elsewhere = _regions(samples, results, threshold)
    return Evaluation(
        threshold=threshold,
        n_good=len(good),
        n_defective=len(defective),
        n_masked=sum(bool(sample.defect and sample.mask) for sample in samples),
        image_auroc=_auroc(good, defective),
        pixel_auroc=pixels.auroc() if pixels else None,
        aupro=pixels.aupro() if pixels else None,
        false_alarms=decisions[Decision.ANOMALY],
        false_alarm_rate=decisions[Decision.ANOMALY] / len(good),
        missed=missed,
        miss_rate=missed / len(defective) if defective else None,
        not_judged_good=decisions[Decision.NOT_JUDGED],
        not_judged_defective=of_defects[Decision.NOT_JUDGED],
        false_alarm_bounds=both_bounds(decisions[Decision.ANOMALY], len(good)),
        miss_bounds=both_bounds(missed, len(defective)) if defective else None,
        by_defect=tuple(
            dataclasses.replace(
                _of_defect(defect, found, good, threshold, recalls.get(defect)),
                rejected_elsewhere=elsewhere[defect],
            )
            for defect, found in sorted(by_defect.items())
        ),
        regions=regions,
        best=_best(good, defective, false_alarm_rate),
    )


def _best(
    good: Sequence[Scored], defective: Sequence[Scored], false_alarm_rate: float
) -> BestThresholds | None:
    judged = [(result.score, False) for result in good if not result.doubts]
    judged += [(result.score, True) for result in defective if not result.doubts]
    scores, truth = [score for score, _ in judged], [bad for _, bad in judged]
    return best_thresholds(scores, truth, false_alarm_rate)


def decide(result: Scored, threshold: float) -> Decision:
    """What is said of an image at a threshold, which need not be the one that it was scored with.

    Example:
        >>> from fsad_edge import Model
        >>> with Model.load(part_file) as model:
        ...     result = model.score(photograph)
        >>> decide(result, result.score), decide(result, result.score / 2)
        (<Decision.GOOD: 'good'>, <Decision.ANOMALY: 'anomaly'>)
    """
    if result.doubts:
        return Decision.NOT_JUDGED
    return Decision.ANOMALY if result.score > threshold else Decision.GOOD


def _of_defect(
    defect: str,
    found: Sequence[Scored],
    good: Sequence[Scored],
    threshold: float,
    regions: Rate | None,
) -> DefectFigures:
    auroc = _auroc(good, found)
    assert auroc is not None  # neither class is empty
    decisions = Counter(decide(result, threshold) for result in found)
    missed = decisions[Decision.GOOD]
    return DefectFigures(
        defect=defect,
        n=len(found),
        image_auroc=auroc,
        missed=missed,
        miss_rate=missed / len(found),
        not_judged=decisions[Decision.NOT_JUDGED],
        miss_bounds=both_bounds(missed, len(found)),
        regions=regions,
    )


def _regions(
    samples: Sequence[Sample], results: Sequence[Scored], threshold: float
) -> tuple[RegionFigures, dict[str, Rate], Counter[str]]:
    """The figures of the regions found, the recall of each kind of defect with a mask, and how many
    of each are rejected elsewhere."""
    counts, recalls, elsewhere = RegionCounts(), dict[str, list[Rate]](), Counter[str]()
    for sample, result in zip(samples, results, strict=True):
        if result.doubts:
            counts.not_judged += 1
        elif sample.defect is None:
            counts.add_good(len(result.regions) + result.more_regions)
        elif sample.mask is None:
            counts.without_mask += 1
        else:
            mask = sample.mask.read()
            recall = counts.add_defective(_outlines(result, mask.shape), mask)
            recalls.setdefault(sample.defect, []).append(recall)
            elsewhere[sample.defect] += is_rejected_elsewhere(sample, result, threshold)
    counts.rejected_elsewhere = elsewhere.total()
    joined_recalls = {defect: joined(rates) for defect, rates in recalls.items()}
    return counts.figures(), joined_recalls, elsewhere


def is_rejected_elsewhere(sample: Sample, result: Scored, threshold: float) -> bool:
    """Whether a defective image is rejected at places that touch no defect of its mask."""
    if sample.defect is None or sample.mask is None or result.doubts:
        return False
    if not (result.score > threshold and result.regions):
        return False
    mask = sample.mask.read()
    met = meet(_outlines(result, mask.shape), mask).met
    return met.shape[1] > 0 and not met.any()


def _outlines(result: Scored, size: tuple[int, ...]) -> list[Polygon]:
    """The outlines of all regions of a result, those that it does not list as well."""
    found = result.regions
    if result.more_regions:
        every = len(found) + result.more_regions
        found = find_regions(
            result.anomaly_map, result.map_threshold, (size[1], size[0]), every
        ).regions
    return [region.polygon for region in found]


def _auroc(good: Sequence[Scored], defective: Sequence[Scored]) -> float | None:
    scores = [result.score for result in (*good, *defective)]
    return image_auroc(scores, [False] * len(good) + [True] * len(defective))


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
