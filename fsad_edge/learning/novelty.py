"""What one more normal image adds to a memory bank, and what it says of the threshold.

The arithmetic of learning on the device; :mod:`.learned` keeps what it needs on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.bank import (
    NEIGHBOURS,
    WORST_PATCHES,
    ReferenceModel,
    greedy_coreset,
    similarity,
)

#: A patch is novel where its distance is above this fraction of the map's threshold. What is below
#: it the bank knows; after learning nothing of the image is above it, which leaves the next image
#: of its kind room for noise.
LEVEL = 0.7

#: The same for the image turned and flipped: a part that lies otherwise is another part, and may
#: come closer to the threshold. Rows for all turns would else push out too many of the file's.
ROTATED_LEVEL = 0.85

#: Novel patches that are kept of one image, a coreset of them where there are more.
MOST_PATCHES = 512

#: Learned rows may take this fraction of all that the graph has room for.
SHARE = 0.5


@dataclass(frozen=True)
class Novelty:
    """What is kept of one image, against the file's own bank alone.

    Attributes:
        upright: float32 ``[U, D + 1]``, novel patches of the image as it is, with their rarity.
        turned: float32 ``[T, D + 1]``, those of the image turned and flipped.
        known: float32 ``[WORST_PATCHES]``, largest distances of its other patches, descending.
    """

    upright: Float32Array
    rotated: Float32Array
    known: Float32Array


def find_novelty(patches: Float32Array, distances: Float32Array, threshold: float) -> Novelty:
    """The patches of an image that a bank does not know.

    Args:
        patches: float32 ``[V, P, D + 1]`` of its views; the first is the image as it is.
        distances: float32 ``[V, P]`` from the file's own bank.
        threshold: on the map.
    """
    novel = distances > LEVEL * threshold
    rotated = patches[1:][distances[1:] > ROTATED_LEVEL * threshold]
    known = np.sort(np.where(novel[0], 0, distances[0]))[: -WORST_PATCHES - 1 : -1]
    upright = patches[0][novel[0]]
    room = max(MOST_PATCHES - len(upright), 1)
    if len(rotated):
        rotated = rotated[greedy_coreset(rotated[:, :-1], room)]
    return Novelty(upright, rotated, known)


class Memory:
    """The file's memory bank with what was learned; rows of the file make room where it is full.

    Args:
        normals: the file's own, :func:`in_order`: to drop the last rows is then to have exported
            nearly a smaller bank.
        threshold: on the map.
    """

    def __init__(self, reference: ReferenceModel, threshold: float) -> None:
        self._file, self._threshold = reference, threshold
        self._capacity = len(reference.bank)
        self.most = int(self._capacity * SHARE)
        self._rows = reference.patches
        self.learned = self._rows[:0]
        self._members: list[_Member] = []

    def needed(self, novelty: Novelty) -> Float32Array:
        """Rows ``[R, D + 1]`` after which no novel patch is further than its level.

        The one that is worst off goes in until none is: three times where it is alone, for a
        distance is the mean over ``NEIGHBOURS`` rows.
        """
        novel = np.concatenate([novelty.upright, novelty.rotated])
        levels = np.full(len(novel), ROTATED_LEVEL * self._threshold)
        levels[: len(novelty.upright)] = LEVEL * self._threshold
        near = nearest(novel, self.bank)
        chosen: list[int] = []
        while len(novel):
            excess = 1 - near.mean(axis=1) - levels
            worst = int(excess.argmax())
            if excess[worst] <= 0:
                break
            chosen.append(worst)
            near[:, 0] = np.maximum(near[:, 0], similarity(novel, novel[[worst]])[:, 0])
            near.sort(axis=1)
        return novel[chosen]

    def add(self, novelty: Novelty, rows: Float32Array, counts: bool = True) -> None:
        """Learn an image by the rows that it needs, as many as there is room for.

        Args:
            novelty: of the image.
            rows: that :meth:`needed` gave for it.
            counts: whether its score is one of :meth:`scores`.
        """
        rows = rows[: self.most - len(self.learned)]
        for member in self._members:
            member.meet(rows)
        if counts:
            self._members.append(_Member(novelty, self.bank))
        self.learned = np.concatenate([self.learned, rows])

    def score(self, novelty: Novelty) -> float:
        """Patch score of an image against the bank as it is."""
        return _Member(novelty, self.bank).score()

    @property
    def bank(self) -> Float32Array:
        """The rows in force, ``[R, D + 1]``."""
        return np.concatenate([self._rows[: self._capacity - len(self.learned)], self.learned])

    def scores(self) -> list[float]:
        """Left-out patch score of each learned image: its own rows are not in the bank for it."""
        return [member.score() for member in self._members]

    def reference(self) -> ReferenceModel:
        """As the graph takes them."""
        return self._file.with_patches(self.bank)


class _Member:
    """A learned image and the bank rows nearest to it that are not its own."""

    def __init__(self, novelty: Novelty, bank: Float32Array) -> None:
        self._patches, self._known = novelty.upright, novelty.known
        self._near = nearest(self._patches, bank)

    def meet(self, rows: Float32Array) -> None:
        """Rows that another image brought."""
        both = np.concatenate([self._near, similarity(self._patches, rows)], axis=1)
        self._near = np.sort(both, axis=1)[:, -NEIGHBOURS:]

    def score(self) -> float:
        distances = np.concatenate([(1 - self._near.mean(axis=1)).clip(0), self._known])
        return float(np.sort(distances)[-WORST_PATCHES:].mean())


def nearest(patches: Float32Array, rows: Float32Array) -> Float32Array:
    """Likeness, float32 ``[P, NEIGHBOURS]`` and ascending, of patches to their nearest rows."""
    count = min(NEIGHBOURS, len(rows))
    return np.sort(np.partition(similarity(patches, rows), -count, axis=1)[:, -count:], axis=1)


def in_order(reference: ReferenceModel) -> ReferenceModel:
    """The bank's rows in the order in which a greedy coreset takes them, unused ones last.

    The first rows are then a coreset too, whatever their number. Those that stand there
    ``NEIGHBOURS`` times come before all: they stand for the most patches, or were learned alone.
    """
    rows, places, times = np.unique(
        reference.patches, axis=0, return_index=True, return_counts=True
    )
    as_stood = np.argsort(places)
    rows, times = rows[as_stood], times[as_stood]
    first = greedy_coreset(rows[:, :-1], max(len(rows) - 1, 1))
    order = np.concatenate([first, np.setdiff1d(np.arange(len(rows)), first)])
    rows, times = rows[order], times[order]
    often = times >= NEIGHBOURS
    spare = times - np.where(often, NEIGHBOURS, 1)
    return reference.with_patches(
        np.concatenate(
            [
                np.repeat(rows[often], NEIGHBOURS, axis=0),
                rows[~often],
                np.repeat(rows, spare, axis=0),
            ]
        )
    )
