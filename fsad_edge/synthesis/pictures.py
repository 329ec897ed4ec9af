"""Pictures of nothing in particular: what an image may show that is not the part.

They have what photographs of the world have in common: things that hide one another (dead leaves;
Lee, Mumford and Huang 2001), amplitudes that fall with the frequency (Field 1987), grain along a
direction, and patterns. No data set is needed, and the same are drawn each time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fsad_edge.runtime.arrays import Float64Array, UInt8Array

#: Smallest and largest radius of leaves, as fractions of the side, and their number.
RADII, LEAVES = ((0.01, 0.1), (0.02, 0.3), (0.05, 0.5)), 400

#: Exponents by which amplitudes fall with the frequency; mean and standard deviation of the values.
SLOPES, LEVELS = (0.7, 1.0, 1.4), ((70, 20), (128, 35), (190, 25))

#: Directions of grain in radians, and its length over its width.
DIRECTIONS, LENGTH = (0.0, math.pi / 4, math.pi / 2), 8

#: Periods of patterns, as fractions of the side.
PERIODS = (0.05, 0.15, 0.3)


def other_pictures(height: int, width: int) -> list[UInt8Array]:
    """The pictures, uint8 ``[height, width, 3]`` each.

    Example:
        >>> pictures = other_pictures(64, 96)
        >>> len(pictures), pictures[0].shape
        (24, (64, 96, 3))
    """
    rng = np.random.default_rng(0)
    pictures = [
        _leaves(height, width, radii, colours, rng) for radii in RADII for colours in (False, True)
    ]
    noise = np.fft.rfft2(rng.normal(size=(height, width)))
    for slope in SLOPES:
        pictures += [_texture(noise, width, slope, level) for level in LEVELS]
    for slope in (SLOPES[0], SLOPES[-1]):
        pictures += [_texture(noise, width, slope, LEVELS[1], angle) for angle in DIRECTIONS]
    places = np.indices((height, width)) / min(height, width)
    for period in PERIODS:
        waves = np.sin(2 * math.pi / period * places)
        pictures.append(_grey(128 + 60 * np.sign(waves.prod(axis=0))))
    return pictures


def _leaves(
    height: int, width: int, radii: tuple[float, float], colours: bool, rng: np.random.Generator
) -> UInt8Array:
    """Discs of random size, place and colour, each over those before it."""
    image = Image.new("RGB", (width, height), (128, 128, 128))
    draw = ImageDraw.Draw(image)
    low, high = np.log(radii).tolist()
    for radius in min(height, width) * np.exp(rng.uniform(low, high, LEAVES)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        red, green, blue = rng.integers(0, 256, 3)
        colour = (int(red), int(green), int(blue)) if colours else (int(red),) * 3
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
    return np.asarray(image)


def _texture(
    noise: Any, width: int, slope: float, level: tuple[float, float], angle: float | None = None
) -> UInt8Array:
    """Noise whose amplitude falls with the frequency, drawn out along a direction."""
    height = len(noise)
    down: Any = np.fft.fftfreq(height)[:, None]
    right: Any = np.fft.rfftfreq(width)
    if angle is None:
        frequency = np.hypot(right, down)
    else:
        along = right * math.cos(angle) + down * math.sin(angle)
        across = down * math.cos(angle) - right * math.sin(angle)
        frequency = np.hypot(LENGTH * along, across)
    frequency[0, 0] = np.inf  # the mean is set below
    field: Float64Array = np.fft.irfft2(noise * frequency**-slope, (height, width))
    mean, deviation = level
    return _grey(mean + deviation * field / field.std())


def _grey(values: Float64Array) -> UInt8Array:
    """An image uint8 ``[H, W, 3]`` from values ``[H, W]``."""
    levels: UInt8Array = values.clip(0, 255).round().astype(np.uint8)[:, :, None]
    return levels.repeat(3, axis=2)
