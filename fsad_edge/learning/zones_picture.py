"""A picture of the zones: drawn over what the model looks at."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fsad_edge.learning.zones_placed import MarkedPhotograph
from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.images import load_image
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.own_pictures import marked as own_mark
from fsad_edge.runtime.zones import Zone, ZoneKind

#: The longer side of the picture, pixels.
SIDE = 720

Colour = tuple[int, int, int]

_IGNORED, _STRICTER, _LENIENT = (40, 44, 52), (214, 60, 40), (40, 110, 200)
_LINES = {
    ZoneKind.IGNORE: (255, 214, 0),
    ZoneKind.LOOK: (60, 200, 90),
    ZoneKind.WEIGHT: (255, 140, 40),
}
_PAPER, _INK = (236, 238, 240), (20, 22, 26)
_SHADE = 0.62  # of a place that does not count


def frame_shown(
    model: Model, photograph: bytes | None, marked: MarkedPhotograph | None
) -> tuple[UInt8Array | None, tuple[int, int]]:
    """What the model looks at in a photograph, or else in the first shot, for :func:`draw_zones`.

    Args:
        model: the model.
        photograph: encoded; None where there is none.
        marked: the same, with the place of the part in it.

    Returns:
        uint8 ``[H, W, 3]``, None where the file holds no picture of a shot; and width and height
        of the picture to draw, pixels.
    """
    metadata = model.metadata
    width, height = float(metadata.width), float(metadata.height)
    if marked is not None and marked.placement is not None:
        width, height = marked.placement.width, marked.placement.height
    elif marked is not None:
        width, height = marked.size
    elif metadata.locator is not None:
        width, height = metadata.locator.width, metadata.locator.height
    factor = SIDE / max(width, height)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if photograph is None:
        pictures = [] if metadata.origins is None else metadata.origins.pictures
        return (load_image(pictures[0]) if pictures else None), size
    return metadata.preparation.load(photograph).pixels, size


def draw_zones(
    shown: UInt8Array | None,
    weights: Float32Array,
    zones: Sequence[tuple[str, Zone]],
    shape: tuple[int, int],
) -> bytes:
    """A PNG of the zones.

    What does not count is dark, and the darker the less cells beside what is ignored count; what
    counts more is red and what counts less is blue. Each zone has its outline and its name.

    Args:
        shown: uint8 ``[H, W, 3]``, what the model looks at; None draws on plain paper.
        weights: float32 ``[h, w]``, of the map's cells.
        zones: those that are drawn, each with its name.
        shape: width and height of the picture, pixels.
    """
    size = shape
    if shown is None:
        picture = Image.new("RGB", size, _PAPER)
    else:
        picture = Image.fromarray(shown).resize(size, Image.Resampling.BICUBIC)
    for colour, strength in (
        (_IGNORED, _SHADE * (1 - weights.clip(0, 1)) * (weights < 0.005)),
        (_LENIENT, 0.45 * (1 - weights.clip(0, 1)) * (weights >= 0.005)),
        (_STRICTER, 0.45 * (1 - 1 / weights.clip(1))),
    ):
        veil = Image.fromarray((strength * 255).astype(np.uint8)).resize(
            size, Image.Resampling.NEAREST
        )
        picture.paste(Image.new("RGB", size, colour), (0, 0), veil)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(20)
    for _, zone in zones:
        points = [(x * size[0], y * size[1]) for x, y in zone.polygon]
        edges = list(zip(points, [*points[1:], points[0]], strict=True))
        # What is drawn there and back only joins patches that are apart.
        seen = [edge for edge in edges if edge[::-1] not in edges]
        for colour, width in ((_INK, 5), (_LINES[zone.kind], 3)):
            for edge in seen:
                draw.line(edge, colour, width)
    for name, zone in zones:  # above all lines
        x, y = zone.polygon[0]
        at = min(max(x * size[0] + 5, 2), size[0] - 34), min(max(y * size[1] + 3, 2), size[1] - 26)
        draw.rectangle((at[0] - 2, at[1], at[0] + 30, at[1] + 23), _INK)
        draw.text(at, name, (255, 255, 255), font)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **own_mark("PNG"))
    return buffer.getvalue()
