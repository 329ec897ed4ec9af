"""What people taught a device, as the records of a journal: images, thresholds, zones, and what of
these was undone. :mod:`.journal_file` keeps them on disk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fsad_edge.errors import InputError
from fsad_edge.options import Choice
from fsad_edge.runtime.documents import (
    Above,
    DocumentError,
    FileName,
    Range,
    Sha256,
    from_document,
    to_document,
)
from fsad_edge.runtime.zones import ZoneEntry


class Role(Choice):
    """What an image was kept as."""

    NORMAL = "normal"  # called good; the memory bank knows its patches
    REJECTED = "rejected"  # called bad; the second bank knows its marked patches
    GOOD = "good"  # an example of a good part, by which a threshold was set
    BAD = "bad"  # an example of a bad part, by which a threshold was set

    @property
    def is_good(self) -> bool:
        """Whether it shows a good part."""
        return self in {Role.NORMAL, Role.GOOD}

    @property
    def is_example(self) -> bool:
        """Whether it was given for a threshold and teaches nothing."""
        return self in {Role.GOOD, Role.BAD}

    @property
    def words(self) -> str:
        """What a person did who kept an image so, such as ``called bad``."""
        words = {Role.NORMAL: "called good and taught", Role.REJECTED: "called bad"}
        return words.get(self, f"gave as an example of a {self} part")


@dataclass(frozen=True)
class Entry:
    """One image that a person called good or bad.

    Attributes:
        id: counts up from 1; no id is used twice, and settings have some of them.
        when: UTC time, ISO 8601.
        who: the person who said so.
        sha256: SHA-256 of the encoded image.
        file: its name below ``images/``.
        score: its score before it was learned.
        threshold: the threshold before it was learned.
        rows: rows that it added to the bank of its role.
        forced: it scored like a defect and was learned all the same. Its score does not count for
            the threshold, unless what made it a defect is undone.
        undone: UTC time at which it was undone; None where it is active.
        undone_by: the person who undid it.
        name: the image's name, as the person gave it; None where it had none.
        role: what it was kept as.
        box: left, top, right and bottom of the place that the person marked, in pixels of the
            photograph; None where none was marked.
    """

    id: Annotated[int, Range(1)]
    when: str
    who: str
    sha256: Sha256
    file: FileName
    score: float
    threshold: Annotated[float, Above(0)]
    rows: Annotated[int, Range(0)]
    forced: bool
    undone: str | None = None
    undone_by: str | None = None
    name: str | None = None
    role: Role = Role.NORMAL
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Setting:
    """One threshold that a person set.

    Attributes:
        id: as of an :class:`Entry`.
        when: UTC time, ISO 8601.
        who: the person who set it.
        value: the threshold at that time, which stays where ``false_alarm_rate`` is None.
        false_alarm_rate: the rate that the person asked for: the rule is applied to it again
            whenever something is learned. None where the value itself was set.
        method: how the value was found, in words.
        reliability: how far it can be relied on, in words.
        undone: UTC time at which it was undone; None where it was not.
        undone_by: the person who undid it.
    """

    id: int
    when: str
    who: str
    value: Annotated[float, Above(0)]
    false_alarm_rate: Annotated[float, Range(1e-9, 0.5)] | None
    method: str
    reliability: str
    undone: str | None = None
    undone_by: str | None = None


@dataclass(frozen=True)
class Undo:
    """That a change was undone: which one, when (UTC, ISO 8601) and by whom."""

    id: int
    when: str
    who: str


@dataclass(frozen=True)
class Record:
    """One line of the journal: where it belongs and, but for the first line, one of the changes.

    Lines of earlier versions hold ``model`` in the first line alone, and neither ``store`` nor
    ``number`` nor ``after``.

    Attributes:
        model: SHA-256 of the model file that the journal belongs to.
        store: the folder that the line was written for, by a random name.
        number: counts the lines of a journal, from 1.
        after: SHA-256 of the document of the line before; None in the first line.
        added: an image was kept.
        set: the threshold was set.
        zoned: a zone was set.
        undone: one of these was undone.
    """

    model: Sha256 | None = None
    store: Sha256 | None = None
    number: Annotated[int, Range(1)] | None = None
    after: Sha256 | None = None
    added: Entry | None = None
    set: Setting | None = None
    zoned: ZoneEntry | None = None
    undone: Undo | None = None


@dataclass(frozen=True)
class Changes:
    """All that was ever changed, by id, oldest first, with what was undone.

    Attributes:
        entries: the images.
        settings: the thresholds.
        zones: the zones.
    """

    entries: dict[int, Entry] = field(default_factory=dict)
    settings: dict[int, Setting] = field(default_factory=dict)
    zones: dict[int, ZoneEntry] = field(default_factory=dict)

    @property
    def next_id(self) -> int:
        """The id of the next change."""
        return max([*self.entries, *self.settings, *self.zones], default=0) + 1


def changes_of(records: Iterable[Record]) -> Changes:
    """What the records of a journal say, in their order.

    Undoing what is not there changes nothing: the line that added it is lost.
    """
    found = Changes()
    for record in records:
        if record.added is not None:
            found.entries[record.added.id] = record.added
        if record.set is not None:
            found.settings[record.set.id] = record.set
        if record.zoned is not None:
            found.zones[record.zoned.id] = record.zoned
        if record.undone is not None:
            undo = record.undone
            done: dict[str, Any] = {"undone": undo.when, "undone_by": undo.who}
            if (entry := found.entries.get(undo.id)) is not None:
                found.entries[undo.id] = dataclasses.replace(entry, **done)
            if (setting := found.settings.get(undo.id)) is not None:
                found.settings[undo.id] = dataclasses.replace(setting, **done)
            if (zone := found.zones.get(undo.id)) is not None:
                found.zones[undo.id] = dataclasses.replace(zone, **done)
    return found


def check(record: Record) -> None:
    """Refuse a record that could not be read back.

    Raises:
        InputError: a value is of another type than its field, or not finite.
    """
    try:
        from_document(Record, to_document(record))
    except DocumentError as error:
        raise InputError(f"this cannot be kept in a journal: {error}.") from None
