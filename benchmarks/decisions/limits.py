"""False alarms and misses: at the threshold of the shots, with examples, and at the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsad_edge.calibration.examples import Example
from fsad_edge.calibration.from_examples import threshold_from_examples
from fsad_edge.calibration.p_value import PValue
from fsad_edge.evaluation.best_threshold import best_thresholds
from fsad_edge.runtime.arrays import Float64Array
from fsad_edge.runtime.metadata import Threshold

#: Examples of each kind, and draws of them.
EXAMPLES, DRAWS = 3, 40

#: The false alarms that the best threshold may give: a threshold that knows every test image.
MOST_FALSE_ALARMS = 0.02


@dataclass(frozen=True)
class Rates:
    """Shares of the good images that are rejected and of the defective ones that are missed."""

    false_alarms: float
    misses: float


def rates_at(value: float, good: Float64Array, bad: Float64Array) -> Rates:
    """The rates at a threshold; scores are float64 ``[N]``."""
    return Rates(float((good > value).mean()), float((bad <= value).mean()))


def best_rates(good: Float64Array, bad: Float64Array) -> Rates:
    """The fewest misses at ``MOST_FALSE_ALARMS``, by a threshold that knows every test image."""
    defective = [False] * len(good) + [True] * len(bad)
    found = best_thresholds([*good, *bad], defective, MOST_FALSE_ALARMS)
    assert found is not None  # there are images of both kinds
    return rates_at(found.within.threshold, good, bad)


def rates_with_examples(
    threshold: Threshold, left_out: bool, good: Float64Array, bad: Float64Array, seed: int
) -> list[Rates]:
    """The rates after random test images were given as examples, on all the others.

    Args:
        threshold: of the shots.
        left_out: as :func:`threshold_from_examples` takes it.
        good: scores of the good test images.
        bad: scores of the defective ones.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, 21])
    found = []
    for _ in range(DRAWS):
        goods, bads = rng.permutation(len(good)), rng.permutation(len(bad))
        one, two = (
            [Example(str(place), float(scores[place])) for place in order[:EXAMPLES]]
            for scores, order in ((good, goods), (bad, bads))
        )
        value = threshold_from_examples(threshold, left_out, one, two).threshold.value
        found.append(rates_at(value, good[goods[EXAMPLES:]], bad[bads[EXAMPLES:]]))
    return found


def p_value_shares(threshold: Threshold, good: Float64Array) -> dict[str, float]:
    """The share of good images with a p-value of at most 0.01 and 0.002; they should be as large.

    Empty where the threshold came by a rule that gives no p-values.
    """
    p_value = PValue.behind(threshold)
    if p_value is None:
        return {}
    values = np.array([p_value(score) for score in good])
    return {f"p_at_most_{bound:g}": float((values <= bound).mean()) for bound in (0.01, 0.002)}
