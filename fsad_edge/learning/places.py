"""Which folder a model file has learned into: the one whose journal names the file's content.

The folders next to the file are looked at, whatever the file or they are called. A file that was
moved or copied alone leaves its folder behind. So that a command can tell of it, every process that
learns notes the folder in the user's own folder for state. The note is never needed: one that
cannot be written or read is left out.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from fsad_edge.errors import FsadEdgeError, InputError, ModelFileError
from fsad_edge.learning.journal import Journal, entries_of
from fsad_edge.runtime.files import write_bytes

JOURNAL, IMAGES, SUFFIX = "journal.jsonl", "images", ".learned"


def store_path(model_path: Path) -> Path:
    """The folder that a new model file learns into: ``part.learned`` for ``part.onnx``."""
    return model_path.with_suffix(SUFFIX)


def find_folder(model_path: Path, model_sha256: str, contained: Collection[str]) -> Path:
    """The folder that belongs to a model file; it is missing where nothing was learned.

    Args:
        model_path: the model file, or a link to it.
        model_sha256: SHA-256 of its content.
        contained: SHA-256 of the images that the file was made from. A folder of the file's name
            that belongs to another content is left alone where all that it learned is among
            these: ``bank export`` wrote the file.

    Raises:
        ModelFileError: the folder of the file's name belongs to another content.
        InputError: two folders belong to this content, or a folder cannot be read.
    """
    # A link to the file leads to the folder next to the file.
    files = [Path(os.path.realpath(model_path))] if os.path.islink(model_path) else []
    named = [store_path(file) for file in [*files, model_path]]
    for folder in named:
        journal = Journal(folder / JOURNAL)
        # One whose first line is damaged is reported when it is read as a whole.
        if journal.stamp() is not None and journal.owner() in {model_sha256, None}:
            return folder
    parents = dict.fromkeys(folder.parent for folder in named)
    found = [
        folder
        for parent in parents
        for folder in sorted(parent.glob(f"*{SUFFIX}"))
        if Journal(folder / JOURNAL).owner() == model_sha256
    ]
    if len({os.path.realpath(folder) for folder in found}) > 1:
        raise InputError(
            f"{' and '.join(map(str, found))} were both learned with the content of {model_path}: "
            f"rename the one that counts to {named[0].name}."
        )
    return found[0] if found else _new_folder(model_path, model_sha256, contained, named)


def _new_folder(
    model_path: Path, model_sha256: str, contained: Collection[str], named: list[Path]
) -> Path:
    """A free name; refuses to leave out silently what another file of this name has learned."""
    for folder in named:
        if any(sha256 not in contained for sha256 in _active(folder)):
            raise ModelFileError(
                f"{folder} was learned with another model file than {model_path}: rename the "
                f"folder (its own file still finds it under any name that ends in {SUFFIX}), and "
                f"teach its images to this file with  fsad-edge bank add --force {model_path} "
                f"FOLDER/{IMAGES} ."
            )
    first = named[0]
    if Journal(first / JOURNAL).stamp() is None:
        return first
    return first.with_name(f"{first.stem}-{model_sha256[:8]}{SUFFIX}")


def notice_of_elsewhere(model_path: Path, model_sha256: str, folder: Path) -> str | None:
    """A sentence where a file of this content has learned in another folder than ``folder``."""
    for place in reversed(_noted_places(model_sha256)):  # the newest first
        if place == _real(folder) or Journal(place / JOURNAL).owner() != model_sha256:
            continue
        with contextlib.suppress(FsadEdgeError):
            if active := _active(place):
                return (
                    f"a file with the content of {model_path} has learned {len(active)} images in "
                    f"{place}, which do not count here: to take them along, copy or move that "
                    f"folder to {folder} ."
                )
    return None


def note_place(model_sha256: str, folder: Path) -> None:
    """Note that a model file of this content learns into a folder."""
    places = _noted_places(model_sha256)
    if _real(folder) in places:
        return
    with contextlib.suppress(OSError, RuntimeError, InputError):
        note = _note(model_sha256)
        note.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(note, b"\0".join(map(os.fsencode, [*places, _real(folder)])))


def _noted_places(model_sha256: str) -> list[Path]:
    try:
        note = _note(model_sha256).read_bytes()
    except (OSError, RuntimeError):
        return []
    return [Path(os.fsdecode(place)) for place in note.split(b"\0") if place]


def _note(model_sha256: str) -> Path:
    """The file of the note. Raises RuntimeError where the user has no home folder."""
    windows = os.name == "nt"
    given = os.environ.get("LOCALAPPDATA" if windows else "XDG_STATE_HOME")
    state = Path(given) if given else Path.home() / ("AppData/Local" if windows else ".local/state")
    return state / "fsad-edge" / "learned" / model_sha256


def _active(folder: Path) -> list[str]:
    """SHA-256 of the images that a folder has learned and that are not undone."""
    journal = Journal(folder / JOURNAL)
    if journal.stamp() is None:
        return []
    entries = entries_of(journal.read()[0], journal.path)
    return [entry.sha256 for entry in entries.values() if entry.undone is None]


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))
