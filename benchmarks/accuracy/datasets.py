"""Where the images come from, and which of them are the shots.

Every data set is a folder as MVTec AD lays it out. Others are brought to that: a class-folder set
by links, one task a class (the controlled tasks of COFT-AD, arXiv 2402.18998); the demo's parts by
rendering them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.rendered_parts import write_set
from fsad_edge.errors import InputError
from fsad_edge.evaluation import Sample, read_dataset
from fsad_edge.evaluation.dataset import GOOD, TEST
from fsad_edge.runtime.files import new_directory
from fsad_edge.runtime.images import find_images

TRAIN = "train"


@dataclass(frozen=True)
class DataSet:
    """One task.

    Attributes:
        name: in the rows; tasks ``group/one`` and ``group/other`` are averaged in the table.
        folder: with train/good, test/good, test/<defect> and perhaps ground_truth.
    """

    name: str
    folder: Path

    @property
    def group(self) -> str:
        """What the table and the plot show it under."""
        return self.name.partition("/")[0]

    @cached_property
    def normal_images(self) -> list[Path]:
        """Images that shots are drawn from, sorted."""
        return find_images(self.folder / TRAIN / GOOD)

    @cached_property
    def samples(self) -> list[Sample]:
        """All test images."""
        return read_dataset(self.folder)

    def some(self, images: int) -> list[Sample]:
        """Test images spread over the split, normal ones first: so many of each kind at most."""
        found = []
        for defective in (False, True):
            kind = [one for one in self.samples if (one.defect is not None) == defective]
            found += kind[:: max(1, -(-len(kind) // images))]
        return found

    def draw(self, shots: int, seed: int) -> list[Path]:
        """The first ``shots`` of the sorted normal images in a random order.

        Raises:
            InputError: there are fewer.
        """
        if not 1 <= shots <= len(self.normal_images):
            raise InputError(
                f"{shots} shots cannot be drawn from {self.name}: it has {len(self.normal_images)} "
                f"images in {TRAIN}/{GOOD}."
            )
        order = np.random.RandomState(seed).permutation(len(self.normal_images))
        return [self.normal_images[index] for index in order[:shots]]


def mvtec_style(folder: Path) -> DataSet:
    """A folder that is laid out as MVTec AD's are, checked."""
    data = DataSet(folder.absolute().name, folder)
    if all(sample.defect is None for sample in data.samples):
        raise InputError(f"{folder} has no defective test images: put some into {TEST}/DEFECT.")
    find_images(folder / TRAIN / GOOD)
    return data


def one_against_rest(folder: Path, classes: Sequence[str], links: Path) -> list[DataSet]:
    """Tasks of a class-folder set: a class is normal, all others are anomalies.

    Args:
        folder: with train/<class> and test/<class>.
        classes: to take as the normal one in turn; all if empty.
        links: an existing folder, for one folder of links a task.

    Raises:
        InputError: no such folder or class, or fewer than two classes.
    """
    test = folder / TEST
    if not test.is_dir():
        raise InputError(f"{folder} has no folder {TEST}: give train/<class> and test/<class>.")
    known = sorted(path.name for path in test.iterdir() if path.is_dir() and path.name[0] != ".")
    if len(known) < 2:
        raise InputError(f"{test} has fewer than two classes: one against the rest needs a rest.")
    if GOOD in known:
        raise InputError(f"{test / GOOD} cannot be told from the normal class: rename it.")
    for missing in sorted(set(classes) - set(known)):
        raise InputError(f"{folder} has no class '{missing}': it has {', '.join(known)}.")
    group = folder.absolute().name
    tasks = []
    for normal in [name for name in known if name in classes or not classes]:
        task = links / group / normal
        for part in (TRAIN, TEST):
            (task / part).mkdir(parents=True)
            (task / part / GOOD).symlink_to((folder / part / normal).resolve())
        for other in known:
            if other != normal:
                (task / TEST / other).symlink_to((test / other).resolve())
        tasks.append(DataSet(f"{group}/{normal}", task))
    return tasks


def rendered(part: str, place: Path, train: int = 20, good: int = 40, bad: int = 12) -> DataSet:
    """The demo's part of that name, rendered into ``place`` unless it is there already."""
    folder = place / part
    if not folder.is_dir():
        place.mkdir(parents=True, exist_ok=True)
        with new_directory(folder) as temporary:
            write_set(temporary, part, seed=0, train=train, good=good, bad=bad)
    return DataSet(f"rendered_{part}", folder)
