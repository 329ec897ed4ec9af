"""How often a good part would score as high as an image did."""

from __future__ import annotations

import math

import numpy as np

from fsad_edge.calibration.threshold import (
    PRIOR_SCORES,
    PRIOR_STD,
    SMALLEST,
    threshold_from_scores,
)
from fsad_edge.runtime.metadata import Threshold

#: No smaller p-value is given: a bell curve says nothing that far out.
LEAST = 1e-6


class PValue:
    """The distribution behind a threshold, read the other way round.

    The threshold is where Student's prediction of one more normal score leaves the false alarm
    rate above it (:func:`threshold_from_scores`); the same prediction leaves the p-value above a
    score. So an image is anomalous exactly where its p-value is below that rate.
    """

    def __init__(self, scores: list[float], prior_std: float = PRIOR_STD) -> None:
        logs = np.log(np.maximum(np.asarray(scores, dtype=np.float64), SMALLEST))
        count = len(logs)
        self._mean = float(logs.mean())
        self._dof = PRIOR_SCORES + count - 1
        square = PRIOR_SCORES * prior_std**2 + float(np.square(logs - logs.mean()).sum())
        self._width = math.sqrt(square / self._dof * (1 + 1 / count))

    @classmethod
    def behind(cls, threshold: Threshold) -> PValue | None:
        """The distribution a threshold came from; None where it came by another rule.

        That is tried, not read: a threshold the scores do not lead to (a rule of thumb, a value
        set by hand) has no p-value that would agree with its decisions.
        """
        if len(threshold.scores) < 2:
            return None
        again = threshold_from_scores(
            threshold.scores, threshold.false_alarm_rate, threshold.prior_std
        )
        if abs(again.value - threshold.value) > 1e-3 * threshold.value:
            return None
        return cls(threshold.scores, threshold.prior_std)

    def __call__(self, score: float) -> float:
        """The chance that a good part scores higher, ``LEAST`` to 1."""
        t = (math.log(max(score, SMALLEST)) - self._mean) / self._width
        return max(student_tail(t, self._dof), LEAST)


def student_tail(t: float, dof: int) -> float:
    """Chance that Student's t is above ``t``: the closed form of Abramowitz & Stegun, 26.7.3-4.

    Args:
        t: any number.
        freedom: degrees of freedom, a whole number, at least 1.

    Returns:
        0 to 1, within 1e-12.
    """
    angle = math.atan(t / math.sqrt(dof))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = dof % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for step in range(2 + odd, dof + 1, 2):
        total += term
        term *= square * (step - 1) / step
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return min(max((1 - inside) / 2, 0.0), 1.0)
