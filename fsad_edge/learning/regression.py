"""The examples of one model file, tried on another one that is to take its place."""

from __future__ import annotations

from dataclasses import dataclass

from fsad_edge.errors import ImageError
from fsad_edge.learning.embedding import score_images
from fsad_edge.learning.examples import SideChange, distinct
from fsad_edge.learning.taught_model import TaughtModel
from fsad_edge.options import Decision
from fsad_edge.runtime.model import Model


@dataclass(frozen=True)
class Regression:
    """What another model file makes of examples.

    Attributes:
        count: how many examples there are.
        changes: those that it decides otherwise.
    """

    count: int
    changes: tuple[SideChange, ...]

    @property
    def lost(self) -> tuple[SideChange, ...]:
        """The examples that it decides wrongly and that were decided rightly."""
        return tuple(change for change in self.changes if change.lost)


def try_examples(before: TaughtModel, model: Model) -> Regression:
    """Score the examples that one model was taught with another one.

    An image that the other one cannot read counts as one that it does not call good.

    Args:
        before: a model with what it was taught.
        model: the other one, which scores with what it was taught itself.

    Raises:
        ModelFileError: an image is missing or changed.
    """
    states = distinct(before.examples())
    changes = []
    for state in states:
        try:
            [result] = score_images(model, [before.image(state.entry)])
            decision = result.decision
        except ImageError:
            decision = Decision.ERROR
        if decision is not state.decision:
            changes.append(SideChange(state.entry, state.decision, decision))
    return Regression(len(states), tuple(changes))
