"""Photographs of small parts that lie anywhere, at any angle, on a plain ground."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fsad_edge.runtime.arrays import UInt8Array

#: Width and height of a photograph, pixels, and length of a part.
WIDTH, HEIGHT, LENGTH = 320, 240, 90

#: Pixels that are drawn for one.
FINE = 4

#: Where a defect is on a part, along its axis and across it, in pixels from its middle.
MARK = (24.0, 0.0)


def at(x: float, y: float, angle: float, along: float, across: float) -> tuple[float, float]:
    """A place of a part in its photograph."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return x + along * cos - across * sin, y + along * sin + across * cos


def bolt(
    x: float,
    y: float,
    angle: float,
    seed: int = 0,
    *,
    ground: float = 150.0,
    part: float = 70.0,
    tilt: float = 0.2,
    defect: bool = False,
    length: float = LENGTH,
    others: tuple[tuple[float, float, float], ...] = (),
) -> UInt8Array:
    """A part with a broad head and two rings, at one place; the light falls off to one side.

    Args:
        x: its middle, pixels.
        y: its middle, pixels.
        angle: degrees clockwise; the head points that way.
        seed: of the noise.
        ground: grey level of the ground in the middle of the photograph.
        part: grey level of the part.
        tilt: how much brighter the left edge is than the right one, as a fraction.
        defect: a bright mark lies on the part at ``MARK``.
        length: length of the part, pixels.
        others: places and angles of further parts.

    Returns:
        uint8 ``[HEIGHT, WIDTH, 3]``.
    """
    canvas = Image.new("L", (WIDTH * FINE, HEIGHT * FINE))
    draw = ImageDraw.Draw(canvas)
    for place in ((x, y, angle), *others):
        _draw(draw, place, length, part)
        if defect:
            mark = [
                at(*place, MARK[0] + u, MARK[1] + v)
                for u, v in ((-4, -4), (4, -4), (4, 4), (-4, 4))
            ]
            draw.polygon([(FINE * u, FINE * v) for u, v in mark], fill=235)
    drawn = np.asarray(canvas.reduce(FINE), np.float64)
    cover = np.asarray(canvas.point(lambda value: 255 * (value > 0)).reduce(FINE), np.float64) / 255
    rng = np.random.default_rng(seed)
    across = np.linspace(1 + tilt, 1 - tilt, WIDTH)
    down = np.linspace(1 + tilt / 2, 1 - tilt / 2, HEIGHT)[:, None]
    grey = (ground * (1 - cover) + drawn) * across * down
    pixels = grey[..., None] + rng.normal(0, 3, (HEIGHT, WIDTH, 3))
    image: UInt8Array = pixels.round().clip(0, 255).astype(np.uint8)
    return image


def _draw(
    draw: ImageDraw.ImageDraw, place: tuple[float, float, float], length: float, part: float
) -> None:
    half, level = length / 2, round(part)
    shapes = [
        ((-half, -7), (half, 7), level),
        ((half - 18, -16), (half, 16), level),
        ((-half + 14, -7), (-half + 20, 7), level // 2),
        ((-half + 28, -7), (-half + 32, 7), level // 2),
    ]
    for (left, top), (right, bottom), fill in shapes:
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        spots = [at(*place, u, v) for u, v in corners]
        draw.polygon([(FINE * u, FINE * v) for u, v in spots], fill=max(fill, 1))


def places(count: int, seed: int) -> list[tuple[float, float, float]]:
    """Places and angles at which a part lies wholly in its photograph."""
    rng = np.random.default_rng(seed)
    return [
        (
            float(rng.uniform(60, WIDTH - 60)),
            float(rng.uniform(60, HEIGHT - 60)),
            float(rng.uniform(0, 360)),
        )
        for _ in range(count)
    ]


def save_bolts(folder: Path, count: int, seed: int, defect: bool = False) -> list[Path]:
    """So many photographs in a folder."""
    folder.mkdir(parents=True)
    files = []
    for index, place in enumerate(places(count, seed)):
        files.append(folder / f"{index}.png")
        image = bolt(*place, 100 * seed + index, defect=defect)
        Image.fromarray(image).save(files[-1])
    return files
