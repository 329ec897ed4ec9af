"""The image sizes and strides that ``finetune`` chooses among."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: Image sizes that are tried, pixels: each takes about twice as long as the one before it.
SIZES = (224, 320, 448, 640)

#: The largest of them that is tried with strides 8 and 16 together, pixels.
LARGEST_FINE_SIZE = 448


@dataclass(frozen=True)
class Shape:
    """One input size and the strides of the feature maps that are used.

    Attributes:
        side: side of the square input, pixels.
        strides: strides of the feature maps, pixels.
    """

    side: int
    strides: tuple[int, ...]


def sizes_to_try(image_size: int | None, photographs: Sequence[tuple[int, int]]) -> list[int]:
    """The image sizes to try, ascending.

    A size with more pixels than the photographs have is left out, unless the user asks for it: an
    enlarged photograph shows nothing new.

    Args:
        image_size: the side that the user asks for, pixels; None chooses.
        photographs: width and height of each shot, pixels.
    """
    if image_size is not None:
        return [image_size]
    pixels = statistics.median(width * height for width, height in photographs)
    return [SIZES[0], *(size for size in SIZES[1:] if size * size <= pixels)]


def shapes_to_try(
    sizes: Sequence[int], strides: Sequence[int] | None, offered: Sequence[int]
) -> list[Shape]:
    """Input sizes and strides to try, from the fastest to the slowest.

    Args:
        sizes: sides of the input, ascending, pixels.
        strides: the strides that the user asks for; None chooses.
        offered: the strides that the backbone has, ascending.
    """
    if strides is not None:
        few = [size for size in sizes if size <= LARGEST_FINE_SIZE or min(strides) >= 16]
        return [Shape(size, tuple(strides)) for size in few or sizes[:1]]
    coarse = max((stride for stride in offered if stride <= 32), default=min(offered))
    single = 16 if 16 in offered else coarse
    fitting = [size for size in sizes if size % single == 0] or list(sizes[:1])
    shapes = [Shape(size, (single,)) for size in fitting]
    if len(fitting) > 1 and 8 in offered and single == 16:
        # Small parts need a finer map, and pixels to fill it; still more pixels would be too slow.
        side = max(size for size in fitting if size <= LARGEST_FINE_SIZE)
        shapes.insert(fitting.index(side) + 1, Shape(side, (8, 16)))
    return shapes
