"""Augmented views: the same part as a camera on a production line might photograph it again.

The defaults do not change how a defect looks: there is no blur that would hide a scratch, no change
of colour that would look like a stain, and no crop that would cut a defect off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from PIL import Image

from fsad_edge.runtime.arrays import Float32Array, Float64Array, UInt8Array
from fsad_edge.runtime.documents import Range
from fsad_edge.runtime.images import resize

Fraction = Annotated[float, Range(0, 0.9)]


@dataclass(frozen=True)
class Views:
    """How far a view may differ from its shot.

    Attributes:
        rotate: largest rotation in either direction, degrees; 180 for parts that lie at any angle.
        flip: mirror left-right and top-bottom, each with a probability of one half.
        shift: largest shift, as a fraction of the side.
        zoom: largest change of size, as a fraction.
        brightness: largest change of brightness, as a fraction.
        contrast: largest change of contrast, as a fraction.
        noise: standard deviation of sensor noise, in grey levels of 0 to 255.
    """

    rotate: Annotated[float, Range(0, 180)] = 2.0
    flip: bool = False
    shift: Fraction = 0.03
    zoom: Fraction = 0.03
    brightness: Fraction = 0.08
    contrast: Fraction = 0.08
    noise: Annotated[float, Range(0, 255)] = 1.5


@dataclass(frozen=True)
class Motion:
    """How a part lies in a view: it is turned and enlarged about the image's centre, then moved.

    Attributes:
        angle: clockwise, radians.
        scale: factor of its size.
        right, down: by how much it is moved, as fractions of the image's width and height.
    """

    angle: float
    scale: float = 1.0
    right: float = 0.0
    down: float = 0.0

    @property
    def linear(self) -> Float64Array:
        """Which way of the shot is a way of the view: float64 ``[2, 2]``, for pixels (x, y)."""
        cos, sin = math.cos(self.angle) / self.scale, math.sin(self.angle) / self.scale
        return np.array([[cos, sin], [-sin, cos]])


def draw_motion(views: Views, rng: np.random.Generator) -> Motion:
    """A motion within the ranges of the views."""
    angle = math.radians(rng.uniform(-views.rotate, views.rotate))
    scale = 1 + rng.uniform(-views.zoom, views.zoom)
    right, down = rng.uniform(-views.shift, views.shift, 2)
    return Motion(angle, scale, right, down)


def draw_mirroring(views: Views, rng: np.random.Generator) -> tuple[bool, bool]:
    """Whether a view is mirrored top-bottom, and left-right."""
    if not views.flip:
        return False, False
    return bool(rng.choice([1, -1]) < 0), bool(rng.choice([1, -1]) < 0)


def draw_exposure(views: Views, rng: np.random.Generator) -> tuple[float, float]:
    """The factors of contrast and of brightness of a view."""
    gain = 1 + rng.uniform(-views.contrast, views.contrast)
    return gain, 1 + rng.uniform(-views.brightness, views.brightness)


def generators(rng: np.random.Generator, count: int) -> list[np.random.Generator]:
    """Random generators of their own, for images that are made at the same time.

    What is drawn with each depends on ``rng`` alone, and not on which of them is done first.
    """
    return [np.random.default_rng(seed) for seed in rng.integers(2**63, size=count)]


def random_view(
    image: UInt8Array, height: int, width: int, views: Views, rng: np.random.Generator
) -> UInt8Array:
    """One augmented view of an image, at the model's size.

    The image is rotated at twice the model's size and then resized like any image, so that a view
    is as sharp as a photograph. The photograph is mirrored at its borders.

    Args:
        image: uint8 ``[H, W, 3]``, of any size.
        height: height of the view, pixels.
        width: width of the view, pixels.
        views: how far the view may differ.
        rng: the random generator.

    Returns:
        uint8 ``[height, width, 3]``.
    """
    view = _affine(resize(image, 2 * height, 2 * width), draw_motion(views, rng))
    view = resize(view, height, width)
    upside_down, reversed_ = draw_mirroring(views, rng)
    view = view[:: -1 if upside_down else 1, :: -1 if reversed_ else 1]
    return exposed_again(view, views, rng)


def exposed_again(image: UInt8Array, views: Views, rng: np.random.Generator) -> UInt8Array:
    """The same image with another brightness, contrast and noise; nothing in it moves.

    Args:
        image: uint8 ``[H, W, 3]``.
        views: how far the view may differ.
        rng: the random generator.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    middle = float(image.mean(dtype=np.float64))
    gain, level = draw_exposure(views, rng)
    # ((pixels - middle) * gain + middle) * level, in one step each over many pixels
    pixels = image.astype(np.float32)
    pixels *= np.float32(gain * level)
    pixels += np.float32(middle * (1 - gain) * level)
    if views.noise:
        pixels += np.float32(views.noise) * rng.standard_normal(pixels.shape, np.float32)
    return to_bytes(pixels)


def to_bytes(pixels: Float32Array) -> UInt8Array:
    """Grey levels float32 as uint8 of the same shape, rounded; the array that is given is used."""
    np.clip(pixels, 0, 255, out=pixels)
    levels: UInt8Array = np.rint(pixels, out=pixels).astype(np.uint8)
    return levels


def rotate(image: UInt8Array, degrees: float) -> UInt8Array:
    """An image rotated about its centre; the image mirrored at its borders fills the corners.

    Args:
        image: uint8 ``[H, W, 3]``.
        degrees: clockwise.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    return _affine(image, Motion(math.radians(degrees)))


def _affine(image: UInt8Array, motion: Motion) -> UInt8Array:
    height, width = image.shape[:2]
    # Pillow maps each point of the result to a point of the source: these are the rows of that map.
    # Whole numbers are edges of pixels, so that the centre is at half the side.
    linear = motion.linear
    centre = np.array([width / 2, height / 2])
    offset = centre - linear @ (centre + np.array([motion.right * width, motion.down * height]))
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)])
    places = corners @ linear.T + offset
    outside = max(float(-places.min()), float((places - (width, height)).max()), 0.0)
    pad = min(math.ceil(outside) + 2, height - 1, width - 1)
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    (a, b), (c, d) = linear
    rows = (a, b, offset[0] + pad, c, d, offset[1] + pad)
    warped = Image.fromarray(padded).transform(
        (width, height), Image.Transform.AFFINE, rows, Image.Resampling.BICUBIC
    )
    return np.asarray(warped)
