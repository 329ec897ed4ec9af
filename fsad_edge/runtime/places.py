"""Places: what the shots show at each place of the part, and how far an image is from that.

The memory bank knows what a part looks like, and not where. Where the shots show the same thing at
the same place, an image is also compared with them place by place: what is missing, extra or
somewhere else is unlike the shots there, though it is like them elsewhere. This module needs numpy
only; the exported graph computes the same (:mod:`fsad_edge.scoring.scoring_graph`).
"""

from __future__ import annotations

import math

import numpy as np

from fsad_edge.runtime.arrays import Float32Array, IndexArray

#: Places along a side: patches of a finer map are averaged, several to a place, so that a component
#: is a few places large at every image size, and that they cost as little on a fine map.
SIDE = 14

#: Rows of each place that calibration fills, and those that a device that learns may fill.
ROWS, SPARE_ROWS = 12, 4

#: The place score is the mean of this many worst places.
WORST_PLACES = 3


_SHORTEST = 1e-6


def patches_of_place(rows: int, columns: int) -> int:
    """How many patches of a map are along each side of a place.

    Example:
        >>> patches_of_place(14, 14), patches_of_place(9, 22), patches_of_place(40, 40)
        (1, 1, 3)
    """
    return max(1, min(round(math.sqrt(rows * columns) / SIDE), rows, columns))


def place_grid(rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of the places of a map. What is left over counts to the last ones."""
    side = patches_of_place(rows, columns)
    return rows // side, columns // side


def place_of_patch(length: int, side: int) -> IndexArray:
    """For each of ``length`` patches on a line its place, ``[length]``."""
    places: IndexArray = np.minimum(np.arange(length) // side, length // side - 1)
    return places


def on_the_map(values: Float32Array, rows: int, columns: int) -> Float32Array:
    """Values of places ``[..., Q]`` on the finer grid of the map, ``[..., rows * columns]``."""
    side = patches_of_place(rows, columns)
    down, across = place_of_patch(rows, side), place_of_patch(columns, side)
    grid = values.reshape(*values.shape[:-1], *place_grid(rows, columns))
    fine = grid[..., down[:, None], across]
    return fine.reshape(*values.shape[:-1], rows * columns)


def place_features(
    patches: Float32Array, rows: int, columns: int, projection: Float32Array
) -> Float32Array:
    """The features of each place, from the patches of images.

    Args:
        patches: float32 ``[N, P, D + 1]``, as the graph gives them: after its projection, with the
            rarity last, which is left out here.
        rows: rows of the map.
        columns: columns of the map.
        projection: float32 ``[D, D]``, that of the places.

    Returns:
        float32 ``[N, Q, D]``, L2-normalised.
    """
    return unit(place_means(patches, rows, columns) @ projection)


def place_means(patches: Float32Array, rows: int, columns: int) -> Float32Array:
    """The mean features of the patches of each place, float32 ``[N, Q, D]``.

    Arguments are as of :func:`place_features`.
    """
    side, depth = patches_of_place(rows, columns), patches.shape[-1] - 1
    down, across = place_grid(rows, columns)
    grid = patches[..., :-1].reshape(-1, rows, columns, depth)[:, : down * side, : across * side]
    means = grid.reshape(-1, down, side, across, side, depth).mean(axis=(2, 4))
    result: Float32Array = means.reshape(-1, down * across, depth)
    return result


def unit(vectors: Float32Array) -> Float32Array:
    """Vectors of length 1 along the last axis; zero vectors stay zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    result: Float32Array = vectors / np.maximum(lengths, _SHORTEST)
    return result


def place_distances(features: Float32Array, bank: Float32Array) -> Float32Array:
    """The cosine distance of each place to the most similar of its rows, 0 and up.

    Args:
        features: float32 ``[N, Q, D]``, as :func:`place_features` gives them.
        bank: float32 ``[Q, K, D]``, rows of each place.

    Returns:
        float32 ``[N, Q]``.
    """
    similar = np.einsum("nqd,qkd->nqk", features, bank, optimize=True).max(axis=2)
    distances: Float32Array = np.maximum(1 - similar, 0).astype(np.float32)
    return distances


def worst_places(distances: Float32Array, rows: int, columns: int) -> Float32Array:
    """Place scores, float32 ``[...]``, of distances on the map, float32 ``[..., P]``.

    A place of several patches is on the map as often, so that as many more values are averaged.
    """
    count = worst_count(rows, columns)
    scores: Float32Array = np.sort(distances, axis=-1)[..., -count:].mean(axis=-1)
    return scores


def worst_count(rows: int, columns: int) -> int:
    """How many cells of the map the place score is the mean of."""
    return min(WORST_PLACES * patches_of_place(rows, columns) ** 2, rows * columns)


def spread_rows(candidates: Float32Array, count: int) -> Float32Array:
    """Of the rows of each place those that are farthest apart (k-center greedy).

    Args:
        candidates: float32 ``[Q, M, D]``, L2-normalised.
        count: how many of each place.

    Returns:
        float32 ``[Q, count, D]``; zeros, which resemble nothing, where there are fewer.
    """
    places, found, depth = candidates.shape
    taken = np.zeros((places, count, depth), np.float32)
    if found <= count:
        taken[:, :found] = candidates
        return taken
    every = np.arange(places)
    first = np.einsum("qmd,qd->qm", candidates, unit(candidates.mean(axis=1))).argmax(axis=1)
    near = np.full((places, found), -np.inf, np.float32)
    for slot in range(count):
        chosen = first if slot == 0 else near.argmin(axis=1)
        taken[:, slot] = candidates[every, chosen]
        near = np.maximum(near, np.einsum("qmd,qd->qm", candidates, taken[:, slot]))
    return taken
