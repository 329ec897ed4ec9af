"""Shots that are unlike the rest: another part, or a broken one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fsad_edge.calibration.batches import run_batches
from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.bank import WORST_PATCHES

#: A shot is an outlier where its distance is this many times that of the others. It was chosen on
#: random draws from nine materials; benchmarks/shots.py measures it.
PART_RATIO = 3.0

#: From this ratio on a shot is only named.
NAMED_RATIO = 2.0

#: Distances below these are taken for these: parts that are all alike differ by chance.
LEAST_PART, LEAST_PLACE = 0.067, 0.03

#: Two shots alone that are this far from one another are named. Good parts of one kind were seldom
#: more than 0.15 apart, different parts mostly 0.3 to 0.6.
TWO_APART = 0.25

#: Fewer shots cannot show which of them is the odd one.
FEWEST = 3

#: The most shots that are compared with one another.
MOST_TOGETHER = 200

#: Added to both parts of a distance, so that neither of them alone makes it zero.
_FLOORS = (0.003, 0.01)


@dataclass(frozen=True)
class Features:
    """What an encoder sees in the shots.

    Attributes:
        patches: float32 ``[n, P, D]``, L2-normalised.
        embeddings: float32 ``[n, D]``, L2-normalised.
    """

    patches: Float32Array
    embeddings: Float32Array


@dataclass(frozen=True)
class Unlike:
    """A shot that is unlike the rest.

    Attributes:
        index: the shot.
        distance: its distance from the nearest of the others.
        others: the largest such distance among the others.
        whole: the distance is of the whole part; otherwise of its most different places.
        refused: it is far enough to be taken for another part or a broken one.
    """

    index: int
    distance: float
    others: float
    whole: bool
    refused: bool


def features_of(session: OnnxSession, images: Sequence[UInt8Array]) -> Features:
    """The features of images uint8 ``[H, W, 3]`` at the size of a scoring graph.

    Args:
        session: a scoring graph with an empty reference model, which does not project.
        images: the images.
    """
    patches, embeddings = run_batches(session, images, ["patches", "embedding"])
    return Features(np.ascontiguousarray(patches[:, :, :-1]), embeddings)


def find_unlike(features: Features) -> list[Unlike]:
    """The shots that are unlike the rest, by index; none where there are fewer than ``FEWEST``.

    More than ``MOST_TOGETHER`` are compared in groups of about that many, because the work and the
    memory grow with the square of a group.
    """
    count = len(features.patches)
    if count < FEWEST:
        return []
    found: list[Unlike] = []
    # Shots that were taken one after the other come into different groups.
    groups = -(-count // MOST_TOGETHER)
    for first in range(groups):
        indices = np.arange(first, count, groups)
        group = Features(features.patches[indices], features.embeddings[indices])
        nearest = nearest_patches(group.patches)
        found += [
            replace(one, index=int(indices[one.index]))
            for one in unlike_among(nearest, part_distances(group, nearest))
        ]
    return sorted(found, key=lambda one: one.index)


def unlike_among(nearest: Float32Array, distances: Float32Array) -> list[Unlike]:
    """The same, from :func:`nearest_patches` and :func:`part_distances` of at least ``FEWEST``."""
    found = {one.index: one for one in _odd_places(nearest)}
    for one in _other_parts(distances):
        if one.refused or one.index not in found:
            found[one.index] = one
    return [found[index] for index in sorted(found)]


def place_ratio(count: int) -> float:
    """The same for the most different places of a shot among so many.

    Good parts have spots that no other has, and few shots hardly show how many.
    """
    return 4 + 6 / (count - 1)


def nearest_patches(patches: Float32Array) -> Float32Array:
    """The cosine distance of each patch to the nearest patch of each shot, ``[n, n, P]``."""
    count, places, depth = patches.shape
    rows = patches.reshape(-1, depth).T
    return np.stack(
        [
            1 - (shot @ rows).reshape(places, count, places).max(axis=2).T.astype(np.float32)
            for shot in patches
        ]
    )


def part_distances(features: Features, nearest: Float32Array) -> Float32Array:
    """How far the shots are from one another as a whole, float32 ``[n, n]``.

    The geometric mean of two distances: of the embeddings, which hardly see where a part lies, and
    of the patches.
    """
    embeddings = 1 - features.embeddings @ features.embeddings.T
    patches = nearest.mean(axis=2)
    of_embeddings, of_patches = _FLOORS
    product = (embeddings.clip(0) + of_embeddings) * (np.maximum(patches, patches.T) + of_patches)
    result: Float32Array = np.sqrt(product)
    return result


def _other_parts(distances: Float32Array) -> list[Unlike]:
    """The shots outside of a majority that is near together, and far from them.

    Shots are joined from the nearest pair on (single linkage). Before each step, the largest group
    is compared with the rest. Parts of several kinds that are all good are about as far from one
    another as the kinds among the majority are.
    """
    count = len(distances)
    group, longest = np.arange(count), np.zeros(count)
    best: tuple[float, Float32Array, float] = (0.0, np.zeros(0, np.float32), 0.0)
    pairs = np.column_stack(np.triu_indices(count, 1))
    for one, other in pairs[np.argsort(distances[pairs[:, 0], pairs[:, 1]], kind="stable")]:
        if group[one] == group[other]:
            continue
        inside = group == np.bincount(group).argmax()
        if 2 * inside.sum() > count:
            inner = float(longest[inside].max())
            gaps = np.where(inside, np.inf, distances[:, inside].min(axis=1))
            ratio = float(gaps.min()) / max(inner, LEAST_PART)
            if ratio > best[0]:
                best = ratio, gaps, inner
        joined = (group == group[one]) | (group == group[other])
        group[joined], longest[joined] = group[one], distances[one, other]
    ratio, gaps, inner = best
    if ratio < NAMED_RATIO:
        return []
    return [
        Unlike(int(index), float(gaps[index]), inner, True, ratio >= PART_RATIO)
        for index in np.flatnonzero(np.isfinite(gaps))
    ]


def _odd_places(nearest: Float32Array) -> list[Unlike]:
    """The shots that the others say nothing like some places of."""
    found = []
    every = np.arange(len(nearest))
    for index in every:
        others = np.delete(every, index)
        own = _worst(nearest[index, others])
        theirs = max(_worst(nearest[one, others[others != one]]) for one in others)
        ratio = own / max(theirs, LEAST_PLACE)
        if ratio >= NAMED_RATIO:
            found.append(Unlike(int(index), own, theirs, False, ratio >= place_ratio(len(nearest))))
    return found


def _worst(distances: Float32Array) -> float:
    """The mean distance of the worst patches, as a patch score, from ``[others, P]``."""
    return float(np.sort(distances.min(axis=0))[-WORST_PATCHES:].mean())
