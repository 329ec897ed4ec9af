"""A picture of a reject beside its twins, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fsad_edge.options import Decision
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.heatmap import draw_badge, fit
from fsad_edge.runtime.plain_text import printable
from fsad_edge.runtime.region_words import in_pictures
from fsad_edge.twin.find import CROP, Twin

#: Pixels: of the sides of the photograph, between pictures, and of a line of text.
PHOTOGRAPH, GAP, LINE = 2 * CROP, 12, 20

_PAPER, _INK, _FAINT, _MARK = (255, 255, 255), (28, 32, 38), (104, 112, 122), (190, 30, 45)


class Title(NamedTuple):
    """What stands above the picture.

    Attributes:
        decision: shown as the coloured word that heat maps have.
        name: of the photograph.
        words: what else is said of it.
    """

    decision: Decision
    name: str
    words: str


def draw_twins(
    photograph: UInt8Array, size: tuple[int, int], twins: Sequence[Twin], title: Title
) -> Image.Image:
    """The photograph with its regions, and a row for each twin: crop, good place, difference.

    Below each row stands its sentence.

    Args:
        photograph: uint8 ``[H, W, 3]``, at any scale.
        size: width and height in pixels in which the regions are.
        twins: of the photograph; at least one.
        title: what stands above them.
    """
    whole = _within(photograph, PHOTOGRAPH)
    _mark(whole, size, twins)
    width = whole.width + 3 * CROP + 5 * GAP
    rows = [_row(twin, 3 * CROP + 2 * GAP) for twin in twins]
    head = 2 * LINE + 2 * GAP
    height = head + max(whole.height + GAP, sum(row.height + GAP for row in rows))
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw, large, small = ImageDraw.Draw(canvas), *map(ImageFont.load_default, (18, 15))
    left = draw_badge(draw, GAP, head // 2, title.decision) + GAP
    room = width - left - GAP
    draw.text((left, GAP - 2), fit(printable(title.name), large, room), _INK, large)
    draw.text((left, GAP + LINE + 2), fit(title.words, small, room), _FAINT, small)
    canvas.paste(whole, (GAP, head))
    top = head
    for row in rows:
        canvas.paste(row, (whole.width + 2 * GAP, top))
        top += row.height + GAP
    return canvas


def _mark(picture: Image.Image, size: tuple[int, int], twins: Sequence[Twin]) -> None:
    """Draw the regions' boxes and numbers."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    across, down = picture.width / size[0], picture.height / size[1]
    for twin in twins:
        left, top, right, bottom = twin.region.box
        draw.rectangle((left * across, top * down, right * across, bottom * down), None, _MARK, 2)
        where = (left * across + 4, max(top * down - 16, 0))
        number = str(twin.region.number)
        draw.text(where, number, _MARK, font, stroke_width=2, stroke_fill=_PAPER)


def _row(twin: Twin, width: int) -> Image.Image:
    """The three pictures of a twin, what they are, and its sentence."""
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    lines = _wrapped(in_pictures(twin.sentence), font, width)
    height = twin.crop.shape[0]
    canvas = Image.new("RGB", (width, LINE + height + 6 + LINE * len(lines)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    words = f"region {twin.region.number}", f"most similar: {twin.name}", "difference"
    for place, (title, pixels) in enumerate(
        zip(words, (twin.crop, twin.good, twin.difference), strict=True)
    ):
        left = place * (CROP + GAP)
        draw.text((left, 0), fit(printable(title), small, CROP), _FAINT, small)
        canvas.paste(Image.fromarray(pixels), (left, LINE))
    for place, line in enumerate(lines):
        draw.text((0, LINE + height + 6 + LINE * place), line, _INK, font)
    return canvas


def _within(pixels: UInt8Array, side: int) -> Image.Image:
    """An image whose longer side is as long as this, in pixels."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    factor = side / max(image.size)
    width, height = (max(1, round(length * factor)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> list[str]:
    """A text in lines that are no wider than there is room for, in pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if font.getlength(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
