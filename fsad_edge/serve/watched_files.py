"""The files of a watched folder: which are images, and whether they are complete."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fsad_edge.runtime.folders import IMAGE_SUFFIXES, SYSTEM_NAMES, Reason, classify
from fsad_edge.runtime.own_pictures import OWN_SUFFIXES
from fsad_edge.serve.watch_index import CHUNK, FileVersion

#: Most entries without the suffix of an image that are looked into; others are not images.
MOST_JUDGED = 10_000


class Judged(NamedTuple):
    """Why an entry is not an image, and the size and time for which this holds."""

    stamp: tuple[int, int]
    reason: Reason


class WatchedFiles:
    """Lists a folder, and counts what is not an image by reason.

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
        self._judged: dict[str, Judged] = {}
        self.skipped: Counter[Reason] = Counter()
        self.examples: dict[Reason, str] = {}

    def chunks(self) -> Iterator[list[FileVersion]]:
        """The images, at most ``CHUNK`` at a time; unsorted.

        Raises:
            OSError: the folder cannot be read.
        """
        judged: dict[str, Judged] = {}
        skipped: Counter[Reason] = Counter()
        found: list[FileVersion] = []
        os.stat(self._folder / ".")  # a folder that may be listed, but not entered, is refused
        with os.scandir(self._folder) as entries:
            for entry in entries:
                verdict = self._judge(entry, judged)
                if isinstance(verdict, Reason):
                    skipped[verdict] += 1
                    self.examples.setdefault(verdict, entry.name)
                elif verdict is not None:
                    found.append(verdict)
                    if len(found) == CHUNK:
                        yield found
                        found = []
        yield found
        self.skipped, self._judged = skipped, judged

    def names(self) -> Iterator[str]:
        """The names of all entries."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                yield entry.name

    def _judge(
        self, entry: os.DirEntry[str], judged: dict[str, Judged]
    ) -> FileVersion | Reason | None:
        name, lower = entry.name, entry.name.lower()
        if name in self._own:
            return None
        if name.startswith("~") or (name.startswith(".") and lower not in SYSTEM_NAMES):
            return Reason.HIDDEN
        try:
            found = entry.stat()
        except OSError:
            # It was moved away in the meantime, or it is a link that leads nowhere.
            gone = not os.path.lexists(entry.path)
            return None if gone else classify(Path(entry.path))
        suffix = os.path.splitext(lower)[1]
        is_image = suffix in IMAGE_SUFFIXES and lower not in SYSTEM_NAMES
        if is_image and stat.S_ISREG(found.st_mode) and not lower.endswith(OWN_SUFFIXES):
            return FileVersion.of(name, found)
        return self._judge_other(entry, (found.st_size, found.st_mtime_ns), judged)

    def _judge_other(
        self, entry: os.DirEntry[str], stamp: tuple[int, int], judged: dict[str, Judged]
    ) -> Reason:
        before = self._judged.get(entry.name)
        if before is not None and before.stamp == stamp:
            reason = before.reason
        elif len(judged) < MOST_JUDGED:
            reason = classify(Path(entry.path)) or Reason.OTHER
        else:
            return Reason.OTHER
        judged[entry.name] = Judged(stamp, reason)
        return reason


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

    Args:
        path: the file.
        file: the version that is meant.
        even_open: read it even where its writer may still have it open.

    Raises:
        OSError: it cannot be read.
        OpenError: its writer may still have it open.
        NotCompleteError: it is not the version that is meant any more.
    """
    with path.open("rb") as opened:
        is_open = _is_open(opened.fileno())
        if is_open and not even_open:
            raise OpenError
        before = os.fstat(opened.fileno())
        data = opened.read()
        after = os.fstat(opened.fileno())
    if (
        FileVersion.of(file.name, after).written != file.written
        or before.st_ctime_ns != after.st_ctime_ns
        or len(data) != file.size
    ):
        raise NotCompleteError
    return Content(data, is_open)


def _is_open(handle: int) -> bool:
    """Whether another process has a file open for writing, as far as the kernel can tell."""
    if sys.platform != "linux":
        return False
    import fcntl

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
