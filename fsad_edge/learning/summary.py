"""What was taught next to a model file, counted and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fsad_edge.learning.journal import Entry, Role, Setting


@dataclass(frozen=True)
class TaughtSummary:
    """How many images of each kind were taught and count; one that was taught twice is one image.

    All counts that people see are from here, so that they agree.

    Attributes:
        learned: images that were learned as good.
        rejected: images that were called bad.
        good_examples: images of good parts that are only examples.
        bad_examples: images of bad parts that are only examples.
        threshold: the threshold that a person set; None where nobody did, or it is undone.
        set_by: the person who set it.
        zones: how many zones were set and count.
    """

    learned: int = 0
    rejected: int = 0
    good_examples: int = 0
    bad_examples: int = 0
    threshold: float | None = None
    set_by: str | None = None
    zones: int = 0

    @classmethod
    def of(cls, active: Iterable[Entry], setting: Setting | None, zones: int = 0) -> TaughtSummary:
        """The summary of the images that count, of the threshold in effect, and of the zones."""
        images = {(entry.role, entry.sha256) for entry in active}
        roles = Counter(role for role, _ in images)
        return cls(
            roles[Role.NORMAL],
            roles[Role.REJECTED],
            roles[Role.GOOD],
            roles[Role.BAD],
            None if setting is None else setting.value,
            None if setting is None else setting.who,
            zones,
        )

    @property
    def counts(self) -> bool:
        """Whether any of it changes scores or decisions."""
        images = self.learned or self.rejected
        return bool(images or self.threshold is not None or self.zones)

    @property
    def words(self) -> str:
        """All of it, for a row of a table.

        Example:
            >>> TaughtSummary(2, 0, 3, 1, 0.2134567, "anna").words
            '2 images learned as good, 3 good examples, 1 bad example, threshold 0.2135 set by anna'
        """
        parts = [
            *self._images(),
            *(
                f"{number} {kind} {'example' if number == 1 else 'examples'}"
                for number, kind in ((self.good_examples, "good"), (self.bad_examples, "bad"))
                if number
            ),
        ]
        if self.threshold is not None:
            parts.append(f"threshold {self.threshold:.4g} set by {self.set_by}")
        return ", ".join([*parts, *self._zone_words()]) or "nothing"

    @property
    def sentence(self) -> str | None:
        """What scores and decisions rest on, for a line of a command; None for the file alone.

        Example:
            >>> TaughtSummary(2, 1, 0, 0, 0.21, "anna").sentence
            'with 2 images learned as good, 1 image called bad and the threshold that anna set here'
        """
        parts = [*self._images(), *(f"{words} set" for words in self._zone_words())]
        if self.threshold is not None:
            parts.append(f"the threshold that {self.set_by} set")
        if not parts:
            return None
        *first, last = parts
        return f"with {' and '.join(filter(None, [', '.join(first), last]))} here"

    def _zone_words(self) -> list[str]:
        return [f"{self.zones} {'zone' if self.zones == 1 else 'zones'}"] if self.zones else []

    def _images(self) -> list[str]:
        """The images that change scores."""
        return [
            f"{number} {'image' if number == 1 else 'images'} {how}"
            for number, how in ((self.learned, "learned as good"), (self.rejected, "called bad"))
            if number
        ]
