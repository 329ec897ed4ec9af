"""Examples: images that a person called good or bad, on which every change is tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fsad_edge.errors import ExamplesLostError
from fsad_edge.learning.journal import Entry
from fsad_edge.options import Decision
from fsad_edge.runtime.model import Result

#: What stands for the name of an image that was taught without one, as over HTTP.
NO_NAME = "without a name"

#: Examples that an error names.
MOST_NAMED = 5


@dataclass(frozen=True)
class ExampleState:
    """One example and what the model says of it now.

    Attributes:
        entry: the example.
        score: its score.
        threshold: the threshold in effect.
        decision: the decision.
    """

    entry: Entry
    score: float
    threshold: float
    decision: Decision

    @classmethod
    def of(cls, entry: Entry, result: Result, threshold: float) -> ExampleState:
        """The state of an example at a threshold, from its result at any."""
        result = replace(result, threshold=threshold)
        return cls(entry, result.score, threshold, result.decision)

    @property
    def right(self) -> bool:
        """A good part is good. A bad one is not: it may be rejected or not judged."""
        return self.entry.role.is_good == (self.decision is Decision.GOOD)


@dataclass(frozen=True)
class SideChange:
    """An example whose decision a change has turned.

    Attributes:
        entry: the example.
        before: its decision before the change.
        after: its decision after it.
    """

    entry: Entry
    before: Decision
    after: Decision

    @property
    def lost(self) -> bool:
        """Whether it is decided wrongly now and was not before."""
        good = self.entry.role.is_good
        return good == (self.before is Decision.GOOD) and good != (self.after is Decision.GOOD)

    def __str__(self) -> str:
        kind = "good" if self.entry.role.is_good else "bad"
        return f"{kind} example {title(self.entry)}: {self.before.words} -> {self.after.words}"


def title(entry: Entry) -> str:
    """What a person knows an image by."""
    return f"{entry.id} ({entry.name or NO_NAME}, by {entry.who})"


def distinct(states: Iterable[ExampleState]) -> list[ExampleState]:
    """The states without those of images that are kept a second time, as for another reason."""
    return list({one.entry.sha256: one for one in reversed([*states])}.values())[::-1]


def side_changes(before: Iterable[ExampleState], after: Mapping[int, Decision]) -> list[SideChange]:
    """The examples whose decisions differ, each image once.

    Args:
        before: what was said of them.
        after: what is said now, by id; one that is missing is no example any more.
    """
    return [
        SideChange(one.entry, one.decision, after[one.entry.id])
        for one in distinct(before)
        if after.get(one.entry.id, one.decision) is not one.decision
    ]


def name_changes(changes: Sequence[SideChange]) -> str:
    """The first of some changes in words."""
    more = f"; and {len(changes) - MOST_NAMED} more" if len(changes) > MOST_NAMED else ""
    return "; ".join(map(str, changes[:MOST_NAMED])) + more


def refuse_losses(changes: Sequence[SideChange]) -> None:
    """Refuse a change that would decide examples wrongly which are decided rightly.

    Raises:
        ExamplesLostError: there are such examples; the sentence names them.
    """
    lost = [change for change in changes if change.lost]
    if lost:
        raise ExamplesLostError(
            f"this would decide {len(lost)} of the examples wrongly that are decided rightly now "
            f"({name_changes(lost)}): force it to do it all the same.",
            tuple(change.entry.id for change in lost),
        )
