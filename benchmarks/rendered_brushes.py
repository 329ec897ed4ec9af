"""Brushes for the rendered parts: noise, strokes, spots and poses on square float images.

Coordinates run from -1 to 1 across the image, x to the right and y downwards; fields are
float64 ``[S, S]``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[np.float64]
Rng = np.random.Generator


def smooth(x: Array, low: float, high: float) -> Array:
    """A smooth step of an array of any shape: 0 where x is below ``low``, 1 above ``high``."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))


def streak(field: Array, along: float, across: float, angle: float) -> Array:
    """Gaussian blur of a field ``[S, S]`` along a direction; sigmas in pixels, angle in radians."""
    size = field.shape[0]
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    u = fx * math.cos(angle) + fy * math.sin(angle)
    v = fy * math.cos(angle) - fx * math.sin(angle)
    gain = np.exp(-2.0 * math.pi**2 * ((along * u) ** 2 + (across * v) ** 2))
    return np.asarray(np.fft.irfft2(np.fft.rfft2(field) * gain, s=field.shape), dtype=np.float64)


def blur(field: Array, sigma: float) -> Array:
    """Isotropic Gaussian blur of a field ``[S, S]`` or ``[S, S, C]``; ``sigma`` in pixels."""
    if sigma > 1.6:
        if field.ndim == 3:
            channels = [streak(field[..., k], sigma, sigma, 0.0) for k in range(field.shape[2])]
            return np.stack(channels, axis=2)
        return streak(field, sigma, sigma, 0.0)
    # A few taps are several times faster than the Fourier transform while sigma is small.
    reach = math.ceil(2.6 * sigma)
    taps = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    taps /= taps[0] + 2.0 * taps[1:].sum()
    for _ in range(2):
        padded = np.pad(field, [(reach, reach), *[(0, 0)] * (field.ndim - 1)], mode="edge")
        size = field.shape[0]
        field = padded[reach : reach + size] * taps[0]
        for k in range(1, reach + 1):
            low, high = padded[reach - k :][:size], padded[reach + k :][:size]
            field += (low + high) * taps[k]
        field = field.swapaxes(0, 1)
    return field


def noise(rng: Rng, size: int, along: float, across: float = 0.0, angle: float = 0.0) -> Array:
    """Gaussian noise ``[S, S]``, mean 0, standard deviation 1, correlated over these pixels."""
    white = rng.standard_normal((size, size))
    field = streak(white, along, across, angle) if across else blur(white, along)
    return np.asarray((field - field.mean()) / field.std())


def axes(size: int) -> tuple[Array, Array]:
    """Image coordinates x and y of the pixel centres, each ``[S, S]``, from -1 to 1."""
    line = (np.arange(size) + 0.5) * (2.0 / size) - 1.0
    return np.broadcast_to(line[None, :], (size, size)), np.broadcast_to(
        line[:, None], (size, size)
    )


def thin(size: int) -> float:
    """Width at ``size`` pixels of a line that is 1 pixel wide at 320; a line never vanishes."""
    return max(size / 320, 0.6)


def stroke(size: int, points: Array, widths: Array) -> Array:
    """Coverage ``[S, S]``, 0 to 1, of a line through points ``[N, 2]``, so many pixels wide."""
    zoom = 4
    canvas = Image.new("L", (size * zoom, size * zoom))
    draw = ImageDraw.Draw(canvas)
    spots = (points + 1.0) * 0.5 * size * zoom
    for a, b, width in zip(spots[:-1], spots[1:], widths[:-1], strict=True):
        w = max(1, round(float(width) * zoom))
        draw.line([(a[0], a[1]), (b[0], b[1])], fill=255, width=w)
        if w > 4:
            r = w / 2.0
            draw.ellipse([b[0] - r, b[1] - r, b[0] + r, b[1] + r], fill=255)
    return np.asarray(canvas.reduce(zoom), dtype=np.float64) / 255.0


def path(rng: Rng, start: Array, length: float, angle: float, wobble: float) -> Array:
    """Points ``[N, 2]`` of a wandering line of about ``length`` from ``start``."""
    steps = max(8, int(length * 60))
    turn = np.cumsum(rng.normal(0.0, wobble, steps)) + rng.normal(0.0, 0.6) * np.linspace(
        0.0, min(1.0, length), steps
    )
    move = np.stack([np.cos(angle + turn), np.sin(angle + turn)], axis=1) * (length / steps)
    return np.asarray(start + np.concatenate([np.zeros((1, 2)), np.cumsum(move, axis=0)]))


def blob(rng: Rng, at: Array, radius: float, size: int, ragged: float) -> Array:
    """An irregular spot ``[S, S]``: 1 deep inside, 0 on its rim, negative outside."""
    x, y = axes(size)
    stretch, turn = math.exp(rng.normal(0.0, 0.3)), rng.uniform(0.0, math.pi)
    p, q = x - at[0], y - at[1]
    a = (p * math.cos(turn) + q * math.sin(turn)) * stretch
    b = (q * math.cos(turn) - p * math.sin(turn)) / stretch
    wave = noise(rng, size, max(1.0, radius * size * 0.16))
    drift = ragged * wave * smooth(-np.hypot(p, q), -3 * radius, 0)
    return np.asarray(1.0 - np.hypot(a, b) / radius + drift)


def place(rng: Rng, allowed: NDArray[np.bool_]) -> Array:
    """A random position ``[2]`` (x, y) where ``allowed``, bool ``[S, S]``, is true."""
    rows, cols = np.nonzero(allowed)
    k = int(rng.integers(len(rows)))
    spot = np.array([cols[k], rows[k]], dtype=np.float64) + 0.5
    return np.asarray(spot * 2.0 / allowed.shape[0] - 1.0)


def rounded_box(u: Array, v: Array, half_w: float, half_h: float, radius: float) -> Array:
    """Signed distance ``[S, S]`` to a rounded rectangle, negative inside."""
    a, b = np.abs(u) - half_w + radius, np.abs(v) - half_h + radius
    outside = np.hypot(np.maximum(a, 0.0), np.maximum(b, 0.0))
    return outside + np.minimum(np.maximum(a, b), 0.0) - radius


def paint(rgb: Array, cover: Array, colour: Array) -> Array:
    """Lay ``colour``, ``[3]`` or ``[S, S, 3]``, over ``rgb`` where ``cover``, ``[S, S]``, is 1."""
    return rgb + (colour - rgb) * cover[..., None]


def text(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], words: str, height: float, fill: int = 255
) -> None:
    """Write ``words`` at a pixel position; ``height`` in pixels."""
    draw.text(at, words, font=ImageFont.load_default(height), fill=fill)


@dataclass(frozen=True)
class Pose:
    """A part's place: its coordinates times ``scale``, rotated by ``angle``, moved by (dx, dy)."""

    angle: float
    dx: float
    dy: float
    scale: float

    @classmethod
    def draw(cls, rng: Rng, angle: float, move: float, zoom: float) -> Pose:
        """A pose near the middle; the arguments are standard deviations."""
        dx, dy = rng.normal(0.0, move, 2)
        return cls(rng.normal(0.0, angle), float(dx), float(dy), 1.0 + rng.normal(0.0, zoom))

    def moved(self, dx: float, dy: float, angle: float = 0.0) -> Pose:
        """This pose, moved and rotated a little further."""
        return Pose(self.angle + angle, self.dx + dx, self.dy + dy, self.scale)

    def part(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Part coordinates (u, v) of image coordinates (x, y)."""
        cos, sin = math.cos(self.angle) / self.scale, math.sin(self.angle) / self.scale
        x, y = x - self.dx, y - self.dy
        return x * cos + y * sin, y * cos - x * sin

    def warp(self, art: Image.Image, size: int) -> Array:
        """Artwork in part coordinates as the camera sees it, ``[size, size]``, 0 to 1."""
        cos, sin = math.cos(self.angle) / self.scale, math.sin(self.angle) / self.scale
        half = art.width / 2.0
        ox, oy = half * (1.0 + self.dx), half * (1.0 + self.dy)
        where = (cos, sin, half - cos * ox - sin * oy, -sin, cos, half + sin * ox - cos * oy)
        seen = art.transform(art.size, Image.Transform.AFFINE, where, Image.Resampling.BILINEAR)
        return np.asarray(seen.reduce(art.width // size), dtype=np.float64) / 255.0
