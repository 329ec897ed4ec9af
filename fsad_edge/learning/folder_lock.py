"""The lock of a learning store: one process, or one part of it, at a time changes a folder."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from io import FileIO
from pathlib import Path

from fsad_edge.errors import InputError
from fsad_edge.runtime.files import open_in_place, open_regular, writing
from fsad_edge.runtime.provenance import utc_now

#: The file that is locked, and the one that is locked while waiting for it.
LOCK, TURN = "lock", "turn"

#: Seconds between two attempts at a lock, at least and at most. Chance keeps those who wait from
#: trying at the same moments.
_POLL = (0.002, 0.015)

#: The most bytes that are read of who holds a lock, and with what they begin.
_MOST_WORDS, _FIRST_WORD = 300, b"process "


class FolderLock:
    """Lets one at a time change a folder; the lock ends with the process, however it ends.

    Whoever waits takes the turn first. So the one that has just released the lock cannot take it
    again before the one whose turn it is.

    Args:
        folder: the folder.
        seconds: how long to wait for another process, or another part of this one, to release it.

    Raises:
        InputError: it was not released in that time; the sentence names who holds it. Or a file of
            the lock is a link, a device or a pipe.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder, self._seconds = folder, seconds
        self._end = time.monotonic() + seconds
        turn = self._take(TURN)
        try:
            self._file = self._take(LOCK)
        finally:
            turn.close()
        self._say(_this_process())

    def check(self) -> None:
        """Refuse to go on where the folder was moved away or made anew since it was locked.

        Raises:
            InputError: it was.
        """
        if not _is_at(self._file, self._folder / LOCK):
            raise InputError(
                f"the folder {self._folder} was moved, restored or made anew while it was being "
                "changed: nothing was confirmed; try again."
            )

    def release(self) -> None:
        """Let others take the lock."""
        self._say(b"")
        self._file.close()

    def _say(self, words: bytes) -> None:
        """Write who holds the lock, unless the file holds something else than such words."""
        with contextlib.suppress(OSError):
            self._file.seek(0)
            if self._file.read(len(_FIRST_WORD)) in {b"", _FIRST_WORD}:
                self._file.truncate(0)
                self._file.seek(0)
                self._file.write(words)

    def _take(self, name: str) -> FileIO:
        """The locked file of a name."""
        path = self._folder / name
        while True:
            with writing(path):
                file = open_in_place(path)
            try:
                while not _locked(file):
                    self._wait()
                if _is_at(file, path):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()  # it was replaced in the meantime, and locks nothing
            self._wait()

    def _wait(self) -> None:
        if time.monotonic() > self._end:
            raise InputError(
                f"{_holder(self._folder / LOCK)} is changing {self._folder} and has not finished "
                f"within {self._seconds:g} s: try again, or stop that process."
            )
        time.sleep(random.uniform(*_POLL))


def _is_at(file: FileIO, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except OSError:
        return False


def _this_process() -> bytes:
    words = [Path(sys.argv[0]).name, *sys.argv[1:2]] if sys.argv else []
    name = f" ({' '.join(words)})" if words else ""
    said = f"{os.getpid()}{name}, since {utc_now()}"
    return _FIRST_WORD + said.encode("utf-8", "replace")


def _holder(path: Path) -> str:
    """Who holds a lock, as far as that can be read."""
    with contextlib.suppress(OSError):
        with open_regular(path) as file:
            words = file.read(_MOST_WORDS).decode("utf-8", "replace")
        if words := "".join(one for one in words if one.isprintable()):
            return f"another writer, {words},"
    return "another process"


def _locked(file: FileIO) -> bool:
    """Lock a file, unless it is locked already."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
