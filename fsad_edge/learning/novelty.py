"""What one more normal image adds to a memory bank and to the scores behind the threshold.

This is the arithmetic of learning on a device; :mod:`.store` keeps what it needs on disk.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np

from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.bank import (
    NEIGHBOURS,
    WORST_PATCHES,
    ReferenceModel,
    greedy_coreset,
    similarity,
)

#: A patch is novel where its distance is above this fraction of the map's threshold. The bank knows
#: what is below it. After an image is learned none of its patches is above it, so that noise does
#: not bring the next image of its kind over the threshold.
NOVEL = 0.7

#: The same for the image rotated and flipped. A part in another position is another part, whose
#: scores may come closer to the threshold; rows for all rotations would otherwise replace too many
#: of the file's own.
NOVEL_ROTATED = 0.85

#: The most novel patches that are kept of one image: a coreset of them where there are more.
MAX_NOVEL_PATCHES = 512

#: The largest share of the graph's bank rows that learned images may fill.
LEARNED_SHARE = 0.5


@dataclass(frozen=True)
class Novelty:
    """What is kept of one image, its patches compared with the file's own bank only.

    Attributes:
        upright: float32 ``[U, D + 1]``, the novel patches of the image as it is: features, and
            rarity in the last column.
        rotated: float32 ``[R, D + 1]``, those of the image rotated and flipped.
        known: float32 ``[WORST_PATCHES]``, the largest distances of its other patches, descending.
        fingerprint: uint8 ``[64]``, by which the same photograph is known again.
        weights: float32 ``[U + R]``, what the distances of these patches are multiplied by, those
            of ``upright`` first; they are in ``known`` already.
        masks: float32 ``[U]``, the same for ``upright`` where no place counts more or less, as for
            the scores behind the threshold.
        known_masked: as ``known``, with these.
    """

    upright: Float32Array
    rotated: Float32Array
    known: Float32Array
    fingerprint: UInt8Array
    weights: Float32Array
    masks: Float32Array
    known_masked: Float32Array


def find_novelty(
    patches: Float32Array,
    distances: Float32Array,
    threshold: float,
    fingerprint: UInt8Array,
    weights: Float32Array | None = None,
    mask: Float32Array | None = None,
) -> Novelty:
    """Find the patches of an image that a bank does not know.

    Args:
        patches: float32 ``[V, P, D + 1]``, the patches of its views; the first view is the image
            as it is.
        distances: float32 ``[V, P]``, their distances from the file's own bank.
        threshold: the threshold of the map.
        fingerprint: uint8 ``[64]``, that of the image.
        weights: float32 ``[V, P]``, what the distances are multiplied by; 1 by default.
        mask: float32 ``[P]``, what those of the image as it is are multiplied by for its score
            behind the threshold; the weights by default.
    """
    if weights is None:
        weights = np.ones_like(distances)
    mask = weights[0] if mask is None else mask
    masked, distances = distances[0] * mask, distances * weights
    novel = distances > NOVEL * threshold
    turned = distances[1:] > NOVEL_ROTATED * threshold
    rotated, of_rotated = patches[1:][turned], weights[1:][turned]
    known, known_masked = (
        np.sort(np.where(novel[0], 0, one))[: -WORST_PATCHES - 1 : -1]
        for one in (distances[0], masked)
    )
    upright = patches[0][novel[0]]
    room = max(MAX_NOVEL_PATCHES - len(upright), 1)
    if len(rotated):
        kept = greedy_coreset(rotated[:, :-1], room)
        rotated, of_rotated = rotated[kept], of_rotated[kept]
    counted = np.concatenate([weights[0][novel[0]], of_rotated]).astype(np.float32)
    masks = mask[novel[0]].astype(np.float32)
    return Novelty(upright, rotated, known, fingerprint, counted, masks, known_masked)


class MemoryBank:
    """The file's memory bank with learned rows; rows of the file make room where it is full.

    Args:
        reference: the file's reference model, with its rows :func:`in_coreset_order`: without its
            last rows the bank is then nearly the one of a smaller export.
        threshold: the threshold of the map.

    Attributes:
        learned_rows: float32 ``[L, D + 1]``, features and rarity.
        max_learned_rows: the most rows that can be learned.
    """

    def __init__(self, reference: ReferenceModel, threshold: float) -> None:
        self._file, self._threshold = reference, threshold
        self._capacity = len(reference.bank)
        self._file_rows = reference.patches
        self.max_learned_rows = int(self._capacity * LEARNED_SHARE)
        self.learned_rows = self._file_rows[:0]
        self._images: list[_LearnedImage] = []

    def copy(self) -> MemoryBank:
        """A copy that can be changed without this one; what never changes is shared."""
        other = copy.copy(self)
        other._images = [copy.copy(image) for image in self._images]
        return other

    @property
    def rows(self) -> Float32Array:
        """All rows in use, float32 ``[R, D + 1]``."""
        kept = self._file_rows[: self._capacity - len(self.learned_rows)]
        return np.concatenate([kept, self.learned_rows])

    def select_rows(self, novelty: Novelty) -> Float32Array:
        """Select the rows ``[R, D + 1]`` after which none of an image's patches is novel.

        The patch that exceeds its limit most is added until none exceeds it. A patch unlike all
        others is added ``NEIGHBOURS`` times, because a distance is the mean over that many rows.
        """
        novel = np.concatenate([novelty.upright, novelty.rotated])
        limits = np.full(len(novel), NOVEL_ROTATED * self._threshold)
        limits[: len(novelty.upright)] = NOVEL * self._threshold
        near = nearest(novel, self.rows)
        chosen: list[int] = []
        while len(novel):
            excess = novelty.weights * (1 - near.mean(axis=1)) - limits
            worst = int(excess.argmax())
            if excess[worst] <= 0:
                break
            chosen.append(worst)
            near[:, 0] = np.maximum(near[:, 0], similarity(novel, novel[[worst]])[:, 0])
            near.sort(axis=1)
        return novel[chosen]

    def add(self, novelty: Novelty, rows: Float32Array, counts: bool = True) -> None:
        """Learn an image by its rows, as many of them as there is room for.

        Args:
            novelty: what is kept of the image.
            rows: what :meth:`select_rows` gave for it.
            counts: its score is one of :meth:`scores`.
        """
        rows = rows[: self.max_learned_rows - len(self.learned_rows)]
        for image in self._images:
            image.compare_with(rows)
        if counts:
            self._images.append(_LearnedImage(novelty, self.rows))
        self.learned_rows = np.concatenate([self.learned_rows, rows])

    def score(self, novelty: Novelty) -> float:
        """Patch score of an image against the bank as it is."""
        return _LearnedImage(novelty, self.rows).score()

    def scores(self) -> list[float]:
        """Left-out patch score of each learned image: against the bank without its own rows.

        They are behind the threshold, so that no place counts more or less in them.
        """
        return [image.masked_score() for image in self._images]

    def reference(self) -> ReferenceModel:
        """The reference model with these rows."""
        return self._file.with_patches(self.rows)


class _LearnedImage:
    """The patches of a learned image and the nearest bank rows that are not its own."""

    def __init__(self, novelty: Novelty, rows: Float32Array) -> None:
        self._novelty, self._patches = novelty, novelty.upright
        self._near = nearest(self._patches, rows)

    def compare_with(self, rows: Float32Array) -> None:
        """Take the rows of another image into account."""
        both = np.concatenate([self._near, similarity(self._patches, rows)], axis=1)
        self._near = np.sort(both, axis=1)[:, -NEIGHBOURS:]

    def score(self) -> float:
        """The patch score."""
        weights = self._novelty.weights[: len(self._patches)]
        return self._score(weights, self._novelty.known)

    def masked_score(self) -> float:
        """The same where no place counts more or less."""
        return self._score(self._novelty.masks, self._novelty.known_masked)

    def _score(self, weights: Float32Array, known: Float32Array) -> float:
        novel = weights * (1 - self._near.mean(axis=1)).clip(0)
        distances = np.concatenate([novel, known])
        return float(np.sort(distances)[-WORST_PATCHES:].mean())


def nearest(patches: Float32Array, rows: Float32Array) -> Float32Array:
    """Similarity of patches to their nearest rows, float32 ``[P, NEIGHBOURS]``, ascending."""
    count = min(NEIGHBOURS, len(rows))
    return np.sort(np.partition(similarity(patches, rows), -count, axis=1)[:, -count:], axis=1)


def in_coreset_order(reference: ReferenceModel) -> ReferenceModel:
    """The bank's rows in the order in which a greedy coreset takes them.

    Any number of the first rows is then a coreset too. Rows that are stored ``NEIGHBOURS`` times
    come before all others: they represent the most patches, or were learned alone.
    """
    rows, places, times = np.unique(
        reference.patches, axis=0, return_index=True, return_counts=True
    )
    as_stored = np.argsort(places)
    rows, times = rows[as_stored], times[as_stored]
    first = greedy_coreset(rows[:, :-1], max(len(rows) - 1, 1))
    order = np.concatenate([first, np.setdiff1d(np.arange(len(rows)), first)])
    rows, times = rows[order], times[order]
    repeated = times >= NEIGHBOURS
    spare = times - np.where(repeated, NEIGHBOURS, 1)
    ordered = [np.repeat(rows[repeated], NEIGHBOURS, axis=0), rows[~repeated]]
    return reference.with_patches(np.concatenate([*ordered, np.repeat(rows, spare, axis=0)]))
