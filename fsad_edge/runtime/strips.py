"""An image a few rows at a time, so that its pixels are never held twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from fsad_edge.runtime.arrays import AnyArray, UInt8Array

#: Pixels of a strip: enough to hide what a strip costs, few enough for the processor's cache.
PIXELS = 1 << 18


def strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The strips of a loaded image from the top, each with its first row."""
    width, height = image.size
    rows = max(1, PIXELS // width)
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def strip_arrays(image: Image.Image) -> Iterator[tuple[int, AnyArray]]:
    """The same as arrays."""
    return ((top, np.asarray(strip)) for top, strip in strips(image))


def as_rgb(image: Image.Image) -> UInt8Array:
    """A loaded image as uint8 ``[H, W, 3]``, as ``np.asarray(image.convert("RGB"))`` is."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top, strip in strips(image):
        pixels[top : top + strip.height] = np.asarray(strip.convert("RGB"))
    return pixels


def in_strips(
    image: Image.Image, mode: str, change: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """A new image of what is made of each strip.

    Args:
        image: loaded.
        mode: of the result.
        change: makes a strip of the result, in its mode, of one of the image.
    """
    result = Image.new(mode, image.size)
    for top, strip in strips(image):
        result.paste(change(strip), (0, top))
    return result
