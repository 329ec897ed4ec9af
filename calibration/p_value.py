"""P-values: how often a good part would score as high as an image did."""

from __future__ import annotations

from fsad_edge.calibration.prediction import PRIOR_STD, predict_score
from fsad_edge.calibration.threshold import threshold_from_scores
from fsad_edge.runtime.metadata import Threshold

#: No smaller p-value is given: a normal distribution says nothing that far out.
LEAST = 1e-6


class PValue:
    """The distribution behind a threshold, read the other way round.

    The threshold is where Student's prediction of one more normal score leaves the false alarm
    rate above it (:func:`threshold_from_scores`); the same prediction leaves the p-value above a
    score. So an image is anomalous exactly where its p-value is below that rate.

    Args:
        scores: the normal scores behind a threshold, at least one.
        prior_std: the threshold's prior standard deviation.

    Example:
        >>> p_value = PValue([0.1, 0.11, 0.12])
        >>> p_value(0.1) > 0.5 > p_value(0.2)
        True
    """

    def __init__(self, scores: list[float], prior_std: float = PRIOR_STD) -> None:
        self._prediction = predict_score(scores, prior_std)

    @classmethod
    def behind(cls, threshold: Threshold) -> PValue | None:
        """The distribution that a threshold came from; None where it came by another rule.

        That is computed, not read from the file: a threshold that the scores do not lead to (a rule
        of thumb, a value set by hand) has no p-value that would agree with its decisions.
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
        """The probability that a good part scores higher, ``LEAST`` to 1."""
        return max(self._prediction.share_above(score), LEAST)
