"""What is measured of a place in a small picture: brightness, colour, fine detail.

All values are grey levels of 0 to 255, or differences of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsad_edge.options import Choice
from fsad_edge.runtime.arrays import BoolArray, Float32Array, Float64Array, UInt8Array

#: Of the pixels of a place so many percent are its darkest, its brightest, its reddest.
TAIL = 5

#: Weights of red, green and blue in brightness (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)


class Quantity(Choice):
    """What is compared.

    ``red`` is red minus green, ``blue`` is blue minus the mean of both.
    """

    BRIGHTNESS = "brightness"
    RED = "red"
    BLUE = "blue"
    DETAIL = "detail"


class Part(Choice):
    """Of which pixels of a place: their mean, or the twentieth that has the most or the least."""

    MEAN = "mean"
    MOST = "most"
    LEAST = "least"


@dataclass(frozen=True)
class Measure:
    """One measure of a place.

    Attributes:
        quantity: what is measured.
        part: of which pixels.
        noticed: a difference of a third of this is taken for none, grey levels.
    """

    quantity: Quantity
    part: Part
    noticed: float


#: All measures, in the order of :func:`measured`.
MEASURES = (
    *(
        Measure(quantity, part, noticed * (1.0 if part is Part.MEAN else 1.6))
        for quantity, noticed in (
            (Quantity.BRIGHTNESS, 6.0), (Quantity.RED, 6.0), (Quantity.BLUE, 6.0),
        )
        for part in Part
    ),
    Measure(Quantity.DETAIL, Part.MEAN, 3.0),
)  # fmt: skip


def measured(picture: UInt8Array, place: BoolArray) -> Float64Array:
    """The measures of a place, float64 ``[len(MEASURES)]``.

    Args:
        picture: uint8 ``[h, w, 3]``.
        place: bool ``[h, w]``, its pixels; at least one.

    Example:
        >>> import numpy as np
        >>> grey = np.full((8, 8, 3), 100, np.uint8)
        >>> measured(grey, np.ones((8, 8), np.bool_))[0].round().item()
        100.0
    """
    red, green, blue = np.moveaxis(picture.astype(np.float32), 2, 0)
    light = np.tensordot(picture.astype(np.float32), np.array(LUMA, np.float32), 1)
    fields = (light, red - green, blue - (red + green) / 2)
    values: list[float] = []
    for field in fields:
        values.append(float(field[place].mean()))
        # Single pixels are noise: those of a spot have others of its kind beside them.
        least, most = np.percentile(_smoothed(field)[place], [TAIL, 100 - TAIL])
        values += [float(most), float(least)]
    # The median, so that it is the whole place and not the edge of a spot that is rough.
    values.append(float(np.median(np.abs(light - _smoothed(light))[place])))
    return np.array(values)


def _smoothed(field: Float32Array) -> Float32Array:
    """The means over 3 x 3 pixels, float32 ``[h, w]``."""
    height, width = field.shape
    padded = np.pad(field, 1, mode="edge")
    shifts = [
        padded[down : down + height, across : across + width]
        for down in range(3)
        for across in range(3)
    ]
    means: Float32Array = np.mean(shifts, axis=0, dtype=np.float32)
    return means
