"""Read results files: all lines, those behind a known one, or the newest."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from fsad_edge.runtime.documents import parse_json
from fsad_edge.runtime.files import open_regular, sha256

log = logging.getLogger("fsad_edge.serve")

#: How many results files that were put aside are kept.
ROTATED = 20

#: The newest results files, which are read whole by one who wants some images only.
RECENT = 2

#: Most bytes of a line: what has no end within them is damaged, and is not read as one line.
LONGEST = 64 << 10

#: What a file holds where the power failed before its bytes were on the disk.
NUL = b"\0"

#: The name of the image in a line.
NAME = re.compile(rb'"name": ("(?:[^"\\]|\\.)*")')


class Mark(NamedTuple):
    """A line of a results file, which is found again after the file was put aside, copied or moved.

    Attributes:
        start: where it begins.
        end: where it ends.
        sha256: of its bytes.
        checksum: the CRC-32 of all bytes of the file up to its end; None where it is not known.
    """

    start: int
    end: int
    sha256: str
    checksum: int | None = None


class Line(NamedTuple):
    """A line of a results file: where it begins, and its bytes."""

    start: int
    data: bytes

    @property
    def mark(self) -> Mark:
        """What finds it again."""
        return Mark(self.start, self.start + len(self.data), sha256(self.data))


def results_paths(folder: Path) -> list[Path]:
    """The results file of a folder and those that were put aside or will be, newest first."""
    aside = (folder / f"results.{number}.jsonl" for number in range(1, ROTATED + 1))
    return [folder / "results.jsonl", *aside]


def find_line(folder: Path, mark: Mark) -> Path | None:
    """Which of a folder's results files holds a line; None where none does."""
    return next((path for path in results_paths(folder) if _holds(path, mark)), None)


def is_whole(folder: Path, mark: Mark) -> bool:
    """Whether a line is in a folder's results files, and all in its file before it as it was.

    Files that were put aside before are not looked at: whoever needs room may delete them.
    """
    path = find_line(folder, mark)
    if path is None or mark.checksum is None:
        return path is not None
    try:
        with open_regular(path) as file:
            return extend_checksum(0, file, 0, mark.end) == mark.checksum
    except OSError:  # it cannot be told; whoever reads the lines says that they cannot be read
        return True


def extend_checksum(checksum: int, file: BinaryIO | FileIO, start: int, end: int) -> int:
    """The CRC-32 of a file up to ``end``, from the one of its bytes before ``start``."""
    file.seek(start)
    while start < end and (data := file.read(min(end - start, LONGEST))):
        checksum = zlib.crc32(data, checksum)
        start += len(data)
    return checksum


def read_lines(
    folder: Path,
    after: Mark | None = None,
    is_wanted: Callable[[str], bool] | None = None,
    left_out: list[Path] | None = None,
) -> Iterator[Line]:
    """The lines of a folder's results files, oldest first, with damaged ones.

    A file that cannot be read is told in the log, and left out.

    Args:
        folder: holds ``results.jsonl`` and those put aside.
        after: the line after which to begin; all are read where it is None or no longer there.
        is_wanted: where all are read, it tells by an image's name whether its results are wanted;
            others are left out, but for those in the newest ``RECENT`` files. This is far quicker.
        left_out: gets the files that cannot be read.
    """
    newest_first = results_paths(folder)
    start = 0
    if after is not None:
        for number, file in enumerate(newest_first):
            if _holds(file, after):
                newest_first, start, is_wanted = newest_first[: number + 1], after.end, None
                break
    for number, one in reversed(list(enumerate(newest_first))):
        with _reading(one, left_out), open_regular(one) as lines:
            lines.seek(start)
            for data in iter(functools.partial(lines.readline, LONGEST), b""):
                if not (number >= RECENT and is_wanted) or _is_of(data, is_wanted):
                    yield Line(start, data)
                start += len(data)
        start = 0


def read_results(
    folder: Path,
    after: Mark | None = None,
    is_wanted: Callable[[str], bool] | None = None,
    left_out: list[Path] | None = None,
) -> Iterator[dict[str, Any]]:
    """The results in a folder's results files, oldest first, without damaged lines.

    Takes what :func:`read_lines` takes.
    """
    for line in read_lines(folder, after, is_wanted, left_out):
        with contextlib.suppress(ValueError):
            record = parse_json(line.data.strip(NUL))
            if isinstance(record, dict):
                yield record


def read_newest(folder: Path, most_bytes: int) -> list[bytes]:
    """The newest lines of a folder's results files, oldest first.

    Args:
        folder: holds ``results.jsonl`` and those put aside.
        most_bytes: no more is read than this.
    """
    found: list[bytes] = []
    for path in results_paths(folder):
        with _reading(path), open_regular(path) as file:
            end = file.seek(0, os.SEEK_END)
            start = max(0, end - most_bytes)
            file.seek(start)
            lines = file.read(end - start).splitlines(keepends=True)
            # The first line may be cut.
            found = [line.lstrip(NUL) for line in (lines[1:] if start else lines)] + found
            most_bytes -= end - start
        if not most_bytes:
            break
    return found


@contextlib.contextmanager
def _reading(path: Path, left_out: list[Path] | None = None) -> Iterator[None]:
    """Tell in the log that a file cannot be read, and go on without it."""
    try:
        yield
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("%s cannot be read (%s), and is left out.", path, error.strerror or error)
        if left_out is not None:
            left_out.append(path)


def _is_of(line: bytes, is_wanted: Callable[[str], bool]) -> bool:
    """Whether a line is of an image that is wanted, without parsing all of it."""
    name = NAME.search(line)
    with contextlib.suppress(ValueError):
        return name is not None and is_wanted(parse_json(name[1]))
    return False


def _holds(path: Path, mark: Mark) -> bool:
    try:
        with open_regular(path) as file:
            file.seek(mark.start)
            length = mark.end - mark.start
            return 0 < length <= LONGEST and sha256(file.read(length)) == mark.sha256
    except (OSError, ValueError, OverflowError):  # the place may be damaged, too
        return False
