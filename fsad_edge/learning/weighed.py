"""Examples of good and bad parts, weighed for a threshold; nothing is kept by that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fsad_edge.calibration.examples import Errors, Example, errors_at
from fsad_edge.calibration.from_examples import ExampleThreshold, threshold_from_examples
from fsad_edge.learning.examples import NO_NAME, ExampleState
from fsad_edge.learning.journal import Role
from fsad_edge.runtime.metadata import Threshold


@dataclass(frozen=True)
class Candidate:
    """An image that is given as an example and not kept yet.

    Attributes:
        role: ``GOOD`` or ``BAD``.
        name: its name, for people.
        image: encoded.
        sha256: SHA-256 of that.
        score: its score.
    """

    role: Role
    name: str
    image: bytes
    sha256: str
    score: float


@dataclass(frozen=True)
class WeighedExamples:
    """The best threshold for examples, and what it means.

    Attributes:
        result: the threshold and the errors of the examples.
        present: what the threshold in effect makes of the same examples.
        threshold: the threshold in effect.
        new: the examples that are not kept yet.
    """

    result: ExampleThreshold
    present: Errors
    threshold: float
    new: tuple[Candidate, ...]

    @property
    def sentence(self) -> str:
        """What is known of both errors, as one text."""
        return "; ".join(self.result.sentences)


def weigh(
    learned: Threshold,
    threshold: float,
    left_out: bool,
    kept: Sequence[ExampleState],
    new: Sequence[Candidate],
) -> WeighedExamples:
    """Find the best threshold for examples.

    Args:
        learned: the threshold without what a person set, and the scores behind it.
        threshold: the threshold in effect.
        left_out: whether those scores are of left-out images, and not of views of one shot.
        kept: examples of before. Those that either bank has learned are left out: the scores of
            normal ones are behind ``learned`` already, and rejected ones score high by their own
            rows.
        new: examples of now.

    Raises:
        InputError: there is no example.
    """
    good, bad = list[Example](), list[Example]()
    for state in kept:
        if state.entry.role in {Role.GOOD, Role.BAD}:
            side = good if state.entry.role.is_good else bad
            side.append(Example(state.entry.name or f"{state.entry.id} {NO_NAME}", state.score))
    for one in new:
        (good if one.role.is_good else bad).append(Example(one.name, one.score))
    result = threshold_from_examples(learned, left_out, good, bad)
    return WeighedExamples(result, errors_at(threshold, good, bad), threshold, tuple(new))
