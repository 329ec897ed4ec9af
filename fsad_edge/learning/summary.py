"""What was taught next to a model file, counted and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fsad_edge.learning.journal import Entry, Role, Setting


@dataclass(frozen=True)
class TaughtSummary:
    """How much of each kind was taught and counts.

    Attributes:
        learned: images that were learned as normal.
        rejected: images that were called bad.
        examples: images that are only examples.
        threshold: the threshold that a person set; None where nobody did, or it is undone.
        set_by: the person who set it.
    """

    learned: int = 0
    rejected: int = 0
    examples: int = 0
    threshold: float | None = None
    set_by: str | None = None

    @classmethod
    def of(cls, active: Iterable[Entry], setting: Setting | None) -> TaughtSummary:
        """The summary of the images that count and of the threshold in effect."""
        roles = Counter(entry.role for entry in active)
        return cls(
            roles[Role.NORMAL],
            roles[Role.REJECTED],
            roles[Role.GOOD] + roles[Role.BAD],
            None if setting is None else setting.value,
            None if setting is None else setting.who,
        )

    @property
    def counts(self) -> bool:
        """Whether any of it changes scores or decisions."""
        return bool(self.learned or self.rejected or self.threshold is not None)

    @property
    def words(self) -> str:
        """All of it, for a row of a table.

        Example:
            >>> TaughtSummary(2, 0, 3, 0.2134567, "anna").words
            '2 images learned, 3 kept as examples, threshold 0.2135 set by anna'
        """
        kinds = (
            (self.learned, "learned"),
            (self.rejected, "called bad"),
            (self.examples, "kept as examples" if self.examples > 1 else "kept as an example"),
        )
        parts = [f"{number} {how}" for number, how in kinds if number]
        if parts:
            number, how = parts[0].split(" ", 1)
            parts[0] = f"{number} {'image' if number == '1' else 'images'} {how}"
        if self.threshold is not None:
            parts.append(f"threshold {self.threshold:.4g} set by {self.set_by}")
        return ", ".join(parts) or "nothing"

    @property
    def sentence(self) -> str | None:
        """What scores and decisions rest on, for a line of a command; None for the file alone.

        Example:
            >>> TaughtSummary(2, 1, 0, 0.21, "anna").sentence
            'with 2 images learned, 1 image called bad and the threshold that anna set here'
        """
        parts = [
            f"{number} {'image' if number == 1 else 'images'} {how}"
            for number, how in ((self.learned, "learned"), (self.rejected, "called bad"))
            if number
        ]
        if self.threshold is not None:
            parts.append(f"the threshold that {self.set_by} set")
        if not parts:
            return None
        *first, last = parts
        return f"with {' and '.join(filter(None, [', '.join(first), last]))} here"
