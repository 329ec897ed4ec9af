"""The folder of shots: good photographs alone, and no data set with its defects."""

from __future__ import annotations

import os
from pathlib import Path

from fsad_edge.errors import InputError
from fsad_edge.runtime.folders import FolderImages, Reason, Skipped, classify, find_images, walk

#: Folders of good images in common layouts of data sets, the likeliest first.
_GOOD_FOLDERS = (
    "train/good", "train/ok", "train/normal", "data/images/normal", "good", "ok", "normal", "train",
)  # fmt: skip

#: Folders that stand in data sets; most of them hold defects or drawings of them.
_DATA_SET = frozenset(
    {"train", "training", "test", "testing", "val", "validation", "data", "good", "ok", "normal"}
    | {"bad", "ng", "nok", "ko", "defect", "defects", "defective", "anomaly", "anomalies"}
    | {"anomalous", "ground_truth", "groundtruth", "gt"}
)


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


def check_no_data_set(folder: Path) -> None:
    """Refuse the root of a data set where a folder of good images is asked for.

    Raises:
        InputError: the folder holds folders such as ``train``, ``test`` or ``ground_truth``.
    """
    names = sorted(
        entry.name
        for entry in os.scandir(folder)
        if _stands_in_data_sets(entry.name) and classify(Path(entry.path)) is Reason.SUBFOLDER
    )
    if not names:
        return
    candidates = (_below(folder, name) for name in _GOOD_FOLDERS)
    meant = next((path for path in candidates if path and _holds_images(path)), None)
    cure = (
        f"{meant} is probably meant: name that folder."
        if meant
        else "name the folder that holds good images alone."
    )
    raise InputError(
        f"{folder} looks like a data set, because it holds {', '.join(names)}: everything in the "
        f"folder of shots is learned as good; {cure}"
    )


def _stands_in_data_sets(name: str) -> bool:
    return name.lower() in _DATA_SET or name.lower().startswith("mask")


def _below(folder: Path, name: str) -> Path | None:
    """The folder of a relative name, whose capitals do not count; None if there is none."""
    for part in name.split("/"):
        found = [path for path in folder.iterdir() if path.name.lower() == part]
        if not found or not os.path.isdir(found[0]):
            return None
        folder = found[0]
    return folder


def _holds_images(folder: Path) -> bool:
    try:
        return any(isinstance(entry, Path) for entry in walk(folder, recursive=False))
    except InputError:
        return False
