"""Features of large images, computed tile by tile.

A network needs memory for all its maps of an image at once. Cut into tiles that overlap, a large
image takes the memory of one tile and about as much time as whole, and its map is the same but for
what the border of a tile changes: with ``OVERLAP`` pixels, the cosine distance of a patch from the
one of the whole image was 0.0002 on the mean with the bundled encoder ``accurate``, where the
nearest other patch of the image was at 0.10 (a carpet, 2,048 pixels).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

#: An image with more pixels than a square of this side is cut into tiles.
LARGEST_WHOLE = 1024

#: Side of a tile, and how far neighbours overlap at least, pixels, as far as whole strides allow.
TILE, OVERLAP = 768, 128


@dataclass(frozen=True)
class Span:
    """One tile along one axis.

    Attributes:
        start: its first pixel.
        first, last: of its cells, those that are used, ``last`` excluded.
    """

    start: int
    first: int
    last: int


def is_tiled(height: int, width: int) -> bool:
    """Whether an image of this size is cut into tiles.

    Example:
        >>> is_tiled(1024, 1024), is_tiled(1536, 2048)
        (False, True)
    """
    return height * width > LARGEST_WHOLE**2


def tile_size(height: int, width: int, step: int) -> tuple[int, int]:
    """Height and width of what goes through the network at once: a tile, or the whole image.

    Args:
        height: height of the image, pixels, a multiple of ``step``.
        width: likewise.
        step: the largest stride of the maps, pixels.

    Example:
        >>> tile_size(1024, 1024, 16), tile_size(2048, 512, 16)
        ((1024, 1024), (2048, 512))
        >>> tile_size(2048, 2048, 16), tile_size(4096, 512, 14)
        ((768, 768), (756, 512))
    """
    if not is_tiled(height, width):
        return height, width
    side = TILE // step * step
    return min(height, side), min(width, side)


def spans(length: int, tile: int, stride: int, step: int) -> list[Span]:
    """The tiles along one axis. Neighbours share an overlap, and each gives its half of it.

    Args:
        length: of the image, pixels, a multiple of ``step``.
        tile: of a tile, pixels, a multiple of ``step``.
        stride: of the map, pixels.
        step: tiles begin at multiples of it, pixels: the largest stride of the maps.

    Example:
        >>> spans(2048, 768, 16, 16)
        [Span(start=0, first=0, last=44), Span(start=640, first=4, last=44), \
Span(start=1280, first=4, last=48)]
    """
    count = math.ceil((length - OVERLAP) / (tile - OVERLAP)) if length > tile else 1
    places = np.linspace(0, (length - tile) // step, count)
    starts = [int(place) * step for place in places]
    between = [(before + tile + after) // 2 // stride for before, after in pairwise(starts)]
    edges = [0, *between, length // stride]
    return [
        Span(start, first - start // stride, last - start // stride)
        for start, first, last in zip(starts, edges[:-1], edges[1:], strict=True)
    ]
