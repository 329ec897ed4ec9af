"""Where the part is in a photograph, so that defects are drawn on it and at its own scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from fsad_edge.runtime.arrays import BoolArray, Float32Array, UInt8Array

#: Longer side of the small image that is looked at, pixels.
SIDE = 160

#: Width of the border that shows the ground, as a fraction of the shorter side.
BORDER = 0.04

#: The largest share of the border that may differ from the ground: more is no plain ground.
BORDER_MAY_DIFFER = 0.05

#: How many times as far from the ground's colour as nearly all of the border a part is, and the
#: least such difference, grey levels: noise and compression make less of nothing.
CLEARLY, LEAST = 3.0, 6.0


@dataclass(frozen=True)
class PartArea:
    """The place of a part in its photograph.

    Attributes:
        mask: bool ``[h, w]``, a small image of the whole photograph: True where the part is. All
            True where no plain ground was found, as on a surface that fills the photograph.
        size: width and height of the photograph, pixels.
    """

    mask: BoolArray
    size: tuple[int, int]

    @property
    def extent(self) -> float:
        """Side of a square as large as the part, pixels of the photograph."""
        return math.sqrt(float(self.mask.mean()) * self.size[0] * self.size[1])

    def place(self, rng: np.random.Generator) -> tuple[float, float]:
        """A random point of the part: x and y in pixels of the photograph."""
        rows, columns = np.nonzero(self.mask)
        index = int(rng.integers(len(rows)))
        (width, height), (h, w) = self.size, self.mask.shape
        x = (columns[index] + rng.random()) * width / w
        return float(x), float((rows[index] + rng.random()) * height / h)

    def share(self, box: tuple[int, int, int, int], changed: BoolArray) -> float:
        """The share of some changed pixels that lie on the part.

        Args:
            box: left, top, right and bottom of the region that ``changed`` shows, pixels of the
                photograph.
            changed: bool ``[h, w]``, at any resolution.
        """
        rows, columns = np.nonzero(changed)
        if not len(rows):
            return 0.0
        left, top, right, bottom = box
        x = left + (columns + 0.5) * (right - left) / changed.shape[1]
        y = top + (rows + 0.5) * (bottom - top) / changed.shape[0]
        (width, height), (h, w) = self.size, self.mask.shape
        on_part = self.mask[
            np.minimum((y * h / height).astype(int), h - 1),
            np.minimum((x * w / width).astype(int), w - 1),
        ]
        return float(on_part.mean())


def find_part(photograph: UInt8Array) -> PartArea:
    """Find a part that lies on a plain ground.

    The ground is what the border of the photograph shows. The part is what differs from its colour
    by more than the border itself does. Where much of the border differs, there is no plain ground,
    and the whole photograph counts as the part.

    Args:
        photograph: uint8 ``[H, W, 3]``.

    Example:
        >>> import numpy as np
        >>> photograph = np.full((100, 100, 3), 200, np.uint8)
        >>> photograph[40:60, 30:70] = 50
        >>> round(find_part(photograph).extent)
        28
    """
    height, width = photograph.shape[:2]
    small = _shrink(photograph)
    h, w = small.shape[:2]
    border = np.ones((h, w), bool)
    inset = max(2, round(BORDER * min(h, w)))
    border[inset:-inset, inset:-inset] = False
    apart = np.abs(small - np.median(small[border], axis=0)).max(axis=2)
    limit = min(max(CLEARLY * float(np.quantile(apart[border], 0.9)), LEAST), _otsu(apart))
    mask = apart > limit
    if mask[border].mean() > BORDER_MAY_DIFFER:
        return PartArea(np.ones((h, w), bool), (width, height))
    mask = _tidy(mask)
    return PartArea(mask if mask.any() else np.ones((h, w), bool), (width, height))


def _shrink(photograph: UInt8Array) -> Float32Array:
    height, width = photograph.shape[:2]
    factor = min(1.0, SIDE / max(height, width))
    size = max(8, round(width * factor)), max(8, round(height * factor))
    shrunk = Image.fromarray(photograph).resize(size, Image.Resampling.BOX)
    return np.asarray(shrunk, np.float32)


def _otsu(values: Float32Array) -> float:
    """The value that best separates two classes (Otsu 1979, IEEE Trans. SMC 9, 62-66)."""
    counts, edges = np.histogram(values, 256, (0.0, max(float(values.max()), 1e-6)))
    share = np.cumsum(counts) / values.size
    mean = np.cumsum(counts * (edges[:-1] + edges[1:]) / 2) / values.size
    weight = share * (1 - share)
    between = np.where(weight > 0, (mean[-1] * share - mean) ** 2 / np.maximum(weight, 1e-12), 0)
    return float(edges[int(between.argmax()) + 1])


def _tidy(mask: BoolArray) -> BoolArray:
    """The same without single pixels, which are dust, and with gaps of a pixel or two closed."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    closed = image.filter(ImageFilter.MaxFilter(5)).filter(ImageFilter.MinFilter(5))
    opened = closed.filter(ImageFilter.MinFilter(3)).filter(ImageFilter.MaxFilter(3))
    return np.asarray(opened) > 0
