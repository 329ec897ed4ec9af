"""The journal of a learning store, append-only: a line is whole on disk or was never acknowledged.

Each line is the first 16 digits of the SHA-256 of what follows, a space, and one JSON object.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.runtime.documents import FileName, Sha256, read_document, write_document
from fsad_edge.runtime.files import read_bytes, sha256, writing

#: What to do about a damaged folder, for the end of an error's sentence.
CURE = "restore its folder from a copy, or move the folder away to start with nothing learned"

#: Digits of the SHA-256 at the start of a line.
_DIGITS = 16


@dataclass(frozen=True)
class Entry:
    """One learned image.

    Attributes:
        id: counts up from 1; no id is used twice.
        when: UTC time, ISO 8601.
        who: the person who called it good.
        sha256: SHA-256 of the encoded image.
        file: its name below ``images/``.
        score: its score before it was learned.
        threshold: the threshold before it was learned.
        rows: memory bank rows that it added.
        forced: it scored like a defect and was learned all the same. Its score does not count for
            the threshold, unless what made it a defect is undone.
        undone: UTC time at which it was undone; None where it is active.
        undone_by: the person who undid it.
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


@dataclass(frozen=True)
class Undo:
    """That an entry was undone: which one, when (UTC, ISO 8601) and by whom."""

    id: int
    when: str
    who: str


@dataclass(frozen=True)
class Record:
    """One line of the journal, which has one of these.

    Attributes:
        model: SHA-256 of the model file that the journal belongs to; only in the first line.
        added: an image was learned.
        undone: an image was undone.
    """

    model: Sha256 | None = None
    added: Entry | None = None
    undone: Undo | None = None


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
            digits, _, document = line.rstrip(b"\n").partition(b" ")
            source = f"line {number} of {self.path}"
            if not line.endswith(b"\n") or digits != _digits(document):
                if number < len(lines):
                    raise ModelFileError(f"{source} is damaged: {CURE}.")
                return records, True
            records.append(read_document(Record, document, source, CURE))
            self.length += len(line)
        return records, False

    def append(self, record: Record) -> None:
        """Add a line; it is on disk when this returns.

        Raises:
            InputError: it cannot be written; the journal is as it was.
        """
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


class FolderLock:
    """Lets one process at a time change a folder; the lock ends with the process, however it ends.

    Args:
        path: the file to lock; it is made where it is missing.

    Raises:
        InputError: another process, or another part of this one, holds the lock.
    """

    def __init__(self, path: Path) -> None:
        with writing(path):
            self._file = path.open("a+b")
        try:
            _lock(self._file)
        except OSError:
            self._file.close()
            raise InputError(
                f"{path.parent} is in use by another process, perhaps  fsad-edge serve : stop "
                "that first, or let it learn."
            ) from None

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
