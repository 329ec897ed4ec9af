"""The folder next to a model file that holds what a device learned.

It belongs to the content of the model file, whose SHA-256 its journal names, and not to a path: of
the folders ``*.learned`` next to the file the one with that SHA-256 counts.

part.learned/
  journal.jsonl     what was learned and undone, by whom and when; bound to the file's SHA-256
  images/ID.SUFFIX  the images as they were given; with the journal they hold all that was learned
  images/ID.npz     their novel patches, a cache that is computed again where it is missing
  decisions.json    what was said of the images after the last change; it can be missing
  lock              locked by a process while it writes

An image is on disk before its line in the journal is, and that line before the answer is given. A
process can therefore be killed at any moment: the next one removes what was left unfinished.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from fsad_edge.errors import FsadEdgeError, InputError, ModelFileError
from fsad_edge.learning.decided import Decided
from fsad_edge.learning.examples import ExampleState
from fsad_edge.learning.journal import (
    CURE,
    Changes,
    Entry,
    FileStamp,
    FolderLock,
    Journal,
    Record,
    Setting,
    Undo,
    changes_of,
    check,
    sync_folder,
)
from fsad_edge.learning.novelty import Novelty
from fsad_edge.learning.places import (
    IMAGES,
    JOURNAL,
    find_folder,
    note_place,
    notices_of_elsewhere,
)
from fsad_edge.runtime.documents import read_document, write_document
from fsad_edge.runtime.files import read_bytes, sha256, write_bytes, writing
from fsad_edge.runtime.photograph import FINGERPRINT
from fsad_edge.runtime.provenance import utc_now

LOCK, DECISIONS = "lock", "decisions.json"

#: Seconds for which a process waits while another one learns an image.
LOCK_SECONDS = 30.0


class LearningStore:
    """What was learned next to one model file, on disk.

    Args:
        model_path: the model file, or a link to it.
        model_sha256: SHA-256 of its bytes.
        contained: SHA-256 of the images that the file was made from or tried on. A folder of
            another file is no obstacle where all that it holds is among these: ``bank export``
            wrote the file.

    Attributes:
        path: the folder; it is made when the first image is learned.
        changes: all that was ever changed, by id, oldest first.

    Raises:
        ModelFileError: the folder of that name belongs to another model file.
        InputError: two folders belong to this one, or it cannot be read.
    """

    def __init__(
        self, model_path: Path, model_sha256: str, contained: Collection[str] = ()
    ) -> None:
        self._model_path, self._model_sha256 = model_path, model_sha256
        self._contained = frozenset(contained)
        self._locked = False
        self._records: list[Record] = []
        self._seen: object = None
        self.changes = Changes()
        self._torn = False
        self._find()

    @property
    def images(self) -> Path:
        """The folder of the images."""
        return self.path / IMAGES

    @property
    def entries(self) -> dict[int, Entry]:
        """All images that were ever kept, by id, oldest first."""
        return self.changes.entries

    @property
    def active(self) -> list[Entry]:
        """The entries that are not undone, oldest first."""
        return [entry for entry in self.entries.values() if entry.undone is None]

    @property
    def setting(self) -> Setting | None:
        """The threshold that was set last and is not undone."""
        return self.setting_without(None)

    def setting_without(self, number: int | None) -> Setting | None:
        """The same if the setting of an id were undone."""
        settings = self.changes.settings.values()
        active = [one for one in settings if one.undone is None and one.id != number]
        return active[-1] if active else None

    @property
    def notice(self) -> str | None:
        """Sentences for the user, else None: a torn line was dropped, or images do not count.

        These are images that a file of this content has learned in another folder, and those of
        folders beside the file that cannot be read.
        """
        notices = []
        if self._torn:
            notices.append(
                f"the last line of {self._journal.path} was never finished and is left out: "
                "whoever wrote it got no confirmation."
            )
        known = {entry.sha256 for entry in self.entries.values()}
        notices += notices_of_elsewhere(
            self._model_path, self._model_sha256, self.path, known, bool(self.active)
        )
        sentences = [
            f"{one[0].upper()}{one[1:]}" if later else one for later, one in enumerate(notices)
        ]
        return " ".join(sentences) or None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing during the block; makes the folder.

        Raises:
            InputError: another process holds the lock for long, or the folder cannot be written.
        """
        with writing(self.path):
            self.images.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(self.path / LOCK, LOCK_SECONDS)
        try:
            self._locked = True
            note_place(self._model_sha256, self.path)
            yield
        finally:
            self._locked = False
            lock.release()

    def changed(self) -> bool:
        """Whether another process has written since the last :meth:`read`, or moved the folder.

        Raises:
            InputError: the folder cannot be read.
        """
        return self._stamp() != self._seen

    def read_again(self) -> None:
        """Let :meth:`changed` be true until the next :meth:`read`."""
        self._seen = None

    def read(self) -> None:
        """Find the folder and read its journal.

        Raises:
            ModelFileError: it belongs to another model file, is newer or damaged.
            InputError: it cannot be read.
        """
        if not self._locked:
            self._find()
        stamp, records, torn = self._stamp(), list[Record](), False
        if self._journal.stamp() is not None:
            records, torn = self._journal.read()
            note_place(self._model_sha256, self.path)  # the folder may have been moved here
        self.changes = changes_of(records, self._journal.path)
        self._records, self._seen, self._torn = records, stamp, torn and not self._locked
        if self._locked:
            self._remove_unused()

    def add(self, entry: Entry, image: bytes) -> None:
        """Add an entry; it is on disk when this returns.

        Raises:
            InputError: it cannot be written; nothing is changed.
        """
        check(Record(added=entry))  # before anything is written
        write_bytes(self.image_path(entry), image)
        sync_folder(self.images)
        self._append(Record(added=entry))

    def set(self, setting: Setting) -> None:
        """Add a setting; it is on disk when this returns.

        Raises:
            InputError: it cannot be written; nothing is changed.
        """
        self._append(Record(set=setting))

    def undo(self, number: int, who: str) -> Entry | Setting:
        """Undo an active change, and delete the image of an entry.

        Raises:
            InputError: it cannot be written; nothing is changed.
        """
        self._append(Record(undone=Undo(number, utc_now(), who)))
        self._remove_unused()
        found = self.changes.entries.get(number)
        return self.changes.settings[number] if found is None else found

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
        """Save what is kept of an image for a quicker start, if locked; failing does no harm."""
        if not self._locked:
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
        fits = fits and novelty.fingerprint.shape == (FINGERPRINT**2,)
        return novelty if fits and novelty.known.ndim == 1 else None

    def write_decisions(self, states: Sequence[ExampleState], provider: str) -> None:
        """Note what is said of the examples now, if locked; failing does no harm."""
        if not self._locked:
            return
        decided = Decided.of(states, self._journal.length, provider)
        with contextlib.suppress(InputError):
            write_bytes(self.path / DECISIONS, write_document(decided, indent=1).encode())

    def read_decisions(self) -> Decided | None:
        """What :meth:`write_decisions` noted; None where it is missing or of another journal."""
        with contextlib.suppress(FsadEdgeError, OSError):
            data = (self.path / DECISIONS).read_bytes()
            decided = read_document(Decided, data, DECISIONS, CURE)
            return decided if decided.journal == self._journal.length else None
        return None

    def _find(self) -> None:
        """Find the folder that belongs to the content of the model file."""
        self.path = find_folder(self._model_path, self._model_sha256, self._contained)
        self._journal = Journal(self.path / JOURNAL)
        self._seen = None

    def _stamp(self) -> tuple[FileStamp | None, int]:
        """What changes when the journal does, or, where there is none, what is next to the file."""
        found = self._journal.stamp()
        if found is not None:
            return found, 0
        with contextlib.suppress(OSError):
            return None, self.path.parent.stat().st_mtime_ns
        return None, 0

    def _cache_path(self, entry: Entry) -> Path:
        return self.images / f"{entry.id:04d}.npz"

    def _append(self, record: Record) -> None:
        if not self._journal.length:
            self._journal.append(Record(model=self._model_sha256))
            sync_folder(self.path)
            sync_folder(self.path.parent)
        self._journal.append(record)
        self._seen = self._stamp()
        self._records.append(record)
        self.changes = changes_of(self._records, self._journal.path)

    def _remove_unused(self) -> None:
        """Delete the images of undone entries, and those that a killed process left."""
        used = {entry.file for entry in self.active}
        used |= {self._cache_path(entry).name for entry in self.active}
        for path in self.images.glob("*"):
            if path.name not in used:
                with contextlib.suppress(OSError):
                    path.unlink()
