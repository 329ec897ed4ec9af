"""The JSON documents of what a model was taught: images called good or bad, thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fsad_edge.learning.examples import ExampleState, SideChange
from fsad_edge.learning.journal import Entry, Role
from fsad_edge.learning.learner import Learner
from fsad_edge.learning.rejection import Effect, Place, Rejection
from fsad_edge.options import Decision
from fsad_edge.runtime.model import Model
from fsad_edge.serve.schemas import doc


@dataclass(frozen=True)
class ExampleChange:
    """An example whose decision a change has turned. All images that are kept are examples."""

    id: int
    name: str | None
    role: Role
    before: Decision
    after: Decision
    lost: Annotated[bool, doc("It is decided wrongly now, and was not before.")]

    @classmethod
    def of(cls, change: SideChange) -> ExampleChange:
        """A change that a learner tells."""
        entry = change.entry
        return cls(entry.id, entry.name, entry.role, change.before, change.after, change.lost)


@dataclass(frozen=True)
class MarkedPlace:
    """What calling an image bad did with its bad place."""

    place: Annotated[Place, doc("box: the box that was given; heat_map: its worst region.")]
    box: Annotated[
        tuple[int, int, int, int],
        doc("Its left, top, right and bottom in pixels of the photograph, on the map's grid."),
    ]
    patches: Annotated[int, doc("Patches of it that were kept; 0 where it looks as good parts do.")]
    ratio_before: Annotated[
        float, doc("The highest value of the heat map in it over the threshold, before.")
    ]
    ratio_after: Annotated[float, doc("The same from now on.")]
    effect: Annotated[
        Effect,
        doc(
            "rejected: patches were kept, and it is above the threshold now; too_little: patches "
            "were kept, and it stays below; example_only: it looks as good parts do, and "
            "only the image was kept."
        ),
    ]
    message: Annotated[str, doc("All of it, and what else to do, in sentences.")]

    @classmethod
    def of(cls, one: Rejection) -> MarkedPlace:
        """What a learner tells."""
        before, after = one.place_before, one.place_after
        return cls(one.place, one.marked, one.entry.rows, before, after, one.effect, one.message)


@dataclass(frozen=True, kw_only=True)
class TaughtEntry(Entry):
    """One image that was called good or bad.

    ``score`` and ``threshold`` are those from before it was taught, ``rows`` the memory bank rows
    that it added: 0 where the marked place of a bad part looks as good parts do.
    """

    marked: Annotated[
        MarkedPlace | None, doc("The bad place of an image that was just called bad; else null.")
    ]

    threshold_after: Annotated[float, doc("The threshold from now on.")]
    score_after: Annotated[float | None, doc("Its score from now on; null once it is undone.")]
    decision_after: Annotated[Decision | None, doc("Its decision from now on.")]
    changes: Annotated[list[ExampleChange], doc("The examples whose decisions this has turned.")]


@dataclass(frozen=True)
class TaughtList:
    """All images that were ever learned, or called bad, oldest first, undone ones too."""

    entries: list[Entry]
    threshold: float


@dataclass(frozen=True)
class Example:
    """An image that is kept as an example, and what the model says of it now."""

    id: int
    name: str | None
    role: Annotated[
        Role, doc("normal: learned; rejected: called bad; good and bad: given for a threshold.")
    ]
    score: float
    ratio: float
    decision: Decision
    right: Annotated[bool, doc("A good one is decided to be good, and a bad one is not.")]

    @classmethod
    def of(cls, one: ExampleState) -> Example:
        """What a learner tells of an example."""
        entry, ratio = one.entry, one.score / one.threshold
        return cls(entry.id, entry.name, entry.role, one.score, ratio, one.decision, one.right)


@dataclass(frozen=True)
class ThresholdState:
    """The threshold of a model, where it comes from, and what it means for the examples."""

    value: float
    file_value: Annotated[float, doc("That of the model file.")]
    ratio: Annotated[float, doc("The value over that of the file.")]
    false_alarm_rate: Annotated[float, doc("The share of good parts that may be rejected.")]
    rate_promised: Annotated[bool, doc("Whether the scores can bear that rate.")]
    method: Annotated[str, doc("How it was found, in words.")]
    reliability: Annotated[str, doc("How far it can be relied on, in words.")]
    set_id: Annotated[int | None, doc("Of the setting in effect; null where nobody set it.")]
    set_by: str | None
    set_when: Annotated[str | None, doc("UTC, ISO 8601.")]
    zones: Annotated[
        int, doc("Zones set here that count, under which the threshold is computed again.")
    ]
    scores: Annotated[list[float], doc("Of the shots, each left out once.")]
    learned_scores: Annotated[list[float], doc("Of learned images, each without its own rows.")]
    examples: list[Example]


@dataclass(frozen=True, kw_only=True)
class ThresholdChange(ThresholdState):
    """The threshold after a change of it."""

    changes: Annotated[list[ExampleChange], doc("The examples whose decisions this has turned.")]


def threshold_members(model: Model, learner: Learner) -> dict[str, Any]:
    """The members of a :class:`ThresholdState` for a model with what was taught.

    Raises:
        ModelFileError: the image of an example is missing or changed.
    """
    found, file, setting = learner.threshold, model.metadata.threshold, learner.setting
    return {
        "value": found.value,
        "file_value": file.value,
        "ratio": found.value / file.value,
        "false_alarm_rate": found.false_alarm_rate,
        "rate_promised": found.rate_promised,
        "method": found.method,
        "reliability": found.reliability,
        "set_id": None if setting is None else setting.id,
        "set_by": None if setting is None else setting.who,
        "set_when": None if setting is None else setting.when,
        "zones": len(learner.in_effect.here),
        "scores": learner.in_effect.threshold.scores,
        "learned_scores": learner.learned_scores(),
        "examples": [Example.of(one) for one in learner.examples()],
    }
