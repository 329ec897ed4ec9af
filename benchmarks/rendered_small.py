"""Small turned parts at any angle in large photographs, in the layout of MVTec AD.

    python -m benchmarks.rendered_small OUT [--part screw|pin] [--seed N] [--train N] [--good N]
        [--bad N]

writes photographs of 1280 x 960 pixels as :mod:`benchmarks.rendered_parts` writes its own. A part
is about 510 pixels long and 110 wide, lies anywhere at any angle on a plain ground, and its defects
are 8 to 18 pixels large: what image size a model has decides whether they can be seen at all.

A part is a body of revolution: a radius for each place on its axis.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.rendered_brushes import Array, Rng, blur, noise, smooth
from benchmarks.rendered_photographs import Photograph, main, photograph

#: Width and height of a photograph, pixels.
WIDTH, HEIGHT = 1280, 960

#: Length of a part in its own units, and pixels of the photograph for one of them.
LENGTH, ZOOM = 320.0, 1.6

#: Smallest and largest size of a defect, and half the side of the window that a part is drawn in,
#: pixels.
SMALLEST, LARGEST, HALF = 8.0, 18.0, 300

#: A defect that shows on fewer pixels is drawn again, and so is a weaker one: contrast of its
#: strongest pixel as a fraction of full scale.
MIN_PIXELS, MIN_CONTRAST = 24, 0.2


@dataclass
class _Body:
    """One part, in a window of the photograph.

    Attributes:
        t, v: place along the axis from the head, and across it, ``[S, S]``.
        radius: distance from the axis to the surface, ``[S, S]``.
        albedo: how much light the surface reflects, ``[S, S, 3]``.
        gloss: how glossy it is, ``[S, S]``.
    """

    t: Array
    v: Array
    radius: Array
    albedo: Array
    gloss: Array


@dataclass(frozen=True)
class Part:
    """A kind of part.

    Attributes:
        shape: the body without a defect, from t, v and what varies between good parts.
        metal: colour of the surface, linear light.
        ground: brightness of what it lies on, linear light.
        defects: what can be wrong with it.
    """

    shape: Callable[[Array, Array, Rng], Array]
    metal: tuple[float, float, float]
    ground: float
    defects: tuple[str, ...]


def _along(t: Array, places: Sequence[float], radii: Sequence[float]) -> Array:
    return np.asarray(np.interp(t, places, radii, left=-1.0, right=-1.0))


def _screw(t: Array, v: Array, rng: Rng) -> Array:
    """A countersunk wood screw: head, neck, thread, tip."""
    core = _along(t, [0, 3, 26, 40, 120, 132, 285, 320], [34, 35, 22, 17, 16.5, 13.5, 12.5, 0.5])
    depth = 5.5 * smooth(t, 122, 140) * smooth(-t, -316, -300)
    turn = np.arcsin(np.clip(v / 18.0, -1, 1)) / (2 * math.pi) + rng.uniform()
    crest = 1 - 2 * np.abs((t / 15.0 + turn) % 1.0 - 0.5)
    return core + depth * crest**1.5


def _pin(t: Array, v: Array, rng: Rng) -> Array:
    """A stepped pin with two grooves, a collar and a knurled end."""
    places = [0, 6, 70, 71, 83, 84, 150, 151, 172, 173, 236, 237, 246, 247, 312, 320]
    radii = [20, 26, 26, 21, 21, 26, 26, 34, 34, 23, 23, 18, 18, 23, 23, 17]
    knurl = smooth(t, 252, 256) * smooth(-t, -308, -304)
    turn = np.arcsin(np.clip(v / 23.0, -1, 1)) * 23.0 + rng.uniform(0, 12)
    ridges = np.sin(2 * math.pi * (t + turn) / 12.0) + np.sin(2 * math.pi * (t - turn) / 12.0)
    pin: Array = _along(t, places, radii) + 0.9 * knurl * ridges
    return pin


PARTS: dict[str, Part] = {
    "screw": Part(_screw, (0.62, 0.62, 0.64), 0.5, ("thread", "scratch", "nick", "stain")),
    "pin": Part(_pin, (0.66, 0.5, 0.26), 0.09, ("burr", "scratch", "nick", "stain")),
}


def _spot(t: Array, v: Array, at: tuple[float, float], long: float, wide: float) -> Array:
    """1 in the middle of a soft ellipse along the axis, 0 outside it."""
    return smooth(-np.hypot((t - at[0]) / long, (v - at[1]) / wide), -1.0, -0.6)


def _spoil(body: _Body, defect: str, rng: Rng) -> None:
    """Draw a defect onto a body."""
    t, v = body.t, body.v
    size = rng.uniform(SMALLEST, LARGEST) / ZOOM / 2
    where = rng.uniform(140, 290) if defect == "thread" else rng.uniform(12, 300)
    row = np.abs(t - where) < 1
    reach = float(body.radius[row].max(initial=1.0))
    side = rng.choice([-1.0, 1.0])
    if defect in {"thread", "nick", "burr"}:  # at the outline
        near = _spot(t, v, (where, side * reach), 1.2 * size, 1.2 * size)
        amount = {"thread": -7.0, "nick": -rng.uniform(5, 8), "burr": rng.uniform(4, 7)}[defect]
        body.radius += amount * near
        return
    at = (where, rng.uniform(-0.55, 0.55) * reach)
    if defect == "scratch":
        angle = rng.uniform(0, math.pi)
        a = (t - at[0]) * math.cos(angle) + (v - at[1]) * math.sin(angle)
        b = (v - at[1]) * math.cos(angle) - (t - at[0]) * math.sin(angle)
        mark = _spot(a, b, (0.0, 0.0), 1.3 * size, rng.uniform(1.6, 2.6))
        body.albedo *= 1 + rng.choice([-0.75, 1.0]) * mark[..., None]
    else:
        mark = _spot(t, v, at, size, size * rng.uniform(0.6, 1.0))
        body.albedo *= 1 - rng.uniform(0.6, 0.8) * mark[..., None] * np.array([0.8, 1.0, 1.2])
        body.gloss *= 1 - 0.6 * mark


def scene(part: Part, rng: Rng, defect: str, defect_rng: Rng) -> Array:
    """One part on its ground: linear light, float64 ``[WIDTH, WIDTH, 3]``, to be cropped."""
    angle = rng.uniform(0, 2 * math.pi)
    centre = WIDTH / 2 + rng.uniform(-1, 1, 2) * (WIDTH / 2 - HALF, HEIGHT / 2 - HALF)
    left, top = (int(value) - HALF for value in centre)
    if min(left, top) < 0 or max(left, top) + 2 * HALF > WIDTH:
        raise ValueError("the part leaves the photograph")
    lines = np.arange(2 * HALF) + 0.5
    x, y = np.meshgrid(lines + left - centre[0], lines + top - centre[1])
    cos, sin = math.cos(angle), math.sin(angle)
    t, v = (x * cos + y * sin) / ZOOM + LENGTH / 2, (y * cos - x * sin) / ZOOM
    wear = 1 + 0.05 * noise(rng, 2 * HALF, 1.2) + 0.05 * noise(rng, 2 * HALF, 14.0)
    albedo = np.array(part.metal) * wear[..., None]
    body = _Body(t, v, part.shape(t, v, rng), albedo, np.ones_like(t))
    if defect:
        _spoil(body, defect, defect_rng)
    lamp = np.array([-0.35 + rng.normal(0, 0.06), -0.45 + rng.normal(0, 0.06), 0.82])
    lit, cover = _lit(body, (cos, sin), lamp / np.linalg.norm(lamp))
    rgb: Array = part.ground * (1 + 0.05 * noise(rng, WIDTH, 0.9) + 0.03 * noise(rng, WIDTH, 40.0))
    rgb = rgb[..., None] * np.array([0.98, 1.0, 1.02])
    shade = np.roll(blur(cover, 6.0), (7, 5), (0, 1)) * 0.5 + blur(cover, 2.5) * 0.25
    window = rgb[top : top + 2 * HALF, left : left + 2 * HALF]
    window *= 1 - shade[..., None]
    window += (lit - window) * cover[..., None]
    return rgb


def _lit(body: _Body, axis: tuple[float, float], lamp: Array) -> tuple[Array, Array]:
    """The light of a body's surface ``[S, S, 3]``, and where it covers the ground ``[S, S]``."""
    radius = np.maximum(body.radius, 0.3)
    across = np.clip(body.v / radius, -1, 1)
    up = np.sqrt(1 - across**2)
    cos, sin = axis
    gy, gx = np.gradient(body.radius, 1 / ZOOM)
    slope = np.clip(gx * cos + gy * sin, -2, 2)  # of the radius along the axis
    scale = 1 / np.sqrt(1 + slope**2)
    along, across, up = -slope * scale, across * scale, up * scale
    nx, ny = along * cos - across * sin, along * sin + across * cos
    facing = np.clip(nx * lamp[0] + ny * lamp[1] + up * lamp[2], 0, 1)
    halfway = lamp + np.array([0, 0, 1])
    halfway /= np.linalg.norm(halfway)
    shine = np.clip(nx * halfway[0] + ny * halfway[1] + up * halfway[2], 0, 1) ** 24
    light = 0.16 + 0.62 * facing
    lit = light[..., None] * body.albedo + (0.4 * shine * body.gloss)[..., None]
    cover = np.clip(0.5 + ZOOM * (radius - np.abs(body.v)), 0, 1) * (body.radius > 0)
    return lit, cover


def _expose(rgb: Array, rng: Rng) -> Array:
    """A sharp lens and a steady lamp: from linear light to display values, 0 to 1."""
    gain = math.exp(rng.normal(0.0, 0.05)) * (1.0 + rng.normal(0.0, 0.01, 3))
    seen = np.clip(blur(rgb, rng.uniform(0.6, 0.9)) * gain, 0.0, None)
    shoulder = np.where(seen > 0.7, 0.7 + 0.3 * np.tanh((seen - 0.7) / 0.3), seen)
    return np.asarray(shoulder ** (1 / 2.2))


def render(part: str, key: Sequence[int], defect: str = "") -> Photograph:
    """Render one part; ``key`` is the random seed, and the defect "" stands for a good part."""

    def shown(kind: str, defect_rng: Rng) -> tuple[Array, Rng]:
        rng = np.random.default_rng([*key, 0])
        rgb = scene(PARTS[part], rng, kind, defect_rng)
        return _expose(rgb, rng), rng

    return photograph(shown, key, defect, HEIGHT, (MIN_PIXELS, MIN_CONTRAST))


if __name__ == "__main__":
    sys.exit(
        main(
            None,
            "python -m benchmarks.rendered_small",
            "Render small parts in large photographs, in the layout of MVTec AD.",
            {name: part.defects for name, part in PARTS.items()},
            render,
        )
    )
