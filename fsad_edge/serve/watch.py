"""A watched folder: each new image is scored once, when it is complete.

It is looked at, not listened to: network shares, on which cameras write, give no events.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsad_edge.errors import ImageError, InputError
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.images import IMAGE_SUFFIXES
from fsad_edge.serve.models import now
from fsad_edge.serve.results import Kept, Record
from fsad_edge.serve.scoring_queue import Scored
from fsad_edge.serve.service import Service
from fsad_edge.serve.sinks import ResultsFile

log = logging.getLogger("fsad_edge.serve")

#: Seconds between two looks; longer where a look takes long.
POLL_SECONDS = 0.25

#: Seconds for which a file must not have changed.
SETTLED_SECONDS = 0.5

#: Seconds that an unchanged file which cannot be decoded is given, in case it is still written.
PATIENCE_SECONDS = 5.0

#: Name, size and modification time in nanoseconds: another version of a file is another image.
Key = tuple[str, int, int]


@dataclass
class Candidate:
    """A file that is not scored yet."""

    key: Key
    since: float


class Watch:
    """One folder, its model, and the folder that its results go to.

    Args:
        folder: looked at itself, not what is below it; hidden and temporary names are left out.
        results: gets a line for each image; overlays go into ``overlays/`` beside it.
        model: name of the model.
        service: that scores.

    Raises:
        InputError: a folder that cannot be used.
    """

    def __init__(self, folder: Path, results: ResultsFile, model: str, service: Service) -> None:
        if not folder.is_dir():
            raise InputError(f"--watch {folder} is not a folder.")
        self._folder, self._model, self._service = folder, model, service
        self._overlays = results.path.parent / "overlays"
        self._file = results
        try:
            self._overlays.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{self._overlays} cannot be made: {error.strerror}.") from error
        # What was filed is what was scored: one record of it, which no crash can put at odds.
        self._done: set[Key] = {
            (record["name"], record["size"], record["mtime_ns"])
            for record in self._file.read()
            if record.get("folder") == str(folder)
        }
        self._waiting: dict[str, Candidate] = {}
        self._counts = {"scored": 0, "errors": 0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def status(self) -> dict[str, int]:
        """What ``/v1/status`` says."""
        return {"waiting": len(self._waiting), **self._counts}

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End, once the image in hand is filed."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = POLL_SECONDS
        while not self._stop.wait(pause):
            begin = time.monotonic()
            try:
                ready = self._look()
            except OSError as error:
                log.error("%s cannot be read (%s); trying again.", self._folder, error)
                pause = 5.0
                continue
            # A large folder takes long to look at: a tenth of the time at most.
            pause = max(POLL_SECONDS, 10 * (time.monotonic() - begin))
            for candidate in ready:
                if self._stop.is_set():
                    return
                try:
                    self._handle(candidate)
                except Exception:
                    log.exception("%s could not be filed; trying again.", candidate.key[0])
                    pause = 5.0
                    break

    def _look(self) -> list[Candidate]:
        """The files that are new and have settled, oldest first."""
        present: dict[str, Candidate] = {}
        clock = time.monotonic()
        for key in self._files():
            if key in self._done:
                continue
            known = self._waiting.get(key[0])
            unchanged = known is not None and known.key == key
            present[key[0]] = known if known and unchanged else Candidate(key, clock)
        self._waiting = present
        settled = [
            candidate for candidate in present.values() if clock - candidate.since > SETTLED_SECONDS
        ]
        return sorted(settled, key=lambda candidate: candidate.key[2])

    def _files(self) -> Iterator[Key]:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                name = entry.name
                if name[0] in ".~" or os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file():
                        found = entry.stat()
                        yield name, found.st_size, found.st_mtime_ns

    def _handle(self, candidate: Candidate) -> None:
        path = self._folder / candidate.key[0]
        try:
            data = _read_closed(path)
        except FileNotFoundError:  # moved away in the meantime
            return
        if data is None or len(data) != candidate.key[1]:
            return  # still written to
        try:
            scored = self._score(data)
        except ImageError as error:
            if time.monotonic() - candidate.since < PATIENCE_SECONDS:
                return
            self._file_error(candidate.key, str(error))
            return
        if scored is not None:
            self._file_result(candidate.key, data, scored)

    def _score(self, data: bytes) -> Scored | None:
        with self._service.scorer.room(wait=True):
            future = self._service.score(self._service.models[self._model], data)
            return future.result()

    def _file_result(self, key: Key, data: bytes, scored: Scored) -> None:
        overlay: str | None = None
        if scored.result.anomalous:
            overlay = f"{key[0]}.{key[2]}.overlay.jpg"
            kept = Kept(data, scored.result.anomaly_map, scored.result.map_threshold)
            write_bytes(self._overlays / overlay, kept.jpeg(1600, heat=True))
        record = self._service.file(
            scored, "watch", key[0], data, overlay=overlay, **self._identity(key)
        )
        self._finish(key, record, "scored")

    def _file_error(self, key: Key, error: str) -> None:
        log.warning("%s: %s", self._folder / key[0], error)
        record = {
            "time": now(), "model": self._model, "source": "watch", "name": key[0],
            "decision": "error", "error": error, **self._identity(key),
        }  # fmt: skip
        self._finish(key, record, "errors")

    def _identity(self, key: Key) -> dict[str, Any]:
        return {"folder": str(self._folder), "size": key[1], "mtime_ns": key[2]}

    def _finish(self, key: Key, record: Record, outcome: str) -> None:
        self._file.write(record)
        self._done.add(key)
        self._waiting.pop(key[0], None)
        self._counts[outcome] += 1
        self._service.metrics.watched.labels(outcome).inc()


def _read_closed(path: Path) -> bytes | None:
    """A file's bytes; None while another process is known to have it open for writing."""
    with path.open("rb") as file:
        if sys.platform == "linux":
            import fcntl

            # The kernel gives a read lease only on a file that nobody writes. Other errors: it
            # cannot tell (another owner's file, a network share).
            try:
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            except BlockingIOError:
                return None
            except OSError:
                pass
        return file.read()
