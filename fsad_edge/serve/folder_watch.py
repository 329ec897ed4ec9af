"""A watched folder: each new image is scored once, when it is complete.

The folder is polled, because network shares, on which cameras write, send no events.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fsad_edge.errors import ImageError, InputError
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.folders import IMAGE_SUFFIXES
from fsad_edge.serve import schemas
from fsad_edge.serve.result_store import StoredImage
from fsad_edge.serve.results_file import ResultsFile
from fsad_edge.serve.scoring_queue import ScoredImage
from fsad_edge.serve.service import Service

log = logging.getLogger("fsad_edge.serve")

#: Seconds between two polls; longer where a poll takes long.
POLL_SECONDS = 0.25

#: Seconds for which a file must stay unchanged before it is scored.
SETTLED_SECONDS = 0.5

#: Seconds after which an unchanged file that cannot be decoded counts as an error. Before that, it
#: may still be written.
PATIENCE_SECONDS = 5.0


class FileVersion(NamedTuple):
    """A file with one size and modification time; a rewritten file is another image."""

    name: str
    size: int
    mtime_ns: int


class FolderWatch:
    """Scores the new images of a folder.

    Args:
        folder: the folder; those below it, and hidden and temporary files, are left out.
        results: the file that gets a line for each image. Heat maps go to ``overlays/`` next to it.
        model: name of the model that scores.
        service: the service.

    Raises:
        InputError: a folder cannot be read or made.
    """

    def __init__(self, folder: Path, results: ResultsFile, model: str, service: Service) -> None:
        if not folder.is_dir():
            raise InputError(f"--watch {folder} is not a folder: make it first.")
        self._folder, self._model, self._service = folder, model, service
        self._overlays = results.path.parent / "overlays"
        self._results = results
        try:
            self._overlays.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self._overlays} cannot be made ({error.strerror}): choose another folder with "
                "--results."
            ) from error
        # The results file is the only record of what was scored, so that a crash cannot leave two
        # records that differ.
        self._done = {
            FileVersion(record["name"], record["size"], record["mtime_ns"])
            for record in results.read()
            if record.get("folder") == str(folder)
        }
        self._waiting: dict[FileVersion, float] = {}  # since when each is unchanged (monotonic)
        self._scored = self._errors = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def status(self) -> schemas.WatchStatus:
        """Files that wait, were scored and could not be decoded."""
        return schemas.WatchStatus(len(self._waiting), self._scored, self._errors)

    def start(self) -> None:
        """Start to poll the folder."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, once the result of the current image is written."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = POLL_SECONDS
        while not self._stop.wait(pause):
            begin = time.monotonic()
            try:
                ready = self._poll()
            except OSError as error:
                log.error("%s cannot be read (%s); trying again.", self._folder, error)
                pause = 5.0
                continue
            # Polling a large folder takes long: it gets a tenth of the time at most.
            pause = max(POLL_SECONDS, 10 * (time.monotonic() - begin))
            for file in ready:
                if self._stop.is_set():
                    return
                try:
                    self._process(file)
                except Exception:
                    log.exception("%s could not be processed; trying again.", file.name)
                    pause = 5.0
                    break

    def _poll(self) -> list[FileVersion]:
        """The new files that are unchanged for long enough, oldest first."""
        clock, waiting = time.monotonic(), self._waiting
        self._waiting = {
            file: waiting.get(file, clock) for file in self._files() if file not in self._done
        }
        settled = (file for file, since in self._waiting.items() if clock - since > SETTLED_SECONDS)
        return sorted(settled, key=lambda file: file.mtime_ns)

    def _files(self) -> Iterator[FileVersion]:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                name = entry.name
                if name[0] in ".~" or os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file():
                        found = entry.stat()
                        yield FileVersion(name, found.st_size, found.st_mtime_ns)

    def _process(self, file: FileVersion) -> None:
        try:
            data = _read_closed(self._folder / file.name)
        except FileNotFoundError:  # it was moved away in the meantime
            return
        if data is None or len(data) != file.size:
            return  # it is still written to
        try:
            scored = self._score(data)
        except ImageError as error:
            if time.monotonic() - self._waiting[file] >= PATIENCE_SECONDS:
                self._record_error(file, str(error))
            return
        self._record_result(file, data, scored)

    def _score(self, data: bytes) -> ScoredImage:
        with self._service.queue.reserve(wait=True):
            future = self._service.score(self._service.models[self._model], data)
            return future.result()

    def _record_result(self, file: FileVersion, data: bytes, scored: ScoredImage) -> None:
        overlay: str | None = None
        result = scored.result
        if result.anomalous:
            overlay = f"{file.name}.{file.mtime_ns}.overlay.jpg"
            image = StoredImage(data, result.anomaly_map, result.map_threshold)
            write_bytes(self._overlays / overlay, image.jpeg(1600, heat=True))
        kind = functools.partial(
            schemas.WatchedResult, folder=str(self._folder), size=file.size,
            mtime_ns=file.mtime_ns, overlay=overlay,
        )  # fmt: skip
        record = self._service.record(scored, schemas.Source.WATCH, file.name, data, kind=kind)
        self._finish(file, record)
        self._scored += 1

    def _record_error(self, file: FileVersion, error: str) -> None:
        log.warning("%s: %s", self._folder / file.name, error)
        record = schemas.WatchedError(
            time=schemas.timestamp(), model=self._model, error=error, folder=str(self._folder),
            name=file.name, size=file.size, mtime_ns=file.mtime_ns,
        )  # fmt: skip
        self._finish(file, record)
        self._errors += 1

    def _finish(
        self, file: FileVersion, record: schemas.ResultRecord | schemas.WatchedError
    ) -> None:
        self._results.write(record)
        self._done.add(file)
        self._waiting.pop(file, None)
        outcome = "errors" if isinstance(record, schemas.WatchedError) else "scored"
        self._service.metrics.watched.labels(outcome).inc()


def _read_closed(path: Path) -> bytes | None:
    """The bytes of a file; None while another process has it open for writing."""
    with path.open("rb") as file:
        if sys.platform == "linux":
            import fcntl

            # The kernel grants a read lease only for a file that nobody writes. Any other error
            # means that it cannot tell (a file of another owner, a network share).
            try:
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            except BlockingIOError:
                return None
            except OSError:
                pass
        return file.read()
