"""Regions: the connected parts of an anomaly map that are above its threshold.

A region's outline is the line that heat maps draw (:mod:`fsad_edge.runtime.heatmap`): where the
stretched map crosses its threshold. It is found on a grid that is finer than the map, by marching
squares (:mod:`fsad_edge.runtime.outlines`). This module needs numpy and Pillow only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fsad_edge.runtime.arrays import BoolArray, Float32Array
from fsad_edge.runtime.outlines import Outlines
from fsad_edge.runtime.regions import connected_regions
from fsad_edge.runtime.upsampling import refine

#: Most regions of an image that are listed, those with the highest peaks: others are counted.
MOST_REGIONS = 16

#: Points of the finer grid for a cell of the map, along a side, and the most points of a side that
#: they may come to. They are odd in number, so that the middle of a cell is one of them. A map of
#: more cells is fine enough.
FINER = ((5, 112), (3, 192))


@dataclass(frozen=True)
class Region:
    """A connected part of one image's anomaly map above the map's threshold.

    It says how far the heat map is above the threshold, and does not measure the defect, which is
    mostly smaller: the map is coarse.

    Lengths are in pixels of the photograph as it is seen, turned upright as its EXIF says, at the
    full resolution of its file, from its left and upper edge: the first pixel is from 0 to 1.

    Attributes:
        number: 1 is the region with the highest peak.
        box: left, top, right and bottom.
        area: square pixels, without holes.
        centroid: x and y of the middle of its area, which lies beside it where it is bent.
        polygon: its outline without holes, x and y of each point, clockwise; at least three, and at
            most ``outlines.MOST_POINTS``.
        peak: the highest value of the map in it.
        mean: the mean value of the map in it.
        ratio: the peak over the map's threshold, above 1.
    """

    number: int
    box: tuple[float, float, float, float]
    area: float
    centroid: tuple[float, float]
    polygon: tuple[tuple[float, float], ...]
    peak: float
    mean: float
    ratio: float


class FoundRegions(NamedTuple):
    """The regions of an image.

    Attributes:
        regions: those with the highest peaks, ``MOST_REGIONS`` at most.
        more: how many others there are.
    """

    regions: tuple[Region, ...]
    more: int


NO_REGIONS = FoundRegions((), 0)


def regions_of(
    anomaly_map: Float32Array, map_threshold: float, size: tuple[int, int]
) -> tuple[Region, ...]:
    """The regions of a map that :func:`find_regions` lists.

    Example:
        >>> import numpy as np
        >>> anomaly_map = np.zeros((8, 8), np.float32)
        >>> anomaly_map[2, 5] = 1.0
        >>> (region,) = regions_of(anomaly_map, 0.5, size=(640, 640))
        >>> region.number, region.centroid, region.ratio
        (1, (440.0, 200.0), 2.0)
    """
    return find_regions(anomaly_map, map_threshold, size).regions


def find_regions(
    anomaly_map: Float32Array,
    map_threshold: float,
    size: tuple[int, int],
    most: int = MOST_REGIONS,
) -> FoundRegions:
    """Find the regions of a map. Points that touch at a corner are connected.

    Args:
        anomaly_map: float32 ``[h, w]``, covering the whole photograph.
        map_threshold: its threshold.
        size: width and height of the photograph in pixels.
        most: the most regions that are described.

    Returns:
        the regions, highest peak first, of equal ones the largest, and of these the uppermost.
        There is none where no value is above the threshold, or one is no finite number.
    """
    highest = float(anomaly_map.max(initial=0))
    if not map_threshold < highest < math.inf:
        return NO_REGIONS
    # A threshold that float32 rounds up to the highest value would find nothing.
    level = min(np.float32(map_threshold), np.nextafter(np.float32(highest), np.float32(-np.inf)))
    field = _stretched(anomaly_map)
    window = _window(field > level)
    shown = field[window]
    numbers, sizes = connected_regions(shown > level)
    inside = np.flatnonzero(numbers)
    inside = inside[np.argsort(numbers.ravel()[inside], kind="stable")]
    values = shown.ravel()[inside]
    starts = sizes[1:].cumsum() - sizes[1:]
    peaks = np.maximum.reduceat(values, starts)
    means = np.add.reduceat(values.astype(np.float64), starts) / sizes[1:]
    order = np.lexsort((-sizes[1:], -peaks))[:most]
    # The regions that are described, by their number in the end; the others are 0.
    ranks = np.zeros(len(sizes), np.intp)
    ranks[order + 1] = np.arange(1, len(order) + 1)
    outlines = Outlines(field, window, ranks[numbers], float(level), size)
    regions = tuple(
        Region(number, *outline, peak, mean, peak / map_threshold)
        for number, (outline, peak, mean) in enumerate(
            zip(outlines.all(), peaks[order].tolist(), means[order].tolist(), strict=True), 1
        )
    )
    return FoundRegions(regions, len(peaks) - len(order))


def _stretched(anomaly_map: Float32Array) -> Float32Array:
    """A map on the finer grid."""
    longer = max(anomaly_map.shape)
    for finer, most in FINER:
        if finer * longer <= most:
            return refine(anomaly_map, finer)
    return anomaly_map


def _window(above: BoolArray) -> tuple[slice, slice]:
    """The rows and the columns that hold all of a mask, which is not empty."""
    rows, columns = np.flatnonzero(above.any(axis=1)), np.flatnonzero(above.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def region_document(region: Region, mm_per_px: float | None = None) -> dict[str, Any]:
    """A region for JSON, its values rounded.

    Args:
        region: the region.
        mm_per_px: millimetres that a pixel of the photograph shows. Where it is given,
            ``area_mm2``, ``box_mm`` and ``centroid_mm`` say the same in millimetres, to four
            significant digits. Width and height are right minus left and bottom minus top of a box.
    """
    found: dict[str, Any] = {
        "number": region.number,
        "box": list(region.box),
        "area": region.area,
        "centroid": list(region.centroid),
        "polygon": [list(point) for point in region.polygon],
        "peak": _short(region.peak),
        "mean": _short(region.mean),
        "ratio": round(region.ratio, 4),
    }
    if mm_per_px is not None:
        found["area_mm2"] = _short(region.area * mm_per_px**2, 4)
        found["box_mm"] = [_short(one * mm_per_px, 4) for one in region.box]
        found["centroid_mm"] = [_short(one * mm_per_px, 4) for one in region.centroid]
    return found


def _short(value: float, digits: int = 6) -> float:
    """A number to some significant digits."""
    return float(f"{value:.{digits}g}")
