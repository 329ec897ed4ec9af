"""Which folder a model file has learned into: the one whose journal names the file's content.

The folders next to the file are looked at, whatever the file or they are called. A file that was
moved or copied alone leaves its folder behind. So that a command can tell of it, every process that
learns, or uses what was learned, notes the folder in the user's own folder for state, and where
nothing is found the folders around are looked at. The note is never needed: one that cannot be
written or read is left out.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from fsad_edge.errors import FsadEdgeError, InputError, ModelFileError
from fsad_edge.learning.journal import changes_of
from fsad_edge.learning.journal_file import Journal
from fsad_edge.runtime.files import read_bytes, sha256, write_bytes

JOURNAL, IMAGES, SUFFIX = "journal.jsonl", "images", ".learned"

#: The most links from one to the next that are followed; systems follow 40.
MOST_LINKS = 40

#: A folder of more entries is not searched for folders in which a moved file has learned.
MOST_AROUND = 200


class LastLine(NamedTuple):
    """The last line of a journal that somebody was told counts.

    Attributes:
        store: the random name of the folder.
        number: of the line.
        digest: SHA-256 of its document.
    """

    store: str
    number: int
    digest: str


def store_path(model_path: Path) -> Path:
    """The folder that a new model file learns into: ``part.learned`` for ``part.onnx``."""
    return model_path.with_suffix(SUFFIX)


def find_folder(model_path: Path, model_sha256: str, contained: Collection[str]) -> Path:
    """The folder that belongs to a model file; it is missing where nothing was learned.

    Args:
        model_path: the model file, or a link to it.
        model_sha256: SHA-256 of its content.
        contained: SHA-256 of the images and zones that the file was made from. A folder of the
            file's name that belongs to another content is left alone where all that it holds is
            among these: ``bank export`` wrote the file.

    Raises:
        ModelFileError: the folder of the file's name belongs to another content.
        InputError: two folders belong to this content, or a folder cannot be read.
    """
    named = [store_path(file) for file in _files(model_path)]
    for folder in named:
        # One whose first line is damaged is reported when it is read as a whole.
        if Journal(folder / JOURNAL).stamp() is None:
            continue
        if _owner(folder) in {model_sha256, None}:
            return folder
    found = [
        folder
        for parent in dict.fromkeys(folder.parent for folder in named)
        for folder in sorted(parent.glob(f"*{SUFFIX}"))
        if _owner(folder) == model_sha256
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
        if any(sha256 not in contained for sha256 in (*_active(folder), *_active_zones(folder))):
            aside = folder.with_name(f"{folder.stem}-before{SUFFIX}")
            raise ModelFileError(
                f"{folder} was learned with another model file than {model_path} and does not "
                "count: the file decides by what it holds itself, and cannot be taught, until "
                "somebody decides. Put the former file back, or rename the folder, as with  mv "
                f"{folder} {aside} . Its images can be taught to this file then with  fsad-edge "
                f"bank add --force {model_path} {aside} ; its zones are set again with  fsad-edge "
                "region ."
            )
    first = named[0]
    if Journal(first / JOURNAL).stamp() is None:
        return first
    return first.with_name(f"{first.stem}-{model_sha256[:8]}{SUFFIX}")


def notices_of_elsewhere(
    model_path: Path, model_sha256: str, folder: Path, known: Collection[str], any_active: bool
) -> list[str]:
    """Sentences on images that were learned with the content of a file and do not count for it.

    Args:
        model_path: the model file, or a link to it.
        model_sha256: SHA-256 of its content.
        folder: the folder that counts for it.
        known: SHA-256 of the images that this folder has learned, with those that are undone.
        any_active: whether images count. Where none does, the folders around the file's own are
            looked at, too: the file may have been moved there alone.
    """
    parents = list(dict.fromkeys(file.parent for file in _files(model_path)))
    beside, notices = list[Path](), list[str]()
    for parent in parents:
        try:
            beside += _learned_in(parent)
        except OSError as error:
            notices.append(
                f"the folder {parent} cannot be listed ({error.strerror}): what was learned under "
                f"another name than {folder.name} is not found. Let this user list the folder."
            )
    noted = _noted_places(model_sha256)[::-1]  # the newest first
    if any_active:  # copies of the file at several lines are each taught on their own
        noted = [place for place in noted if not _has_its_file(place)]
    near = beside + noted
    around = [] if any_active else [one for parent in parents for one in _learned_around(parent)]
    found: dict[Path, int] = {}
    seen = {_real(folder)}
    for place in near + around:
        if _real(place) in seen:
            continue
        seen.add(_real(place))
        try:
            if Journal(place / JOURNAL).owner() == model_sha256:
                found[place] = len({*_active(place)} - {*known})
        except FsadEdgeError as error:
            if place in near:  # the others are probably of other models
                notices.append(
                    f"images in {place} may belong to {model_path}, too, and do not count: {error}"
                )
    found = {place: count for place, count in found.items() if count}
    if found:
        notices.append(_describe_elsewhere(model_path, folder, found))
    return notices


def _describe_elsewhere(model_path: Path, folder: Path, found: dict[Path, int]) -> str:
    where = " and ".join(f"{count} in {place}" for place, count in found.items())
    start = (
        f"a file with the content of {model_path} has learned images that do not count here, "
        f"{where}: to take them along, "
    )
    if len(found) == 1 and not os.path.lexists(folder):
        return f"{start}copy or move that folder to {folder} ."
    folders = " ".join(map(str, found))
    return f"{start}run  fsad-edge bank add --force {model_path} {folders} ."


def folders_beside(model_path: Path) -> list[tuple[Path, str]]:
    """The folders next to a model file that a file was taught, and that file's SHA-256.

    The folder of the model file's own name comes first.
    """
    found = []
    with contextlib.suppress(OSError):
        found = _learned_in(model_path.absolute().parent)
    found.sort(key=lambda folder: folder.name != store_path(model_path).name)
    owners = [(folder, _owner(folder)) for folder in found]
    return [(folder, owner) for folder, owner in owners if owner is not None]


def note_place(model_sha256: str, folder: Path) -> None:
    """Note that a model file of this content has learned in a folder."""
    places = _noted_places(model_sha256)
    if _real(folder) in places:
        return
    with contextlib.suppress(OSError, RuntimeError, InputError):
        note = _note(model_sha256)
        note.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(note, b"\0".join(map(os.fsencode, [*places, _real(folder)])))


def note_last(model_sha256: str, folder: Path, last: LastLine) -> None:
    """Note the last line of a folder's journal, outside of the folder."""
    with contextlib.suppress(OSError, RuntimeError, InputError):
        note = _note_of_last(model_sha256, folder)
        note.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(note, " ".join(map(str, last)).encode(), sync=False)


def last_noted(model_sha256: str, folder: Path) -> LastLine | None:
    """The last line that :func:`note_last` noted; None where that is not known."""
    with contextlib.suppress(InputError, RuntimeError, ValueError):
        store, number, digest = read_bytes(_note_of_last(model_sha256, folder)).decode().split()
        return LastLine(store, int(number), digest)
    return None


def _note_of_last(model_sha256: str, folder: Path) -> Path:
    """The file of that note. Raises RuntimeError where the user has no home folder."""
    note = _note(model_sha256)
    place = sha256(os.fsencode(os.path.realpath(folder)))
    return note.with_name(f"{note.name}.{place[:16]}.last")


def _noted_places(model_sha256: str) -> list[Path]:
    try:
        note = read_bytes(_note(model_sha256))
    except (InputError, RuntimeError):
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
    entries = changes_of(journal.read().records).entries
    return [entry.sha256 for entry in entries.values() if entry.undone is None]


def _active_zones(folder: Path) -> list[str]:
    """The digests of the zones that were set in a folder and that are not undone."""
    journal = Journal(folder / JOURNAL)
    if journal.stamp() is None:
        return []
    zones = changes_of(journal.read().records).zones
    return [entry.digest for entry in zones.values() if entry.undone is None]


def _owner(folder: Path) -> str | None:
    """SHA-256 of the model file that a folder belongs to; None where that is not known."""
    with contextlib.suppress(FsadEdgeError):
        return Journal(folder / JOURNAL).owner()
    return None


def _files(model_path: Path) -> list[Path]:
    """The file that a link leads to, then the links on the way; only the file where it is none."""
    files = [model_path]
    while os.path.islink(files[-1]) and len(files) < MOST_LINKS:
        files.append(files[-1].parent / os.readlink(files[-1]))
    if len(files) > 1:
        files[-1] = _real(model_path)
    return files[::-1]


def _learned_in(parent: Path) -> list[Path]:
    """The folders in a folder that may hold what was learned. Raises OSError."""
    return sorted(parent / name for name in os.listdir(parent) if name.endswith(SUFFIX))


def _learned_around(parent: Path) -> Iterator[Path]:
    """Those in the folder above, in the folders beside this one, and in those within it."""
    above = _real(parent).parent
    for near in (above, *_subfolders(above), *_subfolders(parent)):
        with contextlib.suppress(OSError):
            yield from _learned_in(near)


def _subfolders(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(folder))
        if len(names) <= MOST_AROUND:
            return [folder / name for name in names if os.path.isdir(folder / name)]
    return []


def _has_its_file(folder: Path) -> bool:
    """Whether a model file of a folder's name lies beside it."""
    return any(folder.with_suffix(suffix).exists() for suffix in (".onnx", ".engine"))


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))
