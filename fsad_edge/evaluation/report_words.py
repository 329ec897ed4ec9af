"""An evaluation in plain words: the verdict, what decides, what to do next."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from fsad_edge.evaluation.best_threshold import BestThresholds, Operating
from fsad_edge.evaluation.figures import DefectFigures, Evaluation
from fsad_edge.evaluation.rate import Rate, rate

#: Missing more than this share of the defects is most of them.
MOST = 0.5
#: Fewer images of a kind than this are few: the bounds of a share of them lie far apart.
MANY = 100
#: Another threshold is worth setting where the sum of both error rates falls by at least this.
WORTH_SETTING = 0.01
_PERCENT = "\N{NO-BREAK SPACE}%"


@dataclass(frozen=True)
class About:
    """What a report says besides the figures.

    Attributes:
        title: which model was evaluated on which data set.
        model: the model's file, for the command that sets a threshold; None for a loaded model.
        asked: the share of good parts that the threshold may reject.
        taught: what the figures rest on that was taught on this device, in words.
    """

    title: str = "Evaluation"
    model: Path | None = None
    asked: float = 0.01
    taught: str | None = None


def percent(share: float | None) -> str:
    """A share with one digit, such as ``97.0 %``; a word where there is none."""
    return "not measured" if share is None else f"{100 * share:.1f}{_PERCENT}"


def bounds(found: Rate) -> str:
    """The bounds of a rate in words, such as ``91.5 to 99.4 %``."""
    return f"{100 * found.low:.1f} to {100 * found.high:.1f}{_PERCENT}"


def rejected(figures: Evaluation) -> Rate:
    """The defective images that are rejected."""
    caught = figures.n_defective - figures.missed - figures.not_judged_defective
    return rate(caught, figures.n_defective)


def verdict(figures: Evaluation) -> str:
    """One or two sentences on what becomes of good and of defective parts."""
    alarms = rate(figures.false_alarms, figures.n_good)
    if not figures.n_defective:
        text = f"It rejects {figures.false_alarms} of {_parts(figures.n_good, 'good')}."
    else:
        caught = rejected(figures)
        elsewhere = figures.regions.rejected_elsewhere
        at = f", {caught.count - elsewhere} of them at the defect," if elsewhere else ""
        text = (
            f"It rejects {caught.count} of {_parts(caught.of, 'defective')}{at} "
            f"and {alarms.count} of {_parts(alarms.of, 'good')}."
        )
    good, bad = figures.not_judged_good, figures.not_judged_defective
    if good or bad:
        defective = f" and {bad} of the defective ones" if figures.n_defective else ""
        text += f" It does not judge {good} of the good parts{defective}: a person must look there."
    return text


def certainty(figures: Evaluation) -> str:
    """How far these images settle the true rates."""
    alarms = rate(figures.false_alarms, figures.n_good)
    few = "With so few images" if figures.n_good < MANY else "With so many images"
    text = f"{bounds(alarms)} of the good parts"
    if figures.n_defective:
        few = "With so few images" if figures.n_defective < MANY else few
        text = f"{bounds(rejected(figures))} of the defective parts and {text}"
    return (
        f"{few}, the true share that it rejects may be anywhere from {text} (95 % confidence, for "
        "parts like these)."
    )


def what_decides(figures: Evaluation, about: About) -> str:
    """What the decision rests on."""
    taught = f"These figures are {about.taught}. " if about.taught else ""
    return (
        f"{taught}A part is rejected where its score is above the threshold, "
        f"{figures.threshold:.4g}. {percent(about.asked)} of the good parts were to be rejected at "
        "most."
    )


def next_step(figures: Evaluation, about: About) -> str:
    """What to do next: the threshold to set, or what helps more than a threshold."""
    best = figures.best
    if not figures.n_defective:
        return (
            "Without defective images nobody knows what it misses: add some, in a folder for each "
            "kind of defect beside good."
        )
    if best is None:
        return "None of the good or of the defective images is judged: see below why."
    if not (figures.missed or figures.false_alarms):
        unjudged = figures.not_judged_good or figures.not_judged_defective
        wrong = "No image that is judged is" if unjudged else "No image is"
        return (
            f"{wrong} on the wrong side, so that nothing needs to be set. More images make "
            "the bounds narrower."
        )
    if not is_worth_setting(best):
        return (
            "No threshold makes a good inspection of it, because good images score as high as "
            "defects: do not look for one. Take shots that show how good parts vary, and larger "
            "images; then measure again."
        )
    return " ".join([_advice(in_use(figures), best), *_beyond_thresholds(best)])


def is_worth_setting(best: BestThresholds) -> bool:
    """Whether any threshold makes an inspection of these images."""
    return _sum(best.balanced) <= MOST


def _advice(now: Operating, best: BestThresholds) -> str:
    """The threshold to set, if one is worth it."""
    for one, name in ((best.within, "first"), (best.balanced, "second")):
        gain = _sum(now) - _sum(one)
        if one.miss_rate >= 1 or gain < WORTH_SETTING:
            continue
        outcome = (
            f"it rejects {percent(one.false_alarm_rate)} of the good parts and misses "
            f"{percent(one.miss_rate)} of the defects; now it is {percent(now.false_alarm_rate)} "
            f"and {percent(now.miss_rate)}."
        )
        if one.miss_rate <= now.miss_rate and one.false_alarm_rate <= now.false_alarm_rate:
            return f"Set the {name} of the thresholds below, {one.threshold!r}: {outcome}"
        dearer = "false alarms" if one.miss_rate > now.miss_rate else "missed defects"
        return (
            f"The {name} of the thresholds below, {one.threshold!r}, trades one error for the "
            f"other: {outcome} Set it if {dearer} are what costs you most."
        )
    return (
        "No other threshold does clearly better on these images: look at the mistakes below, one "
        "by one."
    )


def _beyond_thresholds(best: BestThresholds) -> list[str]:
    """What helps more than a threshold where none of them does well."""
    if _sum(best.balanced) > MOST / 5:
        return ["More shots that show how good parts vary, and larger images, help further."]
    return []


def hardest_first(figures: Evaluation) -> list[DefectFigures]:
    """The kinds of defect: those of which most are missed first, of equal ones the lowest AUROC."""
    return sorted(figures.by_defect, key=lambda row: (-row.miss_rate, row.image_auroc))


def in_use(figures: Evaluation) -> Operating:
    """The threshold in use and its rates, of the images that are judged as for the best ones."""
    good = figures.n_good - figures.not_judged_good
    bad = figures.n_defective - figures.not_judged_defective
    return Operating(
        figures.threshold,
        figures.false_alarms / good if good else 0.0,
        figures.missed / bad if bad else 0.0,
    )


def set_command(about: About, threshold: float) -> str:
    """The line that sets a threshold."""
    model = "MODEL" if about.model is None else shlex.quote(str(about.model))
    return f"fsad-edge threshold {model} --value {threshold!r}"


def _sum(one: Operating) -> float:
    return one.false_alarm_rate + one.miss_rate


def _parts(count: int, kind: str) -> str:
    return f"{count} {kind} part{'' if count == 1 else 's'}"
