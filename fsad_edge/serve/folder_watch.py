"""A watched folder: each new image is scored once, when it is complete.

The folder is polled, because network shares, on which cameras write, send no events. Nothing waits
for ever: a file that cannot be scored gets a result that says so, and what stops the folder as a
whole is its fault, which `/v1/status`, `/readyz`, the metrics and the log show.
"""

from __future__ import annotations

import functools
import heapq
import logging
import math
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fsad_edge.errors import FsadEdgeError, ImageError, InputError
from fsad_edge.options import Decision, HeatScale
from fsad_edge.runtime.files import sha256, write_bytes, writing
from fsad_edge.runtime.folders import Reason
from fsad_edge.runtime.own_pictures import HEAD, is_own_picture
from fsad_edge.serve import schemas
from fsad_edge.serve.result_store import StoredImage
from fsad_edge.serve.schemas import WaitReason, WatchState
from fsad_edge.serve.scoring_queue import ScoredImage
from fsad_edge.serve.service import Service
from fsad_edge.serve.watch_history import Outcome, WatchHistory
from fsad_edge.serve.watch_index import FileVersion, SeenFile, WatchIndex
from fsad_edge.serve.watched_files import (
    Content,
    NotCompleteError,
    OpenError,
    WatchedFiles,
    mount_point,
    read_image,
)

log = logging.getLogger("fsad_edge.serve")

#: Most new files that are kept in memory, the oldest; the others are only counted.
MOST_WAITING = 10_000

#: Bytes of a file's name that its overlay keeps: with what is added, a name has 255 at most.
OVERLAY_NAME = 150


@dataclass(frozen=True)
class WatchTimes:
    """The times of a watched folder, in seconds.

    Attributes:
        poll: between two polls; longer where a poll takes long.
        settled: a file must stay unchanged for it before it is scored.
        open: a file that its writer has not closed, or whose file system cannot tell, is scored
            once it is unchanged for it.
        undecodable: an unchanged file that cannot be decoded is an error after it. Before that, it
            may still be written.
        give_up: the same for a file that cannot be read or scored, or is still open.
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
        known: what was scored under its name where the content must tell whether it is the same.
        seen: when the name was seen first (monotonic).
        when: the same as a timestamp.
        unchanged: since when it is unchanged (monotonic).
        reason: why it waits.
        retry: when it is tried again (monotonic).
    """

    file: FileVersion
    known: SeenFile | None
    seen: float
    when: str
    unchanged: float
    reason: WaitReason = WaitReason.SETTLING
    retry: float = 0.0


class FolderWatch:
    """Scores the new images of a folder.

    Args:
        folder: the folder; those below it are left out.
        history: what of it was scored.
        model: name of the model that scores.
        service: the service.
        times: for how long it waits for what.
    """

    def __init__(
        self,
        folder: Path,
        history: WatchHistory,
        model: str,
        service: Service,
        times: WatchTimes | None = None,
    ) -> None:
        self._folder, self._history, self._model = folder, history, model
        self._service, self._times = service, times or WatchTimes()
        self._files = WatchedFiles(folder, history.own_paths)
        self._mount: str | None = None
        self._waiting: dict[str, WaitingFile] = {}
        self._untracked = 0  # new files beyond the most that are kept in memory
        self._state, self._fault = WatchState.READING, ""
        self._busy: float | None = None  # since when the thread does one thing (monotonic)
        self._progress, self._reminded = time.monotonic(), -math.inf
        self._announced: set[Reason] = set()
        self._is_announced = False
        self._scored = self._errors = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._add_metrics()
        service.overlays[str(folder)] = history.overlays

    def start(self) -> None:
        """Start to poll the folder."""
        self._progress = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Stop, once the result of the current image is written."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)
        if self._thread.is_alive():
            log.warning("%s does not answer, and is left.", self._folder)

    def status(self) -> schemas.WatchedFolder:
        """What waits, since when and why, what was scored, and what is left out."""
        everything = list(self._waiting.values())
        waiting = [one for one in everything if one.known is None]
        oldest = min(waiting, key=lambda one: one.seen, default=None)
        reasons = Counter(str(one.reason) for one in waiting)
        if self._untracked:
            reasons[str(WaitReason.QUEUED)] += self._untracked
        return schemas.WatchedFolder(
            folder=str(self._folder),
            model=self._model,
            results=str(self._history.results_path),
            state=self._state,
            fault=self._find_fault(oldest),
            waiting=len(waiting) + self._untracked,
            waiting_since=None if oldest is None else oldest.when,
            waiting_longest=None if oldest is None else oldest.file.name,
            waiting_for=dict(reasons),
            comparing=len(everything) - len(waiting),
            scored=self._scored,
            errors=self._errors,
            skipped={str(reason): count for reason, count in self._files.skipped.items()},
        )

    def _find_fault(self, oldest: WaitingFile | None) -> str | None:
        clock, busy, limit = time.monotonic(), self._busy, self._times.stalled
        if self._thread.ident is not None and not self._thread.is_alive():
            if not self._stop.is_set():
                return f"{self._folder} is not watched any more: start the service again."
        elif self._fault:
            return self._fault
        elif oldest is not None and clock - max(oldest.seen, self._progress) > limit:
            return (
                f"{self._folder}: no image had a result for {clock - self._progress:.0f} s, and "
                f"{oldest.file.name} waits since {oldest.when} ({oldest.reason})."
            )
        elif busy is not None and clock - busy > limit:
            return f"{self._folder} has not answered for {clock - busy:.0f} s."
        return None

    def _add_metrics(self) -> None:
        metrics, folder = self._service.metrics, str(self._folder)

        def oldest() -> float:
            seen = [one.seen for one in list(self._waiting.values()) if one.known is None]
            return time.monotonic() - min(seen) if seen else 0.0

        metrics.watch_oldest.labels(folder).set_function(oldest)

        def waiting(reason: WaitReason) -> float:
            return self.status().waiting_for.get(str(reason), 0)

        def skipped(reason: Reason) -> float:
            return self._files.skipped[reason]

        metrics.watch_fault.labels(folder).set_function(lambda: self.status().fault is not None)
        for why in WaitReason:
            metrics.watch_waiting.labels(folder, why).set_function(functools.partial(waiting, why))
        for left_out in Reason:
            metrics.watch_skipped.labels(folder, left_out).set_function(
                functools.partial(skipped, left_out)
            )

    def _run(self) -> None:
        pause = self._times.poll
        try:
            while not self._stop.wait(pause):
                pause = self._try_turn()
        finally:
            self._history.close_results()

    def _try_turn(self) -> float:
        """Do all that can be done now. Returns the seconds until the next time."""
        try:
            pause = self._turn()
        except Exception as error:
            if isinstance(error, sqlite3.Error):
                self._history.discard(error)
            if self._stop.is_set():
                return 0.0
            fault = self._words(error)
            if fault != self._fault:
                log.error("%s Trying again.", fault, exc_info=not isinstance(error, KNOWN))
            self._fault = fault
            return self._times.retry
        finally:
            self._busy = None
        if self._fault:
            log.info("%s is watched again.", self._folder)
            self._fault = ""
            self._progress = time.monotonic()
        return pause

    def _words(self, error: Exception) -> str:
        if isinstance(error, FsadEdgeError):
            return str(error)
        if isinstance(error, sqlite3.Error):
            return f"{self._history.index_path} cannot be written: {error}."
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"{self._folder} cannot be read: {why}."

    def _turn(self) -> float:
        self._busy = time.monotonic()
        self._check_mount()
        if not self._open_history():
            return self._times.retry
        if self._history.unwritten is not None:
            self._write(self._history.unwritten)
        begin = time.monotonic()
        self._list()
        listed = time.monotonic() - begin
        self._announce()
        is_done = self._attempt_all(listed)
        self._history.commit()
        # Polling a large folder takes long: it gets a tenth of the time at most.
        return max(self._times.poll, 10 * listed) if is_done else 0.0

    def _check_mount(self) -> None:
        """Refuse a folder whose disk is gone: it looks as if it were empty."""
        os.stat(self._folder / ".")
        mount = mount_point(self._folder)
        before = self._mount
        if before and before != mount and Path(before).is_relative_to(mount):
            with os.scandir(self._folder) as entries:
                is_empty = not any(entry.is_file() for entry in entries)
            if is_empty:
                raise InputError(
                    f"{self._folder} was on the file system at {before}, which is not mounted now: "
                    "mount it; if it is not to be, the first file in the folder ends this."
                )
        self._mount = mount

    def _open_history(self) -> bool:
        """Open the index where it is not. Returns False while another process watches."""
        history = self._history
        if history.is_open:
            return True

        def go_on() -> bool:
            self._busy = time.monotonic()
            return not self._stop.is_set()

        before, self._state = self._state, WatchState.READING
        if not history.open(go_on):
            if before is not WatchState.STANDBY:
                log.info("%s is watched by another process: waiting.", self._folder)
            self._state = WatchState.STANDBY
            return False
        if before is WatchState.STANDBY:
            self._service.restore(history.results)
        self._mount = history.index.get("mount") or self._mount
        self._check_mount()
        history.index.set("mount", self._mount or "")
        self._state, self._is_announced = WatchState.WATCHING, False
        return True

    def _list(self) -> None:
        """Find the files that have no result, or may have changed since."""
        index, clock, when = self._history.index, time.monotonic(), schemas.timestamp()
        found = compared = known = own = 0

        def unknown() -> Iterator[tuple[FileVersion, SeenFile | None]]:
            nonlocal found, compared, known, own
            for chunk in self._files.chunks():
                self._busy = time.monotonic()
                seen = index.look_up([file.name for file in chunk])
                for file in chunk:
                    before = seen.get(file.name)
                    if before is None or not _is_done(index, file, before):
                        found += 1
                        same = before if before and before.may_be(file) else None
                        compared += same is not None
                        yield file, same
                    elif before.own:
                        own += 1
                    else:
                        known += 1

        # Files that may be the same come last, whatever their age.
        oldest = heapq.nsmallest(
            MOST_WAITING, unknown(), key=lambda one: (one[1] is not None, one[0].mtime_ns)
        )
        before = self._waiting
        self._waiting = {
            file.name: _follow(before.get(file.name), file, seen, clock, when)
            for file, seen in oldest
        }
        self._untracked = found - compared - sum(seen is None for _, seen in oldest)
        if own:
            self._files.skipped[Reason.OWN] += own
        if index.has_many:
            index.prune(self._files.names())
        if not self._is_announced:
            self._is_announced = True
            log.info(
                "watching %s: %d images in it have a result, %d have none yet; results go to %s.",
                self._folder, known + compared, found - compared, self._history.results_path,
            )  # fmt: skip

    def _announce(self) -> None:
        """Tell the log what is left out, once for each reason, and from time to time what waits."""
        for reason in self._files.skipped.keys() - self._announced:
            self._announced.add(reason)
            example = self._files.examples.get(reason, "an image")
            log.warning(
                "%s: %s is left out (%s); /v1/status counts such entries.",
                self._folder, example, reason,
            )  # fmt: skip
        clock = time.monotonic()
        waiting = [one for one in self._waiting.values() if one.known is None]
        oldest = min(waiting, key=lambda one: one.seen, default=None)
        late = oldest is not None and clock - oldest.seen > self._times.open
        if oldest is None or not late or clock - self._reminded < self._times.remind:
            return
        self._reminded = clock
        log.warning(
            "%s: %d images wait, %s since %s (%s).",
            self._folder, len(waiting) + self._untracked, oldest.file.name, oldest.when,
            oldest.reason,
        )  # fmt: skip

    def _attempt_all(self, listed: float) -> bool:
        """Try the files whose time has come. Returns whether that was all of them."""
        clock, end = time.monotonic(), time.monotonic() + max(2.0, 10 * listed)
        # Comparing gets little of the time, so that new images do not wait for it.
        compare_end = clock + max(self._times.poll, listed)
        for one in list(self._waiting.values()):
            if clock - one.unchanged <= self._settled(one) or one.retry > clock:
                continue
            now = self._busy = time.monotonic()
            if self._stop.is_set() or (one.known is not None and now > compare_end):
                return True
            if now > end:
                return False
            if one.reason is WaitReason.SETTLING:
                one.reason = WaitReason.QUEUED
            self._attempt(one)
            self._history.commit()
        return True

    def _settled(self, one: WaitingFile) -> float:
        times = self._times
        return times.coarse if one.known is not None and not one.known.changed else times.settled

    def _attempt(self, one: WaitingFile) -> None:
        """Score a file, or note why it waits, or give it up."""
        file, times = one.file, self._times
        even_open = time.monotonic() - one.unchanged >= times.open
        try:
            content = read_image(self._folder / file.name, file, even_open)
        except FileNotFoundError:  # it was moved away in the meantime
            self._waiting.pop(file.name, None)
        except OpenError:
            one.reason = WaitReason.OPEN
        except NotCompleteError:
            one.reason = WaitReason.SETTLING
        except OSError as error:
            why = f"{file.name} cannot be read: {error.strerror or error}."
            self._hold(one, WaitReason.UNREADABLE, why, times.give_up, None)
        else:
            self._process(one, content)

    def _process(self, one: WaitingFile, content: Content) -> None:
        file, data, times = one.file, content.data, self._times
        digest = sha256(data)
        if one.known is not None and one.known.sha256 == digest:
            self._history.index.add(file.name, one.known._replace(changed=file.changed))
            self._forget(file)
            return
        if is_own_picture(data[:HEAD]):
            self._files.examples.setdefault(Reason.OWN, file.name)
            self._history.index.add(
                file.name, SeenFile(file.written, file.changed, digest, own=True)
            )
            self._forget(file)
            return
        try:
            scored = self._score(data)
        except ImageError as error:
            bound = times.give_up if content.is_open else times.undecodable
            self._hold(one, WaitReason.UNDECODABLE, str(error), bound, digest)
        except Exception as error:
            if one.reason is not WaitReason.FAILED:
                log.exception("%s could not be scored; trying again.", file.name)
            why = f"{file.name} could not be scored: {error}"
            self._hold(one, WaitReason.FAILED, why, times.give_up, digest)
        else:
            self._write(Outcome(file, digest, self._record(file, data, digest, scored)))

    def _score(self, data: bytes) -> ScoredImage:
        with self._service.queue.reserve(wait=True):
            future = self._service.score(self._service.models[self._model], data)
            return future.result()

    def _hold(
        self, one: WaitingFile, reason: WaitReason, why: str, bound: float, digest: str | None
    ) -> None:
        """Let a file wait, or give it up where it is unchanged for too long."""
        clock = time.monotonic()
        waited = clock - one.unchanged
        one.reason = reason
        # Less often the longer it takes.
        one.retry = clock + min(waited / 4, max(0.0, bound - waited))
        if waited < bound or (one.known is not None and digest is None):
            one.retry = max(one.retry, clock + self._times.poll)
            return
        log.warning("%s: %s", self._folder / one.file.name, why)
        record = schemas.WatchedError(
            time=schemas.timestamp(), model=self._model, error=why, folder=str(self._folder),
            name=one.file.name, size=one.file.size, mtime_ns=one.file.mtime_ns, sha256=digest,
        )  # fmt: skip
        self._write(Outcome(one.file, digest or "", record))

    def _record(
        self, file: FileVersion, data: bytes, digest: str, scored: ScoredImage
    ) -> schemas.ResultRecord:
        overlay: str | None = None
        result = scored.result
        if not result.good:
            name = os.fsencode(file.name)[:OVERLAY_NAME].decode(errors="ignore")
            overlay = f"{name}.{file.mtime_ns}.{digest[:8]}.overlay.jpg"
            if result.decision is Decision.NOT_JUDGED:
                overlay = f"{Decision.NOT_JUDGED}/{overlay}"
            scale = scored.served.model.metadata.scale
            image = StoredImage(data, result.anomaly_map, result.map_threshold, scale)
            path = self._history.overlays / overlay
            with writing(path.parent):
                path.parent.mkdir(exist_ok=True)
            write_bytes(path, image.jpeg(1600, HeatScale.THRESHOLD))
        kind = functools.partial(
            schemas.WatchedResult, folder=str(self._folder), size=file.size,
            mtime_ns=file.mtime_ns, sha256=digest, overlay=overlay,
        )  # fmt: skip
        return self._service.record(scored, schemas.Source.WATCH, file.name, data, kind=kind)

    def _write(self, outcome: Outcome) -> None:
        self._history.write(outcome)
        self._forget(outcome.file)
        if isinstance(outcome.record, schemas.WatchedError):
            self._errors += 1
            self._service.metrics.watched.labels("errors").inc()
        else:
            self._scored += 1
            self._service.metrics.watched.labels("scored").inc()

    def _forget(self, file: FileVersion) -> None:
        self._waiting.pop(file.name, None)
        self._progress = time.monotonic()


#: Errors whose words say all; of others, the log has the traceback.
KNOWN = (OSError, sqlite3.Error, FsadEdgeError)


def _is_done(index: WatchIndex, file: FileVersion, seen: SeenFile) -> bool:
    """Whether a file is the one that was scored, as far as can be told without reading it."""
    if seen.written == file.written and not seen.changed and not seen.sha256:
        # Its result tells no more than this; from now on it can be told.
        index.add(file.name, SeenFile(file.written, file.changed, ""))
        return True
    return seen.is_same(file)


def _follow(
    before: WaitingFile | None, file: FileVersion, known: SeenFile | None, clock: float, when: str
) -> WaitingFile:
    """A waiting file, with what was known of it at the last poll."""
    if before is None:
        return WaitingFile(file, known, clock, when, clock)
    if before.file.written != file.written:
        return WaitingFile(file, known, before.seen, before.when, clock)
    before.file, before.known = file, known
    return before
