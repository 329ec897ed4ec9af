"""The journal of a learning store, append-only: a line is whole on disk or was never acknowledged.

Each line is the first 16 digits of the SHA-256 of what follows, a space, and one JSON object.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated

from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.options import Choice
from fsad_edge.runtime.documents import (
    Above,
    DocumentError,
    FileName,
    Range,
    Sha256,
    from_document,
    read_document,
    to_document,
    write_document,
)
from fsad_edge.runtime.files import read_bytes, sha256, writing

#: What to do about a damaged folder, for the end of an error's sentence.
CURE = "restore its folder from a copy, or move the folder away to start with nothing learned"

#: Digits of the SHA-256 at the start of a line.
_DIGITS = 16

#: The longest first line that is read: it holds one SHA-256.
_FIRST_LINE = 1000

#: Seconds between two attempts at a lock.
_LOCK_POLL = 0.02


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

    id: int
    when: str
    who: str
    sha256: Sha256
    file: FileName
    score: float
    threshold: float
    rows: int
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
    """One line of the journal, which has one of these.

    Attributes:
        model: SHA-256 of the model file that the journal belongs to; only in the first line.
        added: an image was kept.
        set: the threshold was set.
        undone: one of these was undone.
    """

    model: Sha256 | None = None
    added: Entry | None = None
    set: Setting | None = None
    undone: Undo | None = None


#: Inode, size and modification time, by which a changed journal is told before it is read.
FileStamp = tuple[int, int, int]


class Journal:
    """The records in one file.

    Args:
        path: the file.

    Attributes:
        length: bytes of its whole lines; 0 until it was read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.length = path, 0

    def read(self) -> tuple[list[Record], bool]:
        """The records, and whether a torn line follows them.

        Raises:
            ModelFileError: a line before the last is damaged, or written by a newer version.
            InputError: the file cannot be read.
        """
        records: list[Record] = []
        self.length = 0
        lines = read_bytes(self.path).splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            record = _decode(line, f"line {number} of {self.path}")
            if record is None:
                if number < len(lines):
                    raise ModelFileError(f"line {number} of {self.path} is damaged: {CURE}.")
                return records, True
            records.append(record)
            self.length += len(line)
        return records, False

    def stamp(self) -> FileStamp | None:
        """What changes whenever the file does; None where there is no file.

        Raises:
            InputError: a folder above it may not be searched.
        """
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror or error}.") from error
        return found.st_ino, found.st_size, found.st_mtime_ns

    def owner(self) -> str | None:
        """SHA-256 of the model file that it belongs to; None where nothing was ever learned.

        Raises:
            ModelFileError: its first line is damaged, or written by a newer version.
            InputError: it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                line = file.readline(_FIRST_LINE)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror or error}.") from error
        if len(line) < _FIRST_LINE and not line.endswith(b"\n"):
            return None  # whoever wrote it was killed before anything counted
        record = _decode(line, str(self.path))
        if record is None or record.model is None:
            raise ModelFileError(f"line 1 of {self.path} is damaged: {CURE}.")
        return record.model

    def append(self, record: Record) -> None:
        """Add a line; it is on disk when this returns.

        Raises:
            InputError: it cannot be written; the journal is as it was.
        """
        check(record)
        document = write_document(record).encode()
        line = _digits(document) + b" " + document + b"\n"
        # Unbuffered: a failed write must not reach the file when it is closed.
        mode = "r+b" if self.path.exists() else "x+b"
        with writing(self.path), self.path.open(mode, buffering=0) as file:
            try:
                file.truncate(self.length)  # drops the torn line of a killed process
                file.seek(self.length)
                if file.write(line) != len(line):
                    raise OSError("the disk is full")
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(self.length)
                raise
        self.length += len(line)


@dataclass(frozen=True)
class Changes:
    """All that was ever changed, by id, oldest first, with what was undone.

    Attributes:
        entries: the images.
        settings: the thresholds.
    """

    entries: dict[int, Entry] = field(default_factory=dict)
    settings: dict[int, Setting] = field(default_factory=dict)

    @property
    def next_id(self) -> int:
        """The id of the next change."""
        return max([*self.entries, *self.settings], default=0) + 1


def changes_of(records: Iterable[Record], path: Path) -> Changes:
    """What the records of a journal say.

    Args:
        records: those of a whole journal.
        path: the journal, for errors.

    Raises:
        ModelFileError: a change is undone that was never made.
    """
    found = Changes()
    for record in records:
        if record.added is not None:
            found.entries[record.added.id] = record.added
        if record.set is not None:
            found.settings[record.set.id] = record.set
        if record.undone is not None:
            undo = record.undone
            if undo.id in found.entries:
                found.entries[undo.id] = dataclasses.replace(
                    found.entries[undo.id], undone=undo.when, undone_by=undo.who
                )
            elif undo.id in found.settings:
                found.settings[undo.id] = dataclasses.replace(
                    found.settings[undo.id], undone=undo.when, undone_by=undo.who
                )
            else:
                raise ModelFileError(
                    f"{path} is damaged (it undoes {undo.id}, which it never added): {CURE}."
                )
    return found


class FolderLock:
    """Lets one process at a time change a folder; the lock ends with the process, however it ends.

    Args:
        path: the file to lock; it is made where it is missing.
        seconds: how long to wait for another process, or another part of this one, to release it.

    Raises:
        InputError: it was not released in that time.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        with writing(path):
            self._file = path.open("a+b")
        last = time.monotonic() + seconds
        while not self._locked():
            if time.monotonic() > last:
                self._file.close()
                raise InputError(
                    f"another process is changing {path.parent} and has not finished within "
                    f"{seconds:g} s: try again, or stop that process."
                )
            time.sleep(_LOCK_POLL)

    def _locked(self) -> bool:
        try:
            _lock(self._file)
        except OSError:
            return False
        return True

    def release(self) -> None:
        """Let others take the lock."""
        self._file.close()


def sync_folder(folder: Path) -> None:
    """Bring new names in a folder to disk; Windows does so by itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check(record: Record) -> None:
    """Refuse a record that could not be read back.

    Raises:
        InputError: a value is of another type than its field, or not finite.
    """
    try:
        from_document(Record, to_document(record))
    except DocumentError as error:
        raise InputError(f"this cannot be kept in a journal: {error}.") from None


def _decode(line: bytes, source: str) -> Record | None:
    """The record in a line; None where the line is torn or damaged.

    Raises:
        ModelFileError: the line is whole, and a newer version wrote it or it holds no record.
    """
    digits, _, document = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or digits != _digits(document):
        return None
    return read_document(Record, document, source, CURE)


def _digits(document: bytes) -> bytes:
    return sha256(document)[:_DIGITS].encode()


def _lock(file: IO[bytes]) -> None:
    """Lock a file; raises OSError where it is locked already."""
    if os.name == "nt":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
