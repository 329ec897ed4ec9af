"""The plain ground that a part lies on: its light over the photograph, and what differs from it.

Light falls off over a photograph and lamps stand to one side, so that the ground of each photograph
is a surface of the second degree, fitted to what is not the part. What is left is measured against
the noise of the shots' own grounds (Mahalanobis distance).
"""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from fsad_edge.runtime.arrays import BoolArray, Float32Array, UInt8Array

#: Longer side of the small copy that a photograph is looked at on, pixels.
SIDE = 256

#: Width of the border that the ground is first fitted to, as a fraction of the shorter side.
BORDER = 0.06

#: A border pixel that is this many times farther from the surface than the usual one is no ground.
OUTLYING = 4.0

#: Rounds of fitting to the border, each without the pixels that were outlying before.
ROUNDS = 3

#: Every so many rows and columns of the small copy are fitted to.
STEP = 2

#: Where less than this share of a photograph is known to be ground, the border is taken for it.
LEAST_GROUND = 0.05


def small_copy(photograph: Image.Image | UInt8Array) -> Float32Array:
    """A photograph averaged down, float32 ``[h, w, 3]``; its longer side is ``SIDE`` at most."""
    if isinstance(photograph, np.ndarray):
        photograph = Image.fromarray(photograph)
    width, height = photograph.size
    factor = max(width, height) / SIDE
    if factor > 1:
        size = max(1, round(width / factor)), max(1, round(height / factor))
        photograph = photograph.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    if photograph.mode != "RGB":
        photograph = photograph.convert("RGB")
    return np.asarray(photograph, np.float32)


def halved(small: Float32Array) -> Float32Array:
    """A small copy at half of its size, averaged: float32 ``[h // 2, w // 2, 3]``."""
    height, width = (side // 2 * 2 for side in small.shape[:2])
    rows = small[0:height:2] + small[1:height:2]
    half: Float32Array = (rows[:, 0:width:2] + rows[:, 1:width:2]) / np.float32(4)
    return half


def border_of(shape: tuple[int, ...]) -> BoolArray:
    """The border of a picture of this shape, bool ``[h, w]``."""
    height, width = shape[:2]
    border = np.ones((height, width), np.bool_)
    inset = max(2, round(BORDER * min(height, width)))
    border[inset:-inset, inset:-inset] = False
    return border


def ground_surface(small: Float32Array, among: BoolArray | None = None) -> Float32Array:
    """The light of the ground of a small copy, as if nothing lay on it.

    Args:
        small: float32 ``[h, w, 3]``.
        among: bool ``[h, w]``, the pixels that show the ground as far as that is known; by default
            the border, without what is outlying there.

    Returns:
        float32 ``[h, w, 3]``, a surface of the second degree for each channel.
    """
    height, width = small.shape[:2]
    basis = _basis(height, width)
    if among is None or among.mean() < LEAST_GROUND:
        among = border_of(small.shape)
    among = among[::STEP, ::STEP]
    places = basis.reshape(height, width, -1)[::STEP, ::STEP][among]
    values = small[::STEP, ::STEP][among]
    kept = np.ones(len(values), np.bool_)
    for _ in range(ROUNDS):
        surface = _fit(places[kept], values[kept])
        red, green, blue = np.abs(values - places @ surface).T
        apart = np.maximum(np.maximum(red, green), blue)
        usual = float(np.median(apart))
        kept = apart <= OUTLYING * max(usual, 0.5)
    fitted: Float32Array = (basis @ surface).reshape(small.shape)
    return fitted


def without_ground(small: Float32Array, surface: Float32Array | None = None) -> Float32Array:
    """What is left of a small copy when the surface of its ground is taken off.

    Args:
        small: float32 ``[h, w, 3]``.
        surface: as of :func:`ground_surface`; by default the one that is fitted to the border.

    Returns:
        float32 ``[h, w, 3]``, averaged over squares of 3 x 3 pixels.
    """
    return _averaged(small - (ground_surface(small) if surface is None else surface))


def distances(left: Float32Array, whitening: Float32Array) -> Float32Array:
    """Mahalanobis distances float32 ``[h, w]`` of what :func:`without_ground` left.

    Args:
        left: float32 ``[h, w, 3]``.
        whitening: float32 ``[3, 3]``, as of :func:`whitening_of`.
    """
    one, two, three = np.moveaxis(np.square(left.reshape(-1, 3) @ whitening), 1, 0)
    found: Float32Array = np.sqrt(one + two + three).reshape(left.shape[:2])
    return found


def whitening_of(noise: Float32Array, least: float) -> Float32Array:
    """The matrix under which ground has unit variance.

    Args:
        noise: float32 ``[n, 3]``, what is left of pixels of grounds.
        least: standard deviation that is added to each channel, grey levels: compression and
            sensors make as much of nothing.

    Returns:
        float32 ``[3, 3]``; the length of ``left @ whitening`` is the distance.
    """
    covariance = np.cov(noise.T.astype(np.float64)) + least**2 * np.eye(3)
    values, vectors = np.linalg.eigh(covariance)
    whitening: Float32Array = np.float32(vectors / np.sqrt(values))
    return whitening


@functools.lru_cache(8)  # photographs of one camera have one size
def _basis(height: int, width: int) -> Float32Array:
    """Polynomials of the second degree at each pixel, float32 ``[h * w, 6]``."""
    y, x = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32),
        np.linspace(-1, 1, width, dtype=np.float32),
        indexing="ij",
    )
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    basis.flags.writeable = False
    return basis


def _fit(places: Float32Array, values: Float32Array) -> Float32Array:
    """The surface ``[6, 3]`` of least squares."""
    # A little weight on flat surfaces: what is left of a border may not tell all terms.
    flat = np.diag(np.array([1e-6, 1e-6, 1e-6, 1e-3, 1e-3, 1e-3], np.float32) * len(places))
    moments = places.T @ places + flat
    surface: Float32Array = np.float32(np.linalg.solve(moments, places.T @ values))
    return surface


def _averaged(left: Float32Array) -> Float32Array:
    padded = np.pad(left, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    found: Float32Array = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / np.float32(9)
    return found
