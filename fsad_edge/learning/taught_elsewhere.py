"""What another model file was taught, to be taught to this one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fsad_edge.errors import ImageError
from fsad_edge.learning.journal import Entry, Role, Setting, changes_of
from fsad_edge.learning.journal_file import Journal
from fsad_edge.learning.learner import Learner
from fsad_edge.learning.places import IMAGES, JOURNAL
from fsad_edge.runtime.files import read_bytes, sha256


@dataclass(frozen=True)
class TaughtElsewhere:
    """What a folder holds that a model file was taught.

    Attributes:
        folder: the folder.
        entries: its images that are not undone, oldest first.
        undone: those that are.
        setting: the threshold that a person set; None where nobody did.
        zones: how many zones were set and are not undone.
        faults: sentences without a full stop, one for each damage of its journal.
    """

    folder: Path
    entries: list[Entry]
    undone: list[Entry]
    setting: Setting | None
    faults: tuple[str, ...] = ()
    zones: int = 0

    def image_path(self, entry: Entry) -> Path:
        """The file of an image."""
        return self.folder / IMAGES / entry.file

    def image(self, entry: Entry) -> bytes:
        """The encoded image of an entry.

        Raises:
            ImageError: it is missing, or not the image that was taught.
        """
        path = self.image_path(entry)
        image = read_bytes(path, ImageError, "restore it from a copy")
        if sha256(image) != entry.sha256:
            raise ImageError(f"{path} is not the image that was taught: restore it from a copy.")
        return image


def find_taught(folder: Path) -> TaughtElsewhere | None:
    """What a folder ``NAME.learned``, or the folder of images in one, holds.

    Returns:
        None where it is no such folder.

    Raises:
        ModelFileError: its journal is damaged, or a newer version wrote it.
        InputError: it cannot be read.
    """
    for place in (folder, folder.parent if folder.name == IMAGES else folder):
        journal = Journal(place / JOURNAL)
        if journal.owner() is not None:
            content = journal.read()
            changes = changes_of(content.records)
            entries = [one for one in changes.entries.values() if one.undone is None]
            undone = [one for one in changes.entries.values() if one.undone is not None]
            settings = [one for one in changes.settings.values() if one.undone is None]
            setting = settings[-1] if settings else None
            zones = sum(one.undone is None for one in changes.zones.values())
            return TaughtElsewhere(place, entries, undone, setting, content.faults, zones)
    return None


@dataclass(frozen=True)
class LeftOut:
    """An image that is not taken along, and why, in words."""

    path: Path
    why: str


def to_take_along(
    folders: Sequence[TaughtElsewhere], here: Iterable[Entry]
) -> tuple[list[tuple[TaughtElsewhere, Entry]], list[LeftOut]]:
    """Which images of folders are still to be taught, and which are not.

    Folders overlap where one is a copy of the other. Each image is taught once, and not at all
    where it is kept here or was undone, here or in another of the folders, after it was taught.

    Args:
        folders: the folders, in the order in which they are taken.
        here: the entries of the model file's own folder.
    """
    here = list(here)
    kept = {one.sha256 for one in here if one.undone is None}
    undone = [*here, *(one for folder in folders for one in folder.undone)]
    last: dict[str, Entry] = {}
    for one in sorted(undone, key=lambda one: one.undone or ""):
        last[one.sha256] = one
    wanted, left_out = list[tuple[TaughtElsewhere, Entry]](), list[LeftOut]()
    for folder in folders:
        for entry in folder.entries:
            end = last.get(entry.sha256)
            if entry.sha256 in kept:
                left_out.append(LeftOut(folder.image_path(entry), "it is taught here already"))
            elif end is not None and _is_undone(entry, end):
                why = f"{end.undone_by} undid it on {(end.undone or '')[:19]}Z"
                left_out.append(LeftOut(folder.image_path(entry), why))
            else:
                kept.add(entry.sha256)
                wanted.append((folder, entry))
    return wanted, left_out


def _is_undone(entry: Entry, end: Entry) -> bool:
    """Whether an undone entry of the same image is this one, or was undone after it was taught."""
    return (end.id, end.when) == (entry.id, entry.when) or (end.undone or "") > entry.when


def teach_again(learner: Learner, entry: Entry, image: bytes, who: str, force: bool) -> Entry:
    """Teach an image that another model file was taught, as what it was kept there.

    Args:
        learner: of this model file.
        entry: of the other one.
        image: the image of that entry.
        who: the person who does it.
        force: do it whatever :class:`NotNormalError` would say.

    Raises:
        ImageError, NotNormalError, InputError: as :meth:`Learner.add`, :meth:`Learner.reject` and
            :meth:`Learner.keep_example` do.
    """
    if entry.role is Role.NORMAL:
        return learner.add(image, who, force, entry.name)
    if entry.role is Role.REJECTED:
        return learner.reject(image, who, entry.box, force, entry.name)
    return learner.keep_example(image, who, entry.role is Role.GOOD, entry.name)
