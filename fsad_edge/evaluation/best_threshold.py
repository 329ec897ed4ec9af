"""The best thresholds on labelled images: what a model could do there if it were set by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsad_edge.runtime.arrays import Float64Array


@dataclass(frozen=True)
class Operating:
    """One threshold and what it makes of labelled images.

    Attributes:
        threshold: an image is rejected where its score is above this.
        false_alarm_rate: the share of good images above it, 0 to 1.
        miss_rate: the share of defective images at or below it, 0 to 1.
    """

    threshold: float
    false_alarm_rate: float
    miss_rate: float


@dataclass(frozen=True)
class BestThresholds:
    """The best thresholds on labelled images.

    They are chosen on the very images that they are measured on, so on other images both rates
    will be somewhat higher.

    Attributes:
        within: the fewest misses with no more false alarms than asked.
        balanced: the least sum of both rates (Youden 1950).
    """

    within: Operating
    balanced: Operating


def best_thresholds(
    scores: Sequence[float], defective: Sequence[bool], false_alarm_rate: float
) -> BestThresholds | None:
    """The best thresholds on labelled images.

    Each lies about in the middle between two neighbouring scores, so that what is just above and
    just below has about the same margin; it has as few digits as that takes.

    Args:
        scores: scores of ``N`` images, finite numbers; a higher score is more anomalous.
        defective: whether each of the ``N`` images has a defect.
        false_alarm_rate: the largest share of good images that may be rejected, 0 to 1.

    Returns:
        None where one of the classes is empty.

    Example:
        >>> found = best_thresholds([0.1, 0.2, 0.5, 0.4, 0.9], [False] * 3 + [True] * 2, 0.0)
        >>> found.within
        Operating(threshold=0.7, false_alarm_rate=0.0, miss_rate=0.5)
        >>> round(found.balanced.threshold, 3), found.balanced.miss_rate
        (0.3, 0.0)
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(defective, bool)
    good, bad = np.sort(values[~truth]), np.sort(values[truth])
    if not (len(good) and len(bad)):
        return None
    tried = _between(values)
    alarms = 1 - np.searchsorted(good, tried, side="right") / len(good)
    misses = np.searchsorted(bad, tried, side="right") / len(bad)

    def point(place: int) -> Operating:
        value = _shortened(float(tried[place]), values)
        return Operating(value, float(alarms[place]), float(misses[place]))

    # Of thresholds that miss as many, the one with the fewest false alarms.
    allowed = np.flatnonzero(alarms <= false_alarm_rate)
    within = allowed[np.lexsort((alarms[allowed], misses[allowed]))[0]]
    return BestThresholds(point(int(within)), point(int(np.argmin(alarms + misses))))


def _between(values: Float64Array) -> Float64Array:
    """The middles between neighbouring scores, a value below all scores, and the highest."""
    known = np.unique(values)
    return np.concatenate([[known[0] / 2], (known[1:] + known[:-1]) / 2, known[-1:]])


def _shortened(threshold: float, values: Float64Array) -> float:
    """A threshold with few digits; from any score it is at least half as far as it was."""
    margin, above = np.abs(values - threshold) / 2, values > threshold
    for digits in range(3, 17):
        found = float(f"{threshold:.{digits}g}")
        far = (np.abs(values - found) >= margin).all()
        if found > 0 and far and ((values > found) == above).all():
            return found
    return threshold
