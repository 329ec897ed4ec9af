"""How far good parts' scores will spread, foretold from the patches of a few shots.

A handful of scores says little about how scores spread, but each of them comes with a map of
hundreds of patch distances. A score is about the largest of these. How much the largest of a sample
varies from one sample to the next follows from how steeply the largest values within a sample fall
off: where the tail is a power law, the logarithms exceed a high quantile by an exponential
distribution, whose scale is the mean excess (Hill 1975, eq. 3.1), and the logarithm of the maximum
has a standard deviation in proportion to that scale.
"""

from __future__ import annotations

import numpy as np

from fsad_edge.calibration.prediction import SMALLEST
from fsad_edge.runtime.arrays import Float32Array

#: How many patches of a map are its tail, and at most which share of a small map's. So many were as
#: good at 224 pixels (196 patches) as at 448 (784); a fifth of all patches was too wide at 448.
TAIL, MOST_SHARE = 40, 0.2

#: A map of fewer patches has no tail to measure.
FEWEST_PATCHES = 20

#: The standard deviation of the logarithms of good parts' scores over the scale of the tail. For
#: the mean of the three largest of independent patches it would be 0.8, for the largest alone 1.3.
#: On six materials and three rendered ones at 224 pixels 0.8 to 1.9 was measured, 1.2 in the mean.
STD_PER_SCALE = 1.2

#: What is foretold lies between these: shots can be too much alike, or of blank parts.
LEAST_STD, MOST_STD = 0.05, 0.8


def spread_of_scores(maps: Float32Array) -> float | None:
    """The standard deviation of the logarithms of good parts' scores that a few maps foretell.

    Of several maps the median is taken, so that one broken shot does not decide.

    Args:
        maps: float32 ``[N, h, w]``, patch distances of shots that were left out of the bank.

    Returns:
        a number from ``LEAST_STD`` to ``MOST_STD``; None where the maps are too small.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> steep = np.exp(0.1 * rng.exponential(size=(5, 14, 14))).astype(np.float32)
        >>> round(spread_of_scores(steep), 2), round(spread_of_scores(steep**3), 2)
        (0.12, 0.36)
    """
    distances = maps.reshape(len(maps), -1)
    if distances.shape[1] < FEWEST_PATCHES:
        return None
    logs = np.sort(np.log(np.maximum(distances.astype(np.float64), SMALLEST)), axis=1)
    count = min(TAIL, int(MOST_SHARE * logs.shape[1]))
    scale = logs[:, -count:].mean(axis=1) - logs[:, -count - 1]
    return float(np.clip(STD_PER_SCALE * np.median(scale), LEAST_STD, MOST_STD))
