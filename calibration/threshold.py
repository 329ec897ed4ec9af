"""A decision threshold from the scores of normal images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from fsad_edge.runtime.metadata import Threshold
from fsad_edge.runtime.student_t import pooled_std, student_quantile

#: No threshold is below this: scores of zero (a blank part) must not make it zero.
SMALLEST = 1e-4

#: Prior standard deviation of the logarithms of normal scores, for a bank of shots as photographed
#: and for one of rotated shots, and how many scores the prior counts for. On six materials at 224
#: pixels 0.17 to 0.35 (of one wood 0.6 to 0.8) and 0.05 to 0.23 (0.4 to 0.7) were measured. A
#: rotated bank is neither very near to a good part nor very far from it.
PRIOR_STD, ROTATED_STD, PRIOR_SCORES = 0.2, 0.15, 8

#: With fewer distinct shots no false alarm rate is promised: they hardly show how parts differ.
ENOUGH_SHOTS = 4

#: A shot stands out where the others alone would reject it at this false alarm rate. Among five
#: shots a good one stood out in 0 to 10 % of the draws from five materials and in 31 % from a sixth
#: whose good parts have spots of their own, the broken one in 30 % on average.
HIGH_RATE = 0.003

#: Side of the images that these were measured at, pixels.
PRIOR_SIDE = 224

#: With one shot: the logarithm of the ratio of another part's score to the score of the shot's own
#: moved views, as mean and standard deviation. On six materials at 224 pixels, eight draws each, the
#: mean is 0.14, from -0.30 to 0.51 by material: no rule can keep a rate. This one rejects 7.5 % of
#: good parts where 1 % is asked, none on four materials and 31 % on the one whose parts differ most.
#: The standard deviation that was measured, 0.42, would reject 4 % and miss six defects of seven.
RATIO_MEAN, RATIO_STD = 0.14, 0.26


def prior_std_for(rotated: bool, side: int) -> float:
    """The prior standard deviation of patch scores for a bank and an image size.

    On larger images the worst patches are the worst of more, and differ less from one part to the
    next: at 448 and 640 pixels 0.2 to 0.9 of the value at 224 was measured, mostly 0.5 to 0.7, at
    stride 16.

    Args:
        rotated: whether the shots are rotated in the bank.
        side: side of the model's images, pixels.
    """
    std = ROTATED_STD if rotated else PRIOR_STD
    return std * min(1.0, math.sqrt(PRIOR_SIDE / side))


def threshold_from_scores(
    scores: Sequence[float],
    false_alarm_rate: float,
    prior_std: float = PRIOR_STD,
    unit: str = "shots",
) -> Threshold:
    """The upper prediction bound for one more normal score (Student; Hahn & Meeker 1991, 4.1).

    ``exp(mean + t * std * sqrt(1 + 1/n))`` of the scores' logarithms, where t is a quantile of
    Student's distribution. Unlike a quantile of the scores themselves, the bound can be above all
    of them, as it must be where a rate of one in a hundred is asked of five shots. Logarithms are
    taken because distances are skewed. A few scores say little about their standard deviation,
    which is why it is pooled with a prior one.

    Args:
        scores: each shot's score with a bank that it is not in, float ``[n]``; at least two.
        false_alarm_rate: as a fraction, above 0 and at most 0.5.
        prior_std: standard deviation of the logarithms where nothing else is known; above 0.
        unit: what the scores are of, for the sentence on their reliability.

    Example:
        >>> round(threshold_from_scores([0.10, 0.11, 0.12, 0.10, 0.11], 0.01).value, 2)
        0.18
    """
    values = np.maximum(np.asarray(scores, dtype=np.float64), SMALLEST)
    logs, count = np.log(values), len(values)
    pooled = pooled_std(logs, prior_std, PRIOR_SCORES)
    width = pooled.std * math.sqrt(1 + 1 / count)
    return Threshold(
        value=math.exp(logs.mean() + student_quantile(1 - false_alarm_rate, pooled.dof) * width),
        false_alarm_rate=false_alarm_rate,
        method=f"prediction bound of {count} scores, each shot left out once",
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
        method=f"rule of thumb from {len(values)} moved views of the only shot",
        scores=[round(float(score), 6) for score in values],
        reliability="One shot does not show how much parts differ from one another: no false alarm "
        "rate can be guaranteed; give more shots.",
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
        reliability=f"No false alarm rate is promised, because {which} unlike the rest "
        f"{'was' if outliers == 1 else 'were'} kept: the threshold is high, and defects will be "
        "missed.",
    )


def _reliability(count: int, false_alarm_rate: float, unit: str) -> str:
    """How far a threshold from so few scores can be relied on."""
    if count < ENOUGH_SHOTS:
        return (
            f"{count} {unit} hardly show how much good parts differ: no false alarm rate is "
            f"promised, the threshold is wide and defects will be missed; 5 to 10 {unit} narrow it."
        )
    expected = (
        f"A false alarm rate of {false_alarm_rate:.2g} is expected from {count} {unit} if the "
        "logarithms of good parts' scores follow a normal distribution"
    )
    needed = math.ceil(1 / false_alarm_rate) - 1
    if count >= needed:
        return f"{expected}."
    return (
        f"{expected}; without that assumption {count} {unit} can guarantee no less than "
        f"{1 / (count + 1):.0%}, and {needed} {unit} are needed."
    )
