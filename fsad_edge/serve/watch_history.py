"""What a watched folder has had scored: its results, the index of them, and who may write them."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from fsad_edge.errors import InputError
from fsad_edge.options import Decision
from fsad_edge.runtime.files import is_folder, open_in_place, sha256, writing
from fsad_edge.serve.result_lines import is_whole, read_results
from fsad_edge.serve.results_file import ResultsFile
from fsad_edge.serve.schemas import ResultRecord, WatchedError
from fsad_edge.serve.watch_index import FileVersion, SeenAs, SeenFile, WatchIndex, written_key
from fsad_edge.serve.watched_files import mount_point, shown

log = logging.getLogger("fsad_edge.serve")

#: Seconds between two writes of the index to the disk.
COMMIT_SECONDS = 5.0

#: File systems that hold no files of anybody; others may be mounted below them, as /dev/shm.
NO_FILES = frozenset({"/dev", "/proc", "/sys"})


@dataclass(frozen=True)
class WatchPlace:
    """Where a watched folder's results and index are.

    Attributes:
        folder: the watched folder.
        results: the folder of its results.
        index: the folder of its index.
    """

    folder: Path
    results: Path
    index: Path


def find_places(folders: list[Path], results: Path | None) -> list[WatchPlace]:
    """Where each watched folder's results go: no two have a file in common.

    Args:
        folders: the watched folders.
        results: the folder for results; None puts those of each folder into ``fsad-edge`` in it.
            A single watched folder has them in ``results`` itself, and one of several in a folder
            of its own there, whose name is the watched folder's with a hash of its path.

    Raises:
        InputError: one is not a folder, is one of devices, or is given twice.
    """
    places: dict[str, WatchPlace] = {}
    for given in folders:
        folder = given.absolute()
        if not is_folder(given):
            raise InputError(f"--watch {given} is not a folder: make it first.")
        if sys.platform == "linux" and mount_point(folder) in NO_FILES:
            raise InputError(
                f"--watch {given} holds devices, or what the system tells of itself, and no "
                "photographs: name another folder."
            )
        real = os.path.realpath(folder)
        if real in places:
            raise InputError(
                f"--watch {given} is the same folder as --watch {places[real].folder}: give each "
                "folder once, with one model."
            )
        if results is None:
            own = folder / "fsad-edge"
            places[real] = WatchPlace(folder, own, own)
        else:
            name = f"{os.path.basename(real) or 'root'}-{sha256(os.fsencode(real))[:8]}"
            own = results / name
            places[real] = WatchPlace(folder, own if len(folders) > 1 else results, own)
    return list(places.values())


@dataclass(frozen=True)
class Outcome:
    """The result of a file; ``sha256`` of its content is empty where it could not be read."""

    file: FileVersion
    sha256: str
    record: ResultRecord | WatchedError


class _Names:
    """The names in a folder, listed when the first one is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @functools.cached_property
    def _all(self) -> set[str]:
        return set(os.listdir(self._folder))

    def __contains__(self, name: str) -> bool:
        return name in self._all


def _to_seen(record: dict[str, Any]) -> tuple[str, SeenFile] | None:
    """The file that a line of the results tells of; None where a member is damaged."""
    name, digest = record.get("name"), record.get("sha256") or ""
    size, mtime_ns = record.get("size"), record.get("mtime_ns")
    if not (isinstance(name, str) and isinstance(digest, str)):
        return None
    if type(size) is not int or type(mtime_ns) is not int:
        return None
    try:
        os.fsencode(name)
    except ValueError:  # half of a pair of surrogates, which no name of a file has
        return None
    outcome = SeenAs.ERROR if record.get("decision") == Decision.ERROR else SeenAs.SCORED
    return name, SeenFile(written_key(size, mtime_ns), "", digest, outcome)


class WatchHistory:
    """The results of one watched folder and the index of them. For one thread.

    A result is in the results file first and in the index after it, in memory and on the disk
    alike: what the index has not seen when the process is killed is read again from the results.

    Args:
        place: the folder, and where its results and its index go.
        results: the file that gets a line for each image.

    Attributes:
        results: as given.
        overlays: the folder of the heat maps of rejects.

    Raises:
        InputError: a folder cannot be made.
    """

    def __init__(self, place: WatchPlace, results: ResultsFile) -> None:
        self._place, self.results = place, results
        self._index: WatchIndex | None = None
        self._lock: FileIO | None = None
        self._unwritten: Outcome | None = None
        self._committed = 0.0
        self.overlays = results.path.parent / "overlays"
        self.index_path = place.index / "watch.sqlite"
        try:
            self._make_folders()
        except OSError as error:
            raise InputError(
                f"{error.filename} cannot be made ({error.strerror}): choose another folder with "
                "--results."
            ) from error

    @property
    def own_paths(self) -> list[Path]:
        """The files and folders that the service makes."""
        return [self._place.results, self._place.index, self.overlays, *self.results.paths]

    @property
    def results_path(self) -> Path:
        """The file that gets a line for each image."""
        return self.results.path

    @property
    def index(self) -> WatchIndex:
        """The index, which must be open."""
        assert self._index is not None
        return self._index

    @property
    def is_open(self) -> bool:
        """Whether the index is open, and still the file at its path."""
        return self._index is not None and not self._index.replaced

    def open(self, go_on: Callable[[], bool]) -> bool:
        """Open the index, and bring it up to the last result.

        Args:
            go_on: is asked at each result that is read; a no raises InterruptedError.

        Returns:
            False where another process watches the folder.

        Raises:
            InputError, sqlite3.Error: it cannot be read or written.
        """
        self.close()
        with writing(self._place.index):
            self._make_folders()
            if not self._take_lock():
                return False
        try:
            with writing(self.results.path):
                self.results.reopen()
            index = WatchIndex(self.index_path)
            try:
                self._read_results(index, go_on)
            except BaseException:
                index.close()  # what it has read so far is not committed
                raise
        except BaseException:
            self._unlock()
            raise
        self._index = index
        return True

    def write(self, outcome: Outcome) -> None:
        """Write a result. It is kept, and can be written later, where that fails.

        Raises:
            InputError: it cannot be written.
        """
        self._unwritten = outcome
        with writing(self.results.path):
            self.results.write(outcome.record)
        self._unwritten = None

    def note(self, outcome: Outcome) -> None:
        """Note in the index what was written.

        Raises:
            sqlite3.Error: it cannot be noted; the next :meth:`open` finds it in the results.
        """
        file = outcome.file
        # Within a step of a coarse clock the file can be written again without a trace.
        changed = "" if file.coarse and outcome.sha256 else file.changed
        kind = SeenAs.ERROR if isinstance(outcome.record, WatchedError) else SeenAs.SCORED
        self.index.add(file.name, SeenFile(file.written, changed, outcome.sha256, kind))

    @property
    def unwritten(self) -> Outcome | None:
        """The result that could not be written, if there is one."""
        return self._unwritten

    def commit(self, at_once: bool = False) -> None:
        """Write to the disk what has a result: first the results, then the index.

        Args:
            at_once: do it even where the last time is not long ago.

        Raises:
            InputError, sqlite3.Error: it cannot be written.
        """
        clock = time.monotonic()
        if self._index is not None and (at_once or clock - self._committed > COMMIT_SECONDS):
            self._committed = clock
            with writing(self.results.path):
                mark = self.results.sync()
            self._index.commit(mark)

    def close(self) -> None:
        """Close the index and free the folder for another process."""
        if self._index is not None:
            with contextlib.suppress(InputError, sqlite3.Error):
                self.commit(at_once=True)
            self._index.close()
        self._index = None
        self._unlock()

    def discard(self, error: sqlite3.Error) -> None:
        """Close the index after an error of its own, as it was before the last commit."""
        if self._index is not None:
            self._index.close()
            if self._index.is_damage(error):
                self.index_path.unlink(missing_ok=True)
        self._index = None
        self._unlock()

    def is_damaged_by(self, error: sqlite3.Error) -> bool:
        """Whether an error tells that the index is damaged."""
        return self._index is not None and self._index.is_damage(error)

    def close_results(self) -> None:
        """Close the results file, too."""
        self.close()
        self.results.close()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def _make_folders(self) -> None:
        for folder in (self._place.results, self._place.index):
            folder.mkdir(exist_ok=True)

    def _read_results(self, index: WatchIndex, go_on: Callable[[], bool]) -> None:
        mark, before = index.mark, index.get("results")
        folders = list(dict.fromkeys([self._place.index, self._place.results]))
        # A folder that was once watched alone has older results above its index.
        everywhere = list(dict.fromkeys([*folders, self._place.index.parent]))
        is_changed = mark is not None and not any(is_whole(one, mark) for one in everywhere)
        if is_changed:
            mark, folders = None, everywhere
        elif mark is not None and before is not None:
            folders = [self._place.index / before]
        names, left_out = _Names(self._place.folder), list[Path]()

        def is_wanted(name: str) -> bool:
            return name in names or bool(index.look_up([name]))

        for folder in folders:
            for record in read_results(folder, mark, is_wanted, left_out):
                if not go_on():
                    raise InterruptedError
                self._take_over(index, record, is_changed)
        if is_changed and not left_out:
            self._forget_lost(index, names)
        index.set("results", os.path.relpath(self._place.results, self._place.index))
        index.commit(self.results.sync())

    def _take_over(self, index: WatchIndex, record: dict[str, Any], is_noted: bool) -> None:
        """Take over what a line tells of a watched folder's file."""
        found = _to_seen(record) if "folder" in record else None
        if found is None:
            return
        if record["folder"] == str(self._place.folder):
            self._restore(index, *found)
        if is_noted:  # the folder may have had another path
            index.note_line(found[0], found[1].sha256)

    def _forget_lost(self, index: WatchIndex, names: _Names) -> None:
        """Let the images be scored again whose results are not in the results files any more."""
        lost = index.forget_without_line()
        path, folder = shown(str(self.results.path)), shown(str(self._place.folder))
        if lost:
            more = f" and {len(lost) - 3:,} more" if len(lost) > 3 else ""
            are = "1 result of %s is" if len(lost) == 1 else f"{len(lost):,} results of %s are"
            log.warning(
                f"{are} not in %s any more, nor in the files put aside (%s%s): something else "
                "changed, emptied or deleted it, or the disk has damaged it. Of their images %d "
                "are in the folder, and are scored again.",
                folder, path, ", ".join(map(shown, lost[:3])), more,
                sum(name in names for name in lost),
            )  # fmt: skip
        else:
            log.warning(
                "%s is not as the service left it: something else changed it, or the disk has "
                "damaged it. The results of %s are all in it.", path, folder,
            )  # fmt: skip

    def _restore(self, index: WatchIndex, name: str, seen: SeenFile) -> None:
        """Note what a line of the results tells, unless the index tells of the file as it is now.

        The line may be an older one, or be damaged.
        """
        before = index.look_up([name]).get(name)
        if before is not None:
            if (before.written, before.sha256) == (seen.written, seen.sha256):
                return
            with contextlib.suppress(OSError, ValueError):
                if before.is_same(FileVersion.of(name, os.stat(self._place.folder / name))):
                    return
        index.add(name, seen)

    def _take_lock(self) -> bool:
        """Take the lock of the folder; True where there is none to be had."""
        if sys.platform == "win32":
            return True
        import fcntl

        path = self._place.index / "watch.lock"
        with writing(path):
            lock = open_in_place(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        except OSError:  # this file system has no locks
            pass
        self._lock = lock
        return True
