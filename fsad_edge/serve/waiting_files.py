"""The files of a watched folder that have no result, and for how long each may wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fsad_edge.serve.schemas import WaitReason
from fsad_edge.serve.watch_index import FileVersion, SeenFile

#: Changes of a file that has not come to rest, after which it counts as one that grows for ever.
MANY_CHANGES = 10


@dataclass(frozen=True)
class WatchTimes:
    """The times of a watched folder, in seconds.

    Attributes:
        poll: between two polls; longer where a listing takes long.
        settled: a file must stay unchanged for it before it is scored.
        open: a file that its writer has not closed, or whose file system cannot tell, is scored
            once it is unchanged for it.
        undecodable: an unchanged file that cannot be decoded is an error after it, and so is what
            is no regular file. Before that, it may still be written.
        give_up: the same for a file that cannot be read or scored, is still open, or changes all
            the time.
        stalled: the folder makes no progress where images wait, and none had a result for it.
        coarse: the longest step of a file system's clock, and a little more: within it, a file can
            be written again without a trace in its times.
        retry: between two attempts after a fault of the folder.
        remind: between two lines in the log about files that wait.
    """

    poll: float = 0.25
    settled: float = 0.5
    open: float = 5.0
    undecodable: float = 5.0
    give_up: float = 30.0
    stalled: float = 60.0
    coarse: float = 2.5
    retry: float = 2.0
    remind: float = 60.0


@dataclass
class WaitingFile:
    """A file that has no result, or may have changed since.

    Attributes:
        file: its newest version.
        last: what was scored under its name.
        seen: when the name was seen first (monotonic).
        when: the same as a timestamp.
        unchanged: since when it is unchanged (monotonic).
        changes: how often it was found changed.
        reason: why it waits.
        retry: when it is tried again (monotonic).
    """

    file: FileVersion
    last: SeenFile | None
    seen: float
    when: str
    unchanged: float
    changes: int = 0
    reason: WaitReason = WaitReason.SETTLING
    retry: float = 0.0

    @property
    def known(self) -> SeenFile | None:
        """What was scored, where the content must tell whether it is the same."""
        return self.last if self.last is not None and self.last.may_be(self.file) else None

    def is_due(self, clock: float, times: WatchTimes) -> bool:
        """Whether it is time to try it."""
        known = self.known
        needed = times.coarse if known is not None and not known.changed else times.settled
        return clock - self.unchanged > needed and self.retry <= clock

    def never_rests(self, clock: float, times: WatchTimes) -> bool:
        """Whether it was found changed too often, for too long."""
        return self.changes >= MANY_CHANGES and clock - self.seen > times.give_up


class WaitingFiles:
    """All files that wait, the oldest first; read by other threads, too.

    Attributes:
        untracked: new files beyond the most that are kept in memory.
    """

    def __init__(self) -> None:
        self._files: dict[str, WaitingFile] = {}
        self.untracked = 0

    def all(self) -> list[WaitingFile]:
        """Those that are kept in memory."""
        return list(self._files.values())

    def replace(
        self,
        found: Iterable[tuple[FileVersion, SeenFile | None]],
        untracked: int,
        clock: float,
        when: str,
    ) -> None:
        """Take over what a listing has found, with what was known of it at the last one."""
        before = self._files
        self._files = {
            file.name: _follow(before.get(file.name), file, last, clock, when)
            for file, last in found
        }
        self.untracked = untracked

    def remove(self, name: str) -> None:
        """Forget a file."""
        self._files.pop(name, None)

    @property
    def new(self) -> list[WaitingFile]:
        """Those without a result."""
        return [one for one in self.all() if one.known is None]

    @property
    def oldest(self) -> WaitingFile | None:
        """The one without a result that waits longest."""
        return min(self.new, key=lambda one: one.seen, default=None)

    def count_reasons(self) -> Counter[str]:
        """How many wait for what."""
        reasons = Counter(str(one.reason) for one in self.new)
        if self.untracked:
            reasons[str(WaitReason.QUEUED)] += self.untracked
        return reasons


def _follow(
    before: WaitingFile | None, file: FileVersion, last: SeenFile | None, clock: float, when: str
) -> WaitingFile:
    if before is None:
        return WaitingFile(file, last, clock, when, clock)
    if before.file.written != file.written:
        return WaitingFile(file, last, before.seen, before.when, clock, before.changes + 1)
    before.file, before.last = file, last
    return before
