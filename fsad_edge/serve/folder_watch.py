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
from collections.abc import Iterator
from pathlib import Path

from fsad_edge.errors import FsadEdgeError, ImageError, InputError
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.folders import Reason
from fsad_edge.runtime.own_pictures import HEAD, is_own_picture
from fsad_edge.serve import schemas
from fsad_edge.serve.heat_map_files import HeatMapFiles
from fsad_edge.serve.result_store import StoredImage
from fsad_edge.serve.schemas import WaitReason, WatchState
from fsad_edge.serve.scoring_queue import ScoredImage
from fsad_edge.serve.service import Service
from fsad_edge.serve.waiting_files import WaitingFile, WaitingFiles, WatchTimes
from fsad_edge.serve.watch_history import Outcome, WatchHistory
from fsad_edge.serve.watch_index import FileVersion, SeenAs, SeenFile, WatchIndex
from fsad_edge.serve.watched_files import (
    Content,
    NotCompleteError,
    OpenError,
    WatchedFiles,
    mount_point,
    read_image,
    shown,
    why_unreadable,
)

log = logging.getLogger("fsad_edge.serve")

#: Most new files that are kept in memory, the oldest; the others are only counted.
MOST_WAITING = 10_000

#: A listing is followed by a pause of so many times its duration, a shorter one where the folder
#: has another time, which tells of a new, renamed or deleted file.
PAUSE, PAUSE_CHANGED = 10, 2


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
        self._name = shown(str(folder))
        self._files = WatchedFiles(folder, history.own_paths)
        self._heat_maps = HeatMapFiles(history.overlays)
        self._mount: str | None = None
        self._waiting = WaitingFiles()
        self._state, self._fault = WatchState.READING, ""
        self._busy: float | None = None  # since when the thread does one thing (monotonic)
        self._at: str | None = None  # the file that is read or scored, as it is shown
        self._progress, self._reminded = time.monotonic(), -math.inf
        self._looked, self._look_seconds = -math.inf, 0.0  # the last listing, and its duration
        self._folder_time = 0  # of the folder at the last listing
        self._announced: set[Reason] = set()
        self._is_announced = False
        self._tries_again = False  # whether the next listing takes up what could not be read
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
            log.warning("%s does not answer, and is left.", self._name)

    def status(self) -> schemas.WatchedFolder:
        """What waits, since when and why, what was scored, and what is left out."""
        waiting, oldest = self._waiting.new, self._waiting.oldest
        return schemas.WatchedFolder(
            folder=str(self._folder),
            model=self._model,
            results=str(self._history.results_path),
            state=self._state,
            fault=self._find_fault(oldest),
            waiting=len(waiting) + self._waiting.untracked,
            waiting_since=None if oldest is None else oldest.when,
            waiting_longest=None if oldest is None else oldest.file.name,
            waiting_for=dict(self._waiting.count_reasons()),
            comparing=len(self._waiting.all()) - len(waiting),
            scored=self._scored,
            errors=self._errors,
            heat_maps_lost=self._heat_maps.lost,
            skipped={str(reason): count for reason, count in self._files.skipped.items()},
        )

    def _find_fault(self, oldest: WaitingFile | None) -> str | None:
        clock, busy, limit = time.monotonic(), self._busy, self._times.stalled
        if self._thread.ident is not None and not self._thread.is_alive():
            if not self._stop.is_set():
                return f"{self._name} is not watched any more: start the service again."
        elif self._fault:
            return self._fault
        elif oldest is not None and clock - max(oldest.seen, self._progress) > limit:
            begin = f"{self._name}: no image had a result for {clock - self._progress:.0f} s, "
            if (at := self._at) is not None:
                return (
                    f"{begin}since {at} is being worked on, and {len(self._waiting.new):,} images "
                    f"wait: if it goes on, move {at} away and start the service again."
                )
            return (
                f"{begin}and {shown(oldest.file.name)} waits since {oldest.when} ({oldest.reason})."
            )
        elif busy is not None and clock - busy > limit:
            return f"{self._name} has not answered for {clock - busy:.0f} s."
        return None

    def _add_metrics(self) -> None:
        metrics, folder = self._service.metrics, self._name

        def oldest() -> float:
            found = self._waiting.oldest
            return 0.0 if found is None else time.monotonic() - found.seen

        metrics.watch_oldest.labels(folder).set_function(oldest)

        def waiting(reason: WaitReason) -> float:
            return self._waiting.count_reasons()[str(reason)]

        def skipped(reason: Reason) -> float:
            return self._files.skipped[reason]

        metrics.heat_maps_lost.labels(folder).set_function(lambda: self._heat_maps.lost)
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
            fault = self._words(error)
            if isinstance(error, sqlite3.Error):
                self._history.discard(error)
            if self._stop.is_set():
                return 0.0
            if fault != self._fault:
                log.error("%s Trying again.", fault, exc_info=not isinstance(error, KNOWN))
            self._fault = fault
            return self._times.retry
        finally:
            self._busy = self._at = None
        if self._fault:
            log.info("%s is watched again.", self._name)
            self._fault = ""
            self._progress = time.monotonic()
            self._files.forget()
            self._tries_again = True
        return pause

    def _words(self, error: Exception) -> str:
        if isinstance(error, FsadEdgeError):
            return str(error)
        if isinstance(error, sqlite3.Error):
            path = shown(str(self._history.index_path))
            if self._history.is_damaged_by(error):
                return f"{path} is damaged ({error}), and is made again from the results."
            return f"{path} cannot be written: {error}."
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"{self._name} cannot be read: {why}."

    def _turn(self) -> float:
        self._busy = time.monotonic()
        folder_time = self._check_mount()
        if not self._open_history():
            return self._times.retry
        pause = PAUSE if folder_time == self._folder_time else PAUSE_CHANGED
        begin = time.monotonic()
        if begin - self._looked >= pause * self._look_seconds:
            self._list()
            self._looked = time.monotonic()
            # The first listing asks for everything; the next ones tell what one costs.
            is_first, self._folder_time = not self._is_announced, folder_time
            self._look_seconds = 0.0 if is_first else self._looked - begin
            self._is_announced = True
            self._announce()
        if self._history.unwritten is not None:  # after the listing, so that all that wait count
            self._write(self._history.unwritten)
        is_done = self._attempt_all()
        self._history.commit()
        return self._times.poll if is_done else 0.0

    def _check_mount(self) -> int:
        """Refuse a folder whose disk is gone: it looks as if it were empty.

        Returns:
            the time of the last change of its entries.
        """
        # With the dot, which a Path would drop, a folder that may not be entered is refused, too.
        changed = os.stat(os.path.join(self._folder, ".")).st_mtime_ns
        mount = mount_point(self._folder)
        before = self._mount
        if before and before != mount and Path(before).is_relative_to(mount):
            with os.scandir(self._folder) as entries:
                is_empty = not any(entry.is_file() for entry in entries)
            if is_empty:
                raise InputError(
                    f"{self._name} was on the file system at {shown(before)}, which is not mounted "
                    "now: mount it; if it is not to be, the first file in the folder ends this."
                )
        self._mount = mount
        return changed

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
                log.info("%s is watched by another process: waiting.", self._name)
            self._state = WatchState.STANDBY
            return False
        if before is WatchState.STANDBY:
            self._service.restore(history.results)
        self._mount = history.index.get("mount") or self._mount
        self._check_mount()
        history.index.set("mount", self._mount or "")
        self._files.forget()
        self._heat_maps.clear()
        self._tries_again = True
        self._looked = -math.inf
        self._state, self._is_announced = WatchState.WATCHING, False
        return True

    def _list(self) -> None:
        """Find the files that have no result, or may have changed since."""
        index, clock, when = self._history.index, time.monotonic(), schemas.timestamp()
        found = compared = 0
        tries_again, self._tries_again = self._tries_again, False

        def unknown() -> Iterator[tuple[FileVersion, SeenFile | None]]:
            nonlocal found, compared
            for chunk in self._files.chunks():
                self._busy = time.monotonic()
                seen = index.look_up([file.name for file in chunk])
                for file in chunk:
                    last = seen.get(file.name)
                    if tries_again and last is not None and self._was_unread(file, last):
                        last = last._replace(changed=f"0 {file.inode}")  # not as it is now
                        index.add(file.name, last)
                    if last is None or not _is_done(index, file, last):
                        found += 1
                        compared += last is not None and last.may_be(file)
                        yield file, last
                    elif last.outcome is SeenAs.OWN:
                        self._files.leave_out(file, Reason.OWN)
                    else:
                        self._files.settle(file)

        def order(one: tuple[FileVersion, SeenFile | None]) -> tuple[bool, int]:
            """Files that may be the same come last, whatever their age."""
            file, last = one
            return last is not None and last.may_be(file), file.mtime_ns

        oldest = heapq.nsmallest(MOST_WAITING, unknown(), key=order)
        untracked = found - compared - sum(not order(one)[0] for one in oldest)
        self._waiting.replace(oldest, untracked, clock, when)
        if index.has_many:
            index.prune(self._files.names())
        if not self._is_announced:
            log.info(
                "watching %s: %d images in it have a result, %d have none yet; results go to %s.",
                self._name, self._files.done + compared, found - compared,
                shown(str(self._history.results_path)),
            )  # fmt: skip

    def _was_unread(self, file: FileVersion, last: SeenFile) -> bool:
        """Whether a file could not be read, and perhaps can be now."""
        is_error = last.outcome is SeenAs.ERROR and not last.sha256
        return is_error and not file.is_special and file.size <= self._service.bodies.limit

    def _announce(self) -> None:
        """Tell the log what is left out, once for each reason, and from time to time what waits."""
        for reason in self._files.skipped.keys() - self._announced:
            self._announced.add(reason)
            example = self._files.examples.get(reason, "an image")
            log.warning(
                "%s: %s is left out (%s); /v1/status counts such entries.",
                self._name, shown(example), reason,
            )  # fmt: skip
        clock = time.monotonic()
        oldest = self._waiting.oldest
        late = oldest is not None and clock - oldest.seen > self._times.open
        if oldest is None or not late or clock - self._reminded < self._times.remind:
            return
        self._reminded = clock
        log.warning(
            "%s: %d images wait, %s since %s (%s).",
            self._name, len(self._waiting.new) + self._waiting.untracked,
            shown(oldest.file.name), oldest.when, oldest.reason,
        )  # fmt: skip

    def _attempt_all(self) -> bool:
        """Try the files whose time has come. Returns whether that was all of them."""
        listed, times = self._look_seconds, self._times
        clock, end = time.monotonic(), time.monotonic() + max(2.0, PAUSE * listed)
        # Comparing gets little of the time, so that new images do not wait for it.
        compare_end = clock + max(times.poll, listed)
        for one in self._waiting.all():
            is_due = one.is_due(clock, times)
            if not is_due and not one.never_rests(clock, times):
                continue
            now = self._busy = time.monotonic()
            if self._stop.is_set() or (one.known is not None and now > compare_end):
                return True
            if now > end:
                return False
            if not is_due:
                why = f"{shown(one.file.name)} is still being written to after {now - one.seen:.0f}"
                self._give_up(one, f"{why} s: it is looked at again once it is complete.", None)
                continue
            if one.reason is WaitReason.SETTLING:
                one.reason = WaitReason.QUEUED
            self._at = shown(one.file.name)
            self._attempt(one)
            self._at = None
            self._history.commit()
        return True

    def _attempt(self, one: WaitingFile) -> None:
        """Score a file, or note why it waits, or give it up."""
        file, times, most = one.file, self._times, self._service.bodies.limit
        path, name = self._folder / file.name, shown(file.name)
        if file.size > most:
            why = f"{name} has {file.size:,} bytes, more than the limit of {most:,}"
            self._give_up(one, f"{why}: make it smaller, or raise --max-mb.", None)
            return
        even_open = time.monotonic() - one.unchanged >= times.open
        try:
            if file.is_special:
                raise OSError("it cannot be reached")
            content = read_image(path, file, even_open)
        except OpenError:
            one.reason = WaitReason.OPEN
        except NotCompleteError:
            one.reason = WaitReason.SETTLING
            one.unchanged, one.changes = time.monotonic(), one.changes + 1
        except OSError as error:
            if not os.path.lexists(path):  # it was moved away in the meantime
                self._waiting.remove(file.name)
                return
            why = f"{name} cannot be read: {why_unreadable(path, error)}."
            is_away = file.is_unreachable and not os.path.islink(path)
            bound = times.undecodable if file.is_special and not is_away else times.give_up
            self._hold(one, WaitReason.UNREADABLE, why, bound, None)
        else:
            self._process(one, content)

    def _process(self, one: WaitingFile, content: Content) -> None:
        file, data, times, index = one.file, content.data, self._times, self._history.index
        digest = sha256(data)
        if one.known is not None and one.known.sha256 == digest:
            index.add(file.name, one.known._replace(changed=file.changed))
            self._forget(file)
            return
        if is_own_picture(data[:HEAD]):
            index.add(file.name, SeenFile(file.written, file.changed, digest, SeenAs.OWN))
            self._forget(file)
            return
        try:
            record = self._record(file, data, digest, self._score(data))
        except ImageError as error:
            bound = times.give_up if content.is_open else times.undecodable
            self._hold(one, WaitReason.UNDECODABLE, str(error), bound, data)
        except Exception as error:
            if one.reason is not WaitReason.FAILED:
                log.exception("%s could not be scored; trying again.", shown(file.name))
            why = f"{shown(file.name)} could not be scored: {error}"
            self._hold(one, WaitReason.FAILED, why, times.give_up, data)
        else:
            self._write(Outcome(file, digest, record))

    def _score(self, data: bytes) -> ScoredImage:
        at, self._at = self._at, None  # it waits like the others until there is a place
        with self._service.queue.reserve(wait=True):
            self._at = at
            future = self._service.score(self._service.models[self._model], data)
            return future.result()

    def _hold(
        self, one: WaitingFile, reason: WaitReason, why: str, bound: float, data: bytes | None
    ) -> None:
        """Let a file wait, or give it up where it is unchanged for too long."""
        clock = time.monotonic()
        waited = clock - one.unchanged
        one.reason = reason
        # Less often the longer it takes.
        one.retry = clock + min(waited / 4, max(0.0, bound - waited))
        if waited < bound or (one.known is not None and data is None):
            one.retry = max(one.retry, clock + self._times.poll)
            return
        self._give_up(one, why, data)

    def _give_up(self, one: WaitingFile, why: str, data: bytes | None) -> None:
        """Write the error of a file, unless it has one already and has only grown since."""
        file, last = one.file, one.last
        digest = None if data is None else sha256(data)
        if last is not None and last.may_have_grown(file):
            beginning = "" if data is None else sha256(data[: last.size])
            if last.sha256 in {"", beginning}:
                seen = SeenFile(file.written, file.changed, digest or "", SeenAs.ERROR)
                self._history.index.add(file.name, seen)
                self._forget(file)
                return
        log.warning("%s: %s", shown(str(self._folder / file.name)), why)
        record = schemas.WatchedError(
            time=schemas.timestamp(), model=self._model, error=why, folder=str(self._folder),
            name=file.name, size=file.size, mtime_ns=file.mtime_ns, sha256=digest,
        )  # fmt: skip
        self._write(Outcome(file, digest or "", record))

    def _record(
        self, file: FileVersion, data: bytes, digest: str, scored: ScoredImage
    ) -> schemas.ResultRecord:
        overlay: str | None = None
        result = scored.result
        if not result.good:
            scale = scored.served.model.metadata.scale
            image = StoredImage(data, result.anomaly_map, result.map_threshold, scale)
            overlay = self._heat_maps.write(file, digest, result.decision, image)
        kind = functools.partial(
            schemas.WatchedResult, folder=str(self._folder), size=file.size,
            mtime_ns=file.mtime_ns, sha256=digest, overlay=overlay,
        )  # fmt: skip
        return self._service.keep(scored, schemas.Source.WATCH, file.name, data, kind=kind)

    def _write(self, outcome: Outcome) -> None:
        """Write a result, and only then send it: what is not on the disk may be scored again."""
        self._history.write(outcome)
        self._forget(outcome.file)
        if isinstance(outcome.record, schemas.WatchedError):
            self._errors += 1
            self._service.metrics.watched.labels("errors").inc()
        else:
            self._scored += 1
            self._service.metrics.watched.labels("scored").inc()
            self._service.publish(outcome.record)
        self._history.note(outcome)

    def _forget(self, file: FileVersion) -> None:
        self._waiting.remove(file.name)
        self._progress = time.monotonic()


#: Errors whose words say all; of others, the log has the traceback.
KNOWN = (OSError, sqlite3.Error, FsadEdgeError)


def _is_done(index: WatchIndex, file: FileVersion, seen: SeenFile) -> bool:
    """Whether a file is the one that was scored, as far as can be told without reading it."""
    if file.is_unreachable:  # it is away, and no new one
        return True
    if seen.written == file.written and not seen.changed and not seen.sha256:
        # Its result tells no more than this; from now on it can be told.
        index.add(file.name, seen._replace(changed=file.changed))
        return True
    return seen.is_same(file)
