"""The folder in which what a device learned is kept, beside the model file.

part.learned/
  journal.jsonl     what was learned and undone, by whom and when; bound to the file's SHA-256
  images/ID.SUFFIX  the images as they were given; with the journal they are all there is to know
  images/ID.npz     their novel patches; made again from the image where this is not there
  lock              held by the process that may write

An image is on disk before its line in the journal is, and the line before anyone is told: a process
can be killed at any moment, and what it leaves half done is cleared away by the next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.learning.journal import FolderLock, append, read_journal, sync_folder
from fsad_edge.learning.novelty import Novelty
from fsad_edge.runtime.files import sha256, write_bytes
from fsad_edge.runtime.provenance import utc_now

JOURNAL, IMAGES, LOCK = "journal.jsonl", "images", "lock"

#: Of the journal; a newer one is refused.
FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One learned image.

    Attributes:
        id: counts up from 1; none is used twice.
        when: UTC, ISO 8601.
        who: that called it good.
        sha256: of the encoded image.
        file: its name below ``images/``.
        score: what it scored before it was learned.
        threshold: the boundary in force then.
        rows: memory bank rows that it added.
        forced: it scored like a gross defect and was learned all the same; its score does not
            count for the threshold, unless what made it one is undone.
        undone: when it was undone, UTC; None where it is in force.
        undone_by: by whom.
    """

    id: int
    when: str
    who: str
    sha256: str
    file: str
    score: float
    threshold: float
    rows: int
    forced: bool
    undone: str | None = None
    undone_by: str | None = None


def store_path(model_path: Path) -> Path:
    """Where what a model file learns is kept: ``part.learned`` beside ``part.onnx``."""
    return model_path.with_suffix(".learned")


class LearningStore:
    """What was learned beside one model file, on disk.

    Args:
        model_path: of the file.
        model_sha256: of its bytes.

    Attributes:
        path: of the folder; not there until something is learned.
        images: where the images are.
        entries: all that was ever learned, by id, oldest first.
        notice: a sentence for the user where a torn line was dropped, else None.
    """

    def __init__(self, model_path: Path, model_sha256: str) -> None:
        self.path, self._model = store_path(model_path), model_path
        self.images, self._journal = self.path / IMAGES, self.path / JOURNAL
        self._model_sha256 = model_sha256
        self._length = 0
        self._lock: FolderLock | None = None
        self.entries: dict[int, Entry] = {}
        self.notice: str | None = None

    @property
    def locked(self) -> bool:
        """Whether this process may write."""
        return self._lock is not None

    @property
    def active(self) -> list[Entry]:
        """What is in force, oldest first."""
        return [entry for entry in self.entries.values() if entry.undone is None]

    def lock(self) -> None:
        """Keep other processes from writing, until :meth:`release`; makes the folder.

        Raises:
            InputError: another process may write, or the folder cannot be written.
        """
        try:
            self.images.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written: {error.strerror or error}."
            ) from error
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
        if not self._journal.exists():
            return
        lines, self._length, torn = read_journal(self._journal)
        if torn:
            self.notice = (
                f"the last line of {self._journal} was never finished and is left out: whoever "
                "wrote it was not told that it was done."
            )
        if not lines:
            return
        try:
            self._check_header(lines[0])
            for line in lines[1:]:
                self._take(line)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"{self._journal} is damaged ({error!r}): put back a copy of its folder, or move "
                "the folder away to begin anew."
            ) from error
        if self.locked:
            self._clear()

    def add(self, entry: Entry, image: bytes) -> None:
        """Put an entry in force; it is on disk when this returns.

        Raises:
            InputError: it cannot be written; nothing is changed.
        """
        write_bytes(self.image_path(entry), image)
        sync_folder(self.images)
        self._append({"kind": "add", **{name: getattr(entry, name) for name in _STORED}})
        self.entries[entry.id] = entry

    def undo(self, number: int, who: str) -> Entry:
        """Undo an entry that is in force, and delete its image.

        Raises:
            InputError: it cannot be written; nothing is changed.
        """
        when = utc_now()
        self._append({"kind": "undo", "id": number, "when": when, "who": who})
        undone = dataclasses.replace(self.entries[number], undone=when, undone_by=who)
        self.entries[number] = undone
        self._clear()
        return undone

    def image_path(self, entry: Entry) -> Path:
        """Where the image of an entry in force is."""
        return self.images / entry.file

    def image(self, entry: Entry) -> bytes:
        """The image of an entry in force.

        Raises:
            ModelFileError: it is not there, or not what was learned.
        """
        path = self.image_path(entry)
        try:
            image = path.read_bytes()
        except OSError as error:
            raise ModelFileError(
                f"{path} cannot be read ({error.strerror or error}): put it back, or move "
                f"{self.path} away to begin anew."
            ) from error
        if sha256(image) != entry.sha256:
            raise ModelFileError(
                f"{path} is not the image that was learned: put that back, or move {self.path} "
                "away to begin anew."
            )
        return image

    def bytes_held(self) -> int:
        """Of the images in force."""
        held = 0
        for entry in self.active:
            with contextlib.suppress(OSError):
                held += self.image_path(entry).stat().st_size
        return held

    def keep_novelty(self, entry: Entry, novelty: Novelty) -> None:
        """Keep the patches, to be quick at the next start; not to disk at once, nor if it fails."""
        if not self.locked:
            return
        buffer = io.BytesIO()
        np.savez(buffer, **vars(novelty))
        path = self.images / f"{entry.id:04d}.npz"
        temporary = path.with_suffix(".new")
        with contextlib.suppress(OSError):
            temporary.write_bytes(buffer.getvalue())
            temporary.replace(path)

    def kept_novelty(self, entry: Entry, dimension: int) -> Novelty | None:
        """What :meth:`keep_novelty` kept; None where it is not there, or not whole."""
        try:
            data = (self.images / f"{entry.id:04d}.npz").read_bytes()
            with np.load(io.BytesIO(data), allow_pickle=False) as kept:
                novelty = Novelty(*(kept[field.name] for field in dataclasses.fields(Novelty)))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        fits = novelty.upright.shape[1:] == novelty.rotated.shape[1:] == (dimension,)
        return novelty if fits and novelty.known.ndim == 1 else None

    def _check_header(self, header: dict[str, Any]) -> None:
        if int(header["format"]) > FORMAT:
            raise ModelFileError(
                f"{self._journal} was written by a newer fsad-edge: update fsad-edge here."
            )
        if header["model"] != self._model_sha256:
            raise ModelFileError(
                f"{self.path} was learned with another model file than {self._model}: rename the "
                f"folder, and teach its images to this file with  fsad-edge bank add {self._model} "
                f"FOLDER/{IMAGES} ."
            )

    def _take(self, line: dict[str, Any]) -> None:
        if line["kind"] == "add":
            entry = Entry(**{name: line[name] for name in _STORED})
            if Path(entry.file).name != entry.file:
                raise ValueError(f"no file name: {entry.file}")
            self.entries[entry.id] = entry
        else:
            self.entries[line["id"]] = dataclasses.replace(
                self.entries[line["id"]], undone=line["when"], undone_by=line["who"]
            )

    def _append(self, line: dict[str, Any]) -> None:
        if not self._length:
            header = {"kind": "model", "format": FORMAT, "model": self._model_sha256}
            self._length = append(self._journal, 0, header)
            sync_folder(self.path)
            sync_folder(self.path.parent)
        self._length = append(self._journal, self._length, line)

    def _clear(self) -> None:
        """Delete images that no line in force names: undone ones, or a killed process's."""
        kept = {entry.file for entry in self.active}
        kept |= {f"{entry.id:04d}.npz" for entry in self.active}
        for path in self.images.glob("*"):
            if path.name not in kept:
                with contextlib.suppress(OSError):
                    path.unlink()


_STORED = [
    field.name for field in dataclasses.fields(Entry) if field.name not in {"undone", "undone_by"}
]
