"""The folder of shots: good photographs alone, and no data set with its defects."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from fsad_edge.errors import ImageError, InputError
from fsad_edge.runtime.folders import (
    GOOD_FOLDERS,
    SPLIT_FOLDERS,
    FolderImages,
    Reason,
    Skipped,
    classify,
    find_images,
    walk,
)

#: Beginnings of the names of folders that hold masks and not photographs.
_MASKS = ("mask", "label", "annot", "segment", "ground")

#: Folders, besides those of good images, that stand in data sets. Most hold defects or masks.
_DATA_SET = frozenset(
    {*GOOD_FOLDERS, *SPLIT_FOLDERS, "bad", "ng", "nok", "ko", "pass", "fail", "io", "nio", "gt"}
    | {"defect", "defects", "defective", "anomaly", "anomalies", "anomalous", "abnormal"}
    | {"positive", "negative", "faulty", "reject", "rejects", "scrap"}
)
_BEGINNINGS = (
    *(*_MASKS, "train", "test_", "test-"),
    *("bad_", "nok", "reject", "scratch", "scrap", "defect", "crack"),
)

#: How deep data sets are looked for.
_DEPTH = 4


@contextlib.contextmanager
def reading_shots() -> Iterator[None]:
    """Add what to do about a shot that cannot be read to the error of the block."""
    try:
        yield
    except ImageError as error:
        raise ImageError(
            f"{error} Nothing was learned: take it out of the folder of shots, or put a whole "
            "photograph in its place."
        ) from error


def find_shots(folder: Path, recursive: bool = False) -> FolderImages:
    """Find the shots in a folder and account for all else in it.

    Args:
        folder: the folder of normal images.
        recursive: read the folders in it, too.

    Raises:
        InputError: the folder cannot be read, holds no image, or looks like a data set, whose
            defects would be learned as good.
    """
    inside = list(walk(folder, recursive=False))
    has_images = any(isinstance(entry, Path) for entry in inside)
    subfolders = sorted(
        entry.path
        for entry in inside
        if isinstance(entry, Skipped) and entry.reason is Reason.SUBFOLDER
    )
    if subfolders and (recursive or not has_images):
        check_no_data_set(folder)
        if not recursive:
            names = ", ".join(path.name for path in subfolders[:3])
            more = f" and {len(subfolders) - 3} more" if len(subfolders) > 3 else ""
            raise InputError(
                f"{folder} holds no image, only the folders {names}{more}: name one of them, or "
                "add --recursive (recursive=True in Python) to learn from all of them."
            )
    return find_images(folder, recursive)


def collect_shots(given: Sequence[Path], recursive: bool = False) -> FolderImages:
    """The shots among files and folders, each once, as :func:`find_shots` finds them.

    Raises:
        InputError: as :func:`find_shots`.
    """
    images: list[Path] = []
    skipped: list[Skipped] = []
    for path in given:
        if os.path.isdir(path):
            found = find_shots(path, recursive)
            images += found.images
            skipped += found.skipped
        elif os.path.isfile(path) and classify(path) is Reason.OWN:
            skipped.append(Skipped(path, Reason.OWN))
        else:
            images.append(path)
    return FolderImages(list(dict.fromkeys(images)), skipped)


def check_no_data_set(folder: Path) -> None:
    """Refuse a folder with a data set in it where a folder of good images is asked for.

    Raises:
        InputError: it holds folders such as ``train``, ``test`` or ``ground_truth``, at any depth
            that data sets have.
    """
    for place in _folders(folder, _DEPTH):
        names = sorted(path.name for path in _subfolders(place) if _stands_in_data_sets(path.name))
        if names:
            meant = _good_folder(place)
            cure = (
                f"{meant} is probably meant: name that folder."
                if meant
                else "name the folder that holds good images alone."
            )
            raise InputError(
                f"{place} looks like a data set, because it holds {', '.join(names)}: everything "
                f"in it would be taken for good; {cure}"
            )


def check_only_defects(folder: Path) -> None:
    """Refuse a folder with good images or masks in it where a folder of bad parts is asked for.

    Raises:
        InputError: it holds folders such as ``good``, ``train`` or ``ground_truth``, at any depth
            that data sets have.
    """
    for place in _folders(folder, _DEPTH):
        for path in _subfolders(place):
            name = path.name.lower()
            if name in {*GOOD_FOLDERS, *SPLIT_FOLDERS, "gt"} or name.startswith(_MASKS):
                raise InputError(
                    f"{folder} holds the folder {path.relative_to(folder)}: everything in it would "
                    "be taken for bad; name the folders of bad parts alone."
                )


def _stands_in_data_sets(name: str) -> bool:
    return name.lower() in _DATA_SET or name.lower().startswith(_BEGINNINGS)


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """A folder and those in it, the upper ones first."""
    level = [folder]
    for _ in range(depth):
        yield from level
        level = [inner for outer in level for inner in _subfolders(outer)]


def _subfolders(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []  # the reader of the folder tells that it cannot be opened
    return [
        path for path in entries if not path.is_symlink() and classify(path) is Reason.SUBFOLDER
    ]


def _good_folder(folder: Path) -> Path | None:
    """The folder of good images in a data set: those for training are the likeliest."""
    folders = list(_folders(folder, _DEPTH))
    training = [path for path in folders if path.name.lower().startswith("train")]
    for places in (training, [folder], folders):
        for place in places:
            for name in (*GOOD_FOLDERS, "pass", "io", "images"):
                found = [path for path in _subfolders(place) if path.name.lower() == name]
                if found and _holds_images(found[0]):
                    return found[0]
    return next((path for path in training if _holds_images(path)), None)


def _holds_images(folder: Path) -> bool:
    try:
        return any(isinstance(entry, Path) for entry in walk(folder, recursive=False))
    except InputError:
        return False
