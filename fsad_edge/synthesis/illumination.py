"""The same photograph under other lighting: aged lamps, sunlight, another exposure."""

from __future__ import annotations

import math

import numpy as np

from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.synthesis.views import to_bytes

#: Natural logarithms of the largest factors of gamma, contrast and brightness.
GAMMA, CONTRAST, GAIN = 0.5, 0.5, 0.7

#: Largest change of brightness from the centre to an edge, as a fraction.
SLOPE = 0.4

#: Largest standard deviation of sensor noise, in grey levels of 0 to 255.
NOISE = 8.0


def relight(image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """An image under other lighting; nothing in it moves.

    The changes are much larger than those of :func:`~fsad_edge.synthesis.views.random_view`: these
    images show how features change with the lighting, not how a good part may look.

    Args:
        image: uint8 ``[H, W, 3]``.
        rng: the random generator.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    # An image has 256 levels: what becomes of each is computed once.
    levels = 255 * (np.arange(256) / 255) ** math.exp(rng.uniform(-GAMMA, GAMMA))
    pixels = levels.astype(np.float32)[image]
    middle = pixels.mean()
    contrast, gain = (math.exp(rng.uniform(-most, most)) for most in (CONTRAST, GAIN))
    # ((pixels - middle) * contrast + middle) * gain, in one step each over many pixels
    pixels *= np.float32(contrast * gain)
    pixels += np.float32(middle * (1 - contrast) * gain)
    angle = rng.uniform(0, 2 * math.pi)
    down, across = np.meshgrid(
        *(np.linspace(-1, 1, side) for side in image.shape[:2]), indexing="ij"
    )
    slope = rng.uniform(0, SLOPE) * (math.cos(angle) * across + math.sin(angle) * down)
    pixels *= (1 + slope)[..., None].astype(np.float32)
    pixels += np.float32(rng.uniform(0, NOISE)) * rng.standard_normal(pixels.shape, np.float32)
    return to_bytes(pixels)
