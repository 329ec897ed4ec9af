"""A decision threshold from the scores of normal images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fsad_edge.runtime.metadata import Threshold

#: No threshold is below this: scores of zero (a blank part) must not make it zero.
SMALLEST = 1e-4


def threshold_from_scores(
    scores: Sequence[npt.NDArray[np.float32]], false_alarm_rate: float
) -> Threshold:
    """The quantile of normal scores for a false alarm rate.

    The rank is that of split conformal prediction, ceil((n + 1)(1 - rate)), which is the largest
    score where there are too few of them for the rate (Vovk et al. 2005).

    Args:
        scores: for each left-out shot, float32 ``[V]``: it and its views, none of them seen by the
            bank that scored it.
        false_alarm_rate: as a fraction, above 0 and below 1.
    """
    pooled = np.sort(np.concatenate(scores))
    rank = min(math.ceil((len(pooled) + 1) * (1 - false_alarm_rate)), len(pooled))
    shots = len(scores)
    if shots == 1:
        method = f"{len(pooled)} augmented views of the only shot"
        promise = (
            "One shot says nothing of how parts differ from one another: expect false alarms, and "
            "give more shots."
        )
    else:
        method = f"leave one shot out, {len(pooled)} scores of {shots} shots and their views"
        promise = (
            f"{shots} shots can promise a false alarm rate of about {1 / (shots + 1):.0%} at best; "
            f"{false_alarm_rate:.2g} was asked for, which takes "
            f"{math.ceil(1 / false_alarm_rate) - 1} shots to promise."
        )
        if 1 / (shots + 1) <= false_alarm_rate:
            promise = f"{shots} shots are enough for a false alarm rate of {false_alarm_rate:.2g}."
    return Threshold(
        value=max(float(pooled[rank - 1]), SMALLEST),
        false_alarm_rate=false_alarm_rate,
        method=method,
        scores=[round(float(score), 6) for score in pooled],
        promise=promise,
    )
