"""Examples of good and bad parts, weighed for a threshold; nothing is kept by that."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fsad_edge.calibration.examples import Errors, Example, errors_at
from fsad_edge.calibration.from_examples import (
    FROM_EXAMPLES,
    ExampleThreshold,
    threshold_from_examples,
)
from fsad_edge.errors import InputError
from fsad_edge.learning.examples import MOST_NAMED, NO_NAME, ExampleState
from fsad_edge.learning.journal import Role, Setting
from fsad_edge.options import Decision
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
        decision: what the model says of it now.
    """

    role: Role
    name: str
    image: bytes
    sha256: str
    score: float
    decision: Decision


@dataclass(frozen=True)
class WeighedExamples:
    """The best threshold for examples, and what it means.

    Attributes:
        result: the threshold and the errors of the examples.
        present: what the threshold in effect makes of the same examples.
        threshold: the threshold in effect.
        new: the examples that are not kept yet.
        good: the good examples that count.
        bad: the bad examples that count.
        remarks: one sentence for each kind of example that does not count, and why.
    """

    result: ExampleThreshold
    present: Errors
    threshold: float
    new: tuple[Candidate, ...]
    good: tuple[Example, ...]
    bad: tuple[Example, ...]
    remarks: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What is known of both errors, as one text."""
        return "; ".join(self.result.sentences)


def counted_examples(
    kept: Sequence[ExampleState], in_file: Collection[str]
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The good and the bad examples that say something of other parts.

    The images that a bank was made from have the scores that they have because of that: the shots,
    what was learned, what was rejected. Of an image that is not judged the score does not matter.

    Args:
        kept: all examples.
        in_file: SHA-256 of the images that the banks of the file were made from.
    """
    sides: dict[bool, list[Example]] = {True: [], False: []}
    taught = {one.entry.sha256 for one in kept if one.entry.role in {Role.NORMAL, Role.REJECTED}}
    for one in kept:
        entry = one.entry
        in_bank = entry.sha256 in taught or entry.sha256 in in_file
        if not in_bank and one.decision is not Decision.NOT_JUDGED:
            name = entry.name or f"{entry.id} {NO_NAME}"
            sides[entry.role.is_good].append(Example(name, one.score))
    return tuple(sides[True]), tuple(sides[False])


def weigh(
    learned: Threshold,
    threshold: float,
    left_out: bool,
    kept: Sequence[ExampleState],
    new: Sequence[Candidate],
    in_file: Collection[str] = (),
    learned_already: Sequence[str] = (),
    known: int = 0,
) -> WeighedExamples:
    """Find the best threshold for examples.

    Args:
        learned: the threshold without what a person set, and the scores behind it.
        threshold: the threshold in effect.
        left_out: whether those scores are of left-out images, and not of views of one shot.
        kept: examples of before; :func:`counted_examples` says which of them count.
        new: examples of now.
        in_file: SHA-256 of the images that the banks of the file were made from.
        learned_already: names of images that were given as examples and that a bank has learned
            here.
        known: how many were given that are kept as examples already.

    Raises:
        InputError: there is no example that counts, or none of those that were given.
    """
    held = [*learned_already, *(one.name for one in new if one.sha256 in in_file)]
    judged = [one for one in new if one.decision is not Decision.NOT_JUDGED]
    remarks = _remarks(held, [one.name for one in new if one not in judged])
    good, bad = counted_examples(kept, in_file)
    added = [one for one in judged if one.sha256 not in in_file]
    for one in added:
        example = (Example(one.name, one.score),)
        good, bad = (good + example, bad) if one.role.is_good else (good, bad + example)
    if not (good or bad) or (remarks and not (added or known)):
        raise InputError(
            f"there is no example that counts{''.join(f'; {one}' for one in remarks)}: give at "
            "least one good or bad photograph of another part."
        )
    result = threshold_from_examples(learned, left_out, good, bad, present=threshold)
    present = errors_at(threshold, good, bad)
    return WeighedExamples(result, present, threshold, tuple(new), good, bad, remarks)


def weighed_again(
    setting: Setting,
    learned: Threshold,
    left_out: bool,
    kept: Sequence[ExampleState],
    in_file: Collection[str] = (),
) -> Setting:
    """A threshold that was set from examples, from the scores that they have now.

    Other weights of places change the scores of the examples, and the threshold with them. One that
    a person set to a number or a rate is returned as it is, and so is one of whose examples none is
    there any more.

    Args:
        setting: what a person set.
        learned: this and the following are as :func:`weigh` takes them.
        left_out: see there.
        kept: see there.
        in_file: see there.
    """
    good, bad = counted_examples(kept, in_file)
    if FROM_EXAMPLES not in setting.method or not (good or bad):
        return setting
    found = threshold_from_examples(learned, left_out, good, bad)
    threshold, reliability = found.threshold, "; ".join(found.sentences)
    return dataclasses.replace(
        setting, value=threshold.value, method=threshold.method, reliability=reliability
    )


def _remarks(held: Sequence[str], not_judged: Sequence[str]) -> tuple[str, ...]:
    """Sentences on the new examples that do not count.

    Args:
        held: names of those that a bank was made from.
        not_judged: names of those that are not judged.
    """
    said = []
    if held:
        said.append(
            f"{_these(held)} not count: the model holds such an image, which it decides rightly "
            "in any case"
        )
    if not_judged:
        said.append(f"{_these(not_judged)} not count: no threshold decides on what is not judged")
    return tuple(said)


def _these(names: Sequence[str]) -> str:
    """The first of some names as a subject with its verb."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more} {'does' if len(names) == 1 else 'do'}"
