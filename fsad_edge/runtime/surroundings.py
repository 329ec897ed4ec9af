"""Dirt beside the part: specks on the ground are painted over with the ground.

Dust beside a part is as plain as a defect on it, and says nothing about it. So what lies on the
ground without touching the part is replaced by the ground's fitted surface, in shots and in images
alike. All else stays as photographed: the ground with its noise, the part's shadow, and what
touches the part, because a burr, a bent end or a splinter belongs to it. What lies in a hole stays
too: it may be what blocks it, and no rule tells that from dirt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from fsad_edge.runtime.arrays import BoolArray, Float32Array, IndexArray, UInt8Array
from fsad_edge.runtime.ground import distances, without_ground
from fsad_edge.runtime.placement import Placement
from fsad_edge.runtime.regions import closed, connected_regions, filled, grown

#: Pixels of the fine copy of the rectangle, on which the part is told from what lies close to it.
PIXELS = 128 * 128

#: Gaps in the part of up to twice this many pixels of the fine copy are closed.
GAP = 1

#: What touches no larger piece is itself a piece of the part where it has at least this share of
#: the largest one's area, where the part was found. Anything smaller is dirt.
PIECE = 0.05

#: Each level on which dirt is told from the part is so many times as far from the ground as the one
#: before, and a speck must rise above its level by as much.
RISE = 1.5

#: No level is higher than this share of the part's usual distance from the ground: above, the part
#: itself falls into pieces.
HIGHEST = 0.5

#: Pixels of the fine copy around dirt that belong to it.
SKIRT = 2

#: Standard deviation of the blur between the photograph and the paint, pixels of the fine copy: a
#: sharp edge would be seen as one.
SOFT = 1.2

#: Points along a side at which the surface of the ground is taken; it is smooth.
POINTS = 24


@dataclass(frozen=True)
class Surroundings:
    """What a photograph shows around its part, on the small copy.

    Attributes:
        region: bool ``[h, w]``, the part as found, its gaps and holes closed.
        ground: float32 ``[h, w, 3]``, the ground as if nothing lay on it.
        whitening: float32 ``[3, 3]``.
        limit: a pixel that is farther from the ground is not ground.
    """

    region: BoolArray
    ground: Float32Array
    whitening: Float32Array
    limit: float

    def painted(self, cut: UInt8Array, placement: Placement) -> UInt8Array:
        """What a rectangle shows, without specks beside the part.

        Args:
            cut: uint8 ``[H, W, 3]``, what the rectangle shows, at any resolution.
            placement: the rectangle in the photograph.

        Returns:
            uint8 ``[H, W, 3]``; the same array where there are none.
        """
        picture, size = Image.fromarray(cut), (cut.shape[1], cut.shape[0])
        ground = Image.fromarray(self._ground_at(placement))
        part, dirt = part_and_dirt(*self._looked_at(picture, ground, placement))
        if not dirt.any():
            return cut
        covered = grown(dirt, SKIRT) & ~part
        over = Image.fromarray(covered * np.uint8(255)).filter(ImageFilter.GaussianBlur(SOFT))
        over = over.resize(size, Image.Resampling.BILINEAR)
        ground = ground.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(Image.composite(ground, picture, over))

    def lost(self, cut: UInt8Array, placement: Placement) -> float:
        """How much of what was found as the part would be painted over, as a share of it.

        Args:
            cut, placement: as of :meth:`painted`.
        """
        ground = Image.fromarray(self._ground_at(placement))
        apart, region = self._looked_at(Image.fromarray(cut), ground, placement)
        _, dirt = part_and_dirt(apart, region)
        return float((region & dirt).sum() / max(int(region.sum()), 1))

    def _looked_at(
        self, cut: Image.Image, ground: Image.Image, placement: Placement
    ) -> tuple[Float32Array, BoolArray]:
        """A fine copy's distances from the ground, in limits, and the part as found there."""
        factor = min(1.0, math.sqrt(PIXELS / (cut.width * cut.height)))
        size = max(1, round(cut.width * factor)), max(1, round(cut.height * factor))
        fine = np.asarray(cut.resize(size, Image.Resampling.BOX), np.float32)
        surface = np.asarray(ground.resize(size, Image.Resampling.BILINEAR), np.float32)
        apart = distances(without_ground(fine, surface), self.whitening) / np.float32(self.limit)
        region = placement.warp(Image.fromarray(self.region * np.uint8(255)), size)
        return apart, np.asarray(region) > 127

    def _ground_at(self, placement: Placement) -> UInt8Array:
        """The ground in a rectangle, uint8 ``[POINTS, POINTS, 3]``; it goes on as at the border."""
        height, width = self.region.shape
        places = (np.arange(POINTS) + 0.5) / POINTS
        v, u = np.meshgrid(places, places, indexing="ij")
        x, y = placement.to_photograph(u, v)
        across, down = placement.photograph
        column = np.clip(x * width / across, 0, width - 1).astype(np.intp)
        row = np.clip(y * height / down, 0, height - 1).astype(np.intp)
        values: UInt8Array = self.ground[row, column].round().clip(0, 255).astype(np.uint8)
        return values


def part_and_dirt(apart: Float32Array, region: BoolArray) -> tuple[BoolArray, BoolArray]:
    """The part with what touches it, and the specks beside it.

    A shadow joins dirt to the part. So that dirt is told from it all the same, what is not ground
    is looked at on several levels: a speck is dirt where only what is nearer to the ground by the
    factor ``RISE`` joins it to the part.

    Args:
        apart: float32 ``[h, w]``, distances from the ground; what is above 1 is not ground.
        region: bool ``[h, w]``, about where the part is.

    Returns:
        bool ``[h, w]`` each; the part has no holes, and around such a speck it is no part.
    """
    part, dirt = region, np.zeros_like(region)
    level, highest = 1.0, 1.0
    while level <= highest:
        numbers, sizes = connected_regions(closed(apart > level, GAP))
        within = np.bincount(numbers[region], minlength=len(sizes))
        within[0] = 0
        large = (within >= PIECE * within.max()) & (within > 0)
        if not large.any():
            break
        own = filled(large[numbers])
        specks = (numbers > 0) & ~own
        if level == 1:
            highest = HIGHEST * float(np.median(apart[own]))
            part, dirt = own, specks
        elif not large[1:].all():
            joined = specks & _reaching(numbers, apart, RISE * level)
            part = part & ~grown(joined, SKIRT) | own
            dirt |= joined
        level *= RISE
    return part, dirt


def _reaching(numbers: IndexArray, apart: Float32Array, level: float) -> BoolArray:
    """The regions of which a pixel is above a level."""
    reaching = np.bincount(numbers[apart > level], minlength=int(numbers.max()) + 1) > 0
    return reaching[numbers]
