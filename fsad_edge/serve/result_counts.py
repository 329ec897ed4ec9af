"""How many results are in the results files, without reading all of them at each start.

What was counted is kept in ``results.counts.json`` beside the results, with the last line that it
counts: a start counts the lines behind that one. So the results of files that were deleted to make
room stay counted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fsad_edge.errors import FsadEdgeError, ModelFileError
from fsad_edge.runtime.documents import Range, Sha256, read_document, write_document
from fsad_edge.runtime.files import is_file, read_bytes, sha256, write_bytes
from fsad_edge.serve.result_lines import Line, Mark, find_line, read_lines

log = logging.getLogger("fsad_edge.serve")

#: Most bytes of the file of counts that are read; it has a few hundred.
MOST_BYTES = 64 << 10

#: The decision and the time in a line. Quotes inside a name are escaped there.
DECISION = re.compile(rb'"decision": "([a-z_]+)"')
TIME = re.compile(rb'"time": "([^"\\]+)"')


@dataclass(frozen=True)
class ResultCounts:
    """The results of a folder's results files.

    Attributes:
        since: the time of the first, UTC, ISO 8601; None where there is none.
        counts: how many, by the word of their decision.
    """

    since: str | None
    counts: dict[str, int]


@dataclass(frozen=True)
class CountedLines:
    """What is kept on disk.

    Attributes:
        since: as of :class:`ResultCounts`.
        counts: as of :class:`ResultCounts`.
        start: of the last line that is counted, as of :class:`~result_lines.Mark`.
        end: of that line.
        sha256: of that line.
        check: the SHA-256 of all the others, so that no flipped bit changes a count. Earlier
            versions wrote none.
    """

    since: str
    counts: dict[str, Annotated[int, Range(0)]]
    start: Annotated[int, Range(0)]
    end: Annotated[int, Range(0)]
    sha256: Sha256
    check: Sha256 | None = None

    @property
    def mark(self) -> Mark:
        """The last line that is counted."""
        return Mark(self.start, self.end, self.sha256)

    def checked(self) -> CountedLines:
        """The same with its ``check``."""
        text = write_document(dataclasses.replace(self, check=None))
        return dataclasses.replace(self, check=sha256(text.encode()))


def counts_path(folder: Path) -> Path:
    """The file beside a folder's results that keeps their counts."""
    return folder / "results.counts.json"


def count_results(folder: Path, keep: bool = True) -> ResultCounts:
    """Count the results in a folder's results files.

    Args:
        folder: holds the results files.
        keep: write the counts beside them. It is for the process that writes the results: one that
            only starts may find that another one runs, and leaves its files as they are.

    Raises:
        OSError: the results cannot be read.
    """
    kept = _kept(folder)
    counts: Counter[str] = Counter(kept.counts if kept else {})
    since = kept.since if kept else None
    last: Line | None = None
    damaged = 0
    for line in read_lines(folder, kept.mark if kept else None):
        decision = DECISION.search(line.data)
        if decision is None or not line.data.endswith(b"}\n"):
            damaged += 1  # there may be others that are the same, so none is marked
            continue
        last = line
        counts[decision[1].decode()] += 1
        time = TIME.search(line.data)
        if since is None and time is not None:
            since = time[1].decode("ascii", "replace")
    if damaged:
        lines = "1 damaged line" if damaged == 1 else f"{damaged:,} damaged lines"
        are = "is" if damaged == 1 else "are"
        log.warning("%s of the results in %s %s left out.", lines, folder, are)
    if keep and last is not None and since is not None:
        with contextlib.suppress(FsadEdgeError):  # the next start counts them again
            document = write_document(CountedLines(since, dict(counts), *last.mark[:3]).checked())
            write_bytes(counts_path(folder), document.encode())
    return ResultCounts(since, dict(counts))


def _kept(folder: Path) -> CountedLines | None:
    """What is kept on disk; None where it is damaged, or the lines that it counts are gone.

    A damaged file is told in the log, and written again with the next count.
    """
    path = counts_path(folder)
    try:
        if not is_file(path):
            return None
        data = read_bytes(path, most=MOST_BYTES)
        kept = read_document(CountedLines, data, str(path), "the results are counted again")
        if kept.check is not None and kept.check != kept.checked().check:
            raise ModelFileError(
                f"{path} is damaged (it does not fit its checksum): the results are counted again."
            )
    except FsadEdgeError as error:
        log.warning("%s Those of deleted results files do not count any more.", error)
        return None
    return kept if find_line(folder, kept.mark) else None
