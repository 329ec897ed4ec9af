"""The threshold on a device: of the file, with what was learned, and as a person set it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from fsad_edge.calibration.from_examples import predict
from fsad_edge.calibration.prediction import Prediction
from fsad_edge.calibration.threshold import (
    ENOUGH_SHOTS,
    threshold_from_one_shot,
    threshold_from_scores,
)
from fsad_edge.errors import InputError
from fsad_edge.learning.journal import Setting
from fsad_edge.options import LEAST_RATE, MOST_RATE
from fsad_edge.runtime.metadata import Threshold

#: Learning keeps the threshold between these multiples of the file's own.
LEAST_RATIO, MOST_RATIO = 0.75, 1.5

#: How a method names the scores of learned images.
LEARNED = "of them of images learned on the device"

#: The least rate of false alarms that earlier versions took, whose settings still count.
_LEAST_KEPT = 1e-9


def learned_threshold(file: Threshold, left_out: bool, scores: Sequence[float]) -> Threshold:
    """The threshold after some images were learned.

    What is learned is mostly what was rejected: the highest of many scores, which would drive the
    rule far up. The threshold therefore rises no further than to the highest of them.

    Args:
        file: the file's own threshold.
        left_out: its scores are of shots, each compared with the others; those of a single shot are
            not.
        scores: scores of the learned images, each against a bank without its own rows.

    Raises:
        InputError: a score is not finite.

    Returns:
        the threshold by the file's own rule, within ``LEAST_RATIO`` and ``MOST_RATIO`` times the
        file's value; the file's own value where there are too few scores for the rule, or where a
        person set it.
    """
    pooled = [*file.scores, *scores] if left_out else [*scores]
    if not scores or len(pooled) < 2:
        return file
    if not all(map(math.isfinite, pooled)):
        raise InputError(
            "a score behind the threshold is not a finite number: undo the image that was taught "
            "last, or load the model again."
        )
    if file.set_by_hand:
        return dataclasses.replace(file, scores=sorted(round(score, 6) for score in pooled))
    found = threshold_from_scores(pooled, file.false_alarm_rate, file.prior_std, "images")
    if not file.rate_promised and len(file.scores) >= ENOUGH_SHOTS and left_out:
        # An outlier among the shots; learning more images does not take it out.
        found = dataclasses.replace(found, rate_promised=False, reliability=file.reliability)
    most = min(max(file.value, *scores), MOST_RATIO * file.value)
    return dataclasses.replace(
        found,
        value=min(max(found.value, LEAST_RATIO * file.value), most),
        method=f"computed from {len(pooled)} scores, {len(scores)} {LEARNED}; it rises no "
        "further than to the highest score of these images",
    )


def threshold_at_rate(threshold: Threshold, left_out: bool, rate: float) -> Threshold:
    """The threshold that the same scores lead to at another rate of false alarms.

    Args:
        threshold: a threshold and the scores behind it.
        left_out: as :func:`learned_threshold` takes it; False only while all scores are of views.
        rate: as a fraction.

    Raises:
        InputError: the rate is beyond what can be asked for, now or in earlier versions.
    """
    if not _LEAST_KEPT <= rate <= MOST_RATE:
        raise InputError(
            f"a false alarm rate is a fraction from {LEAST_RATE:g} up to {MOST_RATE:g}, not "
            f"{rate:g}."
        )
    rule = threshold_from_scores if left_out else threshold_from_one_shot
    found = rule(threshold.scores, rate, threshold.prior_std)
    if LEARNED in threshold.method:
        found = dataclasses.replace(found, method=threshold.method.partition(";")[0])
    if not threshold.rate_promised:
        found = dataclasses.replace(found, rate_promised=False, reliability=threshold.reliability)
    return found


def set_threshold(learned: Threshold, left_out: bool, setting: Setting) -> Threshold:
    """The threshold that a person set, over what was learned.

    Args:
        learned: the threshold without the setting.
        left_out: as :func:`threshold_at_rate` takes it.
        setting: what the person set.
    """
    origin = f"set by {setting.who} on {setting.when[:16].replace('T', ' ')} UTC: {setting.method}"
    if setting.false_alarm_rate is not None:
        found = threshold_at_rate(learned, left_out, setting.false_alarm_rate)
        return dataclasses.replace(found, method=f"{origin}; {found.method}")
    return dataclasses.replace(
        learned,
        value=setting.value,
        method=origin,
        reliability=setting.reliability,
        rate_promised=False,
        set_by_hand=True,
    )


def expect(threshold: Threshold, left_out: bool, good: Sequence[float]) -> Prediction | None:
    """What is known of the next good part's score; None where nothing is.

    Args:
        threshold: the threshold without what a person set, and the scores behind it.
        left_out: as :func:`threshold_at_rate` takes it. Views of one shot say nothing of parts.
        good: scores of good examples that no bank has learned.
    """
    return predict(threshold, left_out, good, threshold.false_alarm_rate)
