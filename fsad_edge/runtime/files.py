"""Reading files, and writing them whole or not at all: under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from fsad_edge.errors import FsadEdgeError, InputError
from fsad_edge.runtime.temporary_files import temporary_file

#: The most bytes of a file that are read, unless less is asked for: those of a protocol buffer,
#: which an ONNX model is.
LARGEST = 2**31 - 1

#: What to do about a file that may not be read, for the end of a sentence.
MAY_READ = "let this user read it, and enter the folders above it"


def sha256(data: bytes | memoryview) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; False where there is nothing.

    ``Path.is_dir`` raises an OSError, or tells False, where it cannot know.

    Raises:
        InputError: it cannot be known: a folder above it may not be searched, or its name is none.
    """
    return stat.S_ISDIR(_mode(path))


def is_file(path: Path) -> bool:
    """Whether a path is a regular file, as :func:`is_folder`."""
    return stat.S_ISREG(_mode(path))


def exists(path: Path) -> bool:
    """Whether there is anything at a path, as :func:`is_folder`."""
    return _mode(path) != 0


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except PermissionError as error:
        raise InputError(
            f"{path} cannot be reached ({error.strerror}): check the permissions of the folders "
            "above it."
        ) from error
    except (OSError, ValueError) as error:  # too long, a loop of links, a null byte
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be reached ({why}): check the path.") from error


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; nothing else is waited for or read.

    The file is opened without waiting and looked at afterwards, so that what is looked at is what
    is read. The other end of a pipe may never write, and a device may never end.

    Raises:
        OSError: it cannot be opened, or is no regular file.
        ValueError: the path holds a null byte.
    """
    # Windows has none of these flags but its own for bytes.
    flags = (getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"))
    handle = os.open(path, sum(flags, os.O_RDONLY))
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError("not a regular file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def open_in_place(path: Path, flags: int = os.O_CREAT) -> FileIO:
    """Open a regular file for reading and writing in place, without a buffer.

    A link is not followed, and a pipe or a device is not written to: what stands behind them was
    named by nobody. It is for files that grow or are locked; others are written whole, with
    :func:`write_bytes`.

    Args:
        path: the file.
        flags: of ``os.open``, besides those for reading and writing; without ``O_CREAT`` the file
            must be there.

    Raises:
        OSError: it cannot be opened, or is no regular file; the words say what to do.
    """
    check_in_place(path)
    # Windows has none of these flags but its own for bytes.
    names = ("O_CLOEXEC", "O_NONBLOCK", "O_NOFOLLOW", "O_NOCTTY", "O_BINARY")
    more = sum(getattr(os, name, 0) for name in names)
    handle = os.open(path, os.O_RDWR | flags | more, 0o666)
    try:
        _refuse_irregular(os.fstat(handle).st_mode)  # it was put there in the meantime
        return FileIO(handle, "r+")
    except BaseException:
        os.close(handle)
        raise


def check_in_place(path: Path) -> None:
    """Refuse a path that :func:`open_in_place` refuses, for those who open it by other means.

    Raises:
        OSError: there is something that is no regular file.
    """
    with contextlib.suppress(FileNotFoundError):
        _refuse_irregular(os.lstat(path).st_mode)


def _refuse_irregular(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISLNK(mode):
        raise OSError("it is a link, and nothing is written through links; remove the link")
    if stat.S_ISDIR(mode):
        raise OSError("it is a folder; move it away")
    raise OSError("it is a device, a pipe or a socket, which are never written; remove it")


def read_bytes(
    path: Path, error: type[FsadEdgeError] = InputError, cure: str = "", most: int = LARGEST
) -> bytes:
    """All bytes of a regular file.

    Args:
        path: the file.
        error: the class of the error to raise.
        cure: what to do about it, for the end of the error's sentence; where the user may not read
            the file, the sentence says that instead.
        most: the most bytes that are read; a larger file is refused before anything is read.

    Raises:
        FsadEdgeError: the file cannot be read, is no regular file, or is too large; an error of the
            class ``error``.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(size + 1) if size <= most else b""
        if size > most:
            raise OSError(f"it has {size:,} bytes, and at most {most:,} are read")
        if len(data) > size:
            raise OSError("it grows while it is read")
        return data
    except (OSError, ValueError) as reason:  # a path with a null byte is a ValueError
        why = getattr(reason, "strerror", None) or str(reason)
        if isinstance(reason, PermissionError):  # whatever else would help a damaged file
            cure = MAY_READ
        rest = f" ({why}): {cure}" if cure else f": {why}"
        raise error(f"{path} cannot be read{rest}.") from reason


def folder_and_name(path: str | os.PathLike[str]) -> str:
    """What a person knows an image file by: its folder's name and its own, as valid text.

    The file name alone is not enough: ``good/000.png`` is not ``bad/000.png``.

    Example:
        >>> folder_and_name("/data/part/good/000.png")
        'good/000.png'
    """
    place = Path(os.path.abspath(path))
    name = "/".join(part for part in (place.parent.name, place.name) if part)
    return name.encode("utf-8", "backslashreplace").decode()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write in the block into an error that names ``path``.

    Raises:
        InputError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error


def check_output(path: Path, force: bool) -> None:
    """Refuse to replace an existing file, or to write where there is no folder.

    Raises:
        InputError: ``path`` exists and ``force`` is not set; it is a link, a device, a pipe or a
            socket, which are never replaced; or its parent is no folder.
    """
    _check_replaceable(path)
    if exists(path) and not force:
        raise InputError(
            f"{path} exists: add --force (force=True in Python) to replace it, or name another "
            "output."
        )
    if not is_folder(path.absolute().parent):
        raise InputError(f"the folder {path.absolute().parent} does not exist: make it first.")


def check_no_input(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output that is one of the files that are read, whatever their paths.

    Raises:
        InputError: it is.
    """
    with contextlib.suppress(OSError, ValueError):  # there is no such file yet
        found = os.stat(output)
        for one in inputs:
            with contextlib.suppress(OSError, ValueError):
                if os.path.samestat(found, os.stat(one)):
                    break
        else:
            return
        raise InputError(f"{output} is read here, as {one}: name another output.")


def _check_replaceable(path: Path) -> None:
    mode = _mode(path)
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(
            f"{path} is a device, a pipe or a socket, which are never written or replaced: name a "
            "file."
        )
    if os.path.islink(path):
        raise InputError(f"{path} is a link: name the file or folder that it points to.")


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        InputError: it cannot be made, or is something else.
    """
    if exists(path) and not is_folder(path):
        raise InputError(f"{path} is not a folder: name a folder, or a new one.")
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def write_bytes(path: Path, data: bytes, sync: bool = True) -> None:
    """Write a file whole or not at all.

    Args:
        path: the file; it is replaced.
        data: what it holds then.
        sync: wait until the disk has it. Without, a power cut may leave an empty file: that is
            enough for what is never needed.

    Raises:
        InputError: it cannot be written (no room, no permission), or is a link, a device, a pipe or
            a socket; nothing is left behind.
    """
    _check_replaceable(path)
    with writing(path), temporary_file(path.absolute().parent) as (file, temporary):
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())
        if os.name == "nt":  # where an open file cannot be renamed
            file.close()
        os.replace(temporary, path)
