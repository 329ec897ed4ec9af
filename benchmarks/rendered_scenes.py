"""The three rendered parts: what light they send to the camera, with and without a defect.

Each scene is a function `(size, rng, defect, hit) -> rgb`. `rng` draws everything that varies
between good parts (pose, texture, light); `hit` draws the defect and nothing else, so that two
calls with equal `rng` states differ only where the defect is. `rgb` is float64 [size, size, 3],
linear light, about 0 to 1.2.
"""

from __future__ import annotations

import math

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


def bracket(size: int, rng: Rng, defect: str, hit: Rng) -> Array:
    """A brushed aluminium plate: bore with a turned face, slot, four countersunk holes."""
    px = 2.0 / size
    x, y = axes(size)
    pose = Pose.draw(rng, 0.03, 0.02, 0.008)
    u, v = pose.part(x, y)
    corners = [[a, b, 0.078] for a in (-0.6, 0.6) for b in (-0.4, 0.4)]
    holes = np.array([*corners, [-0.2, 0.0, 0.2]])
    holes[:, :2] += rng.normal(0.0, 0.003, (5, 2))
    if defect == "missing_hole":
        k, way = int(hit.integers(4)), hit.uniform()
        if way < 0.4:
            holes = np.delete(holes, k, axis=0)
        elif way < 0.7:
            holes[k, 2] *= hit.uniform(0.45, 0.8)
        else:
            away = hit.uniform(0.0, 2 * math.pi)
            holes[k, :2] += hit.uniform(0.03, 0.07) * np.array([math.cos(away), math.sin(away)])
    outline = rounded_box(u, v, 0.82, 0.6, 0.17)
    rounds = [(np.hypot(u - a, v - b) - r, a, b, r) for a, b, r in holes]
    slot = np.hypot(np.maximum(np.abs(u - 0.4) - 0.13, 0.0), v) - 0.06
    voids = np.minimum.reduce([slot, *(d for d, *_ in rounds)])
    if defect == "chip":
        edge = outline if hit.uniform() < 0.6 else -voids
        at = place(hit, np.abs(edge) < px)
        reach, amount = hit.uniform(0.025, 0.1), hit.choice([-1, 1, 1]) * hit.uniform(0.02, 0.07)
        near = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / reach**2)
        jag = 0.75 + 0.35 * noise(hit, size, 1.6)
        bite = amount * jag * near
        # The sign says which: metal broken out of the edge, or a burr standing over it.
        outline, voids = (outline + bite, voids) if edge is outline else (outline, voids - bite)
    cover = np.clip(0.5 - np.maximum(outline, -voids) / px, 0.0, 1.0)

    height = np.clip(-outline, 0.0, 0.028) + np.clip(slot, 0.0, 0.022)
    for d, _, _, r in rounds:
        height = height + np.clip(d, 0.0, 0.03 if r < 0.15 else 0.02)
    ring = (np.abs(np.hypot(u - holes[-1, 0], v - holes[-1, 1]) - 0.265) < 0.045).astype(float)
    height = height - 0.006 * blur(ring, 0.7)
    mark = Image.new("L", (2 * size, 2 * size))
    text(ImageDraw.Draw(mark), (1.03 * size, 1.33 * size), "BR-204 A", 0.085 * size)
    etched = pose.warp(mark, size)

    brush = pose.turn + rng.normal(0.0, 0.008)
    streaks = 0.7 * noise(rng, size, size * 0.2, 0.45, brush)
    streaks = streaks + 0.5 * noise(rng, size, 9.0, 0.6, brush)
    rho = np.hypot(u - holes[-1, 0], v - holes[-1, 1])
    radii = np.arange(0.0, 1.6, px * 0.7)
    lathe = np.interp(rho, radii, rng.standard_normal(len(radii)))
    tx, ty = np.full_like(x, math.cos(brush)), np.full_like(x, math.sin(brush))
    nx, ny = (u - holes[-1, 0]) / (rho + 1e-6), (v - holes[-1, 1]) / (rho + 1e-6)
    tx, ty = tx + ring * (-ny - tx), ty + ring * (nx - ty)
    grain = streaks * (1.0 - ring) + lathe * ring
    patina = noise(rng, size, size * 0.06)
    speck = noise(rng, size, 0.8)

    flaw, gloss = np.zeros_like(x), np.ones_like(x)
    dirt = np.ones((size, size, 3))
    surface = blur(cover, 2.0) > 0.97
    if defect == "scratch":
        for _ in range(int(hit.choice([1, 1, 1, 2, 3]))):
            length = min(0.9, 0.28 * math.exp(hit.normal(0.0, 0.6)))
            line = path(hit, place(hit, surface), length, hit.uniform(0, 2 * math.pi), 0.02)
            taper = np.sin(np.linspace(0.15, math.pi - 0.1, len(line))) ** 0.6
            cut = stroke(size, line, hit.uniform(0.5, 1.5) * taper * thin(size))
            cut *= np.clip(0.85 + 0.3 * noise(hit, size, 3.0), 0.2, 1.3)
            flaw -= hit.uniform(0.3, 0.8) * px * blur(cut, 0.6)
            gloss = gloss * (1.0 + hit.choice([-0.35, 0.45]) * hit.uniform(0.4, 1.0) * cut)
    elif defect == "dent":
        at, radius = place(hit, surface), 0.05 * math.exp(hit.normal(0.0, 0.4))
        deep = np.clip(blob(hit, at, radius * 1.5, size, 0.05), 0.0, 1.0)
        bowl = smooth(deep, 0.0, 0.85)
        flaw -= hit.uniform(0.12, 0.4) * radius * (bowl - 0.35 * smooth(deep, 0, 0.3) * (1 - bowl))
        gloss = gloss * (1.0 + hit.uniform(-0.2, 0.1) * bowl)
    elif defect == "stain":
        at, radius = place(hit, surface), 0.1 * math.exp(hit.normal(0.0, 0.45))
        spot = blob(hit, at, radius, size, 0.25)
        film = smooth(spot, -0.05, hit.uniform(0.1, 0.6)) * (0.8 + 0.15 * noise(hit, size, 4.0))
        film = film + 0.5 * hit.uniform() * np.exp(-((spot - 0.06) ** 2) / 0.006)
        tint = np.array([[0.45, 0.33, 0.2], [0.72, 0.42, 0.22], [0.6, 0.62, 0.62]][hit.integers(3)])
        dirt = dirt - hit.uniform(0.2, 0.75) * np.clip(film, 0, 1)[..., None] * (1.0 - tint)
        gloss = gloss * (1.0 - hit.uniform(0.0, 0.5) * np.clip(film, 0, 1))

    shape = blur(height, 0.8 * size / 320) + flaw
    gy, gx = np.gradient(shape, px)
    gx, gy = -gx, -gy
    lx, ly = -0.25 + rng.normal(0.0, 0.3), -0.4 + rng.normal(0.0, 0.22)
    norm = math.hypot(lx, ly) + 1e-6
    ex, ey = 0.55 * x + 1.5 * gx - lx, 0.55 * y + 1.5 * gy - ly
    along = ex * tx + ey * ty
    across = ey * tx - ex * ty + 0.2 * grain
    spec = np.exp(-0.5 * ((along / 0.36) ** 2 + (across / 0.75) ** 2))
    facing = np.tanh(1.6 * (gx * lx + gy * ly) / norm)
    light = 0.2 + 0.19 * facing + rng.uniform(0.4, 0.6) * spec * gloss
    light = light * (1.0 + 0.085 * grain + 0.03 * patina + 0.015 * speck) * (0.5 + 0.5 * gloss)
    light = light * (1.0 - 0.45 * etched * (1 + 0.2 * speck))
    metal = np.clip(light, 0.0, None)[..., None] * dirt * np.array([0.97, 0.985, 1.0])

    rubber = 0.055 * (1.0 + 0.22 * noise(rng, size, 1.0) + 0.12 * noise(rng, size, 6.0))
    shift = (round(0.016 * size), round(0.012 * size))
    shadow = blur(np.roll(cover, shift, (0, 1)), 0.014 * size) * 0.6 + blur(cover, 2.0) * 0.3
    rgb = (np.clip(rubber, 0, None) * (1.0 - shadow))[..., None] * np.array([0.9, 1.0, 1.12])
    for d, a, b, r in rounds:
        # Parallax: the camera sees the wall of a hole on the side away from the picture's centre.
        wall = smooth(np.hypot(u - a * 0.955, v - b * 0.955) - r * 0.97, -px, px)
        lit = 0.1 + 0.13 * np.tanh(6 * ((u - a) * -lx + (v - b) * -ly) / (r * 4))
        rgb = paint(rgb, wall * (d < px), lit[..., None] * np.array([0.95, 0.97, 1.0]))
    return paint(rgb, cover, metal)


def wood(size: int, rng: Rng, defect: str, hit: Rng) -> Array:
    """A planed softwood board, grain upright; rings, pores and small knots are normal."""
    px = 2.0 / size
    x, y = axes(size)
    lean = rng.normal(0.0, 0.03)
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
        bark, core = rng.uniform(0.15, 0.9) * np.exp(-(((ragged - r) / (0.15 * r)) ** 2)), inside
        pith = 0.3 * np.exp(-((d / (0.35 * r)) ** 2))
        core = core * (0.3 + 0.12 * np.sin(ragged / r * 17.0) + pith)
        eye = np.maximum(eye, np.maximum(bark, core))
    rings = radius * rng.uniform(7.0, 11.0) + 0.1 * noise(
        rng, size, 0.12 * size, 0.016 * size, math.pi / 2
    )
    pace = np.interp(rings, np.linspace(-2, 40, 43), np.cumsum(rng.uniform(0.6, 1.4, 43)))
    phase = pace + 0.022 * noise(rng, size, 0.06 * size, 0.8, math.pi / 2 + lean)
    phase = phase - np.floor(phase)
    late = phase**2.6 * (1.0 - smooth(phase, 0.9, 1.0))
    fibre = noise(rng, size, 0.09 * size, 0.5, math.pi / 2 + lean)
    fine = noise(rng, size, 8.0, 0.5, math.pi / 2 + lean)
    pores = smooth(noise(rng, size, 4.5, 0.45, math.pi / 2 + lean), 1.7, 2.8)
    cloud = noise(rng, size, 0.25 * size, 0.1 * size, math.pi / 2)
    dark = 0.14 + 0.62 * late + 0.075 * fibre + 0.05 * fine + 0.05 * cloud
    dark = dark * (1 - 0.8 * inside) + 0.55 * inside + 0.3 * pores
    tone = rng.normal(0.0, 0.08)
    pale = np.array([0.5, 0.325, 0.17]) * (1 + tone)
    deep = np.array([0.26, 0.125, 0.048]) * (1 + tone + rng.normal(0, 0.05))
    rgb = paint(np.broadcast_to(pale, (size, size, 3)), np.clip(dark, 0, 1.3), deep)
    rgb = paint(rgb, 0.75 * np.clip(eye, 0, 1), np.array([0.085, 0.032, 0.013]))
    relief = 0.1 * px * (fine + fibre) - 0.4 * px * pores

    here = hit.uniform(-0.85, 0.85, 2)
    if defect == "scratch":
        for _ in range(int(hit.choice([1, 1, 2, 3]))):
            length = min(1.0, 0.35 * math.exp(hit.normal(0.0, 0.5)))
            line = path(hit, here, length, hit.uniform(0, 2 * math.pi), 0.025)
            here = here + hit.normal(0.0, 0.08, 2)
            taper = np.sin(np.linspace(0.2, math.pi - 0.1, len(line))) ** 0.5
            cut = stroke(size, line, hit.uniform(0.6, 1.9) * taper * thin(size))
            cut *= np.clip(0.8 + 0.35 * noise(hit, size, 2.5), 0.1, 1.2)
            relief = relief - hit.uniform(0.4, 1.2) * px * blur(cut, 0.6)
            fresh = np.array([[0.72, 0.52, 0.32], [0.2, 0.1, 0.05]][hit.integers(2)])
            rgb = paint(rgb, hit.uniform(0.15, 0.55) * cut, fresh)
    elif defect == "hole":
        for _ in range(int(hit.choice([1, 1, 2, 3]))):
            r = 0.018 * math.exp(hit.normal(0.0, 0.4))
            spot = blob(hit, here, r, size, 0.12)
            here = np.clip(here + hit.normal(0.0, 0.15, 2), -0.95, 0.95)
            rgb = paint(rgb, 0.5 * smooth(spot, -0.8, 0.1), np.array([0.25, 0.12, 0.05]))
            rgb = paint(rgb, 0.92 * smooth(spot, -0.1, 0.25), np.array([0.035, 0.018, 0.01]))
            relief = relief - 1.2 * px * blur(smooth(spot, -0.2, 0.3), 1.0)
    elif defect == "stain":
        spot = blob(hit, here, 0.15 * math.exp(hit.normal(0.0, 0.45)), size, 0.2)
        # A liquid creeps along the fibres, so its rim is drawn out with them.
        film = smooth(spot + 0.1 * fibre, -0.05, hit.uniform(0.12, 0.5))
        film = film + 0.6 * hit.uniform() * np.exp(-((spot - 0.08) ** 2) / 0.008)
        tint = np.array([[0.55, 0.5, 0.5], [0.62, 0.42, 0.32], [0.6, 0.68, 0.78]][hit.integers(3)])
        rgb = rgb * (1 - hit.uniform(0.18, 0.7) * np.clip(film, 0, 1.2)[..., None] * (1.0 - tint))
    elif defect == "crack":
        length = min(1.5, 0.5 * math.exp(hit.normal(0.0, 0.5)))
        line = path(hit, here, length, math.pi / 2 + hit.normal(0.0, 0.06), 0.09)
        taper = np.linspace(1.0, 0.2, len(line)) * np.clip(hit.normal(1, 0.3, len(line)), 0.3, 2)
        split = blur(stroke(size, line, hit.uniform(0.7, 2.2) * taper * thin(size)), 0.35)
        gap = hit.uniform(0.5, 0.95) * np.clip(split, 0, 1)
        rgb = paint(rgb, gap, np.array([0.07, 0.035, 0.02]))
        relief = relief - 0.7 * px * split
    elif defect == "dent":
        spot = blob(hit, here, 0.1 * math.exp(hit.normal(0.0, 0.35)), size, 0.1)
        press = smooth(spot, -0.1, hit.uniform(0.5, 1.0))
        # Crushed fibres keep some of their stiffness, so the floor of a dent stays striped.
        relief = relief - hit.uniform(0.012, 0.035) * blur(press * (1 + 0.12 * fibre), 0.8)
        rgb = rgb * (1 - hit.uniform(0.0, 0.18) * press[..., None])

    gy, gx = np.gradient(relief, px)
    way = rng.normal(-2.2, 0.35)
    shade = 1.0 - 0.9 * (gx * math.cos(way) + gy * math.sin(way))
    fall = 1.0 + rng.normal(0.0, 0.07) * x + rng.normal(0.0, 0.07) * y
    sheen = 0.05 * np.exp(-(((x * 0.5 + rng.normal(0, 0.4) + 2.0 * gx) / 0.5) ** 2))
    return np.clip(rgb, 0, None) * np.clip(shade * fall, 0.2, 2.0)[..., None] + sheen[..., None]


def _label_art(side: int, lot: int) -> tuple[Image.Image, Image.Image]:
    """The black and the colour plate of the label, "L" pictures of `side` pixels, 255 is ink."""
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


def label(size: int, rng: Rng, defect: str, hit: Rng) -> Array:
    """A two-colour printed label on a plastic housing; its lot number differs on every part."""
    px = 2.0 / size
    x, y = axes(size)
    pose = Pose.draw(rng, 0.012, 0.01, 0.004)
    u, v = pose.part(x, y)
    art = _label_art(2 * size, int(rng.integers(480000, 490000)))
    register, key_pose = pose.moved(*rng.normal(0.0, 0.003, 2)), pose
    if defect == "misprint":
        bearing, off = hit.uniform(0.0, 2 * math.pi), hit.uniform(0.022, 0.06)
        step = off * math.cos(bearing), off * math.sin(bearing), hit.normal(0.0, 0.01)
        if hit.uniform() < 0.6:
            register = register.moved(*step)
        else:
            key_pose = key_pose.moved(*step)
    key, spot = key_pose.warp(art[0], size), register.warp(art[1], size)
    sheet = rounded_box(u, v, 0.85, 0.66, 0.05)
    paper = np.clip(0.5 - sheet / px, 0.0, 1.0)
    tooth = noise(rng, size, 0.9)
    mottle = noise(rng, size, 5.0)
    gain = np.clip(1.0 + 0.03 * tooth + 0.03 * mottle, 0, None)
    bands = np.interp(v, np.linspace(-1.2, 1.2, 90), rng.normal(0.0, 1.0, 90))
    height = np.zeros_like(x)
    dirt = np.ones((size, size, 3))
    printed = blur(np.maximum(key, spot), 3.0)
    if defect == "missing_print":
        way = hit.uniform()
        at = place(hit, printed > 0.35)
        if way < 0.45:  # a dead dot of the print head leaves a line along the feed
            for _ in range(int(hit.choice([1, 1, 2, 4]))):
                half = hit.uniform(0.8, 3.0) * px
                reach = hit.uniform(0.2, 1.2)
                lost = smooth(-np.abs(x - at[0]), -half - px, -half) * (np.abs(y - at[1]) < reach)
                at = at + np.array([hit.uniform(0.02, 0.1), 0.0])
                key, spot = key * (1 - 0.9 * lost), spot * (1 - 0.9 * lost)
        else:
            drop = blob(hit, at, 0.14 * math.exp(hit.normal(0.0, 0.4)), size, 0.3)
            lost = hit.uniform(0.5, 1.0) * smooth(drop + 0.25 * tooth, -0.1, 0.5)
            key, spot = key * (1 - lost), spot * (1 - lost)
    elif defect == "smear":
        at, reach = place(hit, blur(key, 2.0) > 0.25), hit.uniform(0.18, 0.45)
        bearing = hit.uniform(0.0, 2 * math.pi)
        drag = int(hit.uniform(7, 28) * size / 320)
        window = np.clip(blob(hit, at, reach, size, 0.15) * 3, 0, 1)
        trail = np.zeros_like(key)
        for i in range(1, drag + 1):
            move = round(i * math.sin(bearing)), round(i * math.cos(bearing))
            trail = np.maximum(trail, np.roll(key * window, move, (0, 1)) * (1 - i / (drag + 1)))
        key = np.maximum(key, hit.uniform(0.45, 1.0) * trail * np.clip(0.8 + 0.25 * mottle, 0, 1))
    elif defect == "bubble":
        at = place(hit, sheet < -0.1)
        if hit.uniform() < 0.5:
            dome = np.clip(blob(hit, at, 0.15 * math.exp(hit.normal(0.0, 0.35)), size, 0.04), 0, 1)
            height = hit.uniform(0.02, 0.055) * smooth(dome, 0.0, 0.8)
        else:
            line = path(hit, at, hit.uniform(0.25, 0.9), hit.uniform(0, 2 * math.pi), 0.03)
            taper = np.sin(np.linspace(0.1, math.pi - 0.1, len(line)))
            fold = stroke(size, line, 4 * taper * thin(size))
            height = hit.uniform(0.01, 0.032) * blur(fold, hit.uniform(1.2, 2.5) * size / 320)
        height = height * paper
    elif defect == "stain":
        at = place(hit, sheet < 0)
        tint = np.array([[0.1, 0.1, 0.11], [0.5, 0.36, 0.2], [0.42, 0.4, 0.36]][hit.integers(3)])
        for _ in range(int(hit.choice([1, 1, 2, 5]))):
            spatter = blob(hit, at, 0.055 * math.exp(hit.normal(0.0, 0.6)), size, 0.2)
            at = at + hit.normal(0.0, 0.08, 2)
            film = smooth(spatter, -0.1, hit.uniform(0.1, 0.7))[..., None]
            dirt = dirt * (1 - hit.uniform(0.35, 0.95) * film * (1.0 - tint))

    ink = rng.uniform(0.86, 0.96), rng.uniform(0.84, 0.95)
    tone = np.array([0.62, 0.615, 0.59]) * (1 + rng.normal(0, 0.015, 3))
    rgb = np.broadcast_to(tone, (size, size, 3)) * (1 + 0.012 * tooth + 0.008 * mottle)[..., None]
    hue = np.array([0.035, 0.13, 0.33]) * (1 + rng.normal(0, 0.06, 3))
    rgb = paint(rgb, np.clip(blur(spot, 0.45) * ink[1] * gain * (1 + 0.012 * bands), 0, 1), hue)
    rgb = paint(rgb, np.clip(blur(key, 0.45) * ink[0] * gain, 0, 1), np.array([0.02, 0.02, 0.022]))
    rgb = rgb * dirt

    pits = blur(rng.standard_normal((size, size)), 1.1)
    gy, gx = np.gradient(height + 0.0012 * noise(rng, size, size * 0.07), px)
    py, qx = np.gradient(pits * 0.004, px)
    lx, ly = -0.4 + rng.normal(0, 0.2), -0.5 + rng.normal(0, 0.2)
    facing = 1.0 - 1.3 * (gx * lx + gy * ly)
    glare = np.exp(-((0.6 * x - 1.6 * gx - lx) ** 2 + (0.6 * y - 1.6 * gy - ly) ** 2) / 0.35)
    rgb = rgb * np.clip(facing, 0.2, 2)[..., None] + rng.uniform(0.01, 0.05) * glare[..., None]
    case = 0.062 * np.clip(1.0 - 3.0 * (qx * lx + py * ly), 0.3, 3.0)
    shadow = blur(np.roll(paper, (round(0.006 * size), round(0.005 * size)), (0, 1)), 1.2)
    case = (case + 0.02 * glare) * (1 - 0.55 * shadow)
    rim = 0.12 * np.exp(-((sheet / px + 1.0) ** 2)) * np.sign(-u * lx - v * ly)
    base = case[..., None] * np.array([1.0, 1.0, 1.04])
    return paint(base, paper, np.clip(rgb * (1 - rim[..., None]), 0, None))
