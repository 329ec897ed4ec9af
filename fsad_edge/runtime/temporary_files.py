"""Files under a temporary name, and those that a killed process left.

Whoever writes one holds a lock on it, which ends with the process however that ends. So a file of
this name that is not locked was left by a process that is gone: the next one that writes into the
folder removes it. Nothing else is ever removed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_START, _END = ".fsad-edge.", ".tmp"
_NAME = re.compile(rf"{re.escape(_START)}[0-9a-f]{{16}}{re.escape(_END)}")

#: Folders in which this process has looked for what others left.
_cleared = set[str]()


def _import_fcntl() -> Any:
    with contextlib.suppress(ImportError):  # Windows has none
        return importlib.import_module("fcntl")


_fcntl = _import_fcntl()


@contextlib.contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in a folder, open for writing, and its path; it is removed if it is still there.

    Raises:
        OSError: it cannot be made.
    """
    if os.fspath(folder) not in _cleared:
        _cleared.add(os.fspath(folder))
        clear_left(folder)
    handle, path = _locked(folder)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file, path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _locked(folder: Path) -> tuple[int, Path]:
    while True:
        # The name does not hold that of the file, which may be as long as a name can be.
        path = folder / f"{_START}{secrets.token_hex(8)}{_END}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        handle = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
        if _fcntl is None:
            return handle, path
        with contextlib.suppress(OSError):  # some network file systems have no locks
            _fcntl.flock(handle, _fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, path
        os.close(handle)  # another process took it for one that was left, in this very moment


def clear_left(folder: Path) -> None:
    """Remove the temporary files that processes left in a folder which no longer run."""
    if _fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        left = [one.path for one in entries if _NAME.fullmatch(one.name)]
        for path in left:
            with contextlib.suppress(OSError):
                _remove_unlocked(path)


def _remove_unlocked(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
            _fcntl.flock(handle, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
            os.unlink(path)
    finally:
        os.close(handle)
