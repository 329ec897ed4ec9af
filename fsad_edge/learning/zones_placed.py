"""From what a person marked on a photograph to a zone that follows the part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsad_edge.errors import ImageError, InputError
from fsad_edge.learning.embedding import photograph_size
from fsad_edge.learning.zones_in_effect import grid_of
from fsad_edge.options import Decision
from fsad_edge.runtime.arrays import BoolArray, Float64Array
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.painted_mask import outline_in_frame, read_painted
from fsad_edge.runtime.placement import Placement
from fsad_edge.runtime.zones import MOST_CORNERS, POINTS, Corner

#: How far outside a photograph a corner may lie, pixels: a click on its last pixel is inside.
_BESIDE = 1.0


@dataclass(frozen=True)
class MarkedPhotograph:
    """A photograph on which places are marked, and where the model looks in it.

    Attributes:
        size: its width and height as it is seen, pixels.
        placement: where the part is in it as it was decoded; None where the model looks at the
            whole photograph.
    """

    size: tuple[int, int]
    placement: Placement | None

    @classmethod
    def of(cls, model: Model, image: bytes, name: str = "the photograph") -> MarkedPhotograph:
        """Find the part in an encoded photograph.

        Raises:
            ImageError: it cannot be decoded.
            InputError: no part is found in it, or the model does not judge it.
        """
        try:
            size = photograph_size(model, image)
            located = model.metadata.preparation.load(image).located
            result = model.score(image)
        except ImageError as error:
            raise ImageError(str(error).replace("the image", name, 1)) from None
        if located is not None and located.why_not is not None:
            raise InputError(
                f"no single whole part is found in {name} ({located.why_not}), so that it is not "
                "known which place of the part is meant: mark it on another photograph."
            )
        if result.decision is Decision.NOT_JUDGED:
            why = "; ".join(reason.text for reason in result.reasons)
            raise InputError(
                f"the model does not judge {name} ({why}), so that places on it mean nothing to "
                "it: mark it on another photograph."
            )
        return cls(size, None if located is None else located.placement)

    def in_frame(self, corners: Sequence[tuple[float, float]]) -> tuple[Corner, ...]:
        """Corners in pixels of the photograph as fractions of what the model looks at.

        Raises:
            InputError: there is none, one is no pair of finite numbers, or outside the photograph.
        """
        points = _points(corners)
        width, height = self.size
        beside = (points < -_BESIDE) | (points > np.array(self.size) + _BESIDE)
        if beside.any():
            x, y = points[beside.any(axis=1)][0]
            raise InputError(
                f"the corner {x:g},{y:g} is outside the photograph of {width} x {height} pixels."
            )
        if points.max() <= 1:
            raise InputError(
                "all corners lie within one pixel of the photograph, on which corners are pixels: "
                "give pixels, or fractions without a photograph."
            )
        u, v = points[:, 0] / width, points[:, 1] / height
        if self.placement is not None:
            across, down = self.placement.photograph
            u, v = self.placement.from_photograph(u * across, v * down)
        return tuple(zip(u.tolist(), v.tolist(), strict=True))

    def painted_in_frame(
        self, model: Model, data: bytes, name: str = "the painted mask"
    ) -> tuple[Corner, ...]:
        """What is painted in a PNG of the photograph's size, as a polygon of the frame.

        Raises:
            ImageError: it cannot be read, or says nothing clear.
            InputError: it has another size, or covers nothing of what the model looks at.
        """
        painted = read_painted(data, name, self.size)
        return painted_corners(model, painted.shape[::-1], self.size, painted, self.placement, name)


def painted_on_frame(
    model: Model, data: bytes, size: tuple[int, int], name: str = "the painted mask"
) -> tuple[Corner, ...]:
    """What is painted in a PNG over a picture of what the model looks at, as a polygon.

    Args:
        model: the model.
        data: the bytes of the PNG.
        size: width and height of the picture, pixels.
        name: of the file, for errors.

    Raises:
        ImageError: it cannot be read, or says nothing clear.
        InputError: it has another size.
    """
    painted = read_painted(data, name, size)
    return painted_corners(model, painted.shape[::-1], size, painted, None, name)


def painted_corners(
    model: Model,
    found: tuple[int, ...],
    size: tuple[int, int],
    painted: BoolArray,
    placement: Placement | None,
    name: str,
) -> tuple[Corner, ...]:
    """The polygon around what is painted, where the mask has the size of its photograph."""
    if found != size:
        raise InputError(
            f"{name} has {found[0]} x {found[1]} pixels, and the photograph has {size[0]} x "
            f"{size[1]}: paint on a layer of exactly its size."
        )
    rows, columns = grid_of(model)
    corners = outline_in_frame(painted, placement, rows * POINTS, columns * POINTS)
    if not corners:
        raise InputError(
            f"what is painted in {name} covers nothing of what the model looks at: paint on the "
            "part."
        )
    if len(corners) > MOST_CORNERS:
        raise InputError(
            f"what is painted in {name} is too ragged: its outline has {len(corners):,} corners, "
            f"and at most {MOST_CORNERS:,} are kept. Paint larger patches."
        )
    return corners


def corners_of(text: str) -> list[tuple[float, float]]:
    """Corners that a person wrote: ``x,y x,y x,y``.

    Raises:
        InputError: it is no such text.

    Example:
        >>> corners_of("10,20 30,20 30,40")
        [(10.0, 20.0), (30.0, 20.0), (30.0, 40.0)]
    """
    corners = []
    for word in text.replace(";", " ").split():
        try:
            x, y = map(float, word.split(","))
        except ValueError:
            raise InputError(
                f"the corner {word!r:.80} is no pair of numbers: give corners as "
                '"x,y x,y x,y", such as "120,80 300,80 300,200".'
            ) from None
        corners.append((x, y))
    return corners


def fractions_of(corners: Sequence[tuple[float, float]]) -> tuple[Corner, ...]:
    """Corners that were given as fractions of what the model looks at.

    Raises:
        InputError: one is no pair of finite numbers from 0 to 1.
    """
    points = _points(corners)
    outside = (points < 0) | (points > 1)
    if outside.any():
        x, y = points[outside.any(axis=1)][0]
        raise InputError(
            f"the corner {x:g},{y:g} is outside what the model looks at: without a photograph, "
            "corners are fractions from 0 to 1. For pixels, name the photograph that they are "
            "meant on."
        )
    return tuple(zip(points[:, 0].tolist(), points[:, 1].tolist(), strict=True))


def _points(corners: Sequence[tuple[float, float]]) -> Float64Array:
    points = np.array(corners, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise InputError("a zone takes corners, each a pair of finite numbers.")
    return points
