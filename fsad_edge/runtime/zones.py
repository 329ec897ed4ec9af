"""Zones: places on the part that a person marked, and what they make of a model's map.

A zone does not count, is one of those that alone count, or counts more or less. Its outline is
given as fractions of what the model looks at, so that it follows the part. This module needs numpy
only.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from fsad_edge.errors import InputError
from fsad_edge.options import Choice
from fsad_edge.runtime.arrays import BoolArray, Float32Array
from fsad_edge.runtime.documents import Above, Range, write_document
from fsad_edge.runtime.files import sha256

#: Points along a side of a cell that stand for it: a zone's share of a cell is that of its points.
POINTS = 8

#: What is ignored reaches so many cells further, because the cells around see what is in it, too:
#: nothing counts up to the first, and ever more from there to the last. With drawn stains that
#: filled the zone, of 16 to 64 pixels of 224 and of five contrasts, 60 % were still rejected
#: without a margin, on two materials with both bundled encoders, and 6 % with this one. Those were
#: black or bright red on the material whose parts differ least, with the fast encoder: 3 cells
#: within which nothing counts would be needed, a fifth of that map to each side. In a map of fewer
#: than 12 cells to a side it is smaller: a quarter of that side at most.
MARGINS = (2.0, 2.5, 3.0)

#: The most corners of a zone.
MOST_CORNERS = 5000

#: How much stricter or more lenient a zone can be.
LEAST_WEIGHT, MOST_WEIGHT = 0.01, 100.0

#: Corners may lie beyond what the model looks at, as where a part is turned in the photograph, but
#: no more than so many of its sides away.
_FARTHEST = 1000.0

#: Rows and columns of the grid on which the share of the part that counts is measured.
_GRID = 64

#: A corner: how far to the right and how far down it lies, as fractions of the frame's sides.
Corner = tuple[
    Annotated[float, Range(-_FARTHEST, _FARTHEST)], Annotated[float, Range(-_FARTHEST, _FARTHEST)]
]


class ZoneKind(Choice):
    """What a zone does."""

    IGNORE = "ignore"  # what is in it does not count
    LOOK = "look"  # what is outside all zones of this kind does not count
    WEIGHT = "weight"  # what is in it counts more or less


@dataclass(frozen=True)
class Zone:
    """A place on the part.

    Attributes:
        kind: what it does.
        weight: what the distances in it are multiplied by: 0 for ``ignore``, 1 for ``look``.
        polygon: its corners in order. Of an outline that crosses itself, a point is inside where a
            line from it to the outside crosses the outline an odd number of times.

    Raises:
        InputError: the weight is none of its kind, or the corners are too few, on one line, or no
            finite numbers.

    Example:
        >>> left = Zone(ZoneKind.WEIGHT, 2.0, ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)))
        >>> weights_of([left], rows=1, columns=4).tolist()
        [2.0, 2.0, 1.0, 1.0]
    """

    kind: ZoneKind
    weight: Annotated[float, Range(0, MOST_WEIGHT)]
    polygon: Annotated[tuple[Corner, ...], Range(3, MOST_CORNERS)]

    def __post_init__(self) -> None:
        """Refuse what is no zone."""
        _check_weight(self.kind, self.weight)
        _check_corners(self.polygon)

    @property
    def words(self) -> str:
        """What the zone does, in words.

        Example:
            >>> Zone(ZoneKind.WEIGHT, 2.0, ((0, 0), (1, 0), (1, 1))).words
            'counts 2 times'
        """
        if self.kind is ZoneKind.IGNORE:
            return "does not count"
        return "is looked at" if self.kind is ZoneKind.LOOK else f"counts {self.weight:.3g} times"


@dataclass(frozen=True)
class ZoneEntry:
    """A zone that a person set.

    Attributes:
        id: as of all that a model is taught.
        when: UTC time, ISO 8601.
        who: the person who set it.
        zone: the zone.
        note: why, in the person's words; empty where none were given.
        own_threshold: the threshold that the person asked for in this zone, from which the weight
            was computed; None where the weight or nothing was given.
        undone: UTC time at which it was undone; None where it was not.
        undone_by: the person who undid it.
    """

    id: Annotated[int, Range(1)]
    when: str
    who: str
    zone: Zone
    note: str = ""
    own_threshold: Annotated[float, Above(0)] | None = None
    undone: str | None = None
    undone_by: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 by which the zone is known in another file or folder, also once it is undone."""
        return sha256(write_document(replace(self, id=1, undone=None, undone_by=None)).encode())


def weights_of(
    zones: Sequence[Zone], rows: int, columns: int, shift: tuple[float, float] = (0.0, 0.0)
) -> Float32Array:
    """What the distance of each cell of a model's map is multiplied by.

    Where zones overlap, the later one wins, except that the zones to look at together say where
    anything counts: outside all of them the weight is 0, whatever other zones say. A cell that lies
    partly in a zone gets the mean over its points. What is ignored reaches ``MARGINS`` cells
    further.

    Args:
        zones: the zones, oldest first.
        rows: rows of the map.
        columns: columns of the map.
        shift: how far the middle of what a cell sees lies right of and below the middle of the
            cell, in cells.

    Returns:
        float32 ``[rows * columns]``, row by row; 1 where no zone is.
    """
    fine = _fine_weights(zones, rows, columns, shift)
    return _of_cells(fine, rows, columns).ravel()


def mask_of(
    zones: Sequence[Zone], rows: int, columns: int, shift: tuple[float, float] = (0.0, 0.0)
) -> Float32Array:
    """Which cells count at all: the weights where no zone counts more or less.

    Arguments and result are as of :func:`weights_of`.

    Example:
        >>> left = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
        >>> mask_of([Zone(ZoneKind.WEIGHT, 2.0, left)], rows=1, columns=2).tolist()
        [1.0, 1.0]
    """
    plain = [replace(zone, weight=1.0) if zone.kind is ZoneKind.WEIGHT else zone for zone in zones]
    return weights_of(plain, rows, columns, shift)


def counted_share(
    zones: Sequence[Zone],
    part: BoolArray | None = None,
    grid: tuple[int, int] = (_GRID, _GRID),
    margins: Sequence[float] = MARGINS,
) -> float:
    """The share of the part, 0 to 1, that counts at all.

    Args:
        zones: the zones, oldest first.
        part: bool ``[h, w]``, which cells of any map show the part; None takes all that the model
            looks at.
        grid: rows and columns of the model's map, in whose cells the margin is.
        margins: how many cells further what is ignored reaches.
    """
    counted: BoolArray = _fine_weights(zones, *grid, margins=margins) > 0
    if part is None:
        return float(counted.mean())
    down, across = ((np.arange(n) * m) // n for n, m in zip(counted.shape, part.shape, strict=True))
    shown: BoolArray = part[down[:, None], across]
    return float(counted[shown].mean()) if shown.any() else 0.0


def share_of_cells(zone: Zone, rows: int, columns: int) -> Float32Array:
    """How much of each cell of a map lies in a zone, float32 ``[rows, columns]``, 0 to 1."""
    inside = _inside(zone.polygon, rows * POINTS, columns * POINTS)
    return _of_cells(inside, rows, columns)


def check_covers(zone: Zone) -> None:
    """Refuse a zone that covers nothing of what the model looks at.

    Raises:
        InputError: it lies outside, or is too small for any point of the map's cells.
    """
    if not _inside(zone.polygon, _GRID * POINTS, _GRID * POINTS).any():
        raise InputError(
            "the zone covers nothing of what the model looks at: it lies outside, encloses no "
            "area, or is too small. Mark a place on the part."
        )


def _fine_weights(
    zones: Sequence[Zone],
    rows: int,
    columns: int,
    shift: tuple[float, float] = (0.0, 0.0),
    margins: Sequence[float] = MARGINS,
) -> Float32Array:
    """The weight of each point, float32 ``[rows * POINTS, columns * POINTS]``."""
    size = rows * POINTS, columns * POINTS
    weights, looked = np.ones(size, np.float32), np.zeros(size, np.bool_)
    moved = shift[0] / columns, shift[1] / rows
    scale = POINTS * min(1.0, min(rows, columns) / (4 * MARGINS[-1]))
    # Zones to ignore that follow one another are grown together.
    for ignores, group in itertools.groupby(zones, lambda zone: zone.kind is ZoneKind.IGNORE):
        if ignores:
            ignored = np.zeros(size, np.bool_)
            for zone in group:
                ignored |= _inside(zone.polygon, *size, moved)
            grown = [_grown(ignored, one * scale) for one in margins]
            weights *= np.float32(1) - np.mean(grown, axis=0, dtype=np.float32)
            continue
        for zone in group:
            inside = _inside(zone.polygon, *size, moved)
            if zone.kind is ZoneKind.LOOK:
                looked |= inside
            else:
                weights[inside] = zone.weight
    if any(zone.kind is ZoneKind.LOOK for zone in zones):
        weights[~looked] = 0
    return weights


def _grown(inside: BoolArray, radius: float) -> BoolArray:
    """Points that are inside or no further than a radius from one that is, bool ``[h, w]``."""
    reach, (height, width) = int(radius), inside.shape
    grown: BoolArray = inside.copy()
    if not reach or not inside.any():
        return grown
    padded = np.pad(inside, reach)
    before = np.cumsum(np.pad(padded, ((0, 0), (1, 0))), axis=1, dtype=np.int32)
    for down in range(-reach, reach + 1):
        across = int((radius**2 - down**2) ** 0.5)
        rows = before[reach + down : reach + down + height]
        left, right = reach - across, reach + across + 1
        grown |= rows[:, right : right + width] > rows[:, left : left + width]
    return grown


def _of_cells(points: Float32Array | BoolArray, rows: int, columns: int) -> Float32Array:
    """The mean over the points of each cell, float32 ``[rows, columns]``."""
    means: Float32Array = np.float32(
        points.reshape(rows, POINTS, columns, POINTS).mean(axis=(1, 3), dtype=np.float64)
    )
    return means


def _inside(
    polygon: Sequence[Corner],
    rows: int,
    columns: int,
    shift: tuple[float, float] = (0.0, 0.0),
) -> BoolArray:
    """Which middles of a grid over the frame lie in a polygon, bool ``[rows, columns]``.

    Args:
        polygon: its corners.
        rows: of the grid.
        columns: of the grid.
        shift: how far right and below the points lie, as fractions of the frame; they stay in it.
    """
    start = np.array(polygon, np.float64)
    end = np.roll(start, -1, axis=0)
    inside = np.zeros((rows, columns), np.bool_)
    x, lines = ((np.arange(count) + 0.5) / count for count in (columns, rows))
    x = (x + shift[0]).clip(x[0], x[-1])
    for row, y in enumerate((lines + shift[1]).clip(lines[0], lines[-1])):
        above = start[:, 1] <= y
        crossed = above != (end[:, 1] <= y)
        if crossed.any():
            # From above: an edge there and back is crossed at exactly the same place.
            ax, ay = np.where(above[:, None], start, end)[crossed].T
            bx, by = np.where(above[:, None], end, start)[crossed].T
            edges = np.sort(ax + (y - ay) / (by - ay) * (bx - ax))
            inside[row] = np.searchsorted(edges, x) % 2 == 1
    return inside


def _check_weight(kind: ZoneKind, weight: float) -> None:
    fixed = {ZoneKind.IGNORE: 0.0, ZoneKind.LOOK: 1.0}.get(kind)
    if fixed is not None and weight != fixed:
        raise InputError(f"a zone of the kind {kind} has the weight {fixed:g}, not {weight!r}.")
    if fixed is None and not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise InputError(
            f"the weight of a zone is a number from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}, not "
            f"{weight!r}: above 1 is stricter, below 1 is more lenient; for what must not count "
            "at all, set a zone to ignore."
        )


def _check_corners(polygon: Sequence[Corner]) -> None:
    if not 3 <= len(polygon) <= MOST_CORNERS:
        raise InputError(f"a zone has {len(polygon)} corners, and needs 3 to {MOST_CORNERS:,}.")
    corners = np.array(polygon, np.float64)
    if corners.shape != (len(polygon), 2) or not (np.abs(corners) <= _FARTHEST).all():
        raise InputError(
            "a corner of the zone is no pair of finite numbers, or lies far outside the part."
        )
    ways = corners - corners[0]
    farthest = ways[np.abs(ways).sum(axis=1).argmax()]
    if np.abs(ways[:, 0] * farthest[1] - ways[:, 1] * farthest[0]).max() < 1e-13:
        raise InputError("the corners of the zone lie on one line, so that it encloses nothing.")
