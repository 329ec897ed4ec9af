"""How well the regions that a model finds are the defects that masks mark.

A **defect region** is a connected part of a mask; pixels that touch at a corner are connected, as
for AUPRO. A **found region** is one of a result's regions: a connected part of the anomaly map
above its threshold, as its outline is drawn on the photograph.

The two *meet* where they share at least a tenth of the smaller one's area. The usual measure, the
shared area over the joint one, is not fair here: the cells of a map are 8 to 16 pixels of the
model's image wide, so that a hair-thin crack that is found exactly still fills a small part of the
region that finds it, and a region at the heart of a large stain is a small part of the stain.
Any overlap at all would be too kind: regions that touch at a corner are not the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fsad_edge.evaluation.rate import Rate, rate
from fsad_edge.runtime.arrays import BoolArray
from fsad_edge.runtime.regions import connected_regions

#: Two regions meet where they share at least this part of the smaller one's area.
LEAST_SHARED = 0.1

#: The corners of a region on the photograph, x and y in pixels.
Polygon = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class RegionFigures:
    """What the found regions are worth. Images that are not judged are left out.

    The bounds take regions for independent of one another; those of one image are not quite, so
    the true bounds are a little wider.

    Attributes:
        recall: defect regions that a found region meets, of all defect regions.
        precision: found regions that meet a defect region, of all found regions in the defective
            images that have a mask.
        area_on_defects: the share of those found regions' area that lies on defects; it is low
            where regions are far larger than the defects. None where nothing was found.
        false_regions: found regions in good images.
        false_regions_per_good: their number for one good image; None without a good image.
        good_with_regions: good images with at least one of them, of all good ones.
        without_mask: defective images that recall and precision leave out, because no mask marks
            their defect.
        not_judged: images that are left out, because they are not judged.
        rejected_elsewhere: defective images with a mask that are rejected although no found region
            meets a defect: what rejects them is somewhere else on the part.
    """

    recall: Rate
    precision: Rate
    area_on_defects: float | None
    false_regions: int
    false_regions_per_good: float | None
    good_with_regions: Rate
    without_mask: int
    not_judged: int
    rejected_elsewhere: int = 0


@dataclass
class RegionCounts:
    """Counts images one after the other.

    Example:
        >>> defect = np.zeros((100, 100), bool)
        >>> defect[20:40, 20:40] = True
        >>> counts = RegionCounts()
        >>> counts.add_defective([[(10, 10), (50, 10), (50, 50), (10, 50)]], defect).count
        1
        >>> counts.add_good(0)
        >>> figures = counts.figures()
        >>> figures.recall.share, figures.precision.share, figures.false_regions_per_good
        (1.0, 1.0, 0.0)
    """

    _defects: int = 0
    _found_defects: int = 0
    _regions: int = 0
    _right_regions: int = 0
    _area: int = 0
    _area_on_defects: int = 0
    _per_good: list[int] = field(default_factory=list)
    without_mask: int = 0
    not_judged: int = 0
    rejected_elsewhere: int = 0

    def add_good(self, found: int) -> None:
        """Count the regions found in a good image that is judged."""
        self._per_good.append(found)

    def add_defective(self, found: Sequence[Polygon], mask: BoolArray) -> Rate:
        """Count a defective image that is judged.

        Args:
            found: the outlines of the found regions, in pixels of the photograph.
            mask: bool ``[H, W]`` at the size of the photograph, True on the defect.

        Returns:
            the defect regions of this image that are found.
        """
        meetings = meet(found, mask)
        regions, defects = meetings.met.shape
        defects_found = int(meetings.met.any(axis=0).sum())
        self._defects += defects
        self._found_defects += defects_found
        self._regions += regions
        self._right_regions += int(meetings.met.any(axis=1).sum())
        self._area += meetings.area
        self._area_on_defects += meetings.area_on_defects
        return rate(defects_found, defects)

    def figures(self) -> RegionFigures:
        """The figures of all images that were counted."""
        false, good = sum(self._per_good), len(self._per_good)
        return RegionFigures(
            recall=rate(self._found_defects, self._defects),
            precision=rate(self._right_regions, self._regions),
            area_on_defects=self._area_on_defects / self._area if self._area else None,
            false_regions=false,
            false_regions_per_good=false / good if good else None,
            good_with_regions=rate(sum(count > 0 for count in self._per_good), good),
            without_mask=self.without_mask,
            not_judged=self.not_judged,
            rejected_elsewhere=self.rejected_elsewhere,
        )


@dataclass(frozen=True)
class Meetings:
    """Which of ``N`` found regions meet which of ``M`` defect regions.

    Attributes:
        met: bool ``[N, M]``.
        area: pixels of the found regions, a pixel of several counted for each.
        area_on_defects: those of them that are on a defect.
    """

    met: BoolArray
    area: int
    area_on_defects: int


def meet(found: Sequence[Polygon], mask: BoolArray) -> Meetings:
    """Compare found regions with the defect regions of a mask.

    Args:
        found: ``N`` outlines in pixels of the photograph, of three corners or more each.
        mask: bool ``[H, W]`` at the size of the photograph, with ``M`` connected parts.
    """
    labels, sizes = connected_regions(mask)
    areas = sizes[1:]
    met, area, on_defects = np.zeros((len(found), len(areas)), dtype=bool), 0, 0
    for index, polygon in enumerate(found):
        inside, top, left = _filled(polygon, *mask.shape)
        window = labels[top : top + inside.shape[0], left : left + inside.shape[1]]
        shared = np.bincount(window[inside], minlength=len(sizes))[1:]
        size = int(inside.sum())
        met[index] = (shared > 0) & (shared >= LEAST_SHARED * np.minimum(areas, size))
        area += size
        on_defects += int(shared.sum())
    return Meetings(met, area, on_defects)


def _filled(polygon: Polygon, height: int, width: int) -> tuple[BoolArray, int, int]:
    """The pixels inside an outline, as a window bool ``[h, w]`` with its top and left in an image
    of ``height`` x ``width``. Pixel centres decide."""
    x, y = np.asarray(polygon, dtype=np.float64).T
    left, right = (int(edge) for edge in (max(0, x.min()), min(width, np.ceil(x.max()))))
    top, bottom = (int(edge) for edge in (max(0, y.min()), min(height, np.ceil(y.max()))))
    if right <= left or bottom <= top:
        return np.zeros((0, 0), dtype=bool), 0, 0
    # Each row of pixel centres is cut where the outline crosses it; between two cuts is inside.
    centres = np.arange(top, bottom) + 0.5
    to_x, to_y = np.roll(x, -1), np.roll(y, -1)
    edges, rows = np.nonzero((y[:, None] <= centres) != (to_y[:, None] <= centres))
    along = (centres[rows] - y[edges]) / (to_y[edges] - y[edges])
    cuts = np.ceil(x[edges] + along * (to_x[edges] - x[edges]) - left - 0.5)
    cut = np.zeros((bottom - top, right - left + 1), dtype=np.intp)
    np.add.at(cut, (rows, cuts.clip(0, right - left).astype(np.intp)), 1)
    inside: BoolArray = cut.cumsum(axis=1)[:, :-1] % 2 == 1
    return inside, top, left
