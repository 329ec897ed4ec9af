"""The reference model, what normal parts look like: projection, memory bank and Gaussian.

Its arrays are inputs of the exported graph with a default, so that they can be replaced at run time
without exporting again. This module needs numpy only, so that a device can compute them again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from fsad_edge.errors import InputError
from fsad_edge.runtime.arrays import BoolArray, Float32Array, IndexArray

#: Bias of an unused bank row: no patch is ever nearest to it, and fp16 can hold it.
UNUSED = -1e4

#: A patch's distance is the mean over this many nearest bank rows: one row alone may be an outlier.
NEIGHBOURS = 3

#: Weight of a patch's rarity in its own image, added to its cosine distance. On four materials with
#: two encoders, values from a quarter less to half as much more gave about the same.
RARITY_WEIGHT = 0.2

#: The 2.5 % of rows that represent the most patches are stored three times, because a distance
#: averages three neighbours. A coreset keeps one row for a thousand patches that are all alike,
#: such as those of a dark ground, and the next rows are far from them. Whether another row happened
#: to be near moved all scores of metal nuts by up to 10 % from one left-out shot to the next.
REPEATED = 0.025

#: The image's patch score is the mean of this many worst patches.
WORST_PATCHES = 3

#: The prior of the Gaussian of embeddings of full depth (:func:`fit_gaussian`): views of one shot
#: say little of other shots, so the distance is near to that from the mean. On five classes of
#: CIFAR-10 with three networks, 0.1 to 1 are within 0.003 of AUROC in the mean, and 0.1 misses
#: least; without a prior two of the networks lose 0.02 and 0.03.
WHOLE_PRIOR = 0.1

#: Slots for rejected patches, in every graph.
REJECTED_ROWS = 64

#: A patch resembles a rejected row where it is this many times nearer to the row than to the bank.
#: Of its distance from the bank, what exceeds this many times that from the row counts twice.
REJECTED_RATIO = 2.0

#: Room that a graph has for what a device learns, as a fraction of the bank's size.
SPARE = 0.25

#: No cell of the map counts for more than so many times its distance.
MOST_WEIGHT = 1e6

#: The most values of a similarity matrix that are computed at once.
_SIMILARITY_VALUES = 1 << 24


@dataclass(frozen=True)
class ReferenceModel:
    """What normal parts look like, as the graph takes it.

    Attributes:
        bank: float32 ``[K, D]``, the memory bank: rows of L2-normalised patch features. K is the
            capacity, which is more than the rows in use.
        bank_bias: float32 ``[K]``, ``-|row|^2 / 2 + RARITY_WEIGHT * rarity``, so that one matrix
            product gives the distance; ``UNUSED`` for rows that hold nothing.
        gaussian_mean: float32 ``[E]``, mean of the embeddings of normal images. E is D, unless the
            embedding is of the encoder's full depth.
        gaussian_whitening: float32 ``[E, E]``; ``|(e - mean) @ whitening|`` is the Mahalanobis
            distance of embedding ``e``.
        projection: float32 ``[D, D]``, a matrix that features are multiplied by before they are
            normalised; the identity leaves them as the encoder gives them.
        rejected: float32 ``[R, D]``, a second bank: rows of L2-normalised features of patches that
            a person rejected. R is ``REJECTED_ROWS``.
        rejected_bias: float32 ``[R]``, of these rows, as ``bank_bias`` of those of the bank. Where
            it is lower, the row is farther from all patches by as much, and so raises fewer.
        weights: float32 ``[P]``, what the distance of each cell of the map is multiplied by before
            the worst patches are taken: 1 as a rule, 0 for a cell that does not count. None where
            the graph has no such input, as those of earlier versions, and counts as it was made.
        place_bank: float32 ``[Q, K, D]``, rows of each place of the part
            (:mod:`fsad_edge.runtime.places`); zeros where a slot holds nothing. This and the
            following are None where images are not compared place by place.
        place_projection: float32 ``[D, D]``, which the features of a place are multiplied by.
        place_scale: float32 ``[Q]``, what the distance of each place is multiplied by so that the
            place score is held against the threshold of the patch score.

    Example:
        >>> import numpy as np
        >>> patches = np.eye(4, 5, dtype=np.float32)  # four features and the rarity, which is 0
        >>> reference = fit_reference(patches, embeddings=patches[:, :4], bank_size=8)
        >>> reference.bank.shape, reference.rows
        ((10, 4), 4)
    """

    bank: Float32Array
    bank_bias: Float32Array
    gaussian_mean: Float32Array
    gaussian_whitening: Float32Array
    projection: Float32Array
    rejected: Float32Array
    rejected_bias: Float32Array
    weights: Float32Array | None = None
    place_bank: Float32Array | None = None
    place_projection: Float32Array | None = None
    place_scale: Float32Array | None = None

    def as_inputs(self) -> dict[str, Float32Array]:
        """The arrays by the names of the graph's inputs; without those that it does not have."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def rows(self) -> int:
        """The number of bank rows in use."""
        return int((self.bank_bias > UNUSED / 2).sum())

    @property
    def patches(self) -> Float32Array:
        """The bank rows in use as the graph gives patches, float32 ``[R, D + 1]``: rarity last."""
        return _as_patches(self.bank, self.bank_bias)

    @property
    def rejected_patches(self) -> Float32Array:
        """The rejected rows in use as patches, float32 ``[R, D + 1]``; what a row is farther from
        all patches by is taken off its rarity in the last column."""
        return _as_patches(self.rejected, self.rejected_bias)

    def with_patches(self, patches: Float32Array) -> ReferenceModel:
        """The same reference model with other rows in the bank.

        Args:
            patches: float32 ``[R, D + 1]``, as the graph gives them; no more than the capacity.
        """
        rows, bias = _as_rows(patches, len(self.bank))
        return replace(self, bank=rows, bank_bias=bias)

    def with_rejected_patches(self, patches: Float32Array) -> ReferenceModel:
        """The same reference model with other rejected rows.

        Args:
            patches: float32 ``[R, D + 1]``, as :attr:`rejected_patches`; at most
                ``REJECTED_ROWS``.
        """
        rows, bias = _as_rows(patches, len(self.rejected))
        return replace(self, rejected=rows, rejected_bias=bias)

    def with_weights(self, weights: Float32Array) -> ReferenceModel:
        """The same reference model with other weights of the map's cells.

        Args:
            weights: float32 ``[P]``, as many as there are.

        Raises:
            InputError: the graph takes no weights, they are not as many, one of them is no number
                from 0 to ``MOST_WEIGHT``, or all of them are 0.
        """
        if self.weights is None:
            raise InputError(
                "the model file was exported by a version that had no weights of places: export "
                "it again."
            )
        if weights.shape != self.weights.shape:
            raise InputError(
                f"the weights are of shape {list(weights.shape)}, and the map has "
                f"{len(self.weights)} cells: give one number for each."
            )
        if why_not := why_no_weights(weights):
            raise InputError(f"{why_not}.")
        return replace(self, weights=np.ascontiguousarray(weights, np.float32))


def why_no_weights(weights: Float32Array) -> str | None:
    """Why no map can be scored with such weights, in words; None where one can."""
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.max() <= MOST_WEIGHT):
        return f"a weight is no number from 0 to {MOST_WEIGHT:,.0f}"
    return None if weights.any() else "all weights are 0, so that no place of the part would count"


def _as_patches(rows: Float32Array, bias: Float32Array) -> Float32Array:
    """The rows in use as the graph gives patches, ``[R, D + 1]``: rarity last."""
    used = bias > UNUSED / 2
    rarity = (bias[used] + 0.5 * np.square(rows[used]).sum(axis=1)) / RARITY_WEIGHT
    return np.concatenate([rows[used], rarity[:, None]], axis=1)


def _as_rows(patches: Float32Array, size: int) -> tuple[Float32Array, Float32Array]:
    """Patches as rows ``[size, D]`` and their bias ``[size]``; the rest is unused."""
    rows = np.zeros((size, patches.shape[1] - 1), np.float32)
    bias = np.full(size, UNUSED, np.float32)
    features, rarity = patches[:, :-1], patches[:, -1]
    rows[: len(patches)] = features
    bias[: len(patches)] = RARITY_WEIGHT * rarity - 0.5 * np.square(features).sum(axis=1)
    return rows, bias


def capacity_of(bank_size: int) -> int:
    """The bank rows that a graph has room for when it is exported with a bank size."""
    return bank_size + math.ceil(bank_size * SPARE)


def empty_reference(
    capacity: int,
    dimension: int,
    embedding: int | None = None,
    weights: Float32Array | None = None,
) -> ReferenceModel:
    """An empty bank, a unit Gaussian and no projection, for a graph that only embeds.

    Args:
        capacity: rows of the bank, K.
        dimension: number of features, D.
        embedding: length of the embedding, E; D by default.
        weights: of the map's cells, float32 ``[P]``.
    """
    length = dimension if embedding is None else embedding
    return ReferenceModel(
        bank=np.zeros((capacity, dimension), np.float32),
        bank_bias=np.full(capacity, UNUSED, np.float32),
        gaussian_mean=np.zeros(length, np.float32),
        gaussian_whitening=np.eye(length, dtype=np.float32),
        projection=np.eye(dimension, dtype=np.float32),
        rejected=np.zeros((REJECTED_ROWS, dimension), np.float32),
        rejected_bias=np.full(REJECTED_ROWS, UNUSED, np.float32),
        weights=weights,
    )


def fit_reference(
    patches: Float32Array,
    embeddings: Float32Array,
    bank_size: int,
    pool: Float32Array | None = None,
    projection: Float32Array | None = None,
    rows: int | None = None,
    prior: float | None = None,
) -> ReferenceModel:
    """Fit a memory bank and a Gaussian to the features of normal images.

    Where there are more patches than rows, a k-center greedy coreset of them is taken as in
    PatchCore, and each row is moved to the mean of the patches nearest to it. The rows that
    represent the most patches are stored ``NEIGHBOURS`` times (``REPEATED``). Fewer than
    ``NEIGHBOURS`` patches are repeated until they are as many.

    Args:
        patches: float32 ``[P, D + 1]``, features and rarity as the graph gives them. All features
            are given before the projection.
        embeddings: float32 ``[N, E]``, L2-normalised embeddings of augmented shots. Those of the
            encoder's full depth are not projected, so they go without a projection.
        bank_size: most rows of the bank; the graph has room for more (:func:`capacity_of`).
        pool: float32 ``[Q, D + 1]``, the patches whose means the rows become; ``patches`` by
            default.
        projection: float32 ``[D, D]``, the projection of the features; the identity by default.
        rows: most rows to fill; ``bank_size`` by default.
        prior: of the Gaussian, as in :func:`fit_gaussian`.
    """
    rows = bank_size if rows is None else rows
    if projection is not None:
        patches = projected_patches(patches, projection)
        embeddings = projected(embeddings, projection)
        pool = None if pool is None else projected_patches(pool, projection)
    chosen = patches
    if len(patches) > rows:
        repeated = int(REPEATED * rows)
        apart = greedy_coreset(patches[:, :-1], rows - repeated * (NEIGHBOURS - 1))
        chosen, counts = moved_to_means(patches[apart], patches if pool is None else pool)
        most = np.argsort(-counts, kind="stable")[:repeated]
        chosen = np.concatenate([chosen, np.repeat(chosen[most], NEIGHBOURS - 1, axis=0)])
    capacity = capacity_of(bank_size)
    # With fewer rows than the graph averages over, an unused row would be among the nearest.
    chosen = np.resize(chosen, (max(len(chosen), min(NEIGHBOURS, capacity)), patches.shape[1]))
    mean, whitening = fit_gaussian(embeddings, prior)
    empty = empty_reference(capacity, patches.shape[1] - 1, embeddings.shape[1])
    return replace(
        empty.with_patches(chosen),
        gaussian_mean=mean,
        gaussian_whitening=whitening,
        projection=empty.projection if projection is None else projection,
    )


def projected(vectors: Float32Array, projection: Float32Array) -> Float32Array:
    """Features ``[..., D]`` after a projection, L2-normalised again, as in the graph."""
    rows = vectors @ projection
    result: Float32Array = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6)
    return result


def projected_patches(patches: Float32Array, projection: Float32Array) -> Float32Array:
    """Patches ``[..., D + 1]`` after a projection of their features; their rarity stays."""
    features = projected(patches[..., :-1], projection)
    return np.concatenate([features, patches[..., -1:]], axis=-1)


def similarity(patches: Float32Array, rows: Float32Array) -> Float32Array:
    """Similarity of each patch to each bank row: 1 minus the distance that the graph computes.

    Args:
        patches: float32 ``[P, D + 1]``.
        rows: float32 ``[R, D + 1]``, rows of the bank.

    Returns:
        float32 ``[P, R]``: the cosine, minus the weighted excess of the patch's rarity over the
        row's.
    """
    rarer = patches[:, -1:] - rows[:, -1]
    result: Float32Array = patches[:, :-1] @ rows[:, :-1].T - RARITY_WEIGHT * rarer
    return result


def patch_distances(patches: Float32Array, reference: ReferenceModel) -> Float32Array:
    """Distance of patches to the memory bank, as the graph computes it before it limits its map.

    Neither rejected rows nor weights count.

    Args:
        patches: float32 ``[..., P, D + 1]``, as the graph gives them: after the projection.
        reference: the reference model.

    Returns:
        float32 ``[..., P]``, 0 and up.
    """
    if not patches.size:
        return np.zeros(patches.shape[:-1], np.float32)
    rows = reference.patches
    count = min(NEIGHBOURS, len(rows))
    found = [
        np.partition(similarity(image, rows), -count, axis=1)[:, -count:].mean(axis=1)
        for image in patches.reshape(-1, *patches.shape[-2:])
    ]
    return (1 - np.stack(found)).clip(0).reshape(patches.shape[:-1])


def raised_distances(
    patches: Float32Array, distances: Float32Array, reference: ReferenceModel
) -> Float32Array:
    """Distances of patches, raised where a patch resembles a rejected row, as in the graph.

    ``d + min(max(d - REJECTED_RATIO * r, 0), d)`` for the distance r from the nearest rejected row:
    at most twice d, and d where nothing is rejected.

    Args:
        patches: float32 ``[..., D + 1]``, as the graph gives them.
        distances: float32 ``[...]``, d, as :func:`patch_distances` gives them.
        reference: the reference model.

    Returns:
        float32 ``[...]``.
    """
    rows = reference.rejected_patches
    if not len(rows):
        return distances
    near = similarity(patches.reshape(-1, patches.shape[-1]), rows).max(axis=1)
    beyond = distances - REJECTED_RATIO * (1 - near.reshape(distances.shape))
    raised: Float32Array = distances + np.minimum(beyond.clip(0), distances)
    return raised


def patch_scores(patches: Float32Array, reference: ReferenceModel) -> Float32Array:
    """Patch scores of images as the graph computes them, from patches that it gave.

    Args:
        patches: float32 ``[N, P, D + 1]``, as the graph gives them.
        reference: the reference model, with its rejected rows and its weights.

    Returns:
        float32 ``[N]``.
    """
    distances = raised_distances(patches, patch_distances(patches, reference), reference)
    if reference.weights is not None:
        distances = distances * reference.weights
    return worst_of(distances)


def worst_of(distances: Float32Array) -> Float32Array:
    """Patch scores, float32 ``[...]``, of distances that were weighted, float32 ``[..., P]``."""
    scores: Float32Array = np.sort(distances, axis=-1)[..., -WORST_PATCHES:].mean(axis=-1)
    return scores


def unlimited_distances(
    anomaly_map: Float32Array,
    patch_score: float,
    patches: Float32Array,
    reference: ReferenceModel,
    wanted: BoolArray,
) -> Float32Array:
    """The distances of an image's patches before they are weighted and limited, from its map.

    A map is limited at one or two of its cells, as a rule. What it hides is computed again from the
    patches; all others are the graph's own.

    Args:
        anomaly_map: float32 ``[h, w]``, the graph's.
        patch_score: the graph's, which the map is limited to.
        patches: float32 ``[P, D + 1]``, the graph's.
        reference: the reference model that it scored with, with weights, without rejected rows.
        wanted: bool ``[P]``, the cells that can count.

    Returns:
        float32 ``[P]``; 0 where a cell is not wanted.
    """
    weights = reference.weights
    assert weights is not None
    limited = anomaly_map.ravel()
    hidden = wanted & ((limited >= patch_score) | (weights == 0))
    seen = wanted & ~hidden
    distances = np.zeros(len(limited), np.float32)
    distances[seen] = limited[seen] / weights[seen]
    distances[hidden] = patch_distances(patches[hidden], reference)
    return distances


def moved_to_means(centres: Float32Array, rows: Float32Array) -> tuple[Float32Array, IndexArray]:
    """Move centres by one step of spherical k-means (Dhillon & Modha 2001).

    A greedy coreset consists of outlying patches. The means of the patches that each of its rows
    represents say as much with half the rows.

    Args:
        centres: float32 ``[K, D + 1]``, features and rarity.
        rows: float32 ``[P, D + 1]``.

    Returns:
        The moved centres, float32 ``[K, D + 1]`` with L2-normalised features, and how many rows
        were nearest to each, ``[K]``. A centre that no row is nearest to stays where it is.
    """
    step = max(1, _SIMILARITY_VALUES // len(centres))
    nearest = np.concatenate(
        [
            (rows[start : start + step, :-1] @ centres[:, :-1].T).argmax(axis=1)
            for start in range(0, len(rows), step)
        ]
    )
    order = np.argsort(nearest, kind="stable")
    found, starts = np.unique(nearest[order], return_index=True)
    sums = np.add.reduceat(rows[order], starts)
    lengths = np.linalg.norm(sums[:, :-1], axis=1, keepdims=True)
    counts = np.zeros(len(centres), np.intp)
    counts[found] = np.diff(starts, append=len(rows))
    means = np.concatenate(
        [sums[:, :-1] / np.maximum(lengths, 1e-6), sums[:, -1:] / counts[found, None]], axis=1
    )
    moved: Float32Array = centres.copy()
    # Rows that cancel one another have no direction to move to.
    moved[found] = np.where(lengths > 1e-6, means, centres[found])
    return moved, counts


def greedy_coreset(rows: Float32Array, size: int) -> IndexArray:
    """Choose rows so that every other row is near to one: k-center greedy (PatchCore, eq. 5).

    The first choice is the row nearest to the mean, so that the result depends on the rows alone.

    Args:
        rows: float32 ``[P, D]``, L2-normalised.
        size: number of rows to choose. Where there are no more than that, all are returned in
            order.

    Returns:
        Indices ``[min(P, size)]``, each once.

    Example:
        >>> import numpy as np
        >>> greedy_coreset(np.eye(3, dtype=np.float32)[[0, 0, 1, 0, 2]], 3).tolist()
        [0, 2, 4]
    """
    if len(rows) <= size:
        return np.arange(len(rows))
    chosen = np.empty(size, np.intp)
    chosen[0] = np.argmax(rows @ rows.mean(axis=0))
    distance = 1 - rows @ rows[chosen[0]]
    for place in range(1, size):
        distance[chosen[place - 1]] = -np.inf  # rounding must not choose a row twice
        chosen[place] = np.argmax(distance)
        np.minimum(distance, 1 - rows @ rows[chosen[place]], out=distance)
    return chosen


def fit_gaussian(
    embeddings: Float32Array, prior: float | None = None
) -> tuple[Float32Array, Float32Array]:
    """Fit the mean and whitening of a Gaussian with shrunk covariance.

    The covariance is shrunk towards a multiple of the identity (oracle approximating shrinkage,
    Chen et al. 2010), because there are few embeddings and many dimensions. A least variance keeps
    the result finite for one shot, or for equal shots.

    Args:
        embeddings: float32 ``[N, D]``, N at least 1.
        prior: where given, the covariance S becomes ``(1 - prior) S + prior trace(S) I`` instead,
            above 0 and at most 1, such as :data:`WHOLE_PRIOR`.

    Returns:
        Mean ``[D]`` and whitening ``[D, D]``, float32: ``whitening @ whitening.T`` is the inverse
        of the covariance.
    """
    count, dimension = embeddings.shape
    values = embeddings.astype(np.float64)
    mean = values.mean(axis=0)
    centred = values - mean
    # There are fewer embeddings than dimensions, as a rule: across them all variances are zero.
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    eigenvalues = lengths**2 / count
    variance = max(float(eigenvalues.sum()) / dimension, 1e-6)
    if prior is None:
        square = float((eigenvalues**2).sum()) / dimension**2
        denominator = (count + 1) * (square - variance**2 / dimension)
        shrinkage = 1.0 if denominator <= 0 else min(1.0, (square + variance**2) / denominator)
        added = shrinkage * variance
    else:
        shrinkage, added = prior, prior * variance * dimension
    least = max(added, 1e-3 * variance)
    eigenvalues = np.maximum((1 - shrinkage) * eigenvalues + added, least)
    gains = 1 / np.sqrt(eigenvalues) - 1 / math.sqrt(least)
    whitening = np.eye(dimension) / math.sqrt(least) + directions.T * gains @ directions
    return mean.astype(np.float32), whitening.astype(np.float32)
