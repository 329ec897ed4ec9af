"""Find where the rows of a memory bank come from: the places of the shots that are most like them.

A row is the mean of patches that are alike, so none of them is the row itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fsad_edge.runtime.arrays import BoolArray, Float32Array, IndexArray, UInt8Array
from fsad_edge.runtime.bank import ReferenceModel, projected
from fsad_edge.runtime.origins import Origins
from fsad_edge.synthesis import rotate


@dataclass(frozen=True)
class RowPlaces:
    """Where in a shot some of its patches are.

    Attributes:
        numbers: int ``[P]``, as :class:`~fsad_edge.runtime.origins.Origins` counts places.
        views: the number of views of the shot.
        rows, columns: of a map.
    """

    numbers: IndexArray
    views: int
    rows: int
    columns: int


def find_origins(
    reference: ReferenceModel, features: Sequence[Float32Array], places: Sequence[RowPlaces]
) -> Origins:
    """The origins of the rows of a bank, without pictures.

    Args:
        reference: the reference model with the bank.
        features: for each shot those of some of its patches, float32 ``[P, D]``, before the
            projection.
        places: where in the shot they are.
    """
    rows = reference.patches[:, :-1]
    highest = np.empty((len(rows), len(places)), np.float32)
    found = np.empty((len(rows), len(places)), np.intp)
    for shot, (patches, where) in enumerate(zip(features, places, strict=True)):
        similarity = rows @ projected(patches, reference.projection).T
        best = similarity.argmax(axis=1)
        highest[:, shot] = similarity[np.arange(len(rows)), best]
        found[:, shot] = where.numbers[best]
    first = places[0]
    grid = first.rows, first.columns
    return Origins.of(highest.argmax(axis=1), found, grid, first.views * grid[0] * grid[1])


def view_of(
    picture: UInt8Array, number: int, rotations: int, flip: bool, square: bool
) -> tuple[UInt8Array, BoolArray]:
    """One of the views of an image that :func:`~fsad_edge.calibration.calibrate.bank_views` makes.

    Args:
        picture: uint8 ``[h, w, 3]``, the image at any size.
        number: of the view.
        rotations: as of ``bank_views``.
        flip: as of ``bank_views``.
        square: whether the image at the model's size is a square.

    Returns:
        uint8 ``[h, w, 3]``, and bool ``[h, w]``: which of its pixels show the image, and do not
        only fill the corners.
    """
    quarters = 4 if rotations % 4 == 0 and square else 1
    axes: list[int | tuple[int, int]] = [0, 1] + ([(0, 1)] if rotations == 1 else [])
    base, axis = number, None
    if flip and number >= rotations:
        base, place = divmod(number - rotations, len(axes))
        axis = axes[place]
    quarter, step = divmod(base, rotations // quarters)
    shown = np.ones(picture.shape[:2], np.bool_)
    if step:
        degrees = 360 * step / rotations
        picture = rotate(picture, degrees)
        shown = np.asarray(Image.fromarray(shown).rotate(-degrees))
    views = np.rot90(picture, -quarter), np.rot90(shown, -quarter)
    if axis is None:
        return views
    return np.flip(views[0], axis), np.flip(views[1], axis)
