"""How the folders of a dataset are laid out: which one holds good images, defects and masks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fsad_edge.errors import InputError
from fsad_edge.evaluation.mask_looks import looks_like_mask
from fsad_edge.evaluation.mask_match import MASK_FOLDERS, may_hold_masks
from fsad_edge.runtime.folders import (
    GOOD_FOLDERS,
    SPLIT_FOLDERS,
    Reason,
    Skipped,
    check_folder,
    walk,
)

GOOD, TEST = "good", "test"
#: Names of the folder of test images, in lower case; the second is MVTec AD 2's.
_TESTS = (TEST, "test_public")

_IMAGE_FOLDERS = ("images", "image", "imgs", "img")


@dataclass(frozen=True)
class Layout:
    """Which folder of a dataset was taken for what.

    Attributes:
        root: the folder that holds a folder for each kind.
        good: the folder of good images.
        defects: a folder for each kind of defect, sorted.
        masks: the folder of masks; None if there is none outside the folders of the kinds.
        left_out: subfolders of ``root`` that are neither kinds nor masks.
        own: subfolders of ``root`` that hold nothing but pictures that this project drew.
    """

    root: Path
    good: Path
    defects: tuple[Path, ...]
    masks: Path | None
    left_out: tuple[Path, ...] = ()
    own: tuple[Path, ...] = ()

    def describe(self, dataset: Path) -> str:
        """Say in a few words how the folders of a dataset were understood."""
        kinds = ", ".join(relative(path, dataset) for path in self.defects) or "no folder"
        masks = relative(self.masks, dataset) if self.masks else "no folder of their own"
        return (
            f"good images from {relative(self.good, dataset)}, defects from {kinds}, masks from "
            f"{masks}"
        )


def relative(path: Path, folder: Path) -> str:
    """A path as seen from a folder, with slashes."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def find_layout(folder: Path) -> Layout:
    """Find out how a dataset is laid out, from the names of its folders.

    Understood are ``test/good`` and ``test/DEFECT`` beside ``ground_truth`` (MVTec AD, MVTec LOCO
    AD), ``test_public`` with both (MVTec AD 2), ``Data/Images/Normal`` and ``Anomaly`` beside
    ``Masks`` (VisA), and ``good`` and ``DEFECT`` directly in the folder. Upper and lower case are
    the same. A folder ``labels``, ``annotations`` or the like is one of masks if all images in it
    look like masks.

    Raises:
        InputError: no folder, or more than one, can be the one of the good images or of the masks.
    """
    check_folder(folder)
    root = _root(folder)
    good = _child(root, GOOD_FOLDERS)
    if good is None:
        raise InputError(_no_good_folder(folder, root))
    left_out, own, defects = list[Path](), list[Path](), list[Path]()
    for path in _subfolders(root):
        if path.name.lower() in SPLIT_FOLDERS or _has_texts_only(path):
            left_out.append(path)
        elif path != good and _is_own(path):
            own.append(path)
        elif path != good and not _holds_masks(path):
            defects.append(path)
    places = {root, folder}
    if root != folder or root.absolute().name.lower() in (*_TESTS, *_IMAGE_FOLDERS):
        places.add(root.absolute().parent if root == folder else root.parent)
    found = {path for place in places for path in _subfolders(place) if _holds_masks(path)}
    if len(found) > 1:
        one, other = sorted(found)[:2]
        raise InputError(f"both {one} and {other} can be the folder of masks: keep one of them.")
    masks = found.pop() if found else None
    return Layout(root, good, tuple(defects), masks, tuple(left_out), tuple(own))


def _root(folder: Path) -> Path:
    """The folder that holds a folder for each kind: the first place with good images."""
    test = _child(folder, _TESTS)
    data = _child(folder, ("data",))
    images = [_child(place, _IMAGE_FOLDERS) for place in (data, folder) if place]
    places = [place for place in (test, *images, folder) if place]
    return next((place for place in places if _child(place, GOOD_FOLDERS)), test or folder)


def _holds_masks(folder: Path) -> bool:
    """Whether a folder is one of masks by its name, or by the beginning of it and its images."""
    if folder.name.lower() in MASK_FOLDERS:
        return True
    if not may_hold_masks(folder.name):
        return False
    images = [entry for entry in walk(folder) if isinstance(entry, Path)]
    return bool(images) and all(looks_like_mask(path, or_empty=True) for path in images)


def _is_own(folder: Path) -> bool:
    """Whether a folder holds heat maps and the like that this project drew, and no photograph."""
    drawn = False
    for entry in walk(folder):
        if not isinstance(entry, Skipped) or entry.unseen:
            return False
        drawn |= entry.reason is Reason.OWN
    return drawn


def _has_texts_only(folder: Path) -> bool:
    """Whether a folder holds labels that are no images, such as boxes in text files."""
    entries = list(walk(folder)) if may_hold_masks(folder.name) else []
    return bool(entries) and all(
        isinstance(entry, Skipped) and entry.reason is Reason.OTHER for entry in entries
    )


def _child(folder: Path, names: Collection[str]) -> Path | None:
    """The subfolder that has one of the names.

    Raises:
        InputError: more than one has.
    """
    found = [path for path in _subfolders(folder) if path.name.lower() in names]
    if len(found) > 1:
        raise InputError(
            f"{folder} has the folders {found[0].name} and {found[1].name}, of which one is "
            "expected: keep one of them there."
        )
    return found[0] if found else None


def _subfolders(folder: Path) -> list[Path]:
    """The subfolders that people made, sorted.

    Raises:
        InputError: the folder cannot be opened.
    """
    found = [
        entry.path
        for entry in walk(folder, recursive=False)
        if isinstance(entry, Skipped) and entry.reason is Reason.SUBFOLDER
    ]
    return sorted(found)


def _no_good_folder(folder: Path, root: Path) -> str:
    parts = [path.name for path in _subfolders(root) if _child(path, (*_TESTS, "data"))]
    if parts:
        return f"{folder} holds the datasets {', '.join(parts)}: give one of them."
    return (
        f"{folder} has no folder {TEST}/{GOOD}: put good test images there, and images of each "
        f"kind of defect into {TEST}/DEFECT. Other names of the folder of good images that are "
        f"understood: {', '.join(GOOD_FOLDERS[1:])}."
    )
