"""The files of a watched folder: which are images, and whether they are complete."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fsad_edge.runtime.files import open_regular
from fsad_edge.runtime.folders import IMAGE_SUFFIXES, SYSTEM_NAMES, Reason, classify
from fsad_edge.runtime.own_pictures import OWN_SUFFIXES
from fsad_edge.serve.watch_index import CHUNK, FileVersion, stamp_of

#: Most entries without the suffix of an image that are looked into; others are not images.
MOST_JUDGED = 10_000

#: Known entries that are looked at again in one listing. Where there are more, it is one part of
#: them after another, and of at most so many parts.
LOOKED_AT_AGAIN, MOST_PARTS = 5_000, 8


class Judged(NamedTuple):
    """Why an entry is not an image, and the size and time for which this holds."""

    stamp: tuple[int, int]
    reason: Reason


class WatchedFiles:
    """Lists a folder, and counts what is not an image by reason.

    A listing costs what is new in the folder. Of what is known it reads the name and the inode
    alone, and it asks for sizes and times of a part of them. So a file that is overwritten in place
    is found at once in a folder of ``LOOKED_AT_AGAIN`` files, and later in a larger one. About 150
    bytes of memory are taken for each known file.

    Args:
        folder: the folder; what is in folders below it is left out.
        own: files and folders of the service, which are not counted where they are in the folder.

    Attributes:
        skipped: what the last complete listing left out, by reason.
        examples: the name of one entry for each reason.
    """

    def __init__(self, folder: Path, own: list[Path]) -> None:
        self._folder = folder
        inside = folder.resolve()
        self._own = {path.name for path in own if path.resolve().parent == inside}
        # By the key of an entry: the stamp of a file that is done, and why another is no image.
        self._done: dict[int, int] = {}
        self._judged: dict[int, Judged] = {}
        self._turn = 0
        self._skipping: Counter[Reason] = Counter()  # what this listing has left out so far
        self.skipped: Counter[Reason] = Counter()
        self.examples: dict[Reason, str] = {}

    @property
    def done(self) -> int:
        """How many files of the last listing are done."""
        return len(self._done)

    def chunks(self) -> Iterator[list[FileVersion]]:
        """The files that are not known to be done, at most ``CHUNK`` at a time; unsorted.

        Whoever finds that one is done says so with :meth:`settle`.

        Raises:
            OSError: the folder cannot be read.
        """
        done, judged = self._done, self._judged
        parts = min(MOST_PARTS, 1 + (len(done) + len(judged)) // LOOKED_AT_AGAIN)
        self._turn = (self._turn + 1) % parts
        self._done, self._judged = {}, {}
        skipped = self._skipping = Counter[Reason]()
        found: list[FileVersion] = []
        is_complete = False
        try:
            # A folder that may be listed, but not entered, is refused.
            os.stat(os.path.join(self._folder, "."))
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    key = hash((entry.name, entry.inode()))
                    is_known = key % parts != self._turn
                    stamp = done.get(key)
                    if stamp is not None and (is_known or _stamp(entry) == stamp):
                        self._done[key] = stamp
                        continue
                    before = judged.get(key)
                    if is_known and before is not None:
                        self._judged[key] = before
                        skipped[before.reason] += 1
                        continue
                    verdict = self._judge(entry, key, before)
                    if isinstance(verdict, Reason):
                        skipped[verdict] += 1
                        self.examples.setdefault(verdict, entry.name)
                    elif verdict is None:
                        continue
                    elif stamp == verdict.stamp:
                        self._done[key] = stamp
                    else:
                        found.append(verdict)
                        if len(found) == CHUNK:
                            yield found
                            found = []
            yield found
            is_complete = True
        finally:
            if not is_complete:
                self._done, self._judged = done | self._done, judged | self._judged
        self.skipped = skipped

    def settle(self, file: FileVersion) -> None:
        """Take a file as done until another version of it is found."""
        self._done[file.key] = file.stamp

    def leave_out(self, file: FileVersion, reason: Reason) -> None:
        """Count a file of the listing in progress as no image, and so in those to come."""
        self._judged[file.key] = Judged((file.size, file.mtime_ns), reason)
        self.examples.setdefault(reason, file.name)
        self._skipping[reason] += 1

    def forget(self) -> None:
        """Look at everything again, as after a change of the index."""
        self._done, self._judged = {}, {}

    def names(self) -> Iterator[str]:
        """The names of all entries."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                yield entry.name

    def _judge(
        self, entry: os.DirEntry[str], key: int, before: Judged | None
    ) -> FileVersion | Reason | None:
        name, lower = entry.name, entry.name.lower()
        if name in self._own:
            return None
        if name.startswith("~") or (name.startswith(".") and lower not in SYSTEM_NAMES):
            return Reason.HIDDEN
        is_image = os.path.splitext(lower)[1] in IMAGE_SUFFIXES and lower not in SYSTEM_NAMES
        if not is_image and before is None and len(self._judged) >= MOST_JUDGED:
            return Reason.OTHER
        try:
            found = entry.stat()
        except OSError:
            # It was moved away in the meantime, is a link that leads nowhere, or its share is away.
            if not os.path.lexists(entry.path):
                return None
            found = None
        if is_image and (found is None or not stat.S_ISREG(found.st_mode)):
            special = FileVersion.special(name, entry.inode(), found is not None)
            return special._replace(key=key)
        if is_image and found is not None and not lower.endswith(OWN_SUFFIXES):
            version = FileVersion.of(name, found)._replace(key=key)
            if before is None or before.stamp != (version.size, version.mtime_ns):
                return version
        stamp = (0, 0) if found is None else (found.st_size, found.st_mtime_ns)
        if before is None or before.stamp != stamp:
            before = Judged(stamp, classify(Path(entry.path)) or Reason.OTHER)
        self._judged[key] = before
        return before.reason


def _stamp(entry: os.DirEntry[str]) -> int | None:
    """The stamp of an entry's file; None where it cannot be told."""
    try:
        return stamp_of(entry.stat())
    except OSError:
        return None


class Content(NamedTuple):
    """The bytes of a file; ``is_open`` where its writer may not have closed it yet."""

    data: bytes
    is_open: bool


class NotCompleteError(Exception):
    """A file was still written to while it was read."""


class OpenError(Exception):
    """A file is open for writing, or its file system cannot tell."""


def read_image(path: Path, file: FileVersion, even_open: bool) -> Content:
    """The content of a file that nobody writes.

    No more is read than the version that is meant has.

    Args:
        path: the file.
        file: the version that is meant.
        even_open: read it even where its writer may still have it open.

    Raises:
        OSError: it cannot be read, or is no regular file.
        OpenError: its writer may still have it open.
        NotCompleteError: it is not the version that is meant any more.
    """
    with open_regular(path) as opened:
        is_open = _is_open(opened.fileno())
        if is_open and not even_open:
            raise OpenError
        before = os.fstat(opened.fileno())
        if FileVersion.of(file.name, before).written != file.written:
            raise NotCompleteError
        data = opened.read(file.size + 1)
        after = os.fstat(opened.fileno())
    if (
        FileVersion.of(file.name, after).written != file.written
        or before.st_ctime_ns != after.st_ctime_ns
        or len(data) != file.size
    ):
        raise NotCompleteError
    return Content(data, is_open)


def why_unreadable(path: Path, error: OSError) -> str:
    """Why a file cannot be read, for a sentence of an error."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "the link leads nowhere"
    except OSError as reason:
        return "the link leads to itself" if reason.errno == errno.ELOOP else _words(reason)
    if stat.S_ISDIR(mode):
        return "it is a folder"
    return _words(error) if stat.S_ISREG(mode) else "it is no regular file"


def _words(error: OSError) -> str:
    return error.strerror or str(error)


def shown(name: str) -> str:
    """A file's name in a line of text, where a line feed or an escape sequence in it does nothing.

    Example:
        >>> print(shown("a\\nb.png"))
        a\\nb.png
    """
    if name.isprintable():
        return name
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "replace").decode()
        for one in name
    )


def _is_open(handle: int) -> bool:
    """Whether another process has a file open for writing, as far as the kernel can tell."""
    if sys.platform != "linux":
        return False
    import fcntl

    # A writer that opens the file while the lease is held sends a signal. SIGIO, which it is by
    # default, would end the service; SIGURG is ignored unless something handles it.
    with contextlib.suppress(OSError):
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
    # The kernel grants a read lease only for a file that nobody writes. NFS and CIFS refuse it with
    # the same error where the server has not handed the file over to this machine. Any other
    # error means that the kernel cannot tell (a file of another owner).
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    with contextlib.suppress(OSError):
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def mount_point(path: Path) -> str:
    """The folder at which the file system of a path is mounted."""
    place = os.path.realpath(path)
    while not os.path.ismount(place):
        place = os.path.dirname(place)
    return place
