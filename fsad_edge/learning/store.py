"""The folder next to a model file that holds what a device learned.

It belongs to the content of the model file, whose SHA-256 its journal names, and not to a path: of
the folders ``*.learned`` next to the file the one with that SHA-256 counts.

part.learned/
  journal.jsonl     what was learned and undone, by whom and when; bound to the file's SHA-256
  images/ID.SUFFIX  the images as they were given; with the journal they hold all that was learned
  images/ID.npz     their novel patches, a cache that is made again where it is missing or damaged
  decisions.json    what was said of the images after the last change; made again, too
  lock, turn        locked by a process while it writes, and while it waits for that

An image is on disk before its line in the journal is, and that line before the answer is given. A
process can therefore be killed at any moment. What cannot be read is left out and told; nothing is
deleted but what was undone and what is kept a second time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from fsad_edge.errors import FsadEdgeError, InputError, ModelFileError
from fsad_edge.learning.caches import pack_novelty, read_sealed, unpack_novelty, write_sealed
from fsad_edge.learning.decided import Decided
from fsad_edge.learning.examples import ExampleState
from fsad_edge.learning.folder_lock import FolderLock
from fsad_edge.learning.image_folder import ImageFolder, describe_lost
from fsad_edge.learning.journal import Changes, Entry, Record, Setting, Undo, changes_of, check
from fsad_edge.learning.journal_file import CURE as CURE_OF_ALL
from fsad_edge.learning.journal_file import FileStamp, Journal, JournalContent, stamp_of
from fsad_edge.learning.novelty import Novelty
from fsad_edge.learning.places import (
    IMAGES,
    JOURNAL,
    LastLine,
    find_folder,
    last_noted,
    note_last,
    note_place,
    notices_of_elsewhere,
    store_path,
)
from fsad_edge.runtime.directories import sync_folder
from fsad_edge.runtime.documents import read_document, write_document
from fsad_edge.runtime.files import read_bytes, write_bytes, writing
from fsad_edge.runtime.provenance import utc_now
from fsad_edge.runtime.zones import ZoneEntry

DECISIONS = "decisions.json"

#: What to do about damage that leaves the rest in force, for the end of a sentence.
CURE = "restore it from a copy, or teach again what is missing; all else counts"

#: Seconds for which a process waits while another one learns an image.
LOCK_SECONDS = 30.0

#: How often a journal is read that others change while it is read, how often one that ends with an
#: unfinished line, and the seconds between.
READ_ATTEMPTS, _UNFINISHED_ATTEMPTS, READ_PAUSE = 100, 3, 0.01


class LearningStore:
    """What was learned next to one model file, on disk.

    Args:
        model_path: the model file, or a link to it.
        model_sha256: SHA-256 of its bytes.
        contained: SHA-256 of the images and zones that the file was made from. A folder of
            another file is no obstacle where all that it holds is among these: ``bank export``
            wrote the file.

    Attributes:
        path: the folder; it is made when the first image is learned.
        images: the images in it.
        changes: all that was ever changed, by id, oldest first.
        lost: why an image does not count that was kept and not undone, by its id: a sentence.
    """

    def __init__(
        self, model_path: Path, model_sha256: str, contained: Collection[str] = ()
    ) -> None:
        self._model_path, self._model_sha256 = model_path, model_sha256
        self._contained = frozenset(contained)
        self._lock: FolderLock | None = None
        self._found = False
        self._seen: object = None
        self._content = JournalContent()
        self._noted: LastLine | None = None  # what somebody was told counts
        self.changes = Changes()
        self.lost: dict[int, str] = {}
        self._go_to(store_path(model_path))

    @property
    def entries(self) -> dict[int, Entry]:
        """All images that were ever kept, by id, oldest first."""
        return self.changes.entries

    @property
    def kept(self) -> list[Entry]:
        """The entries that are not undone, oldest first, with those whose images are lost."""
        return [entry for entry in self.entries.values() if entry.undone is None]

    @property
    def active(self) -> list[Entry]:
        """The entries that count: not undone, and with their images; oldest first."""
        return [entry for entry in self.kept if entry.id not in self.lost]

    @property
    def setting(self) -> Setting | None:
        """The threshold that was set last and is not undone."""
        return self.setting_without(None)

    def setting_without(self, number: int | None) -> Setting | None:
        """The same if the setting of an id were undone."""
        settings = self.changes.settings.values()
        active = [one for one in settings if one.undone is None and one.id != number]
        return active[-1] if active else None

    def zones_without(self, number: int | None = None) -> list[ZoneEntry]:
        """The zones that are not undone, oldest first, but for the one of an id."""
        zones = self.changes.zones.values()
        return [one for one in zones if one.undone is None and one.id != number]

    @property
    def next_id(self) -> int:
        """The id of the next change. A line that is lost may have used some."""
        number = self.changes.next_id
        if not self.damage:
            return number
        noted = 0 if self._noted is None else self._noted.number
        return max(number, self._content.number + 1, noted + 1)

    @property
    def damage(self) -> list[str]:
        """Sentences on what was acknowledged and cannot be read, or is not there any more."""
        content = self._content
        found = [f"{one}: {CURE}." for one in content.faults]
        found += self.lost.values()
        unclaimed = self.images.unclaimed(self.changes) if content.model is None else []
        if unclaimed:
            found.append(
                f"{self.path} holds {len(unclaimed)} images, and its journal is missing or empty: "
                f"{CURE}."
            )
        last = self._noted
        lost = last is not None and content.store == last.store and not _holds(content, last)
        if last is not None and lost and not found:
            found.append(
                f"{self._journal.path} does not hold the change that was acknowledged last (line "
                f"{last.number}; it has {content.number}): an older copy was restored, or its end "
                f"is lost: {CURE}."
            )
        return found

    @property
    def notice(self) -> str | None:
        """Sentences for the user, else None: what is damaged, and images that do not count.

        These are images that a file of this content has learned in another folder, and those of
        folders beside the file that cannot be read.
        """
        notices = self.damage
        notices += [f"{one}: check the disk." for one in self._content.remarks]
        if self._content.unfinished:
            notices.append(
                f"the last line of {self._journal.path} was never finished and is left out: "
                "whoever wrote it got no confirmation."
            )
        unclaimed = self.images.unclaimed(self.changes)
        if unclaimed and self._content.model is not None:
            more = f" and {len(unclaimed) - 3} more" if len(unclaimed) > 3 else ""
            notices.append(
                f"no line of {self._journal.path} names {', '.join(unclaimed[:3])}{more} in "
                f"{self.images.path}: a process was ended while it taught that, or its line is "
                "lost. Teach it again with  fsad-edge bank add,  or delete it."
            )
        known = {entry.sha256 for entry in self.entries.values()}
        notices += notices_of_elsewhere(
            self._model_path, self._model_sha256, self.path, known, bool(self.kept)
        )
        return " ".join(f"{one[0].upper()}{one[1:]}" if later else one
                        for later, one in enumerate(notices)) or None  # fmt: skip

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing during the block; makes the folder.

        Raises:
            ModelFileError: the folder of that name belongs to another model file.
            InputError: another process holds the lock for long, or the folder cannot be written, or
                a file that is written to in it is a link, a device or a pipe.
        """
        if not self._found:
            self._find()
        self._journal.check_writable()
        with writing(self.path):
            self.images.path.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(self.path, LOCK_SECONDS)
        try:
            self._lock = lock
            note_place(self._model_sha256, self.path)
            yield
        finally:
            self._lock = None
            lock.release()

    def changed(self) -> bool:
        """Whether another process has written since the last :meth:`read`, or moved the folder.

        Raises:
            InputError: the folder cannot be read.
        """
        return (self._stamp(), self._lost_stamps()) != self._seen

    def changed_since_failure(self) -> bool:
        """The same after :meth:`note_failure`; what cannot be reached has not changed."""
        with contextlib.suppress(FsadEdgeError):
            return self.changed()
        return False

    def read_again(self) -> None:
        """Let :meth:`changed` be true until the next :meth:`read`, which trusts no image."""
        self._seen = None
        self.images.trust_nothing()

    def note_failure(self) -> None:
        """After a :meth:`read` that failed: :meth:`changed` is false until something changes."""
        with contextlib.suppress(FsadEdgeError):
            self._seen = self._stamp(), self._lost_stamps()

    def read(self) -> None:
        """Find the folder, read its journal and check its images.

        Raises:
            ModelFileError: it belongs to another model file, is newer, or nothing of it can be
                read.
            InputError: two folders belong to this file, or it cannot be read, or others change it
                all the time.
        """
        lost: dict[int, str] = {}
        for attempt in range(READ_ATTEMPTS):
            if self._lock is None:
                self._find()
            stamp, missing = self._stamp(), lost.keys()
            noted = last_noted(self._model_sha256, self.path)  # before the journal, which grows
            content = self._journal.read()
            if content.model not in {None, self._model_sha256}:
                raise ModelFileError(f"{self.path} belongs to another model file by now.")
            changes = changes_of(content.records)
            lost = self.images.lost(changes)
            # Another process may have undone an image since, as the journal tells when it is read
            # again, or be writing a line.
            unfinished = content.unfinished and attempt < _UNFINISHED_ATTEMPTS
            if self._lock is not None or (lost.keys() <= missing and not unfinished):
                break
            time.sleep(READ_PAUSE)
        else:
            raise InputError(f"{self.path} is being changed all the time: try again.")
        if content.model is None:
            self._refuse_emptied(content, noted)
        self._content, self.changes, self.lost, self._noted = content, changes, lost, noted
        self._seen = stamp, self._lost_stamps()
        if content.stamp is not None:
            note_place(self._model_sha256, self.path)  # the folder may have been moved here
        if self._lock is not None:
            self._tidy()

    def _refuse_emptied(self, content: JournalContent, noted: LastLine | None) -> None:
        """Refuse a folder that held lines, of which none is left. Raises ModelFileError."""
        # The decisions and the note were both written after a line of the journal was. A folder
        # without decisions and without a journal is a new one.
        if (self.path / DECISIONS).exists() or (noted is not None and content.stamp is not None):
            what = "empty or unreadable" if content.stamp is not None else "missing"
            raise ModelFileError(
                f"{self.path} was taught, and its {JOURNAL} is {what}: {CURE_OF_ALL}."
            )

    def leave_out(self, entry: Entry, why: str) -> None:
        """Let an entry not count whose image cannot be used, until the next :meth:`read`."""
        self.lost = {**self.lost, entry.id: describe_lost(entry, why)}
        self._seen = self._stamp(), self._lost_stamps()

    def add(self, entry: Entry, image: bytes) -> Entry:
        """Add an entry; it is on disk when this returns.

        Returns:
            the entry, under another file name where a file of its name is there.

        Raises:
            InputError: it cannot be written; nothing is changed.
        """
        free = self.images.free_name(entry)
        check(Record(added=free))  # before anything is written
        before = self._size()
        self.images.add(free, image)
        try:
            self._append(Record(added=free))
        except FsadEdgeError:
            if self._size() == before:  # no line names the image
                self.images.delete(free)
            raise
        if free != entry:
            self._tidy()  # the other file may be of the same image
        return free

    def set(self, setting: Setting) -> None:
        """Add a setting; it is on disk when this returns.

        Raises:
            InputError: it cannot be written; nothing is changed.
        """
        self._append(Record(set=setting))

    def set_zone(self, entry: ZoneEntry) -> None:
        """Add a zone; it is on disk when this returns.

        Raises:
            InputError: it cannot be written; nothing is changed.
        """
        self._append(Record(zoned=entry))

    def undo(self, number: int, who: str) -> Entry | Setting | ZoneEntry:
        """Undo an active change, and delete the image of an entry.

        Raises:
            InputError: it cannot be written; nothing is changed.
        """
        self._append(Record(undone=Undo(number, utc_now(), who)))
        self.lost = {one: why for one, why in self.lost.items() if one != number}
        other = self.changes.settings.get(number) or self.changes.zones.get(number)
        if other is not None:
            return other
        found = self.changes.entries[number]
        self.images.delete(found)
        return found

    def cache_novelty(self, entry: Entry, novelty: Novelty, zones: str = "") -> None:
        """Save what is kept of an image under zones for a quicker start, if locked.

        Failing does no harm.
        """
        if self._lock is not None:
            owner = self._owner(entry) + zones
            write_sealed(self.images.cache(entry), pack_novelty(novelty), owner)

    def cached_novelty(self, entry: Entry, dimension: int, zones: str = "") -> Novelty | None:
        """What :meth:`cache_novelty` saved; None where it is missing, damaged or does not fit."""
        data = read_sealed(self.images.cache(entry), self._owner(entry) + zones)
        return None if data is None else unpack_novelty(data, dimension)

    def write_decisions(self, states: Sequence[ExampleState], provider: str) -> None:
        """Note what is said of the examples now, if locked; failing does no harm."""
        if self._lock is None or self._content.digest is None:
            return
        decided = Decided.of(states, self._content.digest, provider).sealed(self._model_sha256)
        with contextlib.suppress(InputError):
            write_bytes(self.path / DECISIONS, write_document(decided, indent=1).encode())

    def read_decisions(self) -> Decided | None:
        """What :meth:`write_decisions` noted; None where it is missing or of another journal."""
        with contextlib.suppress(FsadEdgeError):
            data = read_bytes(self.path / DECISIONS)
            decided = read_document(Decided, data, DECISIONS, CURE)
            whole = decided == decided.sealed(self._model_sha256)
            return decided if whole and decided.journal == self._content.digest else None
        return None

    def _find(self) -> None:
        """Find the folder that belongs to the content of the model file."""
        self._found = False
        self._go_to(find_folder(self._model_path, self._model_sha256, self._contained))
        self._found = True

    def _go_to(self, path: Path) -> None:
        if path != getattr(self, "path", None):
            self.images = ImageFolder(path / IMAGES, self._model_path)
        self.path = path
        self._journal = Journal(path / JOURNAL)

    def _stamp(self) -> tuple[FileStamp | None, int]:
        """What changes when the journal does, or, where there is none, what is next to the file."""
        found = self._journal.stamp()
        if found is not None:
            return found, 0
        with contextlib.suppress(OSError):
            return None, self.path.parent.stat().st_mtime_ns
        return None, 0

    def _size(self) -> int | None:
        """Bytes of the journal; None where there is none."""
        found = stamp_of(self._journal.path)
        return None if found is None else found[2]

    def _tidy(self) -> None:
        """Delete what no entry needs, and what a process left that was ended while it wrote."""
        self.images.tidy(self.changes, self.active, whole=not self.damage)
        for name in (JOURNAL, DECISIONS):
            for half in self.path.glob(f".{name}.*"):
                with contextlib.suppress(OSError):
                    half.unlink()

    def _lost_stamps(self) -> list[FileStamp | None]:
        """What changes when an image that is lost comes back."""
        return [stamp_of(self.images.file(self.entries[number])) for number in self.lost]

    def _owner(self, entry: Entry) -> str:
        """What the cache of an image belongs to."""
        return f"{self._model_sha256} {entry.sha256}"

    def _append(self, record: Record) -> None:
        assert self._lock is not None
        self._lock.check()
        content = self._journal.append(self._content, record, self._model_sha256)
        if self._content.stamp is None:
            sync_folder(self.path)
            sync_folder(self.path.parent)
        self._lock.check()
        added = record.added
        if added is not None and not self.images.file(added).exists():
            raise InputError(
                f"{self.images.file(added)} was taken away while it was taught: nothing was "
                "confirmed; try again."
            )
        self._content, self.changes = content, changes_of(content.records)
        self._seen = self._stamp(), self._lost_stamps()
        if content.store is not None and content.digest is not None:
            self._noted = LastLine(content.store, content.number, content.digest)
            note_last(self._model_sha256, self.path, self._noted)


def _holds(content: JournalContent, last: LastLine) -> bool:
    """Whether a journal holds the line that was acknowledged last."""
    if content.number == last.number:
        return content.digest == last.digest
    following = (one.after for one in content.records if one.number == last.number + 1)
    return content.number > last.number and next(following, last.digest) == last.digest
