"""The images of a learning store, each checked against the SHA-256 that its entry names."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable
from pathlib import Path

from fsad_edge.errors import FsadEdgeError, ModelFileError
from fsad_edge.learning.examples import title
from fsad_edge.learning.journal import Changes, Entry
from fsad_edge.learning.journal_file import FileStamp, stamp_of
from fsad_edge.runtime.directories import sync_folder
from fsad_edge.runtime.files import read_bytes, sha256, write_bytes

#: Seconds for which a file may be an image whose line is not written yet.
SECONDS_TO_TEACH = 60.0


class ImageFolder:
    """The folder of images.

    Args:
        path: the folder.
        model_path: the model file, for sentences.
    """

    def __init__(self, path: Path, model_path: Path) -> None:
        self.path, self._model_path = path, model_path
        self._sound: dict[str, FileStamp] = {}  # files that were read and are as they were given

    def file(self, entry: Entry) -> Path:
        """The file of an image."""
        return self.path / entry.file

    def cache(self, entry: Entry) -> Path:
        """The file of what is kept of an image for a quicker start."""
        return self.path / f"{entry.id:04d}.npz"

    def add(self, entry: Entry, image: bytes) -> None:
        """Write an image; it is on disk when this returns.

        Raises:
            InputError: it cannot be written.
        """
        write_bytes(self.file(entry), image)
        sync_folder(self.path)

    def free_name(self, entry: Entry) -> Entry:
        """The entry, under another file name where a file of its name is there.

        That may be the image of an entry that is lost.
        """
        if not os.path.lexists(self.file(entry)):
            return entry
        name = Path(entry.file)
        other = f"{name.stem}-{entry.sha256[:16]}{name.suffix}"
        return dataclasses.replace(entry, file=other)

    def read(self, entry: Entry) -> bytes:
        """An encoded image.

        Raises:
            ModelFileError: it is missing, or not the image that was taught.
        """
        path = self.file(entry)
        cure = (
            f"restore it from a copy, or undo {entry.id} with  fsad-edge bank undo "
            f"{self._model_path} {entry.id}  and teach it again"
        )
        image = read_bytes(path, ModelFileError, cure)
        if sha256(image) != entry.sha256:
            raise ModelFileError(f"{path} is not the image that was taught: {cure}.")
        return image

    def lost(self, changes: Changes) -> dict[int, str]:
        """The entries that are not undone and whose images are not as they were given, and why.

        A file that was read once is read again only when it has changed.
        """
        found = {}
        for entry in changes.entries.values():
            if entry.undone is not None:
                continue
            stamp = stamp_of(self.file(entry))
            if stamp is not None and self._sound.get(entry.file) == stamp:
                continue
            try:
                self.read(entry)
            except FsadEdgeError as error:
                found[entry.id] = describe_lost(entry, str(error))
            else:
                if stamp is not None:
                    self._sound[entry.file] = stamp
        return found

    def trust_nothing(self) -> None:
        """Read each file again when it is looked at next."""
        self._sound.clear()

    def unclaimed(self, changes: Changes) -> list[str]:
        """The names of files that no entry names.

        Left out are hidden ones, caches, and new ones: somebody may be teaching them now.
        """
        names, now = {entry.file for entry in changes.entries.values()}, time.time()
        with contextlib.suppress(OSError):
            found = [one for one in sorted(self.path.iterdir()) if one.name not in names]
            return [
                one.name
                for one in found
                if not _is_made(one.name) and now - one.stat().st_mtime > SECONDS_TO_TEACH
            ]
        return []

    def size(self, entries: Iterable[Entry]) -> int:
        """Size of the images of entries in bytes."""
        stamps = (stamp_of(self.file(entry)) for entry in entries)
        return sum(stamp[2] for stamp in stamps if stamp is not None)

    def delete(self, entry: Entry) -> None:
        """Delete the image of an entry that was undone, and what was made of it."""
        for path in (self.file(entry), self.cache(entry)):
            with contextlib.suppress(OSError):
                path.unlink()

    def tidy(self, changes: Changes, active: Iterable[Entry], whole: bool) -> None:
        """Delete the images of undone entries, and what no entry needs.

        A file that no entry names may be the image of an entry that is lost. It is deleted only
        where no entry is lost, and the same image is kept under another name, or was undone.

        Args:
            changes: all that was ever changed.
            active: the entries that count.
            whole: no entry is lost.
        """
        kept = [entry for entry in changes.entries.values() if entry.undone is None]
        names = {entry.file for entry in kept} | {self.cache(entry).name for entry in kept}
        undone = [entry for entry in changes.entries.values() if entry.undone is not None]
        known = {entry.sha256 for entry in (*undone, *active)}
        with contextlib.suppress(OSError):
            for path in self.path.iterdir():
                if path.name in names:
                    continue
                if _is_made(path.name) or (whole and _sha256_of(path) in known):
                    path.unlink()


def _is_made(name: str) -> bool:
    """Whether a file was made of an image, or was never finished."""
    return name.endswith(".npz") or name.startswith(".")


def describe_lost(entry: Entry, why: str) -> str:
    """Why an entry does not count that was not undone, as a sentence."""
    return f"image {title(entry)} does not count, and all else does: {why}"


def _sha256_of(path: Path) -> str | None:
    with contextlib.suppress(FsadEdgeError):
        return sha256(read_bytes(path))
    return None
