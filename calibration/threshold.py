"""A decision threshold from the scores of normal images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from fsad_edge.calibration.prediction import PRIOR_STD, SMALLEST, predict_score
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.metadata import Threshold

#: By how much a left-out shot scores above a new part, as a difference of logarithms: this over the
#: number of shots. On nine materials it was 0.06 (0.02 to 0.10) with five shots and 0.01 (-0.12 to
#: 0.09) with ten. With three it was 0.18, but 0.02 to 0.33, so that fewer than five shots are
#: corrected as five are.
LEFT_OUT_BIAS, BIAS_SHOTS = 0.3, 5

#: With fewer distinct shots no false alarm rate is promised: they hardly show how parts differ.
ENOUGH_SHOTS = 4

#: A shot stands out where the others alone would reject it at this false alarm rate. Among five
#: shots a good one stood out in 5 % of the draws from nine materials, one of which has good parts
#: with spots of their own (33 %); the broken one did in 31 %, a faint defect as a rule not.
HIGH_RATE = 0.003

#: With one shot: the logarithm of the ratio of another part's score to the score of the shot's own
#: moved views, as mean and standard deviation. On six materials at 224 pixels, eight draws each,
#: the mean is 0.14, from -0.30 to 0.51 by material: no rule can keep a rate. This one rejects 7.5 %
#: of good parts where 1 % is asked, none on four materials and 31 % on the one whose parts differ
#: most. The standard deviation that was measured, 0.42, would reject 4 % and miss six defects of
#: seven.
RATIO_MEAN, RATIO_STD = 0.14, 0.26


def scores_of_new_parts(left_out: Float32Array, shots: int) -> Float32Array:
    """What new parts will score, from what left-out shots do.

    A left-out shot meets a bank of one shot less than a new part will, and scores a little higher.

    Args:
        left_out: float32 ``[n]``, patch scores of shots without themselves.
        shots: how many shots there are; the scores of a single one's views stay.

    Returns:
        float32 ``[n]``.
    """
    if shots == 1:
        return left_out
    return (left_out * math.exp(-LEFT_OUT_BIAS / max(shots, BIAS_SHOTS))).astype(np.float32)


def threshold_from_scores(
    scores: Sequence[float],
    false_alarm_rate: float,
    prior_std: float = PRIOR_STD,
    unit: str = "shots",
) -> Threshold:
    """The upper prediction bound for one more normal score (:func:`predict_score`).

    Unlike a quantile of the scores themselves, the bound can be above all of them, as it must be
    where a rate of one in a hundred is asked of five shots.

    Args:
        scores: each shot's score with a bank that it is not in, float ``[n]``; at least two.
        false_alarm_rate: as a fraction, above 0 and at most 0.5.
        prior_std: standard deviation of the logarithms where nothing else is known; above 0.
        unit: what the scores are of, for the sentence on their reliability.

    Example:
        >>> round(threshold_from_scores([0.10, 0.11, 0.12, 0.10, 0.11], 0.01).value, 2)
        0.18
    """
    values, count = np.maximum(np.asarray(scores, dtype=np.float64), SMALLEST), len(scores)
    return Threshold(
        value=predict_score(scores, prior_std).score_at(false_alarm_rate),
        false_alarm_rate=false_alarm_rate,
        method=f"computed from the scores of {count} {unit}, each compared with the others",
        scores=[round(float(score), 6) for score in np.sort(values)],
        reliability=_reliability(count, false_alarm_rate, unit),
        prior_std=prior_std,
        rate_promised=count >= ENOUGH_SHOTS,
    )


def threshold_from_one_shot(
    scores: Sequence[float], false_alarm_rate: float, prior_std: float = PRIOR_STD
) -> Threshold:
    """A rule of thumb for a single shot, from its views that are moved and turned by a few degrees.

    A moved view is about as far from the bank as another part is. A single shot cannot show how
    much parts differ.

    Args:
        scores: scores of the views, float ``[V]``, at least one.
        false_alarm_rate: as a fraction, above 0 and at most 0.5.
        prior_std: stored for whoever derives the threshold again from more images.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    quantile = NormalDist(RATIO_MEAN, RATIO_STD).inv_cdf(1 - false_alarm_rate)
    return Threshold(
        value=max(float(values.mean() * math.exp(quantile)), SMALLEST),
        false_alarm_rate=false_alarm_rate,
        method=f"estimated from {len(values)} slightly moved views of the only shot",
        scores=[round(float(score), 6) for score in values],
        reliability="One shot does not show how much good parts vary, so it is not known how many "
        "of them will be rejected: take 5 to 10 shots.",
        prior_std=prior_std,
        rate_promised=False,
    )


@dataclass(frozen=True)
class HighScore:
    """One shot whose score is far above the others', as that of a broken part is.

    Attributes:
        index: the shot.
        score: its score with a bank that it is not in.
        others: the smallest and the largest score of the other shots.
        without: the threshold that the others alone lead to.
    """

    index: int
    score: float
    others: tuple[float, float]
    without: float


def high_score(scores: Sequence[float], threshold: Threshold) -> HighScore | None:
    """The one shot that decides a threshold; None where none stands out or the shots are few.

    It is a shot that the others would reject even at a false alarm rate of ``HIGH_RATE``.

    Args:
        scores: each shot's score with a bank that it is not in, float ``[n]``.
        threshold: what :func:`threshold_from_scores` made of them.
    """
    if len(scores) < ENOUGH_SHOTS:
        return None
    index = int(np.argmax(scores))
    score, others = scores[index], [*scores[:index], *scores[index + 1 :]]
    without, bound = (
        threshold_from_scores(others, rate, threshold.prior_std).value
        for rate in (threshold.false_alarm_rate, HIGH_RATE)
    )
    if score <= bound:
        return None
    return HighScore(index, score, (min(others), max(others)), without)


def withdraw_promise(threshold: Threshold, outliers: int) -> Threshold:
    """The same threshold, with no promise of a false alarm rate because outliers were kept.

    Args:
        threshold: the threshold from all shots.
        outliers: how many shots unlike the rest are among them, at least one.
    """
    which = "a shot" if outliers == 1 else f"{outliers} shots"
    return replace(
        threshold,
        rate_promised=False,
        reliability=f"It is not known how many good parts will be rejected, because {which} unlike "
        f"the rest {'was' if outliers == 1 else 'were'} kept: the threshold is high, and defects "
        "will be missed.",
    )


def _reliability(count: int, false_alarm_rate: float, unit: str) -> str:
    """How far a threshold from so few scores can be relied on."""
    if count < ENOUGH_SHOTS:
        return (
            f"{count} {unit} hardly show how much good parts vary, so it is not known how many of "
            "them will be rejected. The threshold is set high to be safe, and defects will be "
            f"missed: take 5 to 10 {unit}."
        )
    asked = share_in_words(false_alarm_rate)
    expected = f"About {asked} good parts should be rejected, if they vary as the {count} {unit} do"
    needed = math.ceil(1 / false_alarm_rate) - 1
    if count >= needed:
        return f"{expected}."
    # Whatever the distribution is, the next of n + 1 parts is the highest in 1 of n + 1 cases.
    return (
        f"{expected}. {count} {unit} alone cannot prove that: the best that they can prove is "
        f"{share_in_words(1 / (count + 1))}, and {asked} takes {needed} {unit}."
    )


def percent(share: float) -> str:
    """A share in percent, with two digits.

    Args:
        share: as a fraction, 0 to 1.

    Example:
        >>> percent(0.0123), percent(0.22), percent(0.999)
        ('1.2 %', '22 %', '100 %')
    """
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def share_in_words(share: float) -> str:
    """A share of all parts, with two digits.

    Args:
        share: as a fraction, above 0.

    Example:
        >>> share_in_words(0.01), share_in_words(1 / 6), share_in_words(0.0015)
        ('1 in 100', '17 in 100', '1.5 in 1,000')
    """
    whole = 100
    while share * whole < 0.995:
        whole *= 10
    return f"{share * whole:.2g} in {whole:,}"
