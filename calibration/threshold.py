"""A decision threshold from the scores of normal images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from fsad_edge.runtime.metadata import Threshold
from fsad_edge.runtime.student_t import student_quantile

#: No threshold is below this: scores of zero (a blank part) must not make it zero.
SMALLEST = 1e-4

#: Spread of the logarithms of normal scores where nothing else is known, for a bank of shots as
#: they are and for one of turned shots, and how many scores that is worth: 0.17 to 0.35 (of a wood
#: 0.6 to 0.8) and 0.05 to 0.23 (0.4 to 0.7) were measured on six materials at 224 pixels. A turned
#: bank is nowhere very near a good part, nor very far.
PRIOR_STD, ROTATED_STD, PRIOR_SCORES = 0.2, 0.15, 8

#: Side of the images that these were measured at, pixels.
PRIOR_SIDE = 224

#: With one shot: what another part scores over what the shot's own turned views score, as a
#: log-normal's mean and spread, measured on normal images of three materials with two encoders.
RATIO_MEAN, RATIO_STD = 0.14, 0.22


def prior_std_for(rotated: bool, side: int) -> float:
    """The prior's spread of patch scores for a bank and an image size.

    On larger images the worst patches are the worst of more, which differ less from one part to
    the next: at 448 and 640 pixels 0.2 to 0.9 of what it is at 224 was measured, mostly 0.5 to
    0.7, at stride 16.

    Args:
        turned: whether the shots are turned in the bank.
        side: of the model's images, pixels.
    """
    std = ROTATED_STD if rotated else PRIOR_STD
    return std * min(1.0, math.sqrt(PRIOR_SIDE / side))


def threshold_from_scores(
    scores: Sequence[float], false_alarm_rate: float, prior_std: float = PRIOR_STD
) -> Threshold:
    """The upper prediction bound for one more normal score (Student; Hahn & Meeker 1991, 4.1).

    ``exp(mean + t · spread · sqrt(1 + 1/n))`` of the scores' logarithms, t being a quantile of
    Student's distribution. Unlike a quantile of the scores themselves, it can lie above all of
    them, as it must where one in a hundred is asked of five; logarithms, because distances are
    skewed. A few scores say little of their spread, which is why it is pooled with a prior's.

    Args:
        scores: of each shot, float ``[n]``, against a bank that it is not in; at least two.
        false_alarm_rate: as a fraction, above 0 and at most 0.5.
        prior_std: of the logarithms, where nothing else is known; above 0.
    """
    values = np.maximum(np.asarray(scores, dtype=np.float64), SMALLEST)
    logs, count = np.log(values), len(values)
    dof = PRIOR_SCORES + count - 1
    square = PRIOR_SCORES * prior_std**2 + np.square(logs - logs.mean()).sum()
    width = math.sqrt(square / dof * (1 + 1 / count))
    few = count < 4
    exact = math.ceil(1 / false_alarm_rate) - 1
    reliability = (
        f"{count} shots hardly show how much good parts differ: the threshold is wide, defects "
        "will be missed; 5 to 10 shots narrow it."
        if few
        else f"A false alarm rate of {false_alarm_rate:.2g} is what {count} shots lead to expect "
        "if the logarithms of good parts' scores follow a bell curve"
        + (
            "."
            if count >= exact
            else f"; without that assumption {count} shots can promise "
            f"{1 / (count + 1):.0%} at best, and it takes {exact} shots."
        )
    )
    return Threshold(
        value=math.exp(logs.mean() + student_quantile(1 - false_alarm_rate, dof) * width),
        false_alarm_rate=false_alarm_rate,
        method=f"prediction bound of {count} scores, each shot left out once",
        scores=[round(float(score), 6) for score in np.sort(values)],
        reliability=reliability,
        prior_std=prior_std,
    )


def threshold_from_one_shot(
    scores: Sequence[float], false_alarm_rate: float, prior_std: float = PRIOR_STD
) -> Threshold:
    """A rule of thumb for a single shot, from its own views turned between the bank's turns.

    A turned view is resampled, and so about as far from the bank as another part is; how far
    parts differ a single shot can't show.

    Args:
        scores: of the views, float ``[V]``, at least one.
        false_alarm_rate: as a fraction, above 0 and at most 0.5.
        prior_std: for whoever sets the threshold anew from more images.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    quantile = NormalDist(RATIO_MEAN, RATIO_STD).inv_cdf(1 - false_alarm_rate)
    return Threshold(
        value=max(float(values.mean() * math.exp(quantile)), SMALLEST),
        false_alarm_rate=false_alarm_rate,
        method=f"rule of thumb from {len(values)} turned views of the only shot",
        scores=[round(float(score), 6) for score in values],
        reliability="One shot says nothing of how parts differ from one another: no false alarm rate "
        "can be promised; give more shots.",
        prior_std=prior_std,
    )
