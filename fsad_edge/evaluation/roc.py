"""The ROC curve: what every threshold would make of labelled scores."""

from __future__ import annotations

import numpy as np

from fsad_edge.runtime.arrays import BoolArray, Float64Array

#: A drawing goes this far beyond 0 and 1, so that a perfect curve is not hidden on its axes.
ROC_MARGIN = 0.04


def roc_points(scores: Float64Array, defective: BoolArray) -> tuple[Float64Array, Float64Array]:
    """The corners of the ROC curve (Fawcett 2006), from no image rejected to all of them.

    Args:
        scores: float64 ``[N]``; higher is more anomalous.
        defective: bool ``[N]``, with at least one image of each kind.

    Returns:
        the false alarm rate and the share of defects found at each threshold, both from 0 to 1 and
        never falling.

    Example:
        >>> alarms, found = roc_points(np.array([0.1, 0.9]), np.array([False, True]))
        >>> alarms.tolist(), found.tolist()
        ([0.0, 0.0, 1.0], [0.0, 1.0, 1.0])
    """
    order = np.argsort(-scores, kind="stable")
    marked, values = defective[order], scores[order]
    last = np.append(values[1:] != values[:-1], True)  # of images with equal scores
    found, alarms = np.cumsum(marked)[last], np.cumsum(~marked)[last]
    zero = np.zeros(1)
    return (
        np.concatenate([zero, alarms / alarms[-1]]),
        np.concatenate([zero, found / found[-1]]),
    )
