"""Where a part lies in a photograph, and the way from the one to the other and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fsad_edge.runtime.arrays import BoolArray, Float32Array, Float64Array, UInt8Array
from fsad_edge.runtime.images import resize

#: A map in the photograph's frame has this many cells for each cell of the model's map, along a
#: side, but no more than ``MOST_CELLS`` along the longer side of the photograph.
FINER, MOST_CELLS = 2.0, 320

#: Points along a side of a cell that stand for it.
POINTS = 4


@dataclass(frozen=True)
class Placement:
    """The part of a photograph that a model looks at: a rectangle at any angle.

    Attributes:
        x, y: its centre, pixels of the photograph.
        angle: how far it is turned clockwise, degrees: its upper edge points that way.
        width, height: its sides, pixels of the photograph.
        photograph: width and height of the photograph, pixels.

    Example:
        >>> whole = Placement(x=50, y=40, angle=0, width=100, height=80, photograph=(100, 80))
        >>> whole.to_photograph(np.array([0.25]), np.array([1.0]))
        (array([25.]), array([80.]))
    """

    x: float
    y: float
    angle: float
    width: float
    height: float
    photograph: tuple[int, int]

    def to_photograph(
        self, across: Float64Array, down: Float64Array
    ) -> tuple[Float64Array, Float64Array]:
        """Places in the photograph, in pixels, of places given as fractions of the sides."""
        cos, sin = self._direction
        u, v = (across - 0.5) * self.width, (down - 0.5) * self.height
        return self.x + u * cos - v * sin, self.y + u * sin + v * cos

    def scaled(self, photograph: tuple[int, int]) -> Placement:
        """The same in the photograph at another resolution, of this width and height in pixels."""
        if photograph == self.photograph:
            return self
        across, down = (new / old for new, old in zip(photograph, self.photograph, strict=True))
        factor = math.sqrt(across * down)
        return Placement(
            x=self.x * across,
            y=self.y * down,
            angle=self.angle,
            width=self.width * factor,
            height=self.height * factor,
            photograph=photograph,
        )

    def from_photograph(
        self, x: Float64Array, y: Float64Array
    ) -> tuple[Float64Array, Float64Array]:
        """The other way: fractions of the sides of places given in pixels of the photograph."""
        cos, sin = self._direction
        across, down = x - self.x, y - self.y
        u, v = across * cos + down * sin, down * cos - across * sin
        return u / self.width + 0.5, v / self.height + 0.5

    def cut(self, photograph: Image.Image | UInt8Array, height: int, width: int) -> UInt8Array:
        """What the rectangle shows, upright.

        Args:
            photograph: as decoded: an image of mode ``RGB`` or ``L``, or uint8 ``[H, W, 3]``.
            height: height of the result in pixels.
            width: width of the result in pixels.

        Returns:
            uint8 ``[height, width, 3]``. Beyond the photograph it is continued as at its border.
        """
        return resize(self.cut_out(photograph, (height, width)), height, width)

    def cut_out(
        self, photograph: Image.Image | UInt8Array, least: tuple[float, float] | None = None
    ) -> UInt8Array:
        """The same at the photograph's own resolution.

        Args:
            photograph: as of :meth:`cut`.
            least: height and width in pixels that are enough: the result is then at a half, a
                third, … of that resolution, where it has no fewer.
        """
        if isinstance(photograph, np.ndarray):
            photograph = Image.fromarray(photograph)
        reduced = 1
        if least is not None:
            reduced = max(1, int(min(self.height / least[0], self.width / least[1])))
        window, left, top = self._window(photograph, reduced)
        if reduced > 1:
            window = window.reduce(reduced)
        across = max(1, round(self.width / reduced))
        down = max(1, round(self.height / reduced))
        way = self._way((across, down), (left, top), (1 / reduced, 1 / reduced))
        cut = window.transform(
            (across, down), Image.Transform.AFFINE, way, Image.Resampling.BICUBIC
        )
        return np.asarray(cut if cut.mode == "RGB" else cut.convert("RGB"))

    def warp(self, picture: Image.Image, size: tuple[int, int]) -> Image.Image:
        """What the rectangle shows of a picture of the whole photograph, 0 beyond it.

        Args:
            picture: of the whole photograph, at any resolution.
            size: width and height of the result, pixels.
        """
        scale = picture.width / self.photograph[0], picture.height / self.photograph[1]
        way = self._way(size, (0, 0), scale)
        return picture.transform(size, Image.Transform.AFFINE, way, Image.Resampling.BILINEAR)

    def in_photograph(
        self, field: Float32Array, shift: tuple[float, float] = (0.0, 0.0)
    ) -> Float32Array:
        """A model's map in the frame of the photograph.

        Args:
            field: float32 ``[h, w]``, 0 and up, a map of the rectangle.
            shift: how far what a cell sees lies right of and below the cell, in cells; at the
                borders the map is continued.

        Returns:
            float32 ``[H, W]``, a map of the whole photograph, which is 0 outside the rectangle. Its
            highest value is that of ``field``.
        """
        rows, columns = field.shape
        width, height = self.photograph
        longer = FINER * max(columns / self.width, rows / self.height) * max(width, height)
        step = max(width, height) / min(longer, MOST_CELLS)
        size = max(1, round(width / step)), max(1, round(height / step))
        cos, sin = self._direction
        # From a cell of the photograph to one of the map; the map's border is continued by a cell.
        ax, ay = width / size[0], height / size[1]
        across, down = columns / self.width, rows / self.height
        x = -across * (self.x * cos + self.y * sin) + columns / 2
        y = down * (self.x * sin - self.y * cos) + rows / 2
        padded = np.pad(field, 1, mode="edge")
        data = (
            *(across * ax * cos, across * ay * sin, x + 1),
            *(-down * ax * sin, down * ay * cos, y + 1),
        )
        seen = (*data[:2], data[2] - shift[0], *data[3:5], data[5] - shift[1])
        warped: Float32Array = np.asarray(
            Image.fromarray(padded).transform(
                size, Image.Transform.AFFINE, seen, Image.Resampling.BILINEAR
            )
        ).copy()
        inside = self._covers(size, data, rows, columns)
        warped[~inside] = 0
        row, column = np.unravel_index(int(field.argmax()), field.shape)
        px, py = self.to_photograph(
            np.array([min(max((column + 0.5 + shift[0]) / columns, 0), 1)]),
            np.array([min(max((row + 0.5 + shift[1]) / rows, 0), 1)]),
        )
        at_x = min(max(int(px[0] / width * size[0]), 0), size[0] - 1)
        at_y = min(max(int(py[0] / height * size[1]), 0), size[1] - 1)
        warped[at_y, at_x] = field.max()
        return warped

    def cells_in_box(
        self,
        box: tuple[float, float, float, float],
        rows: int,
        columns: int,
        shift: tuple[float, float] = (0.0, 0.0),
    ) -> Float64Array:
        """How much of each cell of a model's map lies in a box of the photograph.

        Args:
            box: left, top, right and bottom as fractions of the photograph.
            rows: rows of the map.
            columns: columns of the map.
            shift: how far what a cell sees lies right of and below the cell, in cells; those at
                the borders see all that is left there.

        Returns:
            float64 ``[rows, columns]``, 0 to 1.
        """
        down, across = _points(rows, shift[1]), _points(columns, shift[0])
        v, u = np.meshgrid(down, across, indexing="ij")
        x, y = self.to_photograph(u, v)
        width, height = self.photograph
        left, top, right, bottom = box
        inside = (x >= left * width) & (x < right * width)
        inside &= (y >= top * height) & (y < bottom * height)
        shares: Float64Array = inside.reshape(rows, POINTS, columns, POINTS).mean(axis=(1, 3))
        return shares

    def _way(
        self, size: tuple[int, int], start: tuple[int, int], scale: tuple[float, float]
    ) -> tuple[float, ...]:
        """From a pixel of the result, whose middle is at + 0.5, to one of a picture.

        Args:
            size: width and height of the result, pixels.
            start: left and upper edge of the picture, pixels of the photograph.
            scale: pixels of the picture for one of the photograph, across and down.
        """
        cos, sin = self._direction
        ax, ay = self.width / size[0], self.height / size[1]
        x = self.x - start[0] - (cos * self.width - sin * self.height) / 2
        y = self.y - start[1] - (sin * self.width + cos * self.height) / 2
        across = ax * cos * scale[0], -ay * sin * scale[0], x * scale[0]
        return *across, ax * sin * scale[1], ay * cos * scale[1], y * scale[1]

    @property
    def _direction(self) -> tuple[float, float]:
        angle = math.radians(self.angle)
        return math.cos(angle), math.sin(angle)

    @staticmethod
    def _covers(
        size: tuple[int, int], data: tuple[float, ...], rows: int, columns: int
    ) -> BoolArray:
        """Which cells of a map of the photograph lie in the rectangle, bool ``[H, W]``."""
        x, y = np.arange(size[0]) + 0.5, (np.arange(size[1]) + 0.5)[:, None]
        u = data[0] * x + data[1] * y + data[2] - 1
        v = data[3] * x + data[4] * y + data[5] - 1
        inside: BoolArray = (u >= 0) & (u < columns) & (v >= 0) & (v < rows)
        return inside

    def _window(self, photograph: Image.Image, reduced: int) -> tuple[Image.Image, int, int]:
        """The part of a photograph around the rectangle; its left and upper edge in pixels."""
        corners = self.to_photograph(np.array([0.0, 1, 0, 1]), np.array([0.0, 0, 1, 1]))
        room = 2 * reduced + 1
        left, top = (math.floor(float(values.min())) - room for values in corners)
        right, bottom = (math.ceil(float(values.max())) + room for values in corners)
        width, height = photograph.size
        inside = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        if inside == (left, top, right, bottom):
            return photograph.crop(inside), left, top
        # The border's pixels are repeated: a black margin would be a mark on every such part.
        x = np.clip(np.arange(left, right), 0, width - 1)
        y = np.clip(np.arange(top, bottom), 0, height - 1)
        x0, y0, x1, y1 = int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1
        pixels = np.asarray(photograph.crop((x0, y0, x1, y1)))
        return Image.fromarray(pixels[np.ix_(y - y0, x - x0)]), left, top


def _points(count: int, shift: float) -> Float64Array:
    """Of each of ``count`` cells in 0 to 1 ``POINTS`` places that it sees."""
    edges = np.arange(count + 1) + shift
    edges[[0, -1]] = 0, count
    inside = (np.arange(POINTS) + 0.5) / POINTS
    places: Float64Array = (edges[:-1, None] + np.diff(edges)[:, None] * inside).ravel() / count
    return places
