"""Write results to disk, as lines of JSON."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import threading
import zlib
from collections import Counter
from io import FileIO
from pathlib import Path

from fsad_edge.errors import InputError
from fsad_edge.runtime.files import open_in_place, sha256
from fsad_edge.serve.result_counts import ResultCounts, count_results, counts_path
from fsad_edge.serve.result_lines import (
    LONGEST,
    ROTATED,
    Mark,
    extend_checksum,
    find_line,
    results_paths,
)
from fsad_edge.serve.schemas import ResultRecord, WatchedError, to_json

log = logging.getLogger("fsad_edge.serve")

#: Bytes of a results file before it is put aside.
ROTATE_BYTES = 64 << 20


class ResultsFile:
    """``results.jsonl`` in a folder: one line for each result, put aside when it is large.

    What is there stays as it is until the first line is written: the files may be those of a
    service that runs, beside which this one may not be able to start.

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
        self._written: Counter[str] = Counter()
        self._mark: Mark | None = None  # the last line
        self._size = self._checksum = 0  # bytes of the open file, and their CRC-32
        self._is_ours = False  # whether this process has written to the open file, or may
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._open(to_write=False)
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
            if not (self._is_ours and self._is_current()):
                self._reopen()
            start = self._end()
            self._follow(start)
            if start and start + len(line) > self._rotate_bytes:
                self._rotate()
                start = 0
            self._append(start, line)
            self._size = start + len(line)
            self._checksum = zlib.crc32(line, self._checksum)
            self._mark = Mark(start, self._size, sha256(line), self._checksum)
            self._written[str(record.decision)] += 1

    def sync(self) -> Mark | None:
        """Write the lines through to the disk. Returns the last one; None if there is none."""
        with self._lock:
            if not self._file.closed:
                os.fsync(self._file.fileno())
            return self._mark

    def reopen(self) -> None:
        """Open the file again, which another process may have written, moved or deleted.

        From now on it is this process's to write.

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
        """The file, those that were put aside or will be, and that of their counts."""
        folder = self.path.parent
        return [*results_paths(folder), counts_path(folder)]

    def count_others(self) -> ResultCounts:
        """The results that this process has not written: those of earlier and of other ones.

        No file is changed.

        Raises:
            OSError: the files cannot be read.
        """
        with self._lock:
            found = count_results(self.path.parent, keep=False)
            others = Counter(found.counts) - self._written
            return ResultCounts(found.since, dict(others))

    def _reopen(self) -> None:
        before, was_open = self._mark, self._is_ours and not self._file.closed
        self._file.close()
        self._file = self._open()
        if was_open and before is not None and find_line(self.path.parent, before) is None:
            log.warning(
                "%s was taken away or replaced while the service runs: the results that it held "
                "are not in it any more.", self.path,
            )  # fmt: skip

    def _follow(self, size: int) -> None:
        """Bring the checksum up to the size of the file, to which others may have written, too."""
        if size < self._size:
            log.warning(
                "%s was cut or emptied while the service runs: results that it held are lost.",
                self.path,
            )
            self._size = self._checksum = 0
        if size > self._size:
            self._checksum = extend_checksum(self._checksum, self._file, self._size, size)
            self._size = size

    def _append(self, start: int, line: bytes) -> None:
        written = 0
        try:
            written = self._file.write(line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            # A part of a line would stand before the next one, and spoil it.
            try:
                if written:
                    self._file.truncate(start)
            except OSError:
                self._file.close()  # whoever opens it ends the line
            raise

    def _end(self) -> int:
        return self._file.seek(0, os.SEEK_END)

    def _is_current(self) -> bool:
        """Whether the open file is the one at its path: it may be moved, or its disk unmounted."""
        if self._file.closed:
            return False
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def _open(self, to_write: bool = True) -> FileIO:
        """Open the file; to write, a last line that was cut short is ended first."""
        file = open_in_place(self.path, os.O_CREAT | os.O_APPEND)
        try:
            return self._prepare(file, to_write)
        except BaseException:
            file.close()
            raise

    def _prepare(self, file: FileIO, to_write: bool) -> FileIO:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - LONGEST))
        tail = file.read(LONGEST)
        if to_write and tail and not tail.endswith(b"\n"):  # cut short when the power failed
            file.write(b"\n")
            tail += b"\n"
            end += 1
        if to_write and not self._is_ours:
            with contextlib.suppress(OSError):
                count_results(self.path.parent)  # what is there stays counted when it is deleted
        self._is_ours = self._is_ours or to_write
        self._size = self._checksum = 0
        if to_write:
            self._size, self._checksum = end, extend_checksum(0, file, 0, end)
        last = tail[tail.rfind(b"\n", 0, -1) + 1 :]
        checksum = self._checksum if to_write else None
        self._mark = Mark(end - len(last), end, sha256(last), checksum) if last else None
        return file

    def _rotate(self) -> None:
        self._file.close()
        count_results(self.path.parent)  # so that a start has little to count
        places = results_paths(self.path.parent)
        if places[-1].exists():
            log.warning("%s, the oldest of %d, is deleted to make room.", places[-1], ROTATED)
        for newer, older in reversed(list(itertools.pairwise(places))):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        self._file = self._open()
