"""How many bits the samples of a 16-bit image need, whatever a few bright pixels say.

A label, a timestamp or a hot pixel is often at 65535 in a photograph of 12 bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fsad_edge.runtime.arrays import IndexArray

#: No camera has more bits than this and fewer than 16, so that 16-bit samples of which many need
#: more are taken for the whole 16 bits.
MOST_CAMERA_BITS = 14

#: Bits that cameras have, for a guess.
CAMERA_BITS = (8, 10, 12, 14)

#: The highest value: saturated or drawn. It says nothing unless more samples than this have it.
_TOP, _MOSTLY_TOP = 65535, 0.5

#: A share of bright samples that may be a label or reflections.
_LABEL = 0.1

#: A share of samples that is more than hot pixels and the edges of a label.
_STRAY, _STRAY_COUNT = 0.001, 8

#: Filters overshoot by less than this.
_OVERSHOOT = 1.25


@dataclass(frozen=True)
class Brightness:
    """The bits of unsigned 16-bit samples.

    Attributes:
        most: the highest value of all.
        bits: that hold the samples, but for a label and single bright pixels.
        fills: the samples are surely of 16 bits.
    """

    most: int
    bits: int
    fills: bool

    @property
    def camera_bits(self) -> int:
        """Bits of a camera that this may be of."""
        return next((camera for camera in CAMERA_BITS if self.bits <= camera), 16)


def brightness(counts: IndexArray) -> Brightness:
    """Judge samples of an image, unsigned and of 16 bits.

    Args:
        counts: how many of them have each value, intp ``[65536]``.
    """
    most = int(np.flatnonzero(counts)[-1])
    above = counts[::-1].cumsum()[::-1]  # how many have at least each value
    size, at_top = int(above[0]), int(counts[_TOP])
    if at_top > _MOSTLY_TOP * size:
        return Brightness(most, 16, True)
    rest = size - at_top

    def count(least: float) -> int:
        return int(above[math.ceil(least)]) - at_top if least <= most else 0

    few = max(_STRAY_COUNT, _STRAY * rest)
    bits = 8
    while bits < 16 and count(2**bits) > _LABEL * rest:
        bits += 1
    # Values that go on above without a gap belong to the photograph, even if they are few.
    while bits < 16 and count(2**bits * _OVERSHOOT) - count(2 ** (bits + 1)) > few:
        bits += 1
    return Brightness(most, bits, count(2**MOST_CAMERA_BITS) > _LABEL * rest)
