"""Defects drawn into a photograph, which are then the same at every size of the model's input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.side_by_side import fraction_of, side_by_side
from fsad_edge.synthesis.defects import add_defect
from fsad_edge.synthesis.part_area import PartArea, find_part
from fsad_edge.synthesis.views import generators

Int16Array = npt.NDArray[np.int16]

#: A defect is drawn in a square window of the photograph, of a fifth of whose side it mostly is.
#: The window's side is between these fractions of the part's extent, all scales alike.
SMALLEST, LARGEST = 0.3, 2.0

#: The least side of a window, pixels of the photograph: defects are then about 6 pixels long, which
#: is the least that a person sees.
LEAST_WINDOW = 32

#: A larger window is drawn at this many pixels, which no model resolves better.
MOST_PIXELS = 512

#: The least share of a defect that must lie on the part, and how often another is drawn for that.
ON_PART, ATTEMPTS = 0.5, 8


@dataclass(frozen=True)
class DrawnDefect:
    """What a defect changes in a photograph.

    Attributes:
        change: int16 ``[h, w, 3]``, what is added to the pixels; 0 around the defect.
        box: left, top, right and bottom of the region that ``change`` covers, as fractions of the
            photograph's width and height.
    """

    change: Int16Array
    box: tuple[float, float, float, float]

    def onto(self, image: UInt8Array) -> UInt8Array:
        """The photograph at a model's size, with the defect.

        A photograph is brought to the model's size by a linear filter, so that the defect can be
        resized alone and added.

        Args:
            image: uint8 ``[H, W, 3]``, the whole photograph.

        Returns:
            uint8 ``[H, W, 3]``.
        """
        height, width = image.shape[:2]
        left, top, right, bottom = np.array(self.box) * (width, height, width, height)
        # The whole pixels of the image that it reaches, and one more for the filter.
        x0, x1 = max(math.floor(left) - 1, 0), min(math.ceil(right) + 1, width)
        y0, y1 = max(math.floor(top) - 1, 0), min(math.ceil(bottom) + 1, height)
        change = _resample(self.change, (left, top, right, bottom), (x0, y0, x1, y1))
        result: UInt8Array = image.copy()
        region = result[y0:y1, x0:x1]
        region[:] = (region + change).round().clip(0, 255)
        return result


def _resample(
    change: Int16Array, here: tuple[float, ...], there: tuple[int, int, int, int]
) -> Float32Array:
    """Values that cover one rectangle, on the pixels of another one: float32 ``[y, x, 3]``."""
    height, width = change.shape[:2]
    left, top, right, bottom = here
    x0, y0, x1, y1 = there
    across, down = width / (right - left), height / (bottom - top)
    box = np.array(
        [(x0 - left) * across, (y0 - top) * down, (x1 - left) * across, (y1 - top) * down]
    )
    # Room for what lies outside, where nothing changes.
    pad = math.ceil(max(-box[0], -box[1], box[2] - width, box[3] - height, 0.0))
    padded = np.pad(change, ((pad, pad), (pad, pad), (0, 0))).astype(np.float32)
    size = x1 - x0, y1 - y0
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(padded[..., channel])).resize(
                size, Image.Resampling.BILINEAR, box=tuple(box + pad)
            )
        )
        for channel in range(3)
    ]
    return np.stack(channels, axis=2)


def draw_defects(
    photograph: UInt8Array,
    count: int,
    rng: np.random.Generator,
    workers: int = 0,
    on_progress: Callable[[float], None] = lambda done: None,
) -> list[DrawnDefect]:
    """Defects on the part that a photograph shows, each for an image of its own.

    They are drawn in the photograph's own pixels, on the part, and as large as defects of such a
    part are: where a part is small in a large photograph, they are a few pixels.

    Args:
        photograph: uint8 ``[H, W, 3]``.
        count: how many.
        rng: the random generator.
        workers: how many are drawn at a time; 0 takes as many as this process has cores.
        on_progress: called with the fraction that is done.
    """
    area = find_part(photograph)
    return side_by_side(
        lambda own: _draw(photograph, area, own),
        generators(rng, count),
        workers,
        fraction_of(on_progress, count),
    )


def _draw(photograph: UInt8Array, area: PartArea, rng: np.random.Generator) -> DrawnDefect:
    height, width = photograph.shape[:2]
    best, most = None, -1.0
    for _ in range(ATTEMPTS):
        side = area.extent * math.exp(rng.uniform(math.log(SMALLEST), math.log(LARGEST)))
        side = round(min(max(side, LEAST_WINDOW), height, width))
        x, y = area.place(rng)
        left = min(max(round(x - side / 2), 0), width - side)
        top = min(max(round(y - side / 2), 0), height - side)
        window = photograph[top : top + side, left : left + side]
        if side > MOST_PIXELS:
            shrunk = Image.fromarray(window).resize((MOST_PIXELS,) * 2, Image.Resampling.BOX)
            window = np.asarray(shrunk)
        changed, mask = add_defect(window, rng)
        box = left, top, left + side, top + side
        share = area.share(box, mask)
        if share > most:
            best, most = _cropped(changed.astype(np.int16) - window, box, (width, height)), share
        if share >= ON_PART:
            break
    assert best is not None
    return best


def _cropped(
    change: Int16Array, box: tuple[int, int, int, int], size: tuple[int, int]
) -> DrawnDefect:
    """A change without the rows and columns around it in which nothing changes."""
    rows, columns = (np.flatnonzero((change != 0).any(axis=(other, 2))) for other in (1, 0))
    if not len(rows):
        rows = columns = np.array([0])
    bounds = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
    scale = (box[2] - box[0]) / change.shape[0]
    left, top, right, bottom = bounds * scale + (box[0], box[1], box[0], box[1])
    width, height = size
    kept = change[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return DrawnDefect(kept.copy(), (left / width, top / height, right / width, bottom / height))
