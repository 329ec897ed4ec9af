"""How many results are in the results files, without reading all of them at each start.

What was counted is kept in ``results.counts.json`` beside the results, with the last line that it
counts: a start counts the lines behind that one. So the results of files that were deleted to make
room stay counted.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fsad_edge.errors import FsadEdgeError
from fsad_edge.runtime.documents import Sha256, read_document, write_document
from fsad_edge.runtime.files import is_file, read_bytes, write_bytes
from fsad_edge.serve.result_lines import Line, Mark, has_line, read_lines

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
    """

    since: str
    counts: dict[str, int]
    start: int
    end: int
    sha256: Sha256

    @property
    def mark(self) -> Mark:
        """The last line that is counted."""
        return Mark(self.start, self.end, self.sha256)


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
    for line in read_lines(folder, kept.mark if kept else None):
        decision = DECISION.search(line.data)
        if decision is None or not line.data.endswith(b"}\n"):
            continue  # a damaged line, of which there may be others that are the same
        last = line
        counts[decision[1].decode()] += 1
        time = TIME.search(line.data)
        if since is None and time is not None:
            since = time[1].decode("ascii", "replace")
    if keep and last is not None and since is not None:
        with contextlib.suppress(FsadEdgeError):  # the next start counts them again
            document = write_document(CountedLines(since, dict(counts), *last.mark))
            write_bytes(counts_path(folder), document.encode())
    return ResultCounts(since, dict(counts))


def _kept(folder: Path) -> CountedLines | None:
    """What is kept on disk; None where it is damaged, or the lines that it counts are gone."""
    path = counts_path(folder)
    with contextlib.suppress(FsadEdgeError):
        if is_file(path):
            kept = read_document(CountedLines, read_bytes(path), str(path), "delete it")
            return kept if has_line(folder, kept.mark) else None
    return None
