"""The second memory bank: patches of images that a person called bad.

This is the arithmetic of it: which patches of such an image are kept, how far each of them reaches,
and the reference model with them. :func:`~fsad_edge.runtime.bank.patch_scores` scores with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np

from fsad_edge.errors import InputError
from fsad_edge.runtime.arrays import BoolArray, Float32Array, Float64Array
from fsad_edge.runtime.bank import (
    NEIGHBOURS,
    RARITY_WEIGHT,
    REJECTED_RATIO,
    REJECTED_ROWS,
    ReferenceModel,
    greedy_coreset,
    patch_distances,
    similarity,
)

#: The most rows that one image adds: its patches of the largest distances.
ROWS_PER_IMAGE = 8

#: Patches of the worst region have at least this share of the map's largest distance. Shares from
#: 0.5 to 0.85 gave about the same.
REGION = 0.7

#: A row is kept where it raises its own patch by at least this share of the patch's distance. What
#: good parts resemble more has no reach that would leave them alone.
LEAST_RAISE = 0.5

#: A patch of a new good part is taken to be up to so many times as far from the bank as a row of it
#: is from the other rows, which has neighbours from its own photograph. On six data sets 3 instead
#: of 1 left the recall as it was, and took away more than half of the false alarms that rejected
#: rows add; 5 took 1.5 points of recall.
NEW_PART = 3.0

#: A patch of a good image counts for the reach of rows where its distance exceeds this share of the
#: map's threshold. A distance at most doubles, so that the others stay below the threshold.
TELLING = 0.4

#: No row is kept of a patch that is nearer to the bank than this: it is in the bank.
_LEAST_DISTANCE = 1e-6

#: Left, top, right and bottom of a place, as fractions of the image.
Box = tuple[float, float, float, float]

#: A place: a box, or the share of each cell of the map that lies in it, float64 ``[h, w]``.
Place = Box | Float64Array


def marked_patches(
    patches: Float32Array, distances: Float32Array, grid: tuple[int, int], box: Place | None = None
) -> Float32Array:
    """The patches that stand for the bad place of an image.

    Args:
        patches: float32 ``[P, D + 1]``, all of the image, as the graph gives them.
        distances: float32 ``[P]``, as :func:`~fsad_edge.runtime.bank.patch_distances` gives them.
        grid: rows and columns of the map; P is their product.
        box: the place that a person marked, as fractions of the image, or the share of each cell
            in it; None takes the worst region: the connected patches of large distances around the
            largest one.

    Returns:
        float32 ``[R, D + 1]``, those of the largest distances, the largest first; R from 1 to
        ``ROWS_PER_IMAGE``.

    Raises:
        InputError: the box covers nothing of the image.

    Example:
        >>> import numpy as np
        >>> patches = np.eye(16, 17, dtype=np.float32)  # a map of 4 x 4
        >>> distances = np.zeros(16, np.float32)
        >>> distances[[5, 6, 15]] = 0.4, 0.3, 0.3
        >>> worst = marked_patches(patches, distances, (4, 4))
        >>> worst.argmax(axis=1).tolist()  # patch 15 is far from the bank, but elsewhere
        [5, 6]
        >>> corner = marked_patches(patches, distances, (4, 4), (0.75, 0.75, 1.0, 1.0))
        >>> corner.argmax(axis=1).tolist()
        [15]
    """
    (places,) = marked_place(distances.reshape(grid), box).ravel().nonzero()
    order = np.argsort(-distances[places], kind="stable")
    return patches[places[order[:ROWS_PER_IMAGE]]]


def marked_place(field: Float32Array, box: Place | None = None) -> BoolArray:
    """The cells of a map that stand for the bad place of an image, bool ``[h, w]``.

    Args:
        field: float32 ``[h, w]``, the distance of each patch.
        box: as of :func:`marked_patches`.

    Raises:
        InputError: the box covers nothing of the image.
    """
    return _worst_region(field) if box is None else _covered((len(field), field.shape[1]), box)


def telling_patches(
    patches: Float32Array, distances: Float32Array, threshold: float
) -> Float32Array:
    """The patches of a good image that a rejected row could bring over the threshold.

    Args:
        patches: float32 ``[P, D + 1]``, all of the image, as the graph gives them.
        distances: float32 ``[P]``, as :func:`~fsad_edge.runtime.bank.patch_distances` gives them.
        threshold: the threshold of the map.

    Returns:
        float32 ``[G, D + 1]``, G at most P.
    """
    return patches[distances > TELLING * threshold]


def unlike_good_parts(
    rows: Float32Array, reference: ReferenceModel, good: Iterable[Float32Array] = ()
) -> Float32Array:
    """Rejected rows with a reach that leaves alone what is known of good parts.

    No row of the memory bank, taken as ``NEW_PART`` times as far away as it is from the other rows,
    and no patch of the good images has its distance raised. A row of which this leaves little is
    dropped.

    Args:
        rows: float32 ``[R, D + 1]``, as :func:`marked_patches` gives them.
        reference: the reference model; its own rejected rows do not count.
        good: of each image that a person called good all patches, or the
            :func:`telling_patches`, float32 ``[P, D + 1]``.

    Returns:
        float32 ``[S, D + 1]``, S at most R; what a row is farther from all patches by is taken off
        its rarity (:attr:`~fsad_edge.runtime.bank.ReferenceModel.rejected_patches`).
    """
    if not len(rows):
        return rows
    farther = np.zeros(len(rows), np.float32)
    known = ((image, patch_distances(image, reference)) for image in good)
    for patches, distances in itertools.chain([_left_out_rows(reference)], known):
        resembled = distances[:, None] / REJECTED_RATIO - (1 - similarity(patches, rows))
        farther = np.maximum(farther, resembled.max(axis=0, initial=0))
    own = patch_distances(rows, reference)
    kept = own - REJECTED_RATIO * farther >= np.maximum(LEAST_RAISE * own, _LEAST_DISTANCE)
    reaching: Float32Array = rows[kept]
    reaching[:, -1] -= farther[kept] / RARITY_WEIGHT
    return reaching


def with_rejected(
    reference: ReferenceModel, rows: Float32Array, good: Iterable[Float32Array] = ()
) -> ReferenceModel:
    """The same reference model with other rejected rows.

    Args:
        reference: the reference model.
        rows: float32 ``[R, D + 1]``, as :func:`marked_patches` gives them, of all images that were
            called bad. Where more than ``REJECTED_ROWS`` are left, a coreset of them is taken.
        good: of each image that a person called good all patches, or the
            :func:`telling_patches`, float32 ``[P, D + 1]``.

    Example:
        >>> import numpy as np
        >>> from fsad_edge.runtime.bank import fit_reference, patch_scores
        >>> patches = np.eye(8, 9, dtype=np.float32)  # eight features and the rarity, which is 0
        >>> reference = fit_reference(patches[:3], patches[:3, :-1], bank_size=8)
        >>> image = patches[None, 4:]  # nothing of it is in the bank
        >>> taught = with_rejected(reference, image[0, :1])
        >>> patch_scores(image, reference).round(2), patch_scores(image, taught).round(2)
        (array([1.], dtype=float32), array([1.33], dtype=float32))
    """
    rows = unlike_good_parts(rows, reference, good)
    if len(rows):
        rows = rows[greedy_coreset(rows[:, :-1], REJECTED_ROWS)]
    return reference.with_rejected_patches(rows)


def _worst_region(field: Float32Array) -> BoolArray:
    """The patches ``[h, w]`` connected, diagonals included, to the one of the largest distance."""
    far = field >= REGION * field.max()
    region: BoolArray = np.zeros(field.shape, np.bool_)
    region.flat[field.argmax()] = True
    while True:
        framed = np.pad(region, 1)
        tall = framed[:-2] | framed[1:-1] | framed[2:]
        grown = (tall[:, :-2] | tall[:, 1:-1] | tall[:, 2:]) & far
        if (grown == region).all():
            return region
        region = grown


def _covered(grid: tuple[int, int], box: Place) -> BoolArray:
    """The patches ``[h, w]`` that a box covers half of; the one it covers most, where it is small.

    Raises:
        InputError: it covers nothing.
    """
    share = box if isinstance(box, np.ndarray) else shares_of_box(grid, box)
    if share.max() <= 0:
        raise InputError(
            "the box covers nothing of the image that the model looks at: mark a place on the part."
        )
    covered: BoolArray = share >= min(0.5, share.max())
    return covered


def shares_of_box(
    grid: tuple[int, int], box: Box, shift: tuple[float, float] = (0.0, 0.0)
) -> Float64Array:
    """How much of what each cell of a map sees lies in a box, float64 ``[h, w]``, 0 to 1.

    Args:
        grid: rows and columns of the map.
        box: left, top, right and bottom, as fractions of the image.
        shift: how far what a cell sees lies right of and below the cell, in cells.
    """
    left, top, right, bottom = (min(max(side, 0.0), 1.0) for side in box)
    down = _overlap(grid[0], *_moved(top, bottom, -shift[1] / grid[0]))
    across = _overlap(grid[1], *_moved(left, right, -shift[0] / grid[1]))
    return np.outer(down, across)


def _moved(low: float, high: float, by: float) -> tuple[float, float]:
    """Two places moved, though not beyond 0 and 1: cells at a border see what is left there."""
    by = min(max(by, -low), 1 - high)
    return low + by, high + by


def _overlap(count: int, low: float, high: float) -> Float64Array:
    """The share of each of ``count`` equal parts of 0 to 1 that lies between two places."""
    starts = np.arange(count)
    covered = np.minimum(starts + 1, high * count) - np.maximum(starts, low * count)
    return covered.clip(0)


def _left_out_rows(reference: ReferenceModel) -> tuple[Float32Array, Float32Array]:
    """Each different row of the bank, ``[R, D + 1]``, and its distance as a new part's, ``[R]``.

    None where the others are fewer than a distance averages.
    """
    stored = reference.patches
    rows, same = np.unique(stored, axis=0, return_inverse=True)
    if len(stored) - np.bincount(same.ravel()).max(initial=0) < NEIGHBOURS:
        return rows[:0], rows[:0, -1]
    near = similarity(rows, stored)
    near[same.ravel() == np.arange(len(rows))[:, None]] = -np.inf
    nearest = np.partition(near, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:].mean(axis=1)
    return rows, NEW_PART * (1 - nearest).clip(0)
