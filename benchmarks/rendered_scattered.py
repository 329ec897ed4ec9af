"""Flat parts scattered on an uneven ground with dust, in the layout of MVTec AD.

    python -m benchmarks.rendered_scattered OUT [--part lug|key|clip|washer] [--seed N]
        [--train N] [--good N] [--bad N]

writes photographs of 1024 x 768 pixels as :mod:`benchmarks.rendered_parts` writes its own. A part
is 180 to 320 pixels long and lies anywhere at any angle. The light falls off over the ground to a
side that changes, parts cast a soft shadow, and specks of dust lie beside good parts and bad ones:
they are as strong as the defects and say nothing. A lug and a key have a main axis and two ends, a
clip has an angle but no axis, and a washer has neither.

A part is a signed distance to its outline, negative inside, from which its rounded edges follow.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.rendered_brushes import Array, Rng, blur, noise, rounded_box, smooth
from benchmarks.rendered_photographs import Photograph, main, photograph

#: Width and height of a photograph, and half the side of the window that a part is drawn in.
WIDTH, HEIGHT, HALF = 1024, 768, 190

#: Smallest and largest size of a defect, pixels.
SMALLEST, LARGEST = 7.0, 16.0

#: A defect that shows on fewer pixels is drawn again, and so is a weaker one.
MIN_PIXELS, MIN_CONTRAST = 20, 0.12

#: Width of the rounded edges, pixels.
BEVEL = 7.0

DEFECTS = ("nick", "scratch", "stain")


@dataclass(frozen=True)
class Part:
    """A kind of part.

    Attributes:
        outline: signed distance in pixels, from u and v, pixels from the part's middle.
        colour: colour of the surface, linear light.
        ground: brightness of what it lies on, linear light.
    """

    outline: Callable[[Array, Array], Array]
    colour: tuple[float, float, float]
    ground: float


def _lug(u: Array, v: Array) -> Array:
    """A cable lug: a ring, a neck and a barrel with two crimps."""
    ring = np.hypot(u + 96, v) - 44
    neck = rounded_box(u + 40, v, 40, 17, 6)
    barrel = rounded_box(u - 68, v, 76, 25, 5) + 4 * _crimp(u, 50) + 4 * _crimp(u, 96)
    hole = 21 - np.hypot(u + 96, v)
    return np.asarray(np.maximum(np.minimum(np.minimum(ring, neck), barrel), hole))


def _crimp(u: Array, at: float) -> Array:
    return smooth(-np.abs(u - at), -10, -6)


def _key(u: Array, v: Array) -> Array:
    """A hexagon key: a long arm and a short one."""
    return np.asarray(
        np.minimum(rounded_box(u, v - 30, 150, 9, 6), rounded_box(u - 141, v + 14, 9, 53, 6))
    )


def _clip(u: Array, v: Array) -> Array:
    """A retaining ring: open on one side, with an eye at each end and one tooth inside."""
    radius, turn = np.hypot(u, v), np.arctan2(v, u)
    ring = np.abs(radius - 78) - 13
    gap = (0.42 - np.abs(turn)) * 78
    eyes = np.minimum(np.hypot(u - 68, v - 40), np.hypot(u - 68, v + 40)) - 17
    holes = 7 - np.minimum(np.hypot(u - 68, v - 40), np.hypot(u - 68, v + 40))
    tooth = rounded_box(u + 56, v - 12, 14, 8, 3)
    body = np.minimum(np.minimum(np.maximum(ring, gap), eyes), tooth)
    return np.asarray(np.maximum(body, holes))


def _washer(u: Array, v: Array) -> Array:
    """A washer: the same at every angle."""
    return np.asarray(np.abs(np.hypot(u, v) - 66) - 26)


PARTS: dict[str, Part] = {
    "lug": Part(_lug, (0.62, 0.36, 0.2), 0.42),
    "key": Part(_key, (0.06, 0.06, 0.07), 0.34),
    "clip": Part(_clip, (0.5, 0.52, 0.56), 0.12),
    "washer": Part(_washer, (0.55, 0.56, 0.6), 0.26),
}


def scene(part: Part, rng: Rng, defect: str, defect_rng: Rng) -> Array:
    """One part on its ground: linear light, float64 ``[WIDTH, WIDTH, 3]``, to be cropped."""
    angle = rng.uniform(0, 2 * math.pi)
    centre = WIDTH / 2 + rng.uniform(-1, 1, 2) * (WIDTH / 2 - HALF, HEIGHT / 2 - HALF)
    left, top = (int(value) - HALF for value in centre)
    lines = np.arange(2 * HALF) + 0.5
    x, y = np.meshgrid(lines + left - centre[0], lines + top - centre[1])
    cos, sin = math.cos(angle), math.sin(angle)
    u, v = x * cos + y * sin, y * cos - x * sin
    outline = part.outline(u, v)
    wear = 1 + 0.04 * noise(rng, 2 * HALF, 1.2) + 0.05 * noise(rng, 2 * HALF, 12.0)
    albedo = np.array(part.colour) * wear[..., None]
    if defect:
        outline, albedo = _spoilt(outline, albedo, u, v, defect, defect_rng)
    lamp = np.array([rng.normal(-0.3, 0.12), rng.normal(-0.4, 0.12), 0.85])
    lit = _lit(outline, albedo, lamp / np.linalg.norm(lamp))
    cover = np.clip(0.5 - outline, 0, 1)
    rgb = _ground(part.ground, rng)
    shade = np.roll(blur(cover, 7.0), (6, 5), (0, 1)) * 0.45 + blur(cover, 2.5) * 0.2
    window = rgb[top : top + 2 * HALF, left : left + 2 * HALF]
    window *= 1 - shade[..., None]
    window += (lit - window) * cover[..., None]
    return rgb


def _ground(level: float, rng: Rng) -> Array:
    """A ground with its texture, the fall-off of its light and dust."""
    line = np.linspace(-1, 1, WIDTH)
    x, y = line[None, :], line[:, None]
    turn = rng.uniform(0, 2 * math.pi)
    slope = rng.uniform(0.1, 0.3)
    light = 1 + slope * (x * math.cos(turn) + y * math.sin(turn)) - 0.12 * (x * x + y * y)
    texture = 1 + 0.05 * noise(rng, WIDTH, 0.9) + 0.025 * noise(rng, WIDTH, 35.0)
    grey = level * light * texture
    for _ in range(int(rng.poisson(5))):
        column, row = rng.uniform(20, WIDTH - 20), rng.uniform(150, WIDTH - 150)
        size, tone = rng.uniform(2.0, 5.0), rng.choice([0.35, 0.5, 1.7])
        x0, y0 = int(column) - 12, int(row) - 12
        down, across = np.mgrid[y0 : y0 + 24, x0 : x0 + 24] + 0.5
        stretch = rng.uniform(0.6, 1.6)
        away = np.hypot((across - column) * stretch, (down - row) / stretch) / size
        region = grey[y0 : y0 + 24, x0 : x0 + 24]
        region *= 1 + (tone - 1) * smooth(-away, -1.2, -0.7)
    return np.asarray(grey[..., None] * np.array([0.99, 1.0, 1.01]))


def _spoilt(
    outline: Array, albedo: Array, u: Array, v: Array, defect: str, rng: Rng
) -> tuple[Array, Array]:
    """Outline and surface of a part with a defect."""
    size = rng.uniform(SMALLEST, LARGEST) / 2
    where = np.abs(outline) < 1 if defect == "nick" else outline < -size / 2
    rows, columns = np.nonzero(where)
    spot = int(rng.integers(len(rows)))
    p, q = u - u[rows[spot], columns[spot]], v - v[rows[spot], columns[spot]]
    if defect == "nick":
        return np.maximum(outline, 0.8 * size - np.hypot(p, q)), albedo
    turn = rng.uniform(0, math.pi)
    a, b = p * math.cos(turn) + q * math.sin(turn), q * math.cos(turn) - p * math.sin(turn)
    if defect == "scratch":
        mark = smooth(-np.hypot(a / (1.4 * size), b / rng.uniform(1.6, 2.4)), -1.0, -0.5)
        change = 1 + rng.choice([-0.7, 1.2]) * mark[..., None]
    else:
        mark = smooth(-np.hypot(a / size, b / (size * rng.uniform(0.6, 1.0))), -1.0, -0.5)
        change = 1 - rng.uniform(0.5, 0.75) * mark[..., None] * np.array([0.7, 1.0, 1.2])
        change = change if albedo.mean() > 0.1 else 2.2 - 1.2 * change  # grease shines on black
    return outline, albedo * change


def _lit(outline: Array, albedo: Array, lamp: Array) -> Array:
    """The light of a surface with rounded edges, ``[S, S, 3]``."""
    depth = np.clip(-outline / BEVEL, 0, 1)
    gy, gx = np.gradient(BEVEL * 0.8 * np.sqrt(1 - (1 - depth) ** 2))
    scale = 1 / np.sqrt(1 + gx * gx + gy * gy)
    nx, ny, nz = -gx * scale, -gy * scale, scale
    facing = np.clip(nx * lamp[0] + ny * lamp[1] + nz * lamp[2], 0, 1)
    halfway = (lamp + np.array([0, 0, 1])) / np.linalg.norm(lamp + np.array([0, 0, 1]))
    shine = np.clip(nx * halfway[0] + ny * halfway[1] + nz * halfway[2], 0, 1) ** 30
    return np.asarray((0.18 + 0.8 * facing)[..., None] * albedo + 0.12 * shine[..., None])


def render(part: str, key: Sequence[int], defect: str = "") -> Photograph:
    """Render one part; ``key`` is the random seed, and the defect "" stands for a good part."""

    def shown(kind: str, defect_rng: Rng) -> tuple[Array, Rng]:
        rng = np.random.default_rng([*key, 0])
        rgb = scene(PARTS[part], rng, kind, defect_rng)
        gain = math.exp(rng.normal(0.0, 0.05)) * (1.0 + rng.normal(0.0, 0.01, 3))
        seen = np.clip(blur(rgb, rng.uniform(0.6, 0.9)) * gain, 0.0, 1.0)
        return np.asarray(seen ** (1 / 2.2)), rng

    return photograph(shown, key, defect, HEIGHT, (MIN_PIXELS, MIN_CONTRAST))


if __name__ == "__main__":
    sys.exit(
        main(
            None,
            "python -m benchmarks.rendered_scattered",
            "Render parts scattered on an uneven ground, in the layout of MVTec AD.",
            dict.fromkeys(PARTS, DEFECTS),
            render,
        )
    )
