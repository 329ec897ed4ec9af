"""Where the rows of the memory bank come from, and a small picture of each shot.

A row is the mean of patches that are alike, from several shots as a rule. So it has a place in each
shot: that of the patch which is most like the row. With these places and the pictures, a device
that has no shots can show what a part should look like.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
from PIL import Image

from fsad_edge.errors import ImageError, InputError, ModelFileError
from fsad_edge.runtime.arrays import IndexArray, UInt8Array
from fsad_edge.runtime.documents import Range
from fsad_edge.runtime.images import load_at_most, resize

#: Most pixels of the longer side of a shot's picture.
SIDE = 256

#: Most bytes of the pictures of all shots together, and of one.
MOST_IN_ALL, MOST_EACH = 1 << 20, 24 << 10

#: Qualities of a picture's JPEG: the first that is small enough is taken.
QUALITIES = (90, 80, 65, 50, 35, 20)

#: Stands for the shot of a row that comes from none: it was learned on a device.
TAUGHT = 0xFFFF


@dataclass(frozen=True)
class Origins:
    """Where the rows of the memory bank come from.

    A place is a number: that of the view of the shot (:func:`~fsad_edge.calibration.calibrate.
    bank_views`: turned, mirrored), times the number of cells of a map, plus that of the cell, row
    by row.

    Attributes:
        count: the number of shots, S.
        rows, columns: of a map of the graph.
        nearest: uint16 ``[R]``, raw bytes, little-endian: for each row of the bank that is in use
            the shot that holds the patch which is most like it; ``TAUGHT`` where the row comes from
            no shot.
        places: uint16 ``[R, S]``, raw bytes, little-endian, or uint32 where there are more than
            65536 places: for each row and shot, the place of the patch that is most like it.
        names: the shots' file names; empty where they are secret.
        pictures: a JPEG of each shot as the model sees it, with a longer side of at most ``SIDE``
            pixels; empty where they are secret.
    """

    count: Annotated[int, Range(1, TAUGHT - 1)]
    rows: Annotated[int, Range(1, 16384)]
    columns: Annotated[int, Range(1, 16384)]
    nearest: bytes
    places: bytes
    names: list[str] = field(default_factory=list)
    pictures: list[Annotated[bytes, Range(0, 4 * MOST_EACH)]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse places and pictures that are not as many as the rows and the shots.

        Raises:
            InputError: they are not.
        """
        numbers = len(self.nearest) // 2 * self.count
        if len(self.nearest) % 2 or len(self.places) not in {2 * numbers, 4 * numbers}:
            raise InputError(
                f"nearest has {len(self.nearest)} bytes, and places has {len(self.places)} for "
                f"{self.count} shots"
            )
        shots = self.row_shots
        if (shots[shots != TAUGHT] >= self.count).any():
            raise InputError(f"nearest names a shot that is not among the {self.count}")
        for name, values in (("names", self.names), ("pictures", self.pictures)):
            if len(values) not in {0, self.count}:
                raise InputError(f"{name} holds {len(values)} for {self.count} shots")

    @classmethod
    def of(
        cls, nearest: IndexArray, places: IndexArray, grid: tuple[int, int], most: int
    ) -> Origins:
        """Origins without pictures.

        Args:
            nearest: int ``[R]``, the shot of each row.
            places: int ``[R, S]``, its place in each shot.
            grid: rows and columns of a map.
            most: the number of places that a shot has.
        """
        kind = "<u2" if most <= 1 << 16 else "<u4"
        return cls(
            places.shape[1],
            *grid,
            nearest.astype("<u2").tobytes(),
            places.astype(kind).tobytes(),
        )

    @property
    def row_shots(self) -> IndexArray:
        """The shot of each row, int ``[R]``; ``TAUGHT`` where it comes from none."""
        return np.frombuffer(self.nearest, "<u2").astype(np.intp)

    @property
    def row_places(self) -> IndexArray:
        """The place of each row in each shot, int ``[R, S]``."""
        wide = len(self.places) == 4 * len(self.nearest) // 2 * self.count
        values = np.frombuffer(self.places, "<u4" if wide else "<u2")
        return values.reshape(-1, self.count).astype(np.intp)

    def cell(self, place: int) -> tuple[int, int, int]:
        """The view, the row and the column of a place."""
        view, cell = divmod(place, self.rows * self.columns)
        return view, *divmod(cell, self.columns)

    def with_pictures(self, names: Sequence[str], shots: Sequence[UInt8Array]) -> Origins:
        """The same with small pictures of the shots.

        Args:
            names: their file names.
            shots: uint8 ``[H, W, 3]`` each, at the model's size.
        """
        most = min(MOST_EACH, MOST_IN_ALL // len(shots))
        return replace(
            self, names=list(names), pictures=[small_picture(shot, most) for shot in shots]
        )

    def in_order(self, rows: IndexArray) -> Origins:
        """The origins of a bank that holds these rows.

        Args:
            rows: int ``[R']``, for each of its rows the one of this bank that it is; -1 where it is
                none of them, but was learned on a device.
        """
        taught = rows < 0
        kind = "<u4" if len(self.places) == 2 * self.count * len(self.nearest) else "<u2"
        places, nearest = self.row_places[rows], self.row_shots[rows]
        nearest[taught], places[taught] = TAUGHT, 0
        return replace(
            self,
            nearest=nearest.astype("<u2").tobytes(),
            places=places.astype(kind).tobytes(),
        )

    def picture(self, shot: int) -> UInt8Array:
        """The picture of a shot, uint8 ``[h, w, 3]``.

        Raises:
            ModelFileError: it cannot be decoded.
        """
        try:
            return load_at_most(self.pictures[shot], SIDE)
        except ImageError as error:
            raise ModelFileError(
                f"the picture of shot {shot} of the model is damaged: export it again."
            ) from error


def small_picture(image: UInt8Array, most: int = MOST_EACH) -> bytes:
    """A small JPEG of an image at the model's size.

    Its longer side has at most ``SIDE`` pixels. Where the JPEG has more bytes than may be, its
    quality is lowered, and then its size.

    Args:
        image: uint8 ``[H, W, 3]``.
        most: most bytes. A picture of 32 pixels is not made smaller.

    Example:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).integers(0, 256, (448, 448, 3), np.uint8)
        >>> len(small_picture(noise, 10_000)) <= 10_000
        True
    """
    side = SIDE
    while True:
        small = Image.fromarray(shrunk(image, side))
        for quality in QUALITIES:
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=quality, subsampling=0)
            if buffer.tell() <= most:
                return buffer.getvalue()
        if side <= 32:
            return buffer.getvalue()
        side //= 2


def shrunk(image: UInt8Array, side: int = SIDE) -> UInt8Array:
    """An image whose longer side has at most ``side`` pixels, uint8 ``[h, w, 3]``."""
    height, width = image.shape[:2]
    factor = min(1.0, side / max(height, width))
    return resize(image, max(1, round(factor * height)), max(1, round(factor * width)))
