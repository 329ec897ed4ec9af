"""What calling an image bad did, for the answer to the person who did it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsad_edge.learning.journal import Entry
from fsad_edge.options import Choice, Decision
from fsad_edge.runtime.arrays import BoolArray
from fsad_edge.runtime.model import Result

#: What finds the next part of a kind that a marked place does not teach.
ADVICE = (
    "To find parts with this fault: undo this and draw a box close around the fault, lower the "
    "threshold, or make a model for larger images where the fault is small."
)


class Place(Choice):
    """How the bad place of an image was found."""

    BOX = "box"
    HEAT_MAP = "heat_map"


class Effect(Choice):
    """What the marked place has taught."""

    REJECTED = "rejected"
    TOO_LITTLE = "too_little"
    EXAMPLE_ONLY = "example_only"


@dataclass(frozen=True)
class Rejection:
    """What calling an image bad did.

    Attributes:
        entry: the entry of the journal.
        place_before: the highest value of the heat map in the marked place over the threshold,
            before it was taught.
        place_after: the same from now on.
        before: the decision on the image before it was taught.
        after: the decision from now on.
        ratio: the image's score over the threshold from now on.
        marked: left, top, right and bottom of the marked place in pixels of the photograph, on the
            grid of the heat map.
    """

    entry: Entry
    place_before: float
    place_after: float
    before: Decision
    after: Decision
    ratio: float
    marked: tuple[int, int, int, int]

    @classmethod
    def of(
        cls, entry: Entry, inside: BoolArray, size: tuple[int, int], before: Result, after: Result
    ) -> Rejection:
        """Compare the results of an image before and after it was called bad.

        Args:
            entry: the entry of the journal.
            inside: bool ``[h, w]``, the cells of the map in the marked place.
            size: width and height of the photograph in pixels.
            before: the result before.
            after: the result after.
        """
        then, now = (
            float(one.anomaly_map[inside].max() / one.map_threshold) for one in (before, after)
        )
        marked = _pixels(inside, size)
        return cls(entry, then, now, before.decision, after.decision, after.ratio, marked)

    @property
    def place(self) -> Place:
        """How the bad place was found."""
        return Place.HEAT_MAP if self.entry.box is None else Place.BOX

    @property
    def effect(self) -> Effect:
        """Whether the marked place is above the threshold now, or too much as on good parts."""
        if not self.entry.rows:
            return Effect.EXAMPLE_ONLY
        return Effect.REJECTED if self.place_after > 1 else Effect.TOO_LITTLE

    @property
    def message(self) -> str:
        """All of it in whole sentences."""
        advice = "" if self.effect is Effect.REJECTED else ADVICE
        told = (self._place_words(), self._patch_words(), self._decision_words(), advice)
        return " ".join(filter(None, told))

    def _place_words(self) -> str:
        if self.place is Place.BOX:
            return "The place inside the box was used."
        place = ",".join(map(str, self.marked))
        return (
            "No box was drawn, so the place where the heat map is highest was used: left, top, "
            f"right and bottom are {place} pixels. If the fault is elsewhere, undo this and draw a "
            "box."
        )

    def _patch_words(self) -> str:
        count = self.entry.rows
        if not count:
            return (
                "It looks as it does on good parts, so none of its patches were kept: the image is "
                "kept as an example, and nothing is rejected sooner."
            )
        kept = "1 patch of it was kept" if count == 1 else f"{count} patches of it were kept"
        if self.effect is Effect.REJECTED:
            return f"{kept}: what resembles them is rejected at a lower score."
        return (
            f"{kept}, but it stays below the threshold, as places on good parts do: it was at "
            f"{self.place_before:.2f} times the threshold, and is at {self.place_after:.2f} times "
            "it now."
        )

    def _decision_words(self) -> str:
        if self.after is Decision.NOT_JUDGED:
            return "The image is not judged."
        at = f"at {self.ratio:.2f} times the threshold"
        if self.after is Decision.GOOD:
            return f"The image still counts as good, {at}."
        now = "as before" if self.before is Decision.ANOMALY else "from now on"
        other = "" if self.effect is Effect.REJECTED else ", because of another place"
        return f"The image is rejected {now}, {at}{other}."


def _pixels(inside: BoolArray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box around cells of a map, in pixels of a photograph of this width and height."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    (height, width), (wide, high) = inside.shape, size
    return (
        int(columns[0]) * wide // width,
        int(rows[0]) * high // height,
        -(-(int(columns[-1]) + 1) * wide // width),
        -(-(int(rows[-1]) + 1) * high // height),
    )
