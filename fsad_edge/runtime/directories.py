"""Directories that are written whole or not at all, and replaced in one step.

A directory is made under a hidden name beside its own, brought to disk, and then exchanged with the
one that it replaces. Linux does that in one step; elsewhere there are two, and whoever looks for
the directory next puts the old one back if a process was ended between them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fsad_edge.runtime.files import writing

#: What the hidden names of a directory that is made, and of one that is replaced, go on with.
_NEW, _OLD = "new-", "old-"

#: Of Linux: paths are relative to the current directory; the two names change places.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2

#: What the system says where it, or the file system, cannot exchange two names.
_CANNOT = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP})


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory that replaces ``path`` if the block ends without an exception.

    At each moment there is a whole directory under the name: the old one, then the new one. What a
    process left that was ended before is removed.

    Raises:
        InputError: it cannot be written; an older ``path`` is left as it was.
    """
    with writing(path):
        restore_directory(path)
        for abandoned in _beside(path, _NEW):
            _remove_abandoned(abandoned)
        temporary = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=_prefix(path, _NEW)))
        with _held(temporary):
            try:
                yield temporary
                umask = os.umask(0)
                os.umask(umask)
                temporary.chmod(0o777 & ~umask)
                _sync(temporary)
                if os.path.lexists(path):
                    _replace(path, temporary)
                else:
                    temporary.rename(path)
                sync_folder(path.absolute().parent)
            finally:
                _remove(temporary)


def restore_directory(path: Path) -> None:
    """Put a directory back that was taken away to be replaced, if its successor never came.

    Where there is nothing to put back, or where that is not permitted, this does nothing.
    """
    with contextlib.suppress(OSError, ValueError):
        for old in _beside(path, _OLD):
            if os.path.lexists(path):
                _remove(old)  # its successor is there
            else:
                old.rename(path)


def sync_folder(folder: Path) -> None:
    """Bring new names in a folder to disk; Windows does so by itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(path: Path, new: Path) -> None:
    """Let ``path`` be what ``new`` is; what it was is ``new`` then, or gone."""
    if _exchange(path, new):
        return
    old = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=_prefix(path, _OLD)))
    old.rmdir()  # only its name is needed
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    _remove(old)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False where the system cannot do that.

    Raises:
        OSError: it can, and failed.
    """
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:  # a C library from before 2018
        return False
    names = (os.fsencode(os.path.abspath(path)) for path in (one, other))
    first, second = names
    if not rename(_AT_FDCWD, first, _AT_FDCWD, second, _RENAME_EXCHANGE):
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(one))


def _prefix(path: Path, kind: str) -> str:
    return f".{path.name}.{kind}"


def _beside(path: Path, kind: str) -> list[Path]:
    """The hidden directories of a kind that were made for a directory, the newest first."""
    parent, prefix = path.absolute().parent, _prefix(path, kind)
    found = [parent / name for name in os.listdir(parent) if name.startswith(prefix)]
    return sorted(found, key=lambda one: one.lstat().st_mtime_ns, reverse=True)


def _sync(folder: Path) -> None:
    """Bring all files below a folder, and their names, to disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb+") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Show other processes that a directory is being made; that ends with this process."""
    if os.name == "nt":
        yield
        return
    handle = _lock(folder)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _lock(folder: Path) -> int | None:
    """A handle that locks a directory; None where another process holds it."""
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _remove_abandoned(folder: Path) -> None:
    """Remove a directory that no process is making any more."""
    if os.name == "nt":
        return  # it cannot be known there
    with contextlib.suppress(OSError):
        handle = _lock(folder)
        if handle is not None:
            _remove(folder)
            os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
