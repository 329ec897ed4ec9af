"""The lines around the regions of a field, found by marching squares.

This module needs numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fsad_edge.runtime.arrays import Float32Array, Float64Array, IndexArray

#: Most points of a polygon. A longer outline is told less exactly.
MOST_POINTS = 64

#: How far a polygon may be from its line, in points of the field, along a side.
TOLERANCE = 0.15

#: Square pixels below which a region has no other middle than its highest place.
SPECK = 1e-3

Point = tuple[float, float]

#: The edges of a square of four points, in the order of the offsets in :class:`Outlines`.
_TOP, _BOTTOM, _LEFT, _RIGHT = range(4)

#: From which edge of a square to which one the line goes, clockwise around what is inside, by which
#: of its points are inside: upper left 1, upper right 2, lower right 4, lower left 8. Where the two
#: of a diagonal are, they are connected, and there are two lines: this is the first one.
_WAYS = np.array(
    [
        *((0, 0), (_TOP, _LEFT), (_RIGHT, _TOP), (_RIGHT, _LEFT)),
        *((_BOTTOM, _RIGHT), (_TOP, _RIGHT), (_BOTTOM, _TOP), (_BOTTOM, _LEFT)),
        *((_LEFT, _BOTTOM), (_TOP, _BOTTOM), (_LEFT, _TOP), (_RIGHT, _BOTTOM)),
        *((_LEFT, _RIGHT), (_TOP, _RIGHT), (_LEFT, _TOP), (0, 0)),
    ]
)

#: The second lines.
_SECOND = ((5, [_BOTTOM, _LEFT]), (10, [_RIGHT, _BOTTOM]))


class Outline(NamedTuple):
    """Where a region is, in pixels.

    Attributes:
        box: left, top, right and bottom.
        area: square pixels, without holes.
        centroid: x and y of the middle of its area.
        polygon: x and y of the points around it, clockwise; holes do not show.
    """

    box: tuple[float, float, float, float]
    area: float
    centroid: Point
    polygon: tuple[Point, ...]


class Outlines:
    """The lines around the regions of a field, whose points are connected at corners, too.

    Args:
        field: float32 ``[H, W]``, covering the whole photograph.
        window: the rows and columns of it that hold all regions.
        numbers: int ``[h, w]``, in the window: the number of the region of each point, from 1 on; 0
            for none. Around a region is none, or the border.
        level: the value that the lines run at: points inside are above it, those around are not.
        size: width and height of the photograph in pixels.
    """

    def __init__(
        self,
        field: Float32Array,
        window: tuple[slice, slice],
        numbers: IndexArray,
        level: float,
        size: tuple[int, int],
    ) -> None:
        padded, inside = _with_ring(field, window, numbers, level)
        row, count = padded.shape[1], padded.size
        # The ring is not inside, so that each line is closed, and the squares of all rows can be
        # gone through one after another.
        flat = inside.ravel()
        corners = flat[: -row - 1], flat[1:-row], flat[row + 1 :], flat[row:-1]
        kinds = np.zeros(len(corners[0]), np.intp)
        for bit, points in enumerate(corners):
            kinds += (points > 0) << bit
        squares = np.flatnonzero((kinds > 0) & (kinds < 15))
        kinds = kinds[squares]
        # A place between two points beside one another has the first one's number; one between two
        # below one another comes ``count`` later.
        offsets = np.array([0, row, count, count + 1])
        lines = np.concatenate(
            [
                squares[:, None] + offsets[_WAYS[kinds]],
                *(squares[kinds == kind, None] + offsets[way] for kind, way in _SECOND),
            ]
        )
        order = np.argsort(lines[:, 0])
        starts, ends = lines[order].T
        self._after = np.searchsorted(starts, ends)
        upright = starts >= count
        place = starts - count * upright
        beyond = place + np.where(upright, row, 1)
        self._numbers = np.maximum(flat[place], flat[beyond])  # one of both is 0
        grid = _grid(field.shape[0], size[1], window[0]), _grid(field.shape[1], size[0], window[1])
        self._points = _crossings(padded, place, beyond, level, grid)
        self._tolerance = TOLERANCE * math.sqrt(size[0] / field.shape[1] * size[1] / field.shape[0])

    def all(self) -> Iterator[Outline]:
        """The outline of each region, in the order of their numbers."""
        order = np.argsort(self._numbers, kind="stable")
        first = np.searchsorted(self._numbers[order], np.arange(1, self._numbers.max() + 1))
        points = self._points[order]
        least = np.minimum.reduceat(points, first).round(1).tolist()
        most = np.maximum.reduceat(points, first).round(1).tolist()
        moments = self._moments()[1:].tolist()
        exact, rounded = self._points.tolist(), self._points.round(1).tolist()
        after = self._after.tolist()
        # The first place of a region, in its uppermost row, is on its outer line.
        for start, (area, x, y), (left, top), (right, bottom) in zip(
            order[first].tolist(), moments, least, most, strict=True
        ):
            line = _line(after, start)
            if area < SPECK:
                x, y = exact[start]
            yield Outline(
                box=(left, top, right, bottom),
                area=round(area, 2),
                centroid=(
                    min(max(round(x, 1), left), right),
                    min(max(round(y, 1), top), bottom),
                ),
                polygon=_polygon(line, exact, rounded, self._tolerance),
            )

    def _moments(self) -> Float64Array:
        """Area and centroid of each region, float64 ``[R + 1, 3]``, by Green's theorem."""
        (x, y), (to_x, to_y) = self._points.T, self._points[self._after].T
        turn = x * to_y - to_x * y
        factors = 0.5, (x + to_x) / 6, (y + to_y) / 6
        sums = [np.bincount(self._numbers, weights=turn * factor) for factor in factors]
        area = np.maximum(sums[0], SPECK)
        return np.stack([sums[0], sums[1] / area, sums[2] / area], axis=1)


def _with_ring(
    field: Float32Array, window: tuple[slice, slice], numbers: IndexArray, level: float
) -> tuple[Float64Array, IndexArray]:
    """The field and the numbers in a window with a ring around it.

    On the border of the photograph, the ring gets the level, so that the lines run on the border.
    """
    padded = np.full((numbers.shape[0] + 2, numbers.shape[1] + 2), level, np.float64)
    reach = [
        (max(one.start - 1, 0), min(one.stop + 1, count))
        for one, count in zip(window, field.shape, strict=True)
    ]
    (top, bottom), (left, right) = reach
    down, across = top - window[0].start + 1, left - window[1].start + 1
    padded[down : down + bottom - top, across : across + right - left] = field[
        top:bottom, left:right
    ]
    inside = np.zeros(padded.shape, np.intp)
    inside[1:-1, 1:-1] = numbers
    return padded, inside


def _grid(count: int, length: int, window: slice) -> Float64Array:
    """Where the points of a side are, in pixels; those of the ring around all on the border."""
    places = np.arange(window.start - 0.5, window.stop + 1).clip(0, count)
    return places * (length / count)


def _crossings(
    padded: Float64Array,
    place: IndexArray,
    beyond: IndexArray,
    level: float,
    grid: tuple[Float64Array, Float64Array],
) -> Float64Array:
    """Where the level is between two points each: x and y in pixels, float64 ``[n, 2]``."""
    y, x = grid
    flat, row = padded.ravel(), padded.shape[1]
    first = flat[place]
    share = (level - first) / (flat[beyond] - first)
    down, across = np.divmod(place, row)
    below, beside = np.divmod(beyond, row)
    left, top = x[across], y[down]
    return np.stack([left + share * (x[beside] - left), top + share * (y[below] - top)], axis=1)


def _line(after: list[int], start: int) -> list[int]:
    """The places of a closed line, in their order."""
    found, place = [start], after[start]
    while place != start:
        found.append(place)
        place = after[place]
    return found


def _polygon(
    line: list[int], exact: list[list[float]], rounded: list[list[float]], tolerance: float
) -> tuple[Point, ...]:
    """A closed line with few points."""
    few = _simplified(line, exact, tolerance)
    while len(few) > MOST_POINTS:
        tolerance *= 1.5
        few = _simplified(line, exact, tolerance)
    if len(few) < 3:
        few = [line[len(line) * third // 3] for third in range(3)]
    points = [(rounded[place][0], rounded[place][1]) for place in few]
    kept = [
        point
        for point, before in zip(points, points[-1:] + points[:-1], strict=True)
        if point != before
    ]
    return tuple(kept if len(kept) > 2 else points)


def _simplified(line: list[int], exact: list[list[float]], tolerance: float) -> list[int]:
    """A line without points that are within a distance of the straight line past them.

    From each point that is kept, the directions are followed that pass all later points closely
    enough; where none is left, the point before is kept, too.
    """
    kept = [line[0]]
    x, y = exact[line[0]]
    along_x = along_y = 0.0
    least, most = -math.inf, math.inf
    before = line[0]
    for place in line[1:]:
        to_x, to_y = exact[place]
        off_x, off_y = to_x - x, to_y - y
        length = math.hypot(off_x, off_y)
        if length > tolerance:
            if least == -math.inf:
                along_x, along_y = off_x, off_y
            angle = math.atan2(along_x * off_y - along_y * off_x, along_x * off_x + along_y * off_y)
            if not least <= angle <= most:
                kept.append(before)
                x, y = exact[before]
                along_x, along_y = to_x - x, to_y - y
                length = math.hypot(along_x, along_y)
                angle = 0.0
                least, most = -math.inf, math.inf
            width = math.asin(min(1.0, tolerance / length)) if length else math.pi
            least, most = max(least, angle - width), min(most, angle + width)
        before = place
    return kept
