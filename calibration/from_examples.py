"""The best threshold from examples of good and bad parts, weighed against what the shots say.

A few examples help much and mislead easily. The middle between three good and three bad ones is
often far too high or far too low, because three parts hardly show where their kind ends. So the
examples do not replace what the shots say, they are added to it:

- The good examples' scores are scores of new parts, which is what the threshold is about. They move
  the predicted distribution of good parts, together with the left-out shots' scores.
- The bad examples move the boundary within that distribution: down to the lowest of them where that
  costs few good parts, and up where all of them are far above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from fsad_edge.calibration.examples import Errors, Example, errors_at
from fsad_edge.calibration.prediction import PRIOR_SCORES, Prediction, log_scores
from fsad_edge.errors import InputError
from fsad_edge.runtime.metadata import Threshold

#: A left-out shot counts for so many new parts: it is scored by a smaller bank than they are.
SHOT_WEIGHT = 0.5

#: Where bad parts are expected before one is seen: the logarithm of their scores' ratio to good
#: parts' scores as mean and standard deviation, and how many bad examples that counts for.
BAD_GAP, BAD_STD, BAD_COUNT = 0.55, 0.45, 2

#: How far around a bad example others like it are expected, as a standard deviation of logarithms.
BAD_KERNEL = 0.25

#: The threshold stays where between these multiples of the asked rate is expected.
LEAST_SHARE, MOST_SHARE = 0.1, 5.0

#: Values between the two that are tried.
STEPS = 200


@dataclass(frozen=True)
class ExampleThreshold:
    """A threshold from examples, and what it means for both kinds of error.

    Attributes:
        threshold: the threshold in the form that is stored; its scores are those of the shots and
            of the good examples.
        before: what the threshold before made of the examples.
        after: what this one makes of them.
        contradictions: one sentence for each example that the threshold does not follow.
    """

    threshold: Threshold
    before: Errors
    after: Errors
    contradictions: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What is said to a person: both errors with their bounds, then the contradictions."""
        return (*self.after.sentences, *self.contradictions)


def threshold_from_examples(
    threshold: Threshold,
    left_out: bool,
    good: Sequence[Example],
    bad: Sequence[Example],
    false_alarm_rate: float | None = None,
) -> ExampleThreshold:
    """The best threshold for some examples, weighed against what the shots say.

    Args:
        threshold: the file's threshold with the normal scores behind it.
        left_out: those are scores of shots, each compared with the others; a single shot's are not
            (``metadata.shots.count > 1``).
        good: parts that a person called good; may be empty.
        bad: parts that a person called bad; may be empty.
        false_alarm_rate: the share of good parts that may be rejected; that of ``threshold`` by
            default.

    Raises:
        InputError: there is no example, or a score is not a finite number above or equal to 0.

    Example:
        >>> from fsad_edge.calibration.threshold import threshold_from_scores
        >>> shots = threshold_from_scores([0.10, 0.11, 0.12, 0.10, 0.11], 0.01)
        >>> bad = [Example("bad-1.png", 0.15), Example("bad-2.png", 0.3)]
        >>> found = threshold_from_examples(shots, True, [Example("good-1.png", 0.1)], bad)
        >>> found.threshold.value < shots.value
        True
        >>> found.sentences[0]
        '0 of 2 bad parts missed: at most 78 % at 95 %'
    """
    _check(good, bad)
    rate = threshold.false_alarm_rate if false_alarm_rate is None else false_alarm_rate
    shots = threshold.scores if left_out else []
    prediction = predict(shots, [one.score for one in good], threshold.prior_std)
    value = _best_value(prediction, rate, good, bad)
    scores = sorted([*shots, *(round(one.score, 6) for one in good)]) or threshold.scores
    found = replace(
        threshold,
        value=value,
        false_alarm_rate=rate,
        method=f"examples, {len(good)} good and {len(bad)} bad, weighed against "
        f"{len(shots)} left-out scores",
        scores=scores,
    )
    return ExampleThreshold(
        threshold=found,
        before=errors_at(threshold.value, good, bad),
        after=errors_at(value, good, bad),
        contradictions=_contradictions(value, good, bad),
    )


def predict(shots: Sequence[float], good: Sequence[float], prior_std: float) -> Prediction:
    """What left-out shots and good examples say of the next good part (normal-inverse-gamma).

    Args:
        shots: scores of the shots, each left out; may be empty where there are good examples.
        good: scores of good examples.
        prior_std: standard deviation of the logarithms where nothing else is known.
    """
    known, new = log_scores(shots), log_scores(good)
    weight = SHOT_WEIGHT * len(known)
    squares = PRIOR_SCORES * prior_std**2
    for values in (known, new):
        if len(values):
            squares += float(((values - values.mean()) ** 2).sum())
    total = weight + len(new)
    mean = (SHOT_WEIGHT * known.sum() + new.sum()) / total
    if len(known) and len(new):
        squares += weight * len(new) / total * float(new.mean() - known.mean()) ** 2
    dof = PRIOR_SCORES + max(len(known) + len(new) - 1, 1)
    return Prediction(float(mean), math.sqrt(squares / dof * (1 + 1 / total)), dof)


def _best_value(
    prediction: Prediction, rate: float, good: Sequence[Example], bad: Sequence[Example]
) -> float:
    """Where a false alarm more would cost more than the misses that it saves."""
    asked = prediction.score_at(rate)
    if not bad:
        return asked
    low = prediction.score_at(min(MOST_SHARE * rate, 0.5))
    high = prediction.score_at(LEAST_SHARE * rate)
    levels = log_scores([one.score for one in bad])
    before = NormalDist(prediction.mean + BAD_GAP, BAD_STD)

    def missed(value: float) -> float:
        near = sum(NormalDist(level, BAD_KERNEL).cdf(math.log(value)) for level in levels)
        return (BAD_COUNT * before.cdf(math.log(value)) + near) / (BAD_COUNT + len(levels))

    # The price of a false alarm is such that the asked rate is best before a bad part is seen.
    step = 1e-3
    fewer = prediction.share_above(asked) - prediction.share_above(asked * (1 + step))
    more = before.cdf(math.log(asked * (1 + step))) - before.cdf(math.log(asked))
    price = more / fewer
    values = np.geomspace(low, high, STEPS)
    costs = [price * prediction.share_above(value) + missed(value) for value in values]
    best = float(values[int(np.argmin(costs))])
    return _between(best, low, good, bad)


def _between(value: float, low: float, good: Sequence[Example], bad: Sequence[Example]) -> float:
    """The value moved above all good examples and below all bad ones where that is possible."""
    least = min(one.score for one in bad)
    most = max((one.score for one in good), default=0.0)
    if most >= least:
        return value
    return max(min(value, max(least * (1 - 1e-6), low)), most)


def _contradictions(
    value: float, good: Sequence[Example], bad: Sequence[Example]
) -> tuple[str, ...]:
    """One sentence for each example on the wrong side of the threshold."""
    said = []
    for one in good:
        if one.score > value:
            above = sum(one.score >= other.score for other in bad)
            than = f", above {above} of {len(bad)} bad ones" if above else ""
            times = f"{one.score / value:.2f} times the threshold"
            said.append(f"{one.name} was called good and scores {times}{than}")
    for one in bad:
        if one.score <= value:
            below = sum(one.score <= other.score for other in good)
            than = f", below {below} of {len(good)} good ones" if below else ""
            times = f"{one.score / value:.2f} times the threshold"
            said.append(f"{one.name} was called bad and scores {times}{than}")
    return tuple(said)


def _check(good: Sequence[Example], bad: Sequence[Example]) -> None:
    if not good and not bad:
        raise InputError("there is no example: give at least one good or bad photograph.")
    for one in (*good, *bad):
        if not (math.isfinite(one.score) and one.score >= 0):
            raise InputError(f"{one.name} has the score {one.score}, which is not a score.")
