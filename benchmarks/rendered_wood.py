"""The rendered wooden board, as :mod:`benchmarks.rendered_parts` describes a scene."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.rendered_brushes import (
    Array,
    Rng,
    axes,
    blob,
    blur,
    noise,
    paint,
    path,
    smooth,
    stroke,
    thin,
)


@dataclass
class _Board:
    """A wooden board.

    Attributes:
        rgb: its colour, ``[S, S, 3]``.
        relief: how high its surface is, ``[S, S]``.
        fibre: noise that is drawn out along the grain, ``[S, S]``.
    """

    rgb: Array
    relief: Array
    fibre: Array


def wood(size: int, rng: Rng, defect: str, defect_rng: Rng) -> Array:
    """A planed softwood board, grain upright; rings, pores and small knots are normal."""
    board = _board(size, rng)
    if defect in _WOOD_DEFECTS:
        _WOOD_DEFECTS[defect](board, defect_rng.uniform(-0.85, 0.85, 2), defect_rng)
    x, y = axes(size)
    gy, gx = np.gradient(board.relief, 2.0 / size)
    way = rng.normal(-2.2, 0.35)
    shade = 1.0 - 0.9 * (gx * math.cos(way) + gy * math.sin(way))
    fall = 1.0 + rng.normal(0.0, 0.07) * x + rng.normal(0.0, 0.07) * y
    sheen = 0.05 * np.exp(-(((x * 0.5 + rng.normal(0, 0.4) + 2.0 * gx) / 0.5) ** 2))
    lit = np.clip(board.rgb, 0, None) * np.clip(shade * fall, 0.2, 2.0)[..., None]
    return lit + sheen[..., None]


def _board(size: int, rng: Rng) -> _Board:
    """A board without a defect."""
    px = 2.0 / size
    x, y = axes(size)
    lean = rng.normal(0.0, 0.03)
    grain = math.pi / 2 + lean
    u, v = y + lean * x, x - lean * y  # u runs along the grain
    v = v + 0.02 * noise(rng, size, 0.4 * size, 0.12 * size, math.pi / 2)
    heart, depth = rng.uniform(-1.6, 1.6), rng.uniform(0.25, 0.9)
    knots = [
        (rng.uniform(-1, 1), rng.uniform(-1, 1), 0.045 * math.exp(rng.normal(0, 0.35)))
        for _ in range(int(rng.choice([0, 0, 0, 1, 1, 2])))
    ]
    radius = np.hypot(v - heart, depth + rng.normal(0.0, 0.12) * u)
    inside = np.zeros_like(x)
    eye = np.zeros_like(x)
    for a, b, r in knots:
        d = np.hypot((u - a) * 0.8, v - b)
        radius = radius + 0.9 * r * np.exp(-((d / (2.4 * r)) ** 2))
        ragged = d + 0.1 * r * noise(rng, size, 0.22 * r * size)
        inside = np.maximum(inside, smooth(-ragged, -1.12 * r, -0.9 * r))
        bark = rng.uniform(0.15, 0.9) * np.exp(-(((ragged - r) / (0.15 * r)) ** 2))
        pith = 0.3 * np.exp(-((d / (0.35 * r)) ** 2))
        core = inside * (0.3 + 0.12 * np.sin(ragged / r * 17.0) + pith)
        eye = np.maximum(eye, np.maximum(bark, core))
    late = _late_wood(size, radius, grain, rng)
    fibre = noise(rng, size, 0.09 * size, 0.5, grain)
    fine = noise(rng, size, 8.0, 0.5, grain)
    pores = smooth(noise(rng, size, 4.5, 0.45, grain), 1.7, 2.8)
    cloud = noise(rng, size, 0.25 * size, 0.1 * size, math.pi / 2)
    dark = 0.14 + 0.62 * late + 0.075 * fibre + 0.05 * fine + 0.05 * cloud
    dark = dark * (1 - 0.8 * inside) + 0.55 * inside + 0.3 * pores
    tone = rng.normal(0.0, 0.08)
    pale = np.array([0.5, 0.325, 0.17]) * (1 + tone)
    deep = np.array([0.26, 0.125, 0.048]) * (1 + tone + rng.normal(0, 0.05))
    rgb = paint(np.broadcast_to(pale, (size, size, 3)), np.clip(dark, 0, 1.3), deep)
    rgb = paint(rgb, 0.75 * np.clip(eye, 0, 1), np.array([0.085, 0.032, 0.013]))
    return _Board(rgb, 0.1 * px * (fine + fibre) - 0.4 * px * pores, fibre)


def _late_wood(size: int, radius: Array, grain: float, rng: Rng) -> Array:
    """How much of the dark, late wood of a ring each pixel is, ``[S, S]``, about 0 to 1."""
    rings = radius * rng.uniform(7.0, 11.0) + 0.1 * noise(
        rng, size, 0.12 * size, 0.016 * size, math.pi / 2
    )
    pace = np.interp(rings, np.linspace(-2, 40, 43), np.cumsum(rng.uniform(0.6, 1.4, 43)))
    phase = pace + 0.022 * noise(rng, size, 0.06 * size, 0.8, grain)
    phase = phase - np.floor(phase)
    return np.asarray(phase**2.6 * (1.0 - smooth(phase, 0.9, 1.0)))


def _scratch_wood(board: _Board, at: Array, rng: Rng) -> None:
    size = len(board.relief)
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        length = min(1.0, 0.35 * math.exp(rng.normal(0.0, 0.5)))
        line = path(rng, at, length, rng.uniform(0, 2 * math.pi), 0.025)
        at = at + rng.normal(0.0, 0.08, 2)
        taper = np.sin(np.linspace(0.2, math.pi - 0.1, len(line))) ** 0.5
        cut = stroke(size, line, rng.uniform(0.6, 1.9) * taper * thin(size))
        cut *= np.clip(0.8 + 0.35 * noise(rng, size, 2.5), 0.1, 1.2)
        board.relief -= rng.uniform(0.4, 1.2) * (2.0 / size) * blur(cut, 0.6)
        fresh = np.array([[0.72, 0.52, 0.32], [0.2, 0.1, 0.05]][rng.integers(2)])
        board.rgb = paint(board.rgb, rng.uniform(0.15, 0.55) * cut, fresh)


def _hole_in_wood(board: _Board, at: Array, rng: Rng) -> None:
    size = len(board.relief)
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        spot = blob(rng, at, 0.018 * math.exp(rng.normal(0.0, 0.4)), size, 0.12)
        at = np.clip(at + rng.normal(0.0, 0.15, 2), -0.95, 0.95)
        rim, inside = smooth(spot, -0.8, 0.1), smooth(spot, -0.1, 0.25)
        board.rgb = paint(board.rgb, 0.5 * rim, np.array([0.25, 0.12, 0.05]))
        board.rgb = paint(board.rgb, 0.92 * inside, np.array([0.035, 0.018, 0.01]))
        board.relief -= 1.2 * (2.0 / size) * blur(smooth(spot, -0.2, 0.3), 1.0)


def _stain_wood(board: _Board, at: Array, rng: Rng) -> None:
    spot = blob(rng, at, 0.15 * math.exp(rng.normal(0.0, 0.45)), len(board.relief), 0.2)
    # A liquid creeps along the fibres, so its rim is drawn out with them.
    film = smooth(spot + 0.1 * board.fibre, -0.05, rng.uniform(0.12, 0.5))
    film = film + 0.6 * rng.uniform() * np.exp(-((spot - 0.08) ** 2) / 0.008)
    tint = np.array([[0.55, 0.5, 0.5], [0.62, 0.42, 0.32], [0.6, 0.68, 0.78]][rng.integers(3)])
    strength = rng.uniform(0.18, 0.7)
    board.rgb = board.rgb * (1 - strength * np.clip(film, 0, 1.2)[..., None] * (1.0 - tint))


def _crack_wood(board: _Board, at: Array, rng: Rng) -> None:
    size = len(board.relief)
    length = min(1.5, 0.5 * math.exp(rng.normal(0.0, 0.5)))
    line = path(rng, at, length, math.pi / 2 + rng.normal(0.0, 0.06), 0.09)
    taper = np.linspace(1.0, 0.2, len(line)) * np.clip(rng.normal(1, 0.3, len(line)), 0.3, 2)
    split = blur(stroke(size, line, rng.uniform(0.7, 2.2) * taper * thin(size)), 0.35)
    gap = rng.uniform(0.5, 0.95) * np.clip(split, 0, 1)
    board.rgb = paint(board.rgb, gap, np.array([0.07, 0.035, 0.02]))
    board.relief -= 0.7 * (2.0 / size) * split


def _dent_wood(board: _Board, at: Array, rng: Rng) -> None:
    spot = blob(rng, at, 0.1 * math.exp(rng.normal(0.0, 0.35)), len(board.relief), 0.1)
    press = smooth(spot, -0.1, rng.uniform(0.5, 1.0))
    # Crushed fibres keep some of their stiffness, so the floor of a dent stays striped.
    floor = blur(press * (1 + 0.12 * board.fibre), 0.8)
    board.relief -= rng.uniform(0.012, 0.035) * floor
    board.rgb = board.rgb * (1 - rng.uniform(0.0, 0.18) * press[..., None])


#: The defects of a board, each drawn around the position ``at``, ``[2]``.
_WOOD_DEFECTS: dict[str, Callable[[_Board, Array, Rng], None]] = {
    "scratch": _scratch_wood,
    "hole": _hole_in_wood,
    "stain": _stain_wood,
    "crack": _crack_wood,
    "dent": _dent_wood,
}
