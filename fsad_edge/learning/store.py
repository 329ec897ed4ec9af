"""The folder next to a model file that holds what a device learned.

part.learned/
  journal.jsonl     what was learned and undone, by whom and when; bound to the file's SHA-256
  images/ID.SUFFIX  the images as they were given; with the journal they hold all that was learned
  images/ID.npz     their novel patches, a cache that is computed again where it is missing
  lock              locked by the process that may write

An image is on disk before its line in the journal is, and that line before the answer is given. A
process can therefore be killed at any moment: the next one removes what was left unfinished.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np

from fsad_edge.errors import ModelFileError
from fsad_edge.learning.journal import (
    CURE,
    Entry,
    FolderLock,
    Journal,
    Record,
    Undo,
    sync_folder,
)
from fsad_edge.learning.novelty import Novelty
from fsad_edge.runtime.files import read_bytes, sha256, write_bytes, writing
from fsad_edge.runtime.provenance import utc_now

JOURNAL, IMAGES, LOCK = "journal.jsonl", "images", "lock"


def store_path(model_path: Path) -> Path:
    """The folder for what a model file learns: ``part.learned`` for ``part.onnx``."""
    return model_path.with_suffix(".learned")


class LearningStore:
    """What was learned next to one model file, on disk.

    Args:
        model_path: the model file.
        model_sha256: SHA-256 of its bytes.

    Attributes:
        path: the folder; it is made when the first image is learned.
        images: the folder of the images.
        entries: all that was ever learned, by id, oldest first.
        notice: a sentence for the user where a torn line was dropped, else None.
    """

    def __init__(self, model_path: Path, model_sha256: str) -> None:
        self.path, self._model_path = store_path(model_path), model_path
        self._model_sha256 = model_sha256
        self.images, self._journal = self.path / IMAGES, Journal(self.path / JOURNAL)
        self._lock: FolderLock | None = None
        self.entries: dict[int, Entry] = {}
        self.notice: str | None = None

    @property
    def locked(self) -> bool:
        """Whether this process may write."""
        return self._lock is not None

    @property
    def active(self) -> list[Entry]:
        """The entries that are not undone, oldest first."""
        return [entry for entry in self.entries.values() if entry.undone is None]

    def lock(self) -> None:
        """Keep other processes from writing, until :meth:`release`; makes the folder.

        Raises:
            InputError: another process may write, or the folder cannot be written.
        """
        with writing(self.path):
            self.images.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(self.path / LOCK)

    def release(self) -> None:
        """Let other processes write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def read(self) -> None:
        """Read the journal.

        Raises:
            ModelFileError: it belongs to another model file, is newer or damaged.
            InputError: it cannot be read.
        """
        if not self._journal.path.exists():
            return
        records, torn = self._journal.read()
        if torn:
            self.notice = (
                f"the last line of {self._journal.path} was never finished and is left out: "
                "whoever wrote it got no confirmation."
            )
        if not records:
            return
        if records[0].model != self._model_sha256:
            raise ModelFileError(
                f"{self.path} was learned with another model file than {self._model_path}: rename "
                f"the folder, and teach its images to this file with  fsad-edge bank add "
                f"{self._model_path} FOLDER/{IMAGES} ."
            )
        for record in records[1:]:
            self._take(record)
        if self.locked:
            self._remove_unused()

    def add(self, entry: Entry, image: bytes) -> None:
        """Add an entry; it is on disk when this returns.

        Raises:
            InputError: it cannot be written; nothing is changed.
        """
        write_bytes(self.image_path(entry), image)
        sync_folder(self.images)
        self._append(Record(added=entry))

    def undo(self, number: int, who: str) -> Entry:
        """Undo an active entry and delete its image.

        Raises:
            InputError: it cannot be written; nothing is changed.
        """
        self._append(Record(undone=Undo(number, utc_now(), who)))
        self._remove_unused()
        return self.entries[number]

    def image_path(self, entry: Entry) -> Path:
        """The image of an active entry."""
        return self.images / entry.file

    def image(self, entry: Entry) -> bytes:
        """The encoded image of an active entry.

        Raises:
            ModelFileError: it is missing, or not the image that was learned.
        """
        path = self.image_path(entry)
        image = read_bytes(path, ModelFileError, CURE)
        if sha256(image) != entry.sha256:
            raise ModelFileError(f"{path} is not the image that was learned: {CURE}.")
        return image

    def image_bytes(self) -> int:
        """Size of all active images in bytes."""
        size = 0
        for entry in self.active:
            with contextlib.suppress(OSError):
                size += self.image_path(entry).stat().st_size
        return size

    def cache_novelty(self, entry: Entry, novelty: Novelty) -> None:
        """Save the novel patches of an image for a quicker start; a failure does no harm."""
        if not self.locked:
            return
        buffer = io.BytesIO()
        np.savez(buffer, **vars(novelty))
        path = self._cache_path(entry)
        temporary = path.with_suffix(".new")
        with contextlib.suppress(OSError):
            temporary.write_bytes(buffer.getvalue())
            temporary.replace(path)

    def cached_novelty(self, entry: Entry, dimension: int) -> Novelty | None:
        """What :meth:`cache_novelty` saved; None where it is missing or does not fit."""
        try:
            with np.load(io.BytesIO(self._cache_path(entry).read_bytes())) as arrays:
                novelty = Novelty(*(arrays[field.name] for field in dataclasses.fields(Novelty)))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        fits = novelty.upright.shape[1:] == novelty.rotated.shape[1:] == (dimension,)
        return novelty if fits and novelty.known.ndim == 1 else None

    def _cache_path(self, entry: Entry) -> Path:
        return self.images / f"{entry.id:04d}.npz"

    def _take(self, record: Record) -> None:
        """Apply one record of the journal to the entries."""
        if record.added is not None:
            self.entries[record.added.id] = record.added
        if record.undone is not None:
            undo = record.undone
            if undo.id not in self.entries:
                raise ModelFileError(
                    f"{self._journal.path} is damaged (it undoes {undo.id}, which it never "
                    f"added): {CURE}."
                )
            self.entries[undo.id] = dataclasses.replace(
                self.entries[undo.id], undone=undo.when, undone_by=undo.who
            )

    def _append(self, record: Record) -> None:
        if not self._journal.length:
            self._journal.append(Record(model=self._model_sha256))
            sync_folder(self.path)
            sync_folder(self.path.parent)
        self._journal.append(record)
        self._take(record)

    def _remove_unused(self) -> None:
        """Delete the images of undone entries, and those that a killed process left."""
        used = {entry.file for entry in self.active}
        used |= {self._cache_path(entry).name for entry in self.active}
        for path in self.images.glob("*"):
            if path.name not in used:
                with contextlib.suppress(OSError):
                    path.unlink()
