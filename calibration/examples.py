"""Examples: parts that a person called good or bad, and what a threshold makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fsad_edge.runtime.clopper_pearson import CONFIDENCE, upper_bound


@dataclass(frozen=True)
class Example:
    """A part that a person called good or bad.

    Attributes:
        name: what a person knows it by, such as the file's name.
        score: its score with the model whose threshold is asked for.
    """

    name: str
    score: float


@dataclass(frozen=True)
class ErrorCount:
    """How many examples of one kind a threshold decides wrongly, and what that allows.

    Attributes:
        wrong: good examples that are rejected, or bad ones that are missed.
        count: all examples of the kind.
    """

    wrong: int
    count: int

    @property
    def bound(self) -> float:
        """The highest error rate that the count allows at 95 % (Clopper-Pearson), 0 to 1.

        It holds for parts like the examples, if these were not picked for their scores.
        """
        return upper_bound(self.wrong, self.count)

    def sentence(self, of_what: str) -> str:
        """The count and its bound in words.

        Args:
            of_what: such as ``bad parts missed``.

        Example:
            >>> ErrorCount(0, 12).sentence("bad parts missed")
            '0 of 12 bad parts missed: at most 22 % of all such parts, with 95 % confidence'
        """
        counted = f"{self.wrong} of {self.count} {of_what}"
        bound, confidence = f"{100 * self.bound:.0f} %", f"{100 * CONFIDENCE:.0f} %"
        return f"{counted}: at most {bound} of all such parts, with {confidence} confidence"


@dataclass(frozen=True)
class Errors:
    """What a threshold makes of the examples.

    Attributes:
        rejected: the good examples that it rejects.
        missed: the bad examples that it misses.
    """

    rejected: ErrorCount
    missed: ErrorCount

    @property
    def sentences(self) -> tuple[str, ...]:
        """One sentence for each kind of example that there is, the bad ones first."""
        said = []
        if self.missed.count:
            said.append(self.missed.sentence("bad parts missed"))
        if self.rejected.count:
            said.append(self.rejected.sentence("good parts rejected"))
        return tuple(said)


def errors_at(value: float, good: Sequence[Example], bad: Sequence[Example]) -> Errors:
    """What a threshold makes of the examples.

    Args:
        value: a part is rejected where its score is above this.
        good: parts that a person called good.
        bad: parts that a person called bad.

    Example:
        >>> good, bad = [Example("a.png", 0.1)], [Example("b.png", 0.2), Example("c.png", 0.3)]
        >>> for sentence in errors_at(0.25, good, bad).sentences:
        ...     print(sentence)
        1 of 2 bad parts missed: at most 97 % of all such parts, with 95 % confidence
        0 of 1 good parts rejected: at most 95 % of all such parts, with 95 % confidence
    """
    return Errors(
        rejected=ErrorCount(sum(one.score > value for one in good), len(good)),
        missed=ErrorCount(sum(one.score <= value for one in bad), len(bad)),
    )
