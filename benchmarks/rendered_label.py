"""The rendered label, as :mod:`benchmarks.rendered_parts` describes a scene."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
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


@dataclass
class _Sheet:
    """A printed label.

    Attributes:
        distance: signed distance to its edge, ``[S, S]``, negative inside.
        paper: coverage of the paper, ``[S, S]``, 0 to 1.
        tooth, mottle: fine and coarse noise of the paper, ``[S, S]``.
        key, spot: coverage of the black and of the blue ink, ``[S, S]``, 0 to 1.
        height: its height above the housing, ``[S, S]``.
        tint: what dirt leaves of its light, ``[S, S, 3]``.
    """

    distance: Array
    paper: Array
    tooth: Array
    mottle: Array
    key: Array
    spot: Array
    height: Array
    tint: Array


def label(size: int, rng: Rng, defect: str, defect_rng: Rng) -> Array:
    """A two-colour printed label on a plastic housing; its lot number differs on every part."""
    px = 2.0 / size
    x, y = axes(size)
    pose = Pose.draw(rng, 0.012, 0.01, 0.004)
    u, v = pose.part(x, y)
    key_art, spot_art = _label_art(2 * size, int(rng.integers(480000, 490000)))
    poses = pose, pose.moved(*rng.normal(0.0, 0.003, 2))
    if defect == "misprint":
        poses = _misprinted(*poses, defect_rng)
    distance = rounded_box(u, v, 0.85, 0.66, 0.05)
    sheet = _Sheet(
        distance,
        paper=np.clip(0.5 - distance / px, 0.0, 1.0),
        tooth=noise(rng, size, 0.9),
        mottle=noise(rng, size, 5.0),
        key=poses[0].warp(key_art, size),
        spot=poses[1].warp(spot_art, size),
        height=np.zeros_like(x),
        tint=np.ones((size, size, 3)),
    )
    bands = np.interp(v, np.linspace(-1.2, 1.2, 90), rng.normal(0.0, 1.0, 90))
    if defect in _LABEL_DEFECTS:
        _LABEL_DEFECTS[defect](sheet, defect_rng)
    rgb = _ink(sheet, bands, rng) * sheet.tint

    pits = blur(rng.standard_normal((size, size)), 1.1)
    gy, gx = np.gradient(sheet.height + 0.0012 * noise(rng, size, size * 0.07), px)
    py, qx = np.gradient(pits * 0.004, px)
    lx, ly = -0.4 + rng.normal(0, 0.2), -0.5 + rng.normal(0, 0.2)
    facing = 1.0 - 1.3 * (gx * lx + gy * ly)
    glare = np.exp(-((0.6 * x - 1.6 * gx - lx) ** 2 + (0.6 * y - 1.6 * gy - ly) ** 2) / 0.35)
    rgb = rgb * np.clip(facing, 0.2, 2)[..., None] + rng.uniform(0.01, 0.05) * glare[..., None]
    case = 0.062 * np.clip(1.0 - 3.0 * (qx * lx + py * ly), 0.3, 3.0)
    shadow = blur(np.roll(sheet.paper, (round(0.006 * size), round(0.005 * size)), (0, 1)), 1.2)
    case = (case + 0.02 * glare) * (1 - 0.55 * shadow)
    rim = 0.12 * np.exp(-((distance / px + 1.0) ** 2)) * np.sign(-u * lx - v * ly)
    base = case[..., None] * np.array([1.0, 1.0, 1.04])
    return paint(base, sheet.paper, np.clip(rgb * (1 - rim[..., None]), 0, None))


def _label_art(side: int, lot: int) -> tuple[Image.Image, Image.Image]:
    """The black and the blue plate of the label, "L" pictures of ``side`` pixels, 255 is ink."""
    key, spot = Image.new("L", (side, side)), Image.new("L", (side, side))
    k, c = ImageDraw.Draw(key), ImageDraw.Draw(spot)
    s = side / 2.0

    def at(a: float, b: float) -> tuple[float, float]:
        return (a + 1.0) * s, (b + 1.0) * s

    def box(draw: ImageDraw.ImageDraw, a: float, b: float, w: float, h: float, fill: int) -> None:
        draw.rectangle([*at(a, b), *at(a + w, b + h)], fill=fill)

    box(c, -0.78, -0.58, 1.56, 0.25, 255)
    text(c, at(-0.73, -0.555), "AQUILO", 0.17 * s, 0)
    text(c, at(0.06, -0.53), "PUMP CONTROL", 0.085 * s, 0)
    rows = ["MODEL", "INPUT", "OUTPUT", "LOT"]
    values = ["PC-2140/S", "24 V DC  1.8 A", "0-10 V  4-20 mA", f"{lot:06d}-07"]
    for i, (name, value) in enumerate(zip(rows, values, strict=True)):
        line = -0.27 + 0.125 * i
        text(k, at(-0.75, line + 0.015), name, 0.06 * s)
        text(k, at(-0.44, line), value, 0.085 * s)
        box(k, -0.75, line + 0.112, 1.02, 0.006, 255)
    c.polygon([at(0.55, -0.25), at(0.72, 0.04), at(0.38, 0.04)], fill=255)
    c.polygon([at(0.55, -0.19), at(0.675, 0.02), at(0.425, 0.02)], fill=0)
    text(k, at(0.528, -0.155), "!", 0.16 * s)
    bits = np.random.default_rng(2140).integers(1, 4, 64)
    edge = -0.75
    for i, width in enumerate(bits):
        if i % 2 == 0:
            box(k, edge, 0.31, width * 0.0082 - 0.001, 0.2, 255)
        edge += width * 0.0082
    text(k, at(-0.6, 0.515), "4 016 2140 0073", 0.055 * s)
    cells = np.random.default_rng(7).integers(0, 2, (14, 14))
    cells[:, 0] = cells[-1, :] = 1
    for row, col in np.argwhere(cells):
        box(k, 0.42 + 0.021 * col, 0.26 + 0.021 * row, 0.02, 0.02, 255)
    return key, spot


def _ink(sheet: _Sheet, bands: Array, rng: Rng) -> Array:
    """The colour of the printed paper, ``[S, S, 3]``; ``bands`` are stripes of the print head."""
    gain = np.clip(1.0 + 0.03 * sheet.tooth + 0.03 * sheet.mottle, 0, None)
    black, blue = rng.uniform(0.86, 0.96), rng.uniform(0.84, 0.95)
    tone = np.array([0.62, 0.615, 0.59]) * (1 + rng.normal(0, 0.015, 3))
    bare = (1 + 0.012 * sheet.tooth + 0.008 * sheet.mottle)[..., None]
    rgb = np.broadcast_to(tone, (*sheet.paper.shape, 3)) * bare
    hue = np.array([0.035, 0.13, 0.33]) * (1 + rng.normal(0, 0.06, 3))
    rgb = paint(rgb, np.clip(blur(sheet.spot, 0.45) * blue * gain * (1 + 0.012 * bands), 0, 1), hue)
    ink = np.clip(blur(sheet.key, 0.45) * black * gain, 0, 1)
    return paint(rgb, ink, np.array([0.02, 0.02, 0.022]))


def _misprinted(key: Pose, spot: Pose, rng: Rng) -> tuple[Pose, Pose]:
    """The poses of the black and the blue ink, one of them out of register."""
    bearing, off = rng.uniform(0.0, 2 * math.pi), rng.uniform(0.022, 0.06)
    step = off * math.cos(bearing), off * math.sin(bearing), rng.normal(0.0, 0.01)
    return (key, spot.moved(*step)) if rng.uniform() < 0.6 else (key.moved(*step), spot)


def _lose_print(sheet: _Sheet, rng: Rng) -> None:
    size = len(sheet.paper)
    px = 2.0 / size
    x, y = axes(size)
    way = rng.uniform()
    at = place(rng, blur(np.maximum(sheet.key, sheet.spot), 3.0) > 0.35)
    if way < 0.45:  # a dead dot of the print head leaves a line along the feed
        for _ in range(int(rng.choice([1, 1, 2, 4]))):
            half = rng.uniform(0.8, 3.0) * px
            reach = rng.uniform(0.2, 1.2)
            lost = smooth(-np.abs(x - at[0]), -half - px, -half) * (np.abs(y - at[1]) < reach)
            at = at + np.array([rng.uniform(0.02, 0.1), 0.0])
            sheet.key, sheet.spot = sheet.key * (1 - 0.9 * lost), sheet.spot * (1 - 0.9 * lost)
    else:
        drop = blob(rng, at, 0.14 * math.exp(rng.normal(0.0, 0.4)), size, 0.3)
        lost = rng.uniform(0.5, 1.0) * smooth(drop + 0.25 * sheet.tooth, -0.1, 0.5)
        sheet.key, sheet.spot = sheet.key * (1 - lost), sheet.spot * (1 - lost)


def _smear_print(sheet: _Sheet, rng: Rng) -> None:
    size, key = len(sheet.paper), sheet.key
    at, reach = place(rng, blur(key, 2.0) > 0.25), rng.uniform(0.18, 0.45)
    bearing = rng.uniform(0.0, 2 * math.pi)
    drag = int(rng.uniform(7, 28) * size / 320)
    window = np.clip(blob(rng, at, reach, size, 0.15) * 3, 0, 1)
    trail = np.zeros_like(key)
    for i in range(1, drag + 1):
        move = round(i * math.sin(bearing)), round(i * math.cos(bearing))
        trail = np.maximum(trail, np.roll(key * window, move, (0, 1)) * (1 - i / (drag + 1)))
    strength = rng.uniform(0.45, 1.0)
    sheet.key = np.maximum(key, strength * trail * np.clip(0.8 + 0.25 * sheet.mottle, 0, 1))


def _raise_bubble(sheet: _Sheet, rng: Rng) -> None:
    size = len(sheet.paper)
    at = place(rng, sheet.distance < -0.1)
    if rng.uniform() < 0.5:
        dome = np.clip(blob(rng, at, 0.15 * math.exp(rng.normal(0.0, 0.35)), size, 0.04), 0, 1)
        height = rng.uniform(0.02, 0.055) * smooth(dome, 0.0, 0.8)
    else:
        line = path(rng, at, rng.uniform(0.25, 0.9), rng.uniform(0, 2 * math.pi), 0.03)
        taper = np.sin(np.linspace(0.1, math.pi - 0.1, len(line)))
        fold = stroke(size, line, 4 * taper * thin(size))
        height = rng.uniform(0.01, 0.032) * blur(fold, rng.uniform(1.2, 2.5) * size / 320)
    sheet.height = height * sheet.paper


def _stain_print(sheet: _Sheet, rng: Rng) -> None:
    at = place(rng, sheet.distance < 0)
    tint = np.array([[0.1, 0.1, 0.11], [0.5, 0.36, 0.2], [0.42, 0.4, 0.36]][rng.integers(3)])
    for _ in range(int(rng.choice([1, 1, 2, 5]))):
        spatter = blob(rng, at, 0.055 * math.exp(rng.normal(0.0, 0.6)), len(sheet.paper), 0.2)
        at = at + rng.normal(0.0, 0.08, 2)
        film = smooth(spatter, -0.1, rng.uniform(0.1, 0.7))[..., None]
        sheet.tint = sheet.tint * (1 - rng.uniform(0.35, 0.95) * film * (1.0 - tint))


#: The defects of a label; a misprint is drawn where the inks are laid on.
_LABEL_DEFECTS: dict[str, Callable[[_Sheet, Rng], None]] = {
    "missing_print": _lose_print,
    "smear": _smear_print,
    "bubble": _raise_bubble,
    "stain": _stain_print,
}
