"""The data sets, and which of their images are the shots.

Every data set is a folder in the layout of MVTec AD. Published sets with many classes are found by
:mod:`benchmarks.accuracy.field`. A set with a folder for each class becomes one
task for each class, through links (the controlled tasks of COFT-AD, arXiv 2402.18998). The parts of
the demo are rendered.
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
from fsad_edge.evaluation.layouts import GOOD, TEST
from fsad_edge.options import MaskMeaning
from fsad_edge.runtime.directories import new_directory
from fsad_edge.runtime.folders import find_images

TRAIN = "train"


@dataclass(frozen=True)
class DataSet:
    """One task.

    Attributes:
        name: its name in the rows; the table averages tasks such as ``set/one`` and ``set/two``.
        folder: holds train/good, test/good, test/<defect> and perhaps ground_truth.
        published: whether it is a class of a set that others publish figures of. Its shots are
            taken in the order of their names, and its masks as they are, however large.
    """

    name: str
    folder: Path
    published: bool = False

    @property
    def group(self) -> str:
        """The name that the table and the plot show it under."""
        return self.name.partition("/")[0]

    @cached_property
    def normal_images(self) -> list[Path]:
        """The images that shots are drawn from, sorted."""
        return find_images(self.folder / TRAIN / GOOD).images

    @cached_property
    def samples(self) -> list[Sample]:
        """All test images."""
        return read_dataset(self.folder, self.masks).samples

    @property
    def masks(self) -> tuple[MaskMeaning, ...]:
        """How masks are meant that would be refused otherwise."""
        return (MaskMeaning.LARGE,) if self.published else ()

    def subset(self, images: int) -> list[Sample]:
        """At most ``images`` good and as many defective test images, spread over the split."""
        good = [sample for sample in self.samples if sample.defect is None]
        defective = [sample for sample in self.samples if sample.defect is not None]
        return [
            sample for kind in (good, defective) for sample in kind[:: -(-len(kind) // images) or 1]
        ]

    def draw(self, shots: int, seed: int) -> list[Path]:
        """The first ``shots`` of the sorted normal images in a random order.

        Of a published set, these are the images ``seed * shots`` to ``seed * shots + shots - 1`` in
        the order of their names.

        Raises:
            InputError: there are too few images.
        """
        first = seed * shots if self.published else 0
        if first and first + shots > len(self.normal_images):
            raise InputError(
                f"{self.name} has {len(self.normal_images)} images in {TRAIN}/{GOOD}, too few for "
                f"set {seed} of {shots} shots: give fewer --seeds or --shots."
            )
        if not 1 <= shots <= len(self.normal_images):
            raise InputError(
                f"{shots} shots cannot be drawn from {self.name}: it has {len(self.normal_images)} "
                f"images in {TRAIN}/{GOOD}."
            )
        if self.published:
            return self.normal_images[first : first + shots]
        order = np.random.RandomState(seed).permutation(len(self.normal_images))
        return [self.normal_images[index] for index in order[:shots]]


def mvtec_style(folder: Path) -> DataSet:
    """A folder in the layout of MVTec AD, checked."""
    data = DataSet(folder.absolute().name, folder)
    if all(sample.defect is None for sample in data.samples):
        raise InputError(f"{folder} has no defective test images: put some into {TEST}/DEFECT.")
    find_images(folder / TRAIN / GOOD)
    return data


def one_against_rest(folder: Path, classes: Sequence[str], links: Path) -> list[DataSet]:
    """The tasks of a set with a folder for each class: one class is normal, the others are not.

    Args:
        folder: holds train/<class> and test/<class>.
        classes: the classes that are the normal one of a task; empty for all.
        links: an existing folder, in which each task gets a folder of links.

    Raises:
        InputError: the folder or a class does not exist, or there are fewer than two classes.
    """
    test = folder / TEST
    if not test.is_dir():
        raise InputError(f"{folder} has no folder {TEST}: it needs train/<class> and test/<class>.")
    known = sorted(path.name for path in test.iterdir() if path.is_dir() and path.name[0] != ".")
    if len(known) < 2:
        raise InputError(f"{test} has fewer than two classes: at least one must be the anomaly.")
    if GOOD in known:
        raise InputError(
            f"{test / GOOD} has the name of the folder of normal images: rename the class."
        )
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
    """A part of the demo, rendered to the folder ``place/part`` unless that is there already."""
    folder = place / part
    if not folder.is_dir():
        place.mkdir(parents=True, exist_ok=True)
        with new_directory(folder) as temporary:
            write_set(temporary, part, seed=0, train=train, good=good, bad=bad)
    return DataSet(f"rendered_{part}", folder)
