"""What the scores that are known say of the next good part's score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsad_edge.runtime.arrays import Float64Array
from fsad_edge.runtime.student_t import pooled_std, student_quantile, student_tail

#: No score is taken for less: a blank part scores zero, which has no logarithm.
SMALLEST = 1e-4

#: Standard deviation of the logarithms of normal scores where the shots' maps do not foretell it
#: (:mod:`fsad_edge.calibration.spread`), and how many scores the prior one counts for.
PRIOR_STD, PRIOR_SCORES = 0.2, 8

#: The first of them for scores of whole images by an encoder's full depth: of ten classes of
#: CIFAR-10 with three networks it was 0.07 to 0.11.
WHOLE_PRIOR_STD = 0.08


@dataclass(frozen=True)
class Prediction:
    """Student's distribution of the logarithm of the next good part's score.

    Attributes:
        mean: its centre.
        width: its scale; above 0.
        dof: its degrees of freedom, at least 1.

    Example:
        >>> prediction = Prediction(mean=-2.0, width=0.2, dof=12)
        >>> round(prediction.score_at(0.01), 3)
        0.231
        >>> round(prediction.share_above(0.231), 2)
        0.01
    """

    mean: float
    width: float
    dof: int

    def score_at(self, rate: float) -> float:
        """The score that a good part exceeds with this probability, above 0 and at most 0.5."""
        return math.exp(self.mean + student_quantile(1 - rate, self.dof) * self.width)

    def share_above(self, score: float) -> float:
        """The probability that a good part scores above this, 0 to 1."""
        return student_tail((math.log(max(score, SMALLEST)) - self.mean) / self.width, self.dof)


def predict_score(scores: Sequence[float], prior_std: float = PRIOR_STD) -> Prediction:
    """What some normal scores say of the next one (Student; Hahn & Meeker 1991, 4.1).

    Logarithms are taken because distances are skewed. A few scores say little about their standard
    deviation, which is why it is pooled with a prior one.

    Args:
        scores: float ``[n]``, at least one.
        prior_std: standard deviation of their logarithms where nothing else is known; above 0.
    """
    return predict_log(log_scores(scores), prior_std)


def predict_log(logs: Float64Array, prior_std: float) -> Prediction:
    """The same from the scores' logarithms, float64 ``[n]``."""
    pooled = pooled_std(logs, prior_std, PRIOR_SCORES)
    width = pooled.std * math.sqrt(1 + 1 / len(logs))
    return Prediction(float(logs.mean()), width, pooled.dof)


def log_scores(scores: Sequence[float]) -> Float64Array:
    """Natural logarithms of scores, float64 ``[n]``."""
    values: Float64Array = np.log(np.maximum(np.asarray(scores, dtype=np.float64), SMALLEST))
    return values
