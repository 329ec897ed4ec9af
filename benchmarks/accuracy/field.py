"""MVTec AD and VisA as the field runs them with few shots, on a reader's own copy.

Neither set is part of the project. The protocol has 1, 2 and 4 shots and three sets of each, taken
in the order of the names: set ``s`` of ``k`` shots is the images ``s * k`` to ``s * k + k - 1`` of
the sorted ``train/good``, as in the code of AnomalyDINO (arXiv 2405.14529). All test images are
scored.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy.datasets import TRAIN, DataSet
from fsad_edge.errors import InputError
from fsad_edge.evaluation.layouts import GOOD, TEST

SHOTS, SETS = (1, 2, 4), (0, 1, 2)
#: Shots that are unlike the others are kept: the protocol says which shots are learned from.
OPTIONS = "keep_outliers=true"

_TRUTH = "ground_truth"
#: The only kind of defect that VisA's split names.
_ANOMALY = "anomaly"
_SPLIT_FILE = Path("split_csv/1cls.csv")
_COLUMNS = ("object", "split", "label", "image", "mask")


@dataclass(frozen=True)
class Published:
    """Image AUROC in percent that others have published, mean over all classes.

    Attributes:
        system: what they measured.
        source: where the figures stand.
        image_auroc: by the number of shots.
    """

    system: str
    source: str
    image_auroc: dict[int, float]


@dataclass(frozen=True)
class Field:
    """A published set.

    Attributes:
        name: what its rows and its table are called.
        classes: all its classes.
        published: figures of others.
    """

    name: str
    classes: tuple[str, ...]
    published: tuple[Published, ...] = ()


MVTEC_AD = Field(
    "MVTec AD",
    (
        *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut"),
        *("pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper"),
    ),
    (
        Published("PatchCore", "WinCLIP, arXiv 2303.14814", {1: 83.4, 2: 86.3, 4: 88.8}),
        Published("WinCLIP+", "arXiv 2303.14814", {1: 93.1, 4: 95.2}),
        Published("AnomalyDINO-S, 448 px", "arXiv 2405.14529", {1: 96.5, 4: 97.6}),
        Published("AnomalyDINO-S", "arXiv 2405.14529", {1: 96.6, 2: 96.9, 4: 97.7}),
        Published("UniADet", "its authors' paper", {1: 97.6, 2: 98.0, 4: 98.7}),
    ),
)
VISA = Field(
    "VisA",
    (
        *("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2"),
        *("pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"),
    ),
)
FIELDS = {field.name: field for field in (MVTEC_AD, VISA)}


def check_classes(classes: Collection[str], fields: Sequence[Field]) -> None:
    """Check the names of the classes that were asked for.

    Raises:
        InputError: none of the sets has one of them.
    """
    known = [name for field in fields for name in field.classes]
    for name in classes:
        if name not in known:
            sets = " and ".join(field.name for field in fields)
            raise InputError(f"there is no class '{name}': {sets} has {', '.join(known)}.")


def mvtec_ad(folder: Path, classes: Collection[str]) -> list[DataSet]:
    """The classes of a copy of MVTec AD, in its own layout.

    Args:
        folder: holds CLASS/train/good, CLASS/test/KIND and CLASS/ground_truth/DEFECT.
        classes: the classes to run; empty for all that are there.

    Raises:
        InputError: the folder is not a copy of MVTec AD, or a class is not whole.
    """
    chosen = _chosen(MVTEC_AD, folder, classes, lambda name: (folder / name).is_dir())
    for name in chosen:
        part = folder / name
        kinds = sorted(path.name for path in part.glob(f"{TEST}/*") if path.is_dir())
        defects = [kind for kind in kinds if kind != GOOD]
        needed = [f"{TRAIN}/{GOOD}", f"{TEST}/{GOOD}", *(f"{_TRUTH}/{kind}" for kind in defects)]
        if not defects:
            needed.append(f"{TEST}/DEFECT")
        for path in needed:
            if not (part / path).is_dir():
                raise InputError(
                    f"{part} has no folder {path}, which {MVTEC_AD.name} has: unpack it again, or "
                    "give a set of your own with --data."
                )
    return [_data_set(MVTEC_AD, name, folder / name) for name in chosen]


def visa(folder: Path, classes: Collection[str], links: Path) -> list[DataSet]:
    """The classes of a copy of VisA, each through a folder of links in the layout of MVTec AD.

    Args:
        folder: as amazon-science/spot-diff publishes it: CLASS/Data/Images, CLASS/Data/Masks and
            split_csv/1cls.csv, which says what each image is. CLASS/image_anno.csv, which names
            the kinds of defects, is not needed.
        classes: the classes to run; empty for all that are there.
        links: an existing folder for the links.

    Raises:
        InputError: the folder is not a copy of VisA, or a file of a class is missing.
    """
    file = folder / _SPLIT_FILE
    if not file.is_file():
        raise InputError(
            f"{folder} has no {_SPLIT_FILE.as_posix()}: give the folder of {VISA.name} as "
            "amazon-science/spot-diff publishes it, with CLASS/Data/Images beside split_csv. A "
            "class that was rearranged to the layout of MVTec AD goes with --data."
        )
    chosen = _chosen(VISA, folder, classes, lambda name: (folder / name / "Data").is_dir())
    rows = _read_split(file)
    sets = []
    for name in chosen:
        task = links / VISA.name / name
        _link_class(folder, [row for row in rows if row["object"] == name], task)
        for part in (f"{TRAIN}/{GOOD}", f"{TEST}/{GOOD}", f"{TEST}/{_ANOMALY}"):
            if not (task / part).is_dir():
                raise InputError(f"{file} names no image of {name} for {part}: get it again.")
        sets.append(_data_set(VISA, name, task))
    return sets


def _chosen(
    field: Field, folder: Path, classes: Collection[str], exists: Callable[[str], bool]
) -> list[str]:
    """The classes to run: those that were asked for, or all that the folder has."""
    there = [name for name in field.classes if exists(name)]
    for name in field.classes:
        if name in classes and name not in there:
            raise InputError(f"{folder} has no folder of the class {name}: unpack it there.")
    if not there:
        raise InputError(
            f"{folder} has no folder of any class of {field.name} ({', '.join(field.classes)}): "
            "give the folder that holds them. Other sets in the layout of MVTec AD go with --data."
        )
    return [name for name in there if name in classes or not classes]


def _data_set(field: Field, name: str, folder: Path) -> DataSet:
    return DataSet(f"{field.name}/{name}", folder, published=True)


def _read_split(file: Path) -> list[dict[str, str]]:
    """The lines of VisA's split, one for each image."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns, rows = reader.fieldnames or (), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read ({error}): get it again.") from error
    for name in _COLUMNS:
        if name not in columns:
            raise InputError(f"{file} has no column '{name}': get it again.")
    for number, row in enumerate(rows, start=2):
        normal = row["label"] == "normal" and row["split"] in (TRAIN, TEST)
        anomaly = row["label"] == _ANOMALY and row["split"] == TEST and row["mask"]
        if not row["image"] or not (normal or anomaly):
            raise InputError(
                f"line {number} of {file} is neither a normal image for train or test nor an "
                "anomaly with a mask for test: get the file again."
            )
    return rows


def _link_class(folder: Path, rows: Sequence[dict[str, str]], task: Path) -> None:
    """Link the images and masks of one class of VisA to where MVTec AD would have them."""
    for row in rows:
        image, kind = Path(row["image"]), GOOD if row["label"] == "normal" else _ANOMALY
        links = {task / row["split"] / kind / image.name: folder / image}
        if kind == _ANOMALY:
            mask = Path(row["mask"])
            links[task / _TRUTH / kind / f"{image.stem}{mask.suffix}"] = folder / mask
        for link, target in links.items():
            if not target.is_file():
                raise InputError(f"{target}, which {_SPLIT_FILE} names, is missing: unpack again.")
            link.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(target.resolve(), link)
