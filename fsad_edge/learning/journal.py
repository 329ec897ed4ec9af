"""An append-only journal: a line is either whole on disk or was never acknowledged.

Each line is the first 16 digits of the SHA-256 of what follows, a space, and one JSON object.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.runtime.files import sha256

#: Digits of the SHA-256 that begin a line.
_DIGITS = 16


class FolderLock:
    """A folder is changed by one process at a time; the lock ends with the process, however.

    Args:
        path: a file to hold; made where it is not there.

    Raises:
        InputError: another process, or another part of this one, holds it.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
        try:
            _lock(self._file)
        except OSError:
            self._file.close()
            raise InputError(
                f"{path.parent} is in use by another process, perhaps  fsad-edge serve : stop "
                "that first, or let it learn."
            ) from None

    def release(self) -> None:
        """Let others have it."""
        self._file.close()

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def read_journal(path: Path) -> tuple[list[dict[str, Any]], int, bool]:
    """The lines of a journal.

    Returns:
        the objects; the length in bytes of the whole lines; whether a torn line follows them.

    Raises:
        ModelFileError: a line before the last is damaged.
        InputError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    objects: list[dict[str, Any]] = []
    whole = 0
    lines = data.splitlines(keepends=True)
    for number, line in enumerate(lines):
        found = _parse(line)
        if found is None:
            if number < len(lines) - 1:
                raise ModelFileError(
                    f"line {number + 1} of {path} is damaged: put back a copy of its folder, or "
                    "move the folder away to begin anew."
                )
            return objects, whole, True
        objects.append(found)
        whole += len(line)
    return objects, whole, False


def append(path: Path, length: int, entry: dict[str, Any]) -> int:
    """Add a line after the first ``length`` bytes; it is on disk when this returns.

    Returns:
        the new length.

    Raises:
        InputError: it cannot be written; the journal is as it was.
    """
    body = json.dumps(entry, ensure_ascii=True).encode()
    line = sha256(body)[:_DIGITS].encode() + b" " + body + b"\n"
    try:
        # Unbuffered: what failed must not be written after all when the file is closed.
        with path.open("r+b" if path.exists() else "x+b", buffering=0) as file:
            try:
                file.truncate(length)  # a torn line of a killed process
                file.seek(length)
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(length)
                raise
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
    return length + len(line)


def sync_folder(folder: Path) -> None:
    """Bring new names in a folder to disk, where the system can (Windows does so by itself)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _parse(line: bytes) -> dict[str, Any] | None:
    check, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or check.decode("latin-1") != sha256(body)[:_DIGITS]:
        return None
    found = json.loads(body)
    return found if isinstance(found, dict) else None


def _lock(file: IO[bytes]) -> None:
    """Raise OSError where the file is locked already."""
    if os.name == "nt":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
