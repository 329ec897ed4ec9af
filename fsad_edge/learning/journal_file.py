"""The file of a journal: append-only; each line is checked by itself and bound to the one before.

A line is the first 16 digits of the SHA-256 of what follows, a space, and one JSON object. This
names the folder and the model file that it was written for, the number of the line, and the SHA-256
of the object before. So a damaged line costs itself alone, and what is missing, exchanged or from
another folder is found. Nothing that stands in the file is ever changed or removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.learning.journal import Record, check
from fsad_edge.learning.journal_lines import Line, encode, read_lines
from fsad_edge.runtime.directories import sync_folder
from fsad_edge.runtime.files import (
    MAY_READ,
    check_in_place,
    open_in_place,
    open_regular,
    read_bytes,
    write_bytes,
    writing,
)

#: What to do about a folder of which nothing can be read, for the end of an error's sentence.
CURE = "restore it from a copy, or rename the folder to begin anew without what it holds"

#: The file that an older journal is kept in, beside the one that took its place.
BEFORE = "journal-before"

#: Device, inode, size and times of the last changes: it differs whenever a file was changed.
FileStamp = tuple[int, int, int, int, int]

#: Bytes at the end of a journal by which it is known again before it is written to.
_END = 200

#: Why a journal is not written to.
_REPLACED = "it was replaced or changed by something else meanwhile; try again"

#: The most bytes of a journal's beginning that are looked at to tell whom it belongs to.
_BEGINNING = 4096


@dataclass(frozen=True)
class JournalContent:
    """What a journal holds.

    Attributes:
        stamp: of the file, as it was read; None where there is none.
        records: the lines that can be read, in the order in which they were written.
        faults: sentences without a full stop, one for each damage by which something is lost.
        remarks: the same for damage by which nothing is lost.
        model: SHA-256 of the model file that the journal belongs to; None where it holds nothing.
        store: the random name of the folder; None in journals of earlier versions.
        number: of the last line.
        digest: SHA-256 of the document of the last line.
        unfinished: the file ends with a line that was never finished.
        end: the last bytes of the file.
    """

    stamp: FileStamp | None = None
    records: tuple[Record, ...] = ()
    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    model: str | None = None
    store: str | None = None
    number: int = 0
    digest: str | None = None
    unfinished: bool = False
    end: bytes = b""

    @property
    def earlier(self) -> bool:
        """Whether an earlier version wrote it, whose lines are not bound to one another."""
        return self.model is not None and self.store is None


class Journal:
    """The records in one file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def stamp(self) -> FileStamp | None:
        """What changes whenever the file does; None where there is no file.

        Raises:
            InputError: a folder above it may not be searched.
        """
        try:
            return _stamp(self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(error) from error

    def check_writable(self) -> None:
        """Refuse a link, a device or a pipe, before anything is written beside it.

        Raises:
            InputError: it is one.
        """
        with writing(self.path):
            check_in_place(self.path)

    def owner(self) -> str | None:
        """SHA-256 of the model file that it belongs to; None where nothing was ever taught.

        Raises:
            ModelFileError: it cannot be told, or a newer version wrote it.
            InputError: it cannot be read.
        """
        if self.stamp() is None:
            return None
        data, _ = self._bytes(_BEGINNING)
        first, newline, _ = data.partition(b"\n")
        lines = read_lines(first + newline, self.path).lines
        return lines[0].record.model if lines else self.read().model

    def read(self) -> JournalContent:
        """All that can be read of it.

        Raises:
            ModelFileError: nothing can, or a newer version wrote it.
            InputError: the file cannot be read.
        """
        if self.stamp() is None:
            return JournalContent()
        data, stamp = self._bytes()
        found = read_lines(data, self.path)
        if not found.lines:
            if found.damaged:
                raise ModelFileError(f"no line of {self.path} can be read: {CURE}.")
            return JournalContent(stamp, unfinished=bool(data), end=data[-_END:])
        content = _put_together(found.lines, self.path)
        after = [number for number in found.damaged if number > found.lines[-1].place]
        missing = _missing(content.records)
        faults = [*content.faults]
        if missing or after:
            faults += [_damaged(self.path, number, why) for number, why in found.damaged.items()]
        # Where no number is missing, what is damaged between lines was never acknowledged.
        if len(missing) + len(after) > len(found.damaged):
            numbers = ", ".join(map(str, missing[:10]))
            faults.append(f"of {self.path} the lines that were numbered {numbers} are missing")
        if content.earlier:
            faults = [_damaged(self.path, *one) for one in found.damaged.items()]
        return dataclasses.replace(
            content,
            stamp=stamp,
            faults=tuple(faults),
            remarks=(*found.remarks, *content.remarks),
            number=content.number + len(after),
            unfinished=found.unfinished,
            end=data[-_END:],
        )

    def append(self, content: JournalContent, record: Record, model: str) -> JournalContent:
        """Add a line, and before the first one the line that says whom the journal belongs to.

        A journal of an earlier version is written anew with it, in the form of this one, all of it
        or nothing. The older file is kept beside it, and what cannot be read of it stays a gap.

        Args:
            content: what the journal holds.
            record: the change.
            model: SHA-256 of the model file.

        Returns:
            what it holds then; it is on disk.

        Raises:
            InputError: it cannot be written, or is another file by now than the one that was read.
        """
        check(record)
        record = dataclasses.replace(record, number=content.number + 1)
        records = [*content.records, record] if content.earlier else [record]
        if not content.number:
            records = [Record(number=1), dataclasses.replace(record, number=2)]
        store, digest = content.store or secrets.token_hex(32), content.digest
        digest, data, added = None if content.earlier else digest, b"", list[Record]()
        for one in records:
            one = dataclasses.replace(one, model=model, store=store, after=digest)
            line, digest = encode(one)
            data += line
            added.append(one)
        with writing(self.path):
            if content.earlier:
                self._refuse_other(content)
                self._keep()
                write_bytes(self.path, data)
                sync_folder(self.path.parent)
                return self.read()
            stamp = self._write(content, data)
        return dataclasses.replace(
            content,
            stamp=stamp,
            records=(*content.records, *added),
            model=model,
            store=store,
            number=added[-1].number or 0,
            digest=digest,
            unfinished=False,
            end=data[-_END:],
        )

    def _keep(self) -> None:
        """Give the older file another name, too. Raises OSError."""
        number = 1
        while True:
            suffix = self.path.suffix if number == 1 else f"-{number}{self.path.suffix}"
            kept = self.path.with_name(BEFORE + suffix)
            if not os.path.lexists(kept):
                break
            if read_bytes(kept) == read_bytes(self.path):
                return  # by a process that was ended then
            number += 1
        try:
            os.link(self.path, kept)
        except OSError:  # not every file system has links
            write_bytes(kept, read_bytes(self.path))
        sync_folder(self.path.parent)

    def _bytes(self, most: int = -1) -> tuple[bytes, FileStamp]:
        """The bytes of the file and its stamp, of one and the same file."""
        try:
            with open_regular(self.path) as file:
                stamp = _stamp(os.fstat(file.fileno()))
                return file.read(stamp[2] if most < 0 else most), stamp
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError | ValueError) -> InputError:
        """The error of a journal that cannot be read: what follows, and what to do."""
        why = getattr(error, "strerror", None) or str(error)
        return InputError(
            f"{self.path} cannot be read ({why}), so that nothing taught in {self.path.parent} "
            "counts, neither its images nor a threshold set there: "
            f"{MAY_READ if isinstance(error, PermissionError) else CURE}."
        )

    def _write(self, content: JournalContent, data: bytes) -> FileStamp:
        """Write at the end of the file that was read, and of no other one. Raises OSError."""
        flags = 0
        if content.stamp is None:
            flags = os.O_CREAT | os.O_EXCL
        elif content.end[-1:] not in {b"\n", b""}:
            data = b"\n" + data  # ends what was never finished, or has lost its line feed
        # Unbuffered: a failed write must not reach the file when it is closed.
        with open_in_place(self.path, flags) as file:
            size = os.fstat(file.fileno()).st_size
            if content.stamp is not None:
                _refuse_changed(file, content)
            file.seek(size)
            try:
                if file.write(data) != len(data):
                    raise OSError("the disk is full")
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)
                if content.stamp is None:  # an empty journal looks like one that lost all
                    with contextlib.suppress(OSError):
                        self.path.unlink()
                raise
            stamp = _stamp(os.fstat(file.fileno()))
            if _stamp(self.path.stat())[:2] != stamp[:2]:
                raise OSError(_REPLACED)
            return stamp

    def _refuse_other(self, content: JournalContent) -> None:
        """Refuse a file that is another one than was read. Raises OSError."""
        with open_regular(self.path) as file:
            _refuse_changed(file, content)


def _refuse_changed(file: FileIO | BinaryIO, content: JournalContent) -> None:
    """Refuse an open file that is not as it was read. Raises OSError."""
    found = _stamp(os.fstat(file.fileno()))
    file.seek(max(found[2] - len(content.end), 0))
    if content.stamp is None or found[:3] != content.stamp[:3] or file.read(_END) != content.end:
        raise OSError(_REPLACED)


def stamp_of(path: Path) -> FileStamp | None:
    """What changes whenever a file does; None where it cannot be reached."""
    try:
        return _stamp(path.stat())
    except OSError:
        return None


def _stamp(found: os.stat_result) -> FileStamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _put_together(lines: Sequence[Line], path: Path) -> JournalContent:
    """The lines in the order of their numbers, without those of other folders."""
    first = lines[0].record
    if first.number is None:
        if first.model is None:
            raise ModelFileError(
                f"line 1 of {path} is damaged, so that it is not known which model file it belongs "
                f"to: {CURE}."
            )
        kept = [line for line in lines if line.record.number is None]
        # The place in the file is the number that a line gets when it is taken over.
        records = [dataclasses.replace(one.record, number=one.place) for one in kept]
        last = max(one.place for one in kept)
        return JournalContent(
            None, tuple(records), (), (), first.model, None, last, kept[-1].digest
        )
    stores = [line.record.store for line in lines]
    store = max(stores, key=stores.count)
    faults, remarks, by_number = list[str](), list[str](), dict[int, Line]()
    for line in lines:
        number, known = line.record.number, None
        if line.record.store != store or number is None:
            faults.append(f"line {line.place} of {path} belongs to another folder")
            continue
        known = by_number.setdefault(number, line)
        if known.digest != line.digest:
            faults.append(f"line {line.place} of {path} has the number of line {known.place}")
    ordered = [by_number[number] for number in sorted(by_number)]
    if [one.place for one in ordered] != sorted(one.place for one in ordered):
        remarks.append(f"the lines of {path} were exchanged, and are read in their own order")
    for before, line in itertools.pairwise(ordered):
        follows = line.record.number == (before.record.number or 0) + 1
        if follows and line.record.after != before.digest:
            faults.append(f"line {line.place} of {path} was written after another line than it is")
    last_line = ordered[-1]
    return JournalContent(
        None,
        tuple(one.record for one in ordered),
        tuple(faults),
        tuple(remarks),
        last_line.record.model,
        store,
        last_line.record.number or 0,
        last_line.digest,
    )


def _missing(records: Sequence[Record]) -> list[int]:
    """The numbers of the lines that are not there."""
    known = {record.number for record in records}
    return [number for number in range(1, max((one or 0) for one in known)) if number not in known]


def _damaged(path: Path, place: int, why: str) -> str:
    return f"line {place} of {path} is damaged{f' ({why})' if why else ''}"
