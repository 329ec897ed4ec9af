"""The rendered bracket, as :mod:`benchmarks.rendered_parts` describes a scene."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.rendered_brushes import (
    Array,
    Pose,
    Rng,
    axes,
    blob,
    blur,
    noise,
    paint,
    path,
    place,
    rounded_box,
    smooth,
    stroke,
    text,
    thin,
)


@dataclass(frozen=True)
class _Plate:
    """The shape of the bracket. Distances are signed, ``[S, S]``, negative inside.

    Attributes:
        u, v: part coordinates of each pixel, ``[S, S]``.
        holes: centre and radius of each hole, ``[N, 3]``; the bore in the middle is the last.
        walls: distance to each hole.
        outline, slot: distance to the outline and to the slot.
        voids: the smallest of the distances to the slot and to the holes.
    """

    u: Array
    v: Array
    holes: Array
    walls: list[Array]
    outline: Array
    slot: Array
    voids: Array

    def height(self) -> Array:
        """How high the surface is, ``[S, S]``: edges are bevelled, holes are countersunk."""
        height = np.clip(-self.outline, 0.0, 0.028) + np.clip(self.slot, 0.0, 0.022)
        for wall, radius in zip(self.walls, self.holes[:, 2], strict=True):
            height = height + np.clip(wall, 0.0, 0.03 if radius < 0.15 else 0.02)
        return height


@dataclass
class _Finish:
    """The bracket's surface: its relief and gloss, ``[S, S]``, and its tint, ``[S, S, 3]``."""

    relief: Array
    gloss: Array
    tint: Array


def bracket(size: int, rng: Rng, defect: str, defect_rng: Rng) -> Array:
    """A brushed aluminium plate: bore with a turned face, slot, four countersunk holes."""
    px = 2.0 / size
    x, y = axes(size)
    pose = Pose.draw(rng, 0.03, 0.02, 0.008)
    plate = _plate(size, pose, rng, defect, defect_rng)
    u, v = plate.u, plate.v
    cover = np.clip(0.5 - np.maximum(plate.outline, -plate.voids) / px, 0.0, 1.0)
    bore_x, bore_y, _ = plate.holes[-1]
    rho = np.hypot(u - bore_x, v - bore_y)
    ring = (np.abs(rho - 0.265) < 0.045).astype(float)  # the face that was turned on a lathe

    brush = pose.angle + rng.normal(0.0, 0.008)
    streaks = 0.7 * noise(rng, size, size * 0.2, 0.45, brush)
    streaks = streaks + 0.5 * noise(rng, size, 9.0, 0.6, brush)
    radii = np.arange(0.0, 1.6, px * 0.7)
    lathe = np.interp(rho, radii, rng.standard_normal(len(radii)))
    tx, ty = np.full_like(x, math.cos(brush)), np.full_like(x, math.sin(brush))
    nx, ny = (u - bore_x) / (rho + 1e-6), (v - bore_y) / (rho + 1e-6)
    tx, ty = tx + ring * (-ny - tx), ty + ring * (nx - ty)
    grain = streaks * (1.0 - ring) + lathe * ring
    patina = noise(rng, size, size * 0.06)
    speck = noise(rng, size, 0.8)
    finish = _Finish(np.zeros_like(x), np.ones_like(x), np.ones((size, size, 3)))
    if defect in _BRACKET_DEFECTS:
        _BRACKET_DEFECTS[defect](finish, blur(cover, 2.0) > 0.97, defect_rng)

    height = plate.height() - 0.006 * blur(ring, 0.7)
    gy, gx = np.gradient(blur(height, 0.8 * size / 320) + finish.relief, px)
    gx, gy = -gx, -gy
    lx, ly = -0.25 + rng.normal(0.0, 0.3), -0.4 + rng.normal(0.0, 0.22)
    ex, ey = 0.55 * x + 1.5 * gx - lx, 0.55 * y + 1.5 * gy - ly
    along = ex * tx + ey * ty
    across = ey * tx - ex * ty + 0.2 * grain
    spec = np.exp(-0.5 * ((along / 0.36) ** 2 + (across / 0.75) ** 2))
    facing = np.tanh(1.6 * (gx * lx + gy * ly) / (math.hypot(lx, ly) + 1e-6))
    gloss = finish.gloss
    light = 0.2 + 0.19 * facing + rng.uniform(0.4, 0.6) * spec * gloss
    light = light * (1.0 + 0.085 * grain + 0.03 * patina + 0.015 * speck) * (0.5 + 0.5 * gloss)
    light = light * (1.0 - 0.45 * _etched_mark(size, pose) * (1 + 0.2 * speck))
    metal = np.clip(light, 0.0, None)[..., None] * finish.tint * np.array([0.97, 0.985, 1.0])
    return paint(_rubber_mat(size, plate, cover, (lx, ly), rng), cover, metal)


def _plate(size: int, pose: Pose, rng: Rng, defect: str, defect_rng: Rng) -> _Plate:
    """The plate of one bracket, with the defects that change its shape."""
    u, v = pose.part(*axes(size))
    corners = [[a, b, 0.078] for a in (-0.6, 0.6) for b in (-0.4, 0.4)]
    holes = np.array([*corners, [-0.2, 0.0, 0.2]])
    holes[:, :2] += rng.normal(0.0, 0.003, (5, 2))
    if defect == "missing_hole":
        holes = _drilled_wrong(holes, defect_rng)
    outline = rounded_box(u, v, 0.82, 0.6, 0.17)
    slot = np.hypot(np.maximum(np.abs(u - 0.4) - 0.13, 0.0), v) - 0.06
    walls = [np.hypot(u - a, v - b) - r for a, b, r in holes]
    voids = np.minimum.reduce([slot, *walls])
    if defect == "chip":
        outline, voids = _chipped(size, outline, voids, defect_rng)
    return _Plate(u, v, holes, walls, outline, slot, voids)


def _drilled_wrong(holes: Array, rng: Rng) -> Array:
    """One of the four small holes is missing, too small or out of place."""
    k, way = int(rng.integers(4)), rng.uniform()
    if way < 0.4:
        return np.delete(holes, k, axis=0)
    if way < 0.7:
        holes[k, 2] *= rng.uniform(0.45, 0.8)
    else:
        away = rng.uniform(0.0, 2 * math.pi)
        holes[k, :2] += rng.uniform(0.03, 0.07) * np.array([math.cos(away), math.sin(away)])
    return holes


def _chipped(size: int, outline: Array, voids: Array, rng: Rng) -> tuple[Array, Array]:
    """The same distances to the outline and to the voids, with one of the edges damaged."""
    x, y = axes(size)
    outer = rng.uniform() < 0.6
    at = place(rng, np.abs(outline if outer else -voids) < 2.0 / size)
    reach, amount = rng.uniform(0.025, 0.1), rng.choice([-1, 1, 1]) * rng.uniform(0.02, 0.07)
    near = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / reach**2)
    # The sign of the amount says whether metal is broken out of the edge or a burr is left on it.
    bite = amount * (0.75 + 0.35 * noise(rng, size, 1.6)) * near
    return (outline + bite, voids) if outer else (outline, voids - bite)


def _etched_mark(size: int, pose: Pose) -> Array:
    """Coverage of the part number that is etched into the plate, ``[S, S]``, 0 to 1."""
    mark = Image.new("L", (2 * size, 2 * size))
    text(ImageDraw.Draw(mark), (1.03 * size, 1.33 * size), "BR-204 A", 0.085 * size)
    return pose.warp(mark, size)


def _rubber_mat(
    size: int, plate: _Plate, cover: Array, lamp: tuple[float, float], rng: Rng
) -> Array:
    """The mat below the plate with the plate's shadow, and the walls of the holes."""
    px = 2.0 / size
    rubber = 0.055 * (1.0 + 0.22 * noise(rng, size, 1.0) + 0.12 * noise(rng, size, 6.0))
    shift = (round(0.016 * size), round(0.012 * size))
    shadow = blur(np.roll(cover, shift, (0, 1)), 0.014 * size) * 0.6 + blur(cover, 2.0) * 0.3
    rgb: Array = (np.clip(rubber, 0, None) * (1.0 - shadow))[..., None] * np.array([0.9, 1.0, 1.12])
    u, v, (lx, ly) = plate.u, plate.v, lamp
    for distance, (a, b, r) in zip(plate.walls, plate.holes, strict=True):
        # Parallax: the camera sees the wall of a hole on the side away from the picture's centre.
        wall = smooth(np.hypot(u - a * 0.955, v - b * 0.955) - r * 0.97, -px, px)
        lit = 0.1 + 0.13 * np.tanh(6 * ((u - a) * -lx + (v - b) * -ly) / (r * 4))
        rgb = paint(rgb, wall * (distance < px), lit[..., None] * np.array([0.95, 0.97, 1.0]))
    return rgb


def _scratch_metal(finish: _Finish, surface: NDArray[np.bool_], rng: Rng) -> None:
    size = len(surface)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        length = min(0.9, 0.28 * math.exp(rng.normal(0.0, 0.6)))
        line = path(rng, place(rng, surface), length, rng.uniform(0, 2 * math.pi), 0.02)
        taper = np.sin(np.linspace(0.15, math.pi - 0.1, len(line))) ** 0.6
        cut = stroke(size, line, rng.uniform(0.5, 1.5) * taper * thin(size))
        cut *= np.clip(0.85 + 0.3 * noise(rng, size, 3.0), 0.2, 1.3)
        finish.relief -= rng.uniform(0.3, 0.8) * (2.0 / size) * blur(cut, 0.6)
        finish.gloss *= 1.0 + rng.choice([-0.35, 0.45]) * rng.uniform(0.4, 1.0) * cut


def _dent_metal(finish: _Finish, surface: NDArray[np.bool_], rng: Rng) -> None:
    at, radius = place(rng, surface), 0.05 * math.exp(rng.normal(0.0, 0.4))
    deep = np.clip(blob(rng, at, radius * 1.5, len(surface), 0.05), 0.0, 1.0)
    bowl = smooth(deep, 0.0, 0.85)
    rim = 0.35 * smooth(deep, 0, 0.3) * (1 - bowl)
    finish.relief -= rng.uniform(0.12, 0.4) * radius * (bowl - rim)
    finish.gloss *= 1.0 + rng.uniform(-0.2, 0.1) * bowl


def _stain_metal(finish: _Finish, surface: NDArray[np.bool_], rng: Rng) -> None:
    size = len(surface)
    at, radius = place(rng, surface), 0.1 * math.exp(rng.normal(0.0, 0.45))
    spot = blob(rng, at, radius, size, 0.25)
    film = smooth(spot, -0.05, rng.uniform(0.1, 0.6)) * (0.8 + 0.15 * noise(rng, size, 4.0))
    film = film + 0.5 * rng.uniform() * np.exp(-((spot - 0.06) ** 2) / 0.006)
    tint = np.array([[0.45, 0.33, 0.2], [0.72, 0.42, 0.22], [0.6, 0.62, 0.62]][rng.integers(3)])
    film = np.clip(film, 0, 1)
    finish.tint -= rng.uniform(0.2, 0.75) * film[..., None] * (1.0 - tint)
    finish.gloss *= 1.0 - rng.uniform(0.0, 0.5) * film


#: The defects of the bracket's surface; each is drawn somewhere on ``surface``, bool ``[S, S]``.
_BRACKET_DEFECTS: dict[str, Callable[[_Finish, NDArray[np.bool_], Rng], None]] = {
    "scratch": _scratch_metal,
    "dent": _dent_metal,
    "stain": _stain_metal,
}
