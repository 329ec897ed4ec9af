"""Results on disk, as lines of JSON."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from fsad_edge.errors import InputError
from fsad_edge.runtime.files import sha256
from fsad_edge.serve.schemas import ResultRecord, WatchedError, to_json

log = logging.getLogger("fsad_edge.serve")

#: Bytes of a results file before it is put aside, and how many of these are kept.
ROTATE_BYTES, ROTATED = 64 << 20, 20

#: Bytes within which the last line of a file is looked for; a line has less than 2 kB.
LAST_LINE = 64 << 10


#: The newest results files, which are read whole by one who wants some images only.
RECENT = 2

#: The name of the image in a line.
NAME = re.compile(rb'"name": ("(?:[^"\\]|\\.)*")')


class Mark(NamedTuple):
    """A line of a results file: where it begins and ends, and the SHA-256 of its bytes.

    It is found again after the file was put aside, copied or moved.
    """

    start: int
    end: int
    sha256: str


class ResultsFile:
    """``results.jsonl`` in a folder: one line for each result, put aside when it is large.

    Args:
        folder: is made if it does not exist.
        rotate_bytes: size above which the file is put aside.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, rotate_bytes: int = ROTATE_BYTES) -> None:
        self.path = folder / "results.jsonl"
        self._rotate_bytes = rotate_bytes
        self._lock = threading.Lock()
        self._mark: Mark | None = None  # the last line
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written ({error.strerror or error}): choose another folder "
                "with --results."
            ) from error

    def write(self, record: ResultRecord | WatchedError) -> None:
        """Append a line; the system has it when this returns.

        Raises:
            OSError: it cannot be written, and the file is as it was before.
        """
        line = to_json(record).encode() + b"\n"
        with self._lock:
            if not self._is_current():
                self._file.close()
                self._file = self._open()
            start = self._end()
            if start and start + len(line) > self._rotate_bytes:
                self._rotate()
                start = 0
            self._append(start, line)
            self._mark = Mark(start, start + len(line), sha256(line))

    def sync(self) -> Mark | None:
        """Write the lines through to the disk. Returns the last one; None if there is none."""
        with self._lock:
            if not self._file.closed:
                os.fsync(self._file.fileno())
            return self._mark

    def reopen(self) -> None:
        """Open the file again, which another process may have written, moved or deleted.

        Raises:
            OSError: it cannot be opened.
        """
        with self._lock:
            self._file.close()
            self.path.parent.mkdir(exist_ok=True)
            self._file = self._open()

    def close(self) -> None:
        """Close the file; a later result opens it again."""
        with self._lock:
            self._file.close()

    @property
    def paths(self) -> list[Path]:
        """The file and those that were put aside or will be, newest first."""
        return _places(self.path)

    def _append(self, start: int, line: bytes) -> None:
        written = 0
        try:
            written = self._file.write(line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            # A part of a line would stand before the next one, and spoil it.
            if written:
                self._file.truncate(start)
            raise

    def _end(self) -> int:
        return self._file.seek(0, os.SEEK_END)

    def _is_current(self) -> bool:
        """Whether the open file is the one at its path: it may be moved, or its disk unmounted."""
        if self._file.closed:
            return False
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _open(self) -> IO[bytes]:
        file = self.path.open("ab+", buffering=0)
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - LAST_LINE))
        tail = file.read(LAST_LINE)
        if tail and not tail.endswith(b"\n"):  # a line that was cut short when the power failed
            file.write(b"\n")
            tail += b"\n"
            end += 1
        last = tail[tail.rfind(b"\n", 0, -1) + 1 :]
        self._mark = Mark(end - len(last), end, sha256(last)) if last else None
        return file

    def _rotate(self) -> None:
        self._file.close()
        places = self.paths
        if places[-1].exists():
            log.warning("%s, the oldest of %d, is deleted to make room.", places[-1], ROTATED)
        for newer, older in reversed(list(itertools.pairwise(places))):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        self._file = self._open()


def read_results(
    folder: Path, after: Mark | None = None, is_wanted: Callable[[str], bool] | None = None
) -> Iterator[dict[str, Any]]:
    """The results in a folder's results files, oldest first, without damaged lines.

    Args:
        folder: holds ``results.jsonl`` and those put aside.
        after: the line after which to begin; all are read where it is None or no longer there.
        is_wanted: where all are read, it tells by an image's name whether its results are wanted;
            others are left out, but for those in the newest ``RECENT`` files. This is far quicker.
    """
    newest_first = _places(folder / "results.jsonl")
    start = 0
    if after is not None:
        for number, file in enumerate(newest_first):
            if _holds(file, after):
                newest_first, start, is_wanted = newest_first[: number + 1], after.end, None
                break
    for number, one in reversed(list(enumerate(newest_first))):
        with contextlib.suppress(FileNotFoundError), one.open("rb") as lines:
            lines.seek(start)
            for line in lines:
                if number >= RECENT and is_wanted and not _is_of(line, is_wanted):
                    continue
                with contextlib.suppress(ValueError):
                    record = json.loads(line)
                    if isinstance(record, dict):
                        yield record
        start = 0


def _is_of(line: bytes, is_wanted: Callable[[str], bool]) -> bool:
    """Whether a line is of an image that is wanted, without parsing all of it."""
    name = NAME.search(line)
    with contextlib.suppress(ValueError):
        return name is not None and is_wanted(json.loads(name[1]))
    return False


def _holds(path: Path, mark: Mark) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(mark.start)
            return sha256(file.read(mark.end - mark.start)) == mark.sha256
    except OSError:
        return False


def _places(path: Path) -> list[Path]:
    aside = (path.with_name(f"results.{number}.jsonl") for number in range(1, ROTATED + 1))
    return [path, *aside]
