"""What a picture of a model's threshold shows, from what the model was taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fsad_edge.learning.examples import distinct
from fsad_edge.learning.journal import Role
from fsad_edge.learning.taught_model import TaughtModel
from fsad_edge.learning.threshold_picture import Mark, Row, Shape, ThresholdView
from fsad_edge.learning.weighed import Candidate
from fsad_edge.options import Decision
from fsad_edge.runtime.metadata import Metadata


@dataclass(frozen=True)
class Tried:
    """A threshold that was set just now, or that is tried.

    Attributes:
        value: the threshold.
        name: what it is called.
        method: how it was found.
        before: the threshold before, or the one in effect where this one is only tried.
        before_name: what that is called.
        new: examples that it was found from and that are not kept.
    """

    value: float
    name: str
    method: str
    before: float
    before_name: str
    new: Sequence[Candidate] = ()


def view_threshold(
    title: str, metadata: Metadata, learner: TaughtModel, tried: Tried | None, notes: Sequence[str]
) -> ThresholdView:
    """The scores of shots, learned images and examples, and the thresholds among them.

    Args:
        title: the headline.
        metadata: the model's.
        learner: what it was taught.
        tried: another threshold; None shows the one in effect.
        notes: sentences below the picture.

    Raises:
        ModelFileError: an image is missing or changed.
    """
    value = learner.threshold.value if tried is None else tried.value
    file = metadata.threshold
    others = [] if tried is None else [(tried.before, tried.before_name)]
    others = [(score, name) for score, name in others if score not in {value, file.value}]
    name, own = ("threshold" if tried is None else tried.name), "the file's own"
    if value == file.value:
        name = f"{name}, {own}"
    else:
        others.append((file.value, own))
    shots = "Shots, left out" if metadata.shots.count > 1 else "Views of the shot"
    new = () if tried is None else tried.new
    shot_scores = learner.in_effect.threshold.scores
    good, bad = _example_marks(metadata, learner, value, new)
    more = [
        one.score
        for one in new
        if one.role.is_good
        and one.sha256 not in metadata.in_banks
        and one.decision is not Decision.NOT_JUDGED
    ]
    return ThresholdView(
        title=title,
        subtitle=learner.threshold.method if tried is None else tried.method,
        threshold=value,
        name=name,
        others=others,
        prediction=learner.expected(more),
        rows=[
            Row(shots, Shape.DOT, _good_marks(shot_scores, value)),
            Row("Learned images", Shape.DOT, _good_marks(learner.learned_scores(), value)),
            Row("Good examples", Shape.DOT, good),
            Row("Bad examples", Shape.DIAMOND, bad),
        ],
        notes=notes,
    )


def _good_marks(scores: Sequence[float], value: float) -> list[Mark]:
    return [Mark(score, score > value) for score in scores]


def _example_marks(
    metadata: Metadata, learner: TaughtModel, value: float, new: Sequence[Candidate]
) -> tuple[list[Mark], list[Mark]]:
    """The good and the bad examples; what was learned has a row of its own."""
    good, bad = list[Mark](), list[Mark]()
    taught = {Role.NORMAL, Role.REJECTED}
    held = metadata.in_banks | {one.sha256 for one in learner.active if one.role in taught}
    found = [
        (one.entry.role.is_good, one.score, one.decision, one.entry.sha256)
        for one in distinct(learner.examples())
        if one.entry.role is not Role.NORMAL
    ]
    found += [(one.role.is_good, one.score, one.decision, one.sha256) for one in new]
    for is_good, score, decision, digest in found:
        judged = decision is not Decision.NOT_JUDGED
        wrong = is_good == (score > value) if judged else is_good
        mark = Mark(score, wrong, judged and digest not in held)
        (good if is_good else bad).append(mark)
    return good, bad
