"""The second memory bank: patches of images that a person called bad."""

from __future__ import annotations

import numpy as np

from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.bank import (
    RARITY_WEIGHT,
    REJECTED_ROWS,
    ReferenceModel,
    empty_reference,
    greedy_coreset,
)

#: The most rows that one image adds.
ROWS_PER_IMAGE = 8

#: Patches of the worst region have at least this share of the highest distance.
REGION = 0.8


def marked_patches(
    patches: Float32Array,
    distances: Float32Array,
    grid: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
) -> Float32Array:
    """The patches of an image that a person called bad which are worth keeping.

    Args:
        patches: float32 ``[P, D + 1]``, as the graph gives them.
        distances: float32 ``[P]``, from the file's own bank.
        grid: rows and columns of the map.
        box: left, top, right and bottom of the marked place as fractions of the image; None takes
            the worst region of the map.

    Returns:
        float32 ``[R, D + 1]``, R at most ``ROWS_PER_IMAGE``.
    """
    if box is None:
        inside = distances >= REGION * distances.max()
    else:
        down, across = np.indices(grid)
        left, top, right, bottom = box
        height, width = grid
        inside = (
            (across + 1 > left * width)
            & (across < right * width)
            & (down + 1 > top * height)
            & (down < bottom * height)
        ).ravel()
    order = np.argsort(-np.where(inside, distances, -1), kind="stable")
    return patches[order[: min(ROWS_PER_IMAGE, int(inside.sum()))]]


def with_rejected(reference: ReferenceModel, rows: Float32Array) -> ReferenceModel:
    """The same reference model with other rows in the second bank.

    Args:
        reference: the reference model.
        rows: float32 ``[R, D + 1]``; a coreset of them where there are more than slots.
    """
    import dataclasses

    empty = empty_reference(1, reference.bank.shape[1])
    rows = rows[greedy_coreset(rows[:, :-1], REJECTED_ROWS)] if len(rows) else rows
    rejected, bias = empty.rejected, empty.rejected_bias
    rejected[: len(rows)] = rows[:, :-1]
    bias[: len(rows)] = RARITY_WEIGHT * rows[:, -1] - 0.5 * np.square(rows[:, :-1]).sum(axis=1)
    return dataclasses.replace(reference, rejected=rejected, rejected_bias=bias)
