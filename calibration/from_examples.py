"""The best threshold from examples of good and bad parts, weighed against what the shots say.

A few examples help much and mislead easily. The middle between three good and three bad ones is
mostly far too low or far too high, because three parts hardly show where their kind ends. So the
examples do not replace what the shots say, they are added to it:

- The good examples are new parts, and the next good part is predicted from them and from the
  left-out shots alike (:func:`fsad_edge.calibration.prediction.predict_score`). A prediction bound
  of that at the asked rate is where the threshold starts.
- The bad examples pull it down, to just below the lowest of them, but no further than to where
  ``MOST_SHARE`` times the asked rate is predicted: one bad example must not cost many good parts.
- A good example that is below all bad ones holds it up, but no further than to where
  ``LEAST_SHARE`` times the asked rate is predicted.
- It rises only where it rejected a good example, and never above a bad one that it rejected:
  where good and bad examples overlap, no threshold separates them, and the one of before stays.

So no example moves it without a limit, and what it does not follow is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fsad_edge.calibration.examples import Errors, Example, errors_at
from fsad_edge.calibration.prediction import SMALLEST, Prediction, log_scores, predict_log
from fsad_edge.calibration.threshold import ENOUGH_SHOTS, percent, threshold_from_one_shot
from fsad_edge.errors import InputError
from fsad_edge.runtime.arrays import Float64Array
from fsad_edge.runtime.metadata import Threshold

#: Examples move the threshold between the bounds at these multiples of the asked rate. For three
#: examples of each kind and 1 % asked, 1.5, 2 and 3 instead of 2 gave 1.5, 1.9 and 2.7 % false
#: alarms and missed 53, 51 and 48 % (means of six materials).
LEAST_SHARE, MOST_SHARE = 0.1, 2.0

#: A good example that scores above what one part in this many reaches counts as much as that.
OUTLIER_RATE = 0.001

#: How far below the lowest bad example the threshold is set, as a fraction of its score.
MARGIN = 1e-6

#: The highest rate of false alarms that can be asked for.
MOST_RATE = 0.5

#: The asked rate is promised where no more than this many times as much is predicted.
PROMISED = 1.01

#: The most contradictions that are said to a person.
NAMED = 5

#: How a method names the examples that it rests on.
FROM_EXAMPLES = "bad examples, weighed against"

#: Steps of the search for a floor; each leaves two thirds of the interval.
_STEPS = 40


@dataclass(frozen=True)
class ExampleThreshold:
    """A threshold from examples, and what it means for both kinds of error.

    Attributes:
        threshold: the threshold in the form that is stored; its scores are those of the shots and
            of the good examples.
        before: what the threshold before made of the examples.
        after: what this one makes of them.
        expected_false_alarm_rate: the share of good parts that are predicted to score above it,
            as a fraction; None for bad examples alone with a single shot, which foretells nothing.
        contradictions: one sentence for each example that the threshold does not follow, those
            farthest from it first.
        overlap: a sentence where a good example scores as high as a bad one, or none.
    """

    threshold: Threshold
    before: Errors
    after: Errors
    expected_false_alarm_rate: float | None
    contradictions: tuple[str, ...]
    overlap: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What is said to a person: both errors with their bounds, whether the examples overlap,
        then the contradictions."""
        more = len(self.contradictions) - NAMED
        rest = (f"{more} more examples are on the wrong side",) if more > 0 else ()
        return (*self.after.sentences, *self.overlap, *self.contradictions[:NAMED], *rest)


def threshold_from_examples(
    threshold: Threshold,
    left_out: bool,
    good: Sequence[Example],
    bad: Sequence[Example],
    false_alarm_rate: float | None = None,
    present: float | None = None,
) -> ExampleThreshold:
    """The best threshold for some examples, weighed against what the shots say.

    Args:
        threshold: the threshold without the examples, and the normal scores behind it.
        left_out: those are scores of shots, each compared with the others; a single shot's are not
            (``metadata.shots.count > 1``).
        good: parts that a person called good, as they come and not only those that were rejected;
            may be empty.
        bad: parts that a person called bad; may be empty.
        false_alarm_rate: the share of good parts that may be rejected; that of ``threshold`` by
            default.
        present: the value in effect, which a person may have set; that of ``threshold`` by default.

    Raises:
        InputError: there is no example, a score is not a finite number above or equal to 0, or the
            rate is not above 0 and at most ``MOST_RATE``.

    Example:
        >>> from fsad_edge.calibration.threshold import threshold_from_scores
        >>> shots = threshold_from_scores([0.10, 0.11, 0.12, 0.10, 0.11], 0.01)
        >>> bad = [Example("bad-1.png", 0.17), Example("bad-2.png", 0.3)]
        >>> found = threshold_from_examples(shots, True, [Example("good-1.png", 0.1)], bad)
        >>> found.threshold.value < 0.17 < shots.value
        True
        >>> print(found.sentences[0])
        0 of 2 bad parts missed: at most 78 % of all such parts, with 95 % confidence
    """
    rate = threshold.false_alarm_rate if false_alarm_rate is None else false_alarm_rate
    _check(good, bad, rate)
    prediction = predict(threshold, left_out, [one.score for one in good], rate)
    value = _value(_bound(prediction, threshold), rate, good, bad)
    if false_alarm_rate in {None, threshold.false_alarm_rate}:
        value = min(value, _ceiling(threshold.value, present or threshold.value, good, bad))
    expected = prediction.share_above(value) if prediction else None
    after = errors_at(value, good, bad)
    kept = threshold.scores if left_out or not good else []
    found = replace(
        threshold,
        value=value,
        false_alarm_rate=rate,
        method=f"{len(good)} good and {len(bad)} {FROM_EXAMPLES} {len(kept)} scores of before",
        scores=sorted([*kept, *(round(one.score, 6) for one in good)]),
        reliability="; ".join(after.sentences) + ".",
        rate_promised=expected is not None
        and expected <= PROMISED * rate
        and len(kept) + len(good) >= ENOUGH_SHOTS,
    )
    before = errors_at(threshold.value, good, bad)
    contradictions = _contradictions(value, good, bad, prediction)
    return ExampleThreshold(found, before, after, expected, contradictions, _overlap(good, bad))


def predict(
    threshold: Threshold, left_out: bool, good: Sequence[float], rate: float
) -> Prediction | None:
    """What is known of the next good part's score; None where nothing is.

    It is Student's prediction from all scores, but for two limits. A good example far above all
    others counts for no more than ``OUTLIER_RATE``: it may be a bad part. And good examples far
    below the others, which would widen the prediction and so raise its bound, count as being as
    high as is best for a low bound: a part that scores low is no reason for a higher threshold.

    Args:
        threshold: the threshold without the examples, and the normal scores behind it.
        left_out: as :func:`threshold_from_examples` takes it.
        good: scores of good examples; may be empty.
        rate: the rate at which the bound is meant to be low.
    """
    known = log_scores(threshold.scores if left_out else [])
    return _predict(known, log_scores(good), threshold.prior_std, min(rate, MOST_RATE))


def _predict(
    known: Float64Array, good: Float64Array, prior_std: float, rate: float
) -> Prediction | None:
    """The same from logarithms, float64 ``[n]`` and ``[g]``."""
    if not len(good):
        return predict_log(known, prior_std) if len(known) else None
    base = predict_log(known if len(known) else good, prior_std)
    middle = float(np.median(np.concatenate([known, good])))
    good = np.minimum(good, middle + math.log(base.score_at(OUTLIER_RATE)) - base.mean)

    def from_floor(floor: float) -> Prediction:
        raised = np.maximum(good, floor)
        return predict_log(np.concatenate([known, raised]), prior_std)

    # The bound is a convex function of the floor, as a mean plus a norm is.
    low, high = float(good.min()), float(max(good.max(), known.max(initial=-math.inf)))
    for _ in range(_STEPS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if from_floor(left).score_at(rate) <= from_floor(right).score_at(rate):
            high = right
        else:
            low = left
    return from_floor((low + high) / 2)


def _bound(prediction: Prediction | None, threshold: Threshold) -> Callable[[float], float]:
    """The score that good parts exceed at a rate."""
    if prediction is not None:
        return prediction.score_at
    scores, prior_std = threshold.scores, threshold.prior_std
    return lambda rate: threshold_from_one_shot(scores, rate, prior_std).value


def _value(
    bound: Callable[[float], float], rate: float, good: Sequence[Example], bad: Sequence[Example]
) -> float:
    """The bound at the rate, moved below bad and above good examples as far as they may move it."""
    value, lowest = bound(rate), min((one.score for one in bad), default=math.inf)
    if bad:
        value = min(value, max(lowest * (1 - MARGIN), bound(min(MOST_SHARE * rate, MOST_RATE))))
    # Of many good examples some may be above, as the rate says.
    ascending = sorted(one.score for one in good)
    held_up = [score for score in ascending[: len(good) - int(rate * len(good))] if score < lowest]
    if held_up:
        value = max(value, min(held_up[-1], bound(LEAST_SHARE * rate)))
    return max(value, SMALLEST)


def _ceiling(
    before: float, present: float, good: Sequence[Example], bad: Sequence[Example]
) -> float:
    """The highest threshold: that of before where it rejects no good example, and in any case below
    the bad examples that the one in effect finds."""
    highest = before if all(one.score <= before for one in good) else math.inf
    found = [one.score for one in bad if one.score > present]
    return min(highest, max(present, min(found) * (1 - MARGIN))) if found else highest


def _overlap(good: Sequence[Example], bad: Sequence[Example]) -> tuple[str, ...]:
    highest = max((one.score for one in good), default=-math.inf)
    below = sum(one.score <= highest for one in bad)
    if not below:
        return ()
    return (
        f"no threshold separates these examples: {below} of {len(bad)} bad ones score no higher "
        "than the highest good one",
    )


def _contradictions(
    value: float,
    good: Sequence[Example],
    bad: Sequence[Example],
    prediction: Prediction | None,
) -> tuple[str, ...]:
    """One sentence for each example on the wrong side, those farthest from the threshold first."""
    wrong = [(one, _rejected(one, value, bad)) for one in good if one.score > value]
    wrong += [(one, _missed(one, value, good, prediction)) for one in bad if one.score <= value]
    wrong.sort(key=lambda pair: -abs(math.log(max(pair[0].score, SMALLEST) / value)))
    return tuple(said for _, said in wrong)


def _rejected(one: Example, value: float, bad: Sequence[Example]) -> str:
    """What is said of a good example that is rejected."""
    said = f"{one.name} was called good and scores {one.score / value:.2f} times the threshold"
    above = sum(other.score <= one.score for other in bad)
    return f"{said}, above {above} of {len(bad)} bad ones" if above else said


def _missed(
    one: Example, value: float, good: Sequence[Example], prediction: Prediction | None
) -> str:
    """What is said of a bad example that is missed, with what it would cost to find it."""
    said = f"{one.name} was called bad and scores {one.score / value:.2f} times the threshold"
    below = sum(other.score >= one.score for other in good)
    if below:  # which says more than what is foretold
        said += f", below {below} of {len(good)} good ones"
    elif prediction is not None:
        share = percent(prediction.share_above(one.score))
        said += f"; a threshold below it would reject about {share} of good parts"
    return said


def _check(good: Sequence[Example], bad: Sequence[Example], rate: float) -> None:
    if not good and not bad:
        raise InputError("there is no example: give at least one good or bad photograph.")
    for one in (*good, *bad):
        if not (math.isfinite(one.score) and one.score >= 0):
            raise InputError(f"{one.name} has the score {one.score}, which is not a score.")
    if not 0 < rate <= MOST_RATE:
        raise InputError(f"a false alarm rate is above 0 and at most {MOST_RATE:g}, not {rate:g}.")
