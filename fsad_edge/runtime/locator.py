"""Find the part in a photograph: what differs from a plain ground, its place and its angle.

A :class:`Locator` is a small document in the model file, made of the shots by
:mod:`fsad_edge.calibration.locating`. It needs numpy and Pillow alone.

The part is the largest connected region that is far from the ground, in the statistics of the
shots' grounds (:mod:`fsad_edge.runtime.ground`). Its place is its centroid. Its angle is where the
region, seen in polar coordinates around the centroid, correlates best with the mean of the shots:
this tells apart head and tail of a screw, too, which moments alone do not. All lengths in the
document are fractions of the photograph's longer side, so that its resolution may change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from PIL import Image

from fsad_edge.errors import InputError
from fsad_edge.runtime.arrays import BoolArray, Float32Array, Float64Array, UInt8Array
from fsad_edge.runtime.documents import Above, Range
from fsad_edge.runtime.ground import distances, ground_surface, halved, small_copy, without_ground
from fsad_edge.runtime.images import resize
from fsad_edge.runtime.placement import Placement
from fsad_edge.runtime.regions import closed, connected_regions, filled, grown
from fsad_edge.runtime.surroundings import Surroundings

#: Rings and directions of a polar picture, and what it shows: the region, and its light.
RINGS, DIRECTIONS, CHANNELS = 24, 180, 2

#: Gaps in the region of up to twice this many pixels of the small copy are closed.
GAP = 2

#: Pixels of the small copy around what is no ground that are not taken for it: soft edges, shadows.
AROUND = 4

#: A second region of at least this share of the usual area is a second part.
SECOND = 0.35

#: Rows and columns of the stored outline.
OUTLINE = 64

Length = Annotated[float, Range(1e-4, 4)]
Bounds = tuple[Length, Length]


@dataclass(frozen=True)
class Locator:
    """How to find the part. Lengths are fractions of the photograph's longer side.

    Attributes:
        whitening: nine numbers, the matrix ``[3, 3]``, row by row, that the difference of a pixel
            from the ground's surface is multiplied by; its length is then the pixel's distance.
        limit: a pixel that is farther away is not ground.
        extent: the least and the greatest square root of the part's area.
        length: the same of its length: the root of its second moment along its main axis.
        breadth: the same across it.
        width, height: of the rectangle that the model looks at.
        shift: from the part's centroid to the middle of that rectangle, along its sides.
        turned: whether the rectangle turns with the part.
        reach: radius of the outermost ring of the template.
        template: int8 ``[CHANNELS, RINGS, DIRECTIONS]``, the mean polar picture of the shots, from
            the direction of the rectangle's width on clockwise; empty where it does not turn.
        outline: bits of ``[OUTLINE, OUTLINE]``, row by row: where in the rectangle a shot shows its
            part, with a margin.
        painted: whether specks beside the part are painted over with the ground's surface.
    """

    whitening: Annotated[list[Annotated[float, Range(-1e6, 1e6)]], Range(9, 9)]
    limit: Annotated[float, Above(0), Range(1e-6, 1e6)]
    extent: Bounds
    length: Bounds
    breadth: Bounds
    width: Length
    height: Length
    shift: tuple[Annotated[float, Range(-4, 4)], Annotated[float, Range(-4, 4)]]
    turned: bool
    reach: Length
    template: bytes
    outline: Annotated[bytes, Range(OUTLINE * OUTLINE // 8, OUTLINE * OUTLINE // 8)]
    painted: bool = False

    def __post_init__(self) -> None:
        """Refuse bounds that nothing is within, and a template that is none.

        Raises:
            InputError: bounds are in the wrong order, or the template has another length.
        """
        for least, most in (self.extent, self.length, self.breadth):
            if least > most:
                raise InputError(f"the bounds {least} to {most} of the part are in the wrong order")
        expected = CHANNELS * RINGS * DIRECTIONS if self.turned else 0
        if len(self.template) != expected:
            raise InputError(
                f"the template of the part has {len(self.template)} values and needs {expected}"
            )

    def locate(self, photograph: Image.Image | UInt8Array) -> Located:
        """Find the part in a photograph.

        Args:
            photograph: as decoded: an image of mode ``RGB`` or ``L``, or uint8 ``[H, W, 3]``.
        """
        size = (
            (photograph.shape[1], photograph.shape[0])
            if isinstance(photograph, np.ndarray)
            else photograph.size
        )
        small = small_copy(photograph)
        matrix = np.array(self.whitening, np.float32).reshape(3, 3)
        found = find_region(small, matrix, self.limit)
        if found is None:
            whole = Placement(size[0] / 2, size[1] / 2, 0.0, *self.sides(size), size)
            return Located(whole, "nothing differs from the ground as a part does")
        angle = 0.0
        if self.turned:
            picture = polar_picture(found, self.reach * found.longer)
            angle = best_angle(picture, self._template)
        beside = None
        if self.painted:
            beside = Surroundings(found.mask, found.ground, matrix, self.limit)
        return Located(self.placement(found, angle, size), self._why_not(found), beside)

    def cells(self, rows: int, columns: int) -> BoolArray:
        """Which cells of a map of the rectangle show the part in a shot, or lie just beside it.

        Returns:
            bool ``[rows, columns]``.
        """
        bits = np.unpackbits(np.frombuffer(self.outline, np.uint8)).reshape(OUTLINE, OUTLINE)
        picture = Image.fromarray(bits * np.uint8(255))
        cells = np.asarray(picture.resize((columns, rows), Image.Resampling.BOX)) > 0
        return cells if cells.any() else np.ones_like(cells)

    def sides(self, size: tuple[int, int]) -> tuple[float, float]:
        """Width and height of the rectangle in a photograph of this width and height, pixels."""
        return self.width * max(size), self.height * max(size)

    @property
    def _template(self) -> Float32Array:
        values = np.frombuffer(self.template, np.int8).astype(np.float32)
        return values.reshape(CHANNELS, RINGS, DIRECTIONS)

    def placement(self, found: Region, angle: float, size: tuple[int, int]) -> Placement:
        """The rectangle around a part in a photograph of this width and height, pixels."""
        longer = max(size)
        scale = longer / found.longer
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        across, down = (value * longer for value in self.shift)
        return Placement(
            x=found.x * scale + across * cos - down * sin,
            y=found.y * scale + across * sin + down * cos,
            angle=angle,
            width=self.sides(size)[0],
            height=self.sides(size)[1],
            photograph=size,
        )

    def _why_not(self, found: Region) -> str | None:
        """Why what was found is not one whole part, in words; None where it is."""
        if found.cut_off:
            return "it is cut off at the border of the photograph"
        if found.second >= SECOND * self.extent[0] ** 2:
            return "more than one is in view"
        measures = {
            "large": (found.extent, self.extent),
            "long": (found.length, self.length),
            "broad": (found.breadth, self.breadth),
        }
        for word, (value, (least, most)) in measures.items():
            middle = math.sqrt(least * most)
            if not least <= value <= most:
                return (
                    f"what is there is {value / middle:.2f} times as {word} as the part, so that "
                    "it is another one, a piece, or photographed from another distance"
                )
        return None


def default_weights(locator: Locator | None, rows: int, columns: int) -> Float32Array:
    """The weights of a map's cells that a model begins with, float32 ``[rows * columns]``.

    Cells that show the part in no shot have the weight 0: the memory bank knows nothing of them.
    All others have the weight 1.

    Args:
        locator: how the part is found; None where the model looks at the whole photograph.
        rows: rows of the map.
        columns: columns of the map.
    """
    if locator is None:
        return np.ones(rows * columns, np.float32)
    return locator.cells(rows, columns).ravel().astype(np.float32)


@dataclass(frozen=True)
class Located:
    """Where a part is.

    Attributes:
        placement: the rectangle that the model looks at.
        why_not: why no part was found, in words; None where it was. The placement is then that of
            what comes nearest to a part.
        beside: what lies beside the part and is painted over; None leaves it.
    """

    placement: Placement
    why_not: str | None
    beside: Surroundings | None = field(default=None, compare=False, repr=False)

    def cut(self, photograph: Image.Image | UInt8Array, height: int, width: int) -> UInt8Array:
        """What the model is given: the rectangle, upright, without specks beside the part.

        Args:
            photograph: the one that the part was found in.
            height: height of the result in pixels.
            width: width of the result in pixels.

        Returns:
            uint8 ``[height, width, 3]``.
        """
        return resize(self.cut_out(photograph, (height, width)), height, width)

    def cut_out(
        self, photograph: Image.Image | UInt8Array, least: tuple[float, float] | None = None
    ) -> UInt8Array:
        """The same at the photograph's own resolution, or as of :meth:`Placement.cut_out`."""
        cut = self.placement.cut_out(photograph, least)
        return cut if self.beside is None else self.beside.painted(cut, self.placement)


@dataclass(frozen=True)
class Region:
    """What lies on the ground. Lengths are fractions of the small copy's longer side.

    Attributes:
        mask: bool ``[h, w]``, without holes, on the small copy.
        ground: float32 ``[h, w, 3]``, the ground as if nothing lay on it.
        left: float32 ``[h, w]``, the light there against that of the ground, grey levels.
        x, y: its centroid, pixels of the small copy.
        extent: square root of its area.
        length, breadth: roots of its second moments along its main axis and across it.
        axis: direction of its main axis, degrees clockwise, 0 to 180.
        cut_off: whether it touches the border of the photograph.
        second: area of the next smaller region.
        longer: longer side of the small copy, pixels.
    """

    mask: BoolArray
    ground: Float32Array
    left: Float32Array
    x: float
    y: float
    extent: float
    length: float
    breadth: float
    axis: float
    cut_off: bool
    second: float
    longer: int


def find_region(small: Float32Array, whitening: Float32Array, limit: float) -> Region | None:
    """The largest region of a small copy that is no ground; None where all is.

    Args:
        small: float32 ``[h, w, 3]``, as of :func:`~fsad_edge.runtime.ground.small_copy`.
        whitening: float32 ``[3, 3]``.
        limit: a pixel that is farther from the ground is not ground.
    """
    # A first look at half of the size tells where the ground is, and so its light under the part.
    height, width = small.shape[:2]
    rough = distances(without_ground(halved(small)), whitening) > limit
    first = grown(rough, AROUND // 2).repeat(2, axis=0).repeat(2, axis=1)
    ground = np.ones((height, width), np.bool_)
    ground[: len(first), : first.shape[1]] = ~first
    surface = ground_surface(small, ground)
    left = without_ground(small, surface)
    mask, second = _largest(distances(left, whitening) > limit)
    if mask is None:
        return None
    rows, columns = np.nonzero(mask)
    longer, count = max(mask.shape), len(rows)
    x, y = float(columns.mean()), float(rows.mean())
    moments = np.cov(np.stack([columns, rows])) if count > 1 else np.zeros((2, 2))
    values, vectors = np.linalg.eigh(moments + np.eye(2) / 12)
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return Region(
        mask=mask,
        ground=surface,
        left=(left[..., 0] + left[..., 1] + left[..., 2]) / np.float32(3),
        x=x + 0.5,
        y=y + 0.5,
        extent=math.sqrt(count) / longer,
        length=math.sqrt(values[1]) / longer,
        breadth=math.sqrt(values[0]) / longer,
        axis=math.degrees(math.atan2(vectors[1, 1], vectors[0, 1])) % 180,
        cut_off=any(bool(edge.any()) for edge in edges),
        second=second / longer**2,
        longer=longer,
    )


def polar_picture(region: Region, reach: float) -> Float32Array:
    """A region in polar coordinates around its centroid.

    Args:
        region: the region.
        reach: radius of the outermost ring, pixels of the small copy.

    Returns:
        float32 ``[CHANNELS, RINGS, DIRECTIONS]``: where the region is, and its light, 0 outside it;
        each of mean 0 and length 1. Directions run clockwise from the right.
    """
    radius = (np.arange(RINGS, dtype=np.float32) + 0.5) * np.float32(reach / RINGS)
    turn = np.arange(DIRECTIONS, dtype=np.float32) * np.float32(2 * math.pi / DIRECTIONS)
    x = region.x - 0.5 + radius[:, None] * np.cos(turn)
    y = region.y - 0.5 + radius[:, None] * np.sin(turn)
    inside = region.mask.astype(np.float32)
    light = region.left * inside
    level = float(light.sum() / max(inside.sum(), 1))
    fields = inside, (light - level) * inside
    weight = np.sqrt(radius)[:, None]  # outer rings stand for more of the picture
    channels = []
    for values in fields:
        seen = _sampled(values, x, y)
        seen = (seen - seen.mean()) * weight
        channels.append(seen / max(float(np.linalg.norm(seen)), 1e-6))
    return np.stack(channels)


def correlations(picture: Float32Array, template: Float32Array) -> Float64Array:
    """How well a polar picture agrees with a template, turned clockwise in equal steps from 0 on.

    Returns:
        float64 ``[DIRECTIONS]``, the products of both.
    """
    one, two = np.fft.rfft(picture, axis=2), np.fft.rfft(template, axis=2)
    found: Float64Array = np.fft.irfft((one * two.conj()).sum(axis=(0, 1)), DIRECTIONS)
    return found


def best_angle(picture: Float32Array, template: Float32Array) -> float:
    """By how many degrees clockwise a polar picture is turned against a template."""
    found = correlations(picture, template)
    place = int(found.argmax())
    before, here, after = found[place - 1], found[place], found[(place + 1) % DIRECTIONS]
    curve = before - 2 * here + after
    fine = 0.5 * (before - after) / curve if curve < 0 else 0.0
    return (place + float(fine)) * 360 / DIRECTIONS


def _largest(mask: BoolArray) -> tuple[BoolArray | None, int]:
    """The largest region, without gaps and holes, and the number of pixels of the next one."""
    numbers, sizes = connected_regions(closed(mask, GAP))
    if len(sizes) == 1:
        return None, 0
    order = np.argsort(sizes[1:], kind="stable")
    second = int(sizes[1 + order[-2]]) if len(order) > 1 else 0
    return filled(numbers == 1 + order[-1]), second


def _sampled(field: Float32Array, x: Float32Array, y: Float32Array) -> Float32Array:
    """Values of a field between its pixels (bilinear); 0 outside it."""
    height, width = field.shape
    padded = np.pad(field, 1)
    x, y = np.clip(x + 1, 0, width + 0.999), np.clip(y + 1, 0, height + 0.999)
    left, top = x.astype(np.intp), y.astype(np.intp)
    u, v = x - left, y - top
    upper = padded[top, left] * (1 - u) + padded[top, left + 1] * u
    lower = padded[top + 1, left] * (1 - u) + padded[top + 1, left + 1] * u
    found: Float32Array = upper * (1 - v) + lower * v
    return found
