"""Heat maps for people: where on the part the anomaly is, and how far above the threshold.

Colours follow the ratio of the map to the threshold, never the range of one image, so that a good
part stays clean and two images can be compared. A second scale shows what lies well below the
threshold, too: in a defect that was missed, what was nearly found. This module needs numpy and
Pillow only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from fsad_edge.options import Decision, HeatScale
from fsad_edge.runtime.arrays import Float32Array, IndexArray, UInt8Array
from fsad_edge.runtime.found_regions import regions_of
from fsad_edge.runtime.plain_text import printable
from fsad_edge.runtime.region_numbers import draw_numbers
from fsad_edge.runtime.region_words import in_pictures
from fsad_edge.runtime.upsampling import upsample as upsample

#: Longer side of a rendered image in pixels: enough for a report, small enough to mail.
MAX_SIDE = 1600

#: The smallest letters of a caption, pixels.
SMALLEST = 12

#: Memory that :func:`overlay` takes for each pixel at most, in bytes.
OVERLAY_BYTES = 80

#: The labels of each scale's legend, ratios to the threshold, from its left end to its right one.
LEGENDS = {
    HeatScale.THRESHOLD: (0.5, 1.0, 1.5, 2.0),
    HeatScale.NEAR: (0.2, 0.4, 0.6, 0.8, 1.0, 1.2),
}


class _Ramp:
    """Colours by ratio to the threshold.

    Args:
        anchors: rows of ratio, opacity, red, green, blue; ratios ascend.
    """

    def __init__(self, anchors: list[list[float]]) -> None:
        rows = np.array(anchors)
        self._lowest, self._highest = float(rows[0, 0]), float(rows[-1, 0])
        steps = np.linspace(self._lowest, self._highest, 512)
        channels = [np.interp(steps, rows[:, 0], channel) for channel in rows[:, 1:].T]
        self._table = np.stack(channels, axis=1).astype(np.float32)

    def colour(self, ratio: Float32Array) -> Float32Array:
        """Opacity, red, green and blue, float32 ``[..., 4]``, of ratios ``[...]``."""
        last = len(self._table) - 1
        step = (ratio - self._lowest) * (last / (self._highest - self._lowest))
        return self._table[step.clip(0, last).astype(np.int16)]


# The colours get steadily darker and redder, so that they can also be read in grey and with
# red-green blindness.
_WARM = _Ramp(
    [
        [0.62, 0.00, 255, 244, 150],
        [0.85, 0.09, 255, 222, 90],
        [1.00, 0.32, 255, 176, 46],
        [1.25, 0.48, 248, 112, 32],
        [1.50, 0.58, 222, 45, 38],
        [2.00, 0.64, 150, 0, 62],
    ]
)
# Below the threshold only. They get darker and bluer, and the warm ones follow at the threshold
# without a transition: with any colour vision they cannot be taken for a place above it.
_COLD = _Ramp(
    [
        [0.20, 0.00, 214, 240, 255],
        [0.45, 0.20, 140, 205, 250],
        [0.70, 0.42, 60, 140, 235],
        [0.90, 0.58, 24, 70, 205],
        [1.00, 0.66, 30, 20, 150],
    ]
)

_PAPER, _INK, _FAINT = (255, 255, 255), (28, 32, 38), (104, 112, 122)

#: The word of each decision on a picture, and its colour.
_BADGES = {
    Decision.GOOD: ("GOOD", (28, 122, 70)),
    Decision.ANOMALY: ("REJECT", (190, 30, 45)),
    Decision.NOT_JUDGED: ("NOT JUDGED", (96, 104, 114)),
}


def shrink(image: UInt8Array, side: int) -> UInt8Array:
    """Bring the longer side of an image down to ``side`` pixels; smaller images stay as they are.

    Args:
        image: uint8 ``[H, W, 3]``.
        side: length of the longer side in pixels.
    """
    height, width = image.shape[:2]
    factor = side / max(height, width)
    return image if factor >= 1 else _scale(image, factor)


def overlay(
    image: UInt8Array,
    anomaly_map: Float32Array,
    threshold: float,
    scale: HeatScale = HeatScale.THRESHOLD,
    numbered: bool = True,
) -> UInt8Array:
    """Draw a map over its image: clear well below the threshold, red above it, a line along it.

    The maps of a model are limited to the score of their image, whose highest place has just that
    score. So there is a line where the score is above the threshold, and none where it is not.

    Args:
        image: uint8 ``[H, W, 3]``, RGB.
        anomaly_map: float32 ``[h, w]`` on the patch grid, covering the whole image.
        threshold: the threshold in the unit of the map, above 0.
        scale: the colours.
        numbered: write its number beside each region, unless the picture is too small for that.

    Returns:
        uint8 ``[H, W, 3]``, RGB. This takes up to ``OVERLAY_BYTES`` of memory a pixel:
        :func:`shrink` large images first, as :func:`render` does.

    Raises:
        ValueError: the threshold is not above 0, or the map is empty or not finite.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((64, 64, 3), np.uint8)
        >>> good = np.full((8, 8), 0.1, np.float32)
        >>> bool((overlay(image, good, threshold=0.5) == image).all())
        True
    """
    if not (np.isfinite(threshold) and threshold > 0):
        raise ValueError(f"the threshold must be above 0, not {threshold}")
    if anomaly_map.ndim != 2 or anomaly_map.size == 0 or not np.isfinite(anomaly_map).all():
        raise ValueError("the anomaly map must be two-dimensional and hold finite numbers")
    height, width = image.shape[:2]
    stretched = upsample(anomaly_map, height, width)
    # In a small picture no pixel lies on the middle of a patch, which may alone be that high.
    stretched[np.unravel_index(stretched.argmax(), stretched.shape)] = anomaly_map.max()
    ratio = stretched / np.float32(threshold)
    tinted = _tint(image.astype(np.float32), ratio, scale)
    if ratio.max() > 1 >= ratio.min():
        line = max(1.2, max(height, width) / 380)
        # A white line with a dark edge is seen on any part and on any colour of the ramp.
        _paint(tinted, _contour(ratio, 2.2 * line) * np.float32(0.55), _INK)
        _paint(tinted, _contour(ratio, line), _PAPER)
    drawn = _to_bytes(tinted)
    regions = regions_of(anomaly_map, threshold, (width, height)) if numbered else ()
    if not regions:
        return drawn
    picture = Image.fromarray(drawn)
    draw_numbers(picture, regions)
    return np.asarray(picture)


def describe(
    name: str,
    score: float,
    threshold: float,
    reasons: Sequence[str] = (),
    regions: str = "",
    out_of_place: str | None = None,
) -> str:
    """The lines of a caption: the name; score and ratio; where the regions are, or why the image
    is not judged, and whether something is missing, extra or in another place.

    Args:
        name: of the image.
        score: its score.
        threshold: the threshold of the score.
        reasons: why it is not judged.
        regions: :func:`~fsad_edge.runtime.region_words.describe_regions` of it.
        out_of_place: :attr:`fsad_edge.Result.out_of_place` of it.
    """
    ratio = f"score {score:.4g}  =  {score / threshold:.2f} x threshold"
    lines = [printable(name), ratio]
    if reasons:
        lines.append("; ".join(reasons))
    else:  # of an image that is not judged, the reason says enough
        lines += [in_pictures(one) for one in (regions, out_of_place) if one]
    return "\n".join(lines)


def render(
    image: UInt8Array,
    anomaly_map: Float32Array,
    threshold: float,
    caption: str,
    decision: Decision | None = None,
    scale: HeatScale = HeatScale.THRESHOLD,
) -> Image.Image:
    """Draw an image for a report: the photograph, its overlay, a caption and the colour scale.

    Wide photographs are stacked, others are put side by side. Large ones are shrunk so that the
    result is at most ``MAX_SIDE`` pixels; small ones are enlarged.

    Args:
        image: uint8 ``[H, W, 3]``, RGB.
        anomaly_map: float32 ``[h, w]`` on the patch grid.
        threshold: the threshold in the unit of the map, above 0.
        caption: up to four lines, of which the first is larger; :func:`describe` makes one.
        decision: shown as a coloured badge; None shows none.
        scale: the colours.

    Raises:
        ValueError: as :func:`overlay` does.

    Example:
        >>> image = np.zeros((64, 64, 3), np.uint8)
        >>> drawn = render(image, np.ones((8, 8), np.float32), 0.5, describe("a.png", 1.0, 0.5))
        >>> drawn.save("a-heatmap.png")  # doctest: +SKIP
    """
    gap, strip, least = 8, 84, 860
    height, width = image.shape[:2]
    stacked = width > 1.8 * height
    across, down = (1, 2) if stacked else (2, 1)
    room = min(
        (MAX_SIDE - gap * (across + 1)) / (across * width),
        (MAX_SIDE - strip - gap * (down + 1)) / (down * height),
    )
    # Small images are enlarged to where a defect is easily seen.
    factor = min(room, max(1.0, (1200 if stacked else 520) / max(height, width)))
    panel = _scale(image, factor)
    height, width = panel.shape[:2]

    canvas_width = max(least, across * width + gap * (across + 1))
    canvas_height = down * height + gap * (down + 1) + strip
    canvas = Image.new("RGB", (canvas_width, canvas_height), _PAPER)
    left = (canvas_width - across * width - gap * (across - 1)) // 2
    second = (left, 2 * gap + height) if stacked else (left + width + gap, gap)
    canvas.paste(Image.fromarray(panel), (left, gap))
    canvas.paste(Image.fromarray(overlay(panel, anomaly_map, threshold, scale)), second)
    _write_strip(canvas, canvas_height - strip, strip, caption, decision, scale)
    return canvas


def colour_scale(width: int, height: int, scale: HeatScale = HeatScale.THRESHOLD) -> UInt8Array:
    """The colours as they look over a mid-grey part, from the first to the last of ``LEGENDS``.

    Args:
        width: width in pixels.
        height: height in pixels.
        scale: the colours.

    Returns:
        uint8 ``[height, width, 3]``, RGB.
    """
    lowest, *_, highest = LEGENDS[scale]
    ratio = np.tile(np.linspace(lowest, highest, width, dtype=np.float32), (height, 1))
    grey = np.full((height, width, 3), 150, dtype=np.float32)
    return _to_bytes(_tint(grey, ratio, scale))


def _tint(image: Float32Array, ratio: Float32Array, scale: HeatScale) -> Float32Array:
    """Blend the colours over an image: float32 ``[H, W, 3]`` 0 to 255, ratios ``[H, W]``."""
    colour = _WARM.colour(ratio)
    if scale is HeatScale.NEAR:
        below = ratio <= 1
        colour[below] = _COLD.colour(ratio[below])
    alpha = colour[..., :1]
    return image + alpha * (colour[..., 1:] - image)


def _paint(image: Float32Array, alpha: Float32Array, colour: tuple[int, int, int]) -> None:
    image += alpha[..., None] * (np.array(colour, dtype=np.float32) - image)


def _to_bytes(image: Float32Array) -> UInt8Array:
    whole: UInt8Array = image.round().clip(0, 255).astype(np.uint8)
    return whole


def _contour(ratio: Float32Array, thickness: float) -> Float32Array:
    """Opacity ``[H, W]`` of an antialiased line of ``thickness`` pixels where ``ratio`` is 1."""
    over = Image.fromarray((ratio > 1).astype(np.uint8) * 255)
    size = 2 * int(np.ceil(thickness / 2)) + 3
    # Only near a real crossing: the distance below is also small on a plateau just under 1.
    highest = np.asarray(over.filter(ImageFilter.MaxFilter(size)))
    lowest = np.asarray(over.filter(ImageFilter.MinFilter(size)))
    rows, columns = np.nonzero(highest != lowest)
    vertical, horizontal = (_slope(ratio, rows, columns, axis) for axis in (0, 1))
    slope = np.hypot(vertical, horizontal)
    distance = np.abs(ratio[rows, columns] - 1) / np.maximum(slope, 1e-6)
    line = np.zeros_like(ratio)
    line[rows, columns] = (thickness / 2 + 0.5 - distance).clip(0, 1)
    return line


def _slope(ratio: Float32Array, rows: IndexArray, columns: IndexArray, axis: int) -> Float32Array:
    """Change of ``ratio`` per pixel along one axis, at some pixels only."""
    position, last = (rows, columns)[axis], ratio.shape[axis] - 1
    after, before = np.minimum(position + 1, last), np.maximum(position - 1, 0)
    if axis == 0:
        rise: Float32Array = ratio[after, columns] - ratio[before, columns]
    else:
        rise = ratio[rows, after] - ratio[rows, before]
    rise /= np.maximum(after - before, 1)
    return rise


def _scale(image: UInt8Array, factor: float) -> UInt8Array:
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _write_strip(
    canvas: Image.Image,
    top: int,
    height: int,
    caption: str,
    decision: Decision | None,
    scale: HeatScale,
) -> None:
    """Badge and caption on the left, colour scale on the right."""
    draw = ImageDraw.Draw(canvas)
    margin, middle = 16, top + height // 2 - 2
    scale_left = _draw_scale(canvas, draw, middle, margin, scale)
    left = margin
    if decision is not None:
        left = draw_badge(draw, left, middle, decision) + margin
    title, *rest = caption.split("\n", 3)
    room = scale_left - left - margin
    lines = [(title, 18, _INK)] + [(line, 15, _FAINT) for line in rest]
    step = (24, 24, 22, 18)[len(rest)]
    baseline = middle - step * len(rest) // 2
    for text, size, ink in lines:
        font = _font_for(text, size, room)
        draw.text((left, baseline), fit(text, font, room), ink, font, anchor="lm")
        baseline += step


def draw_badge(draw: ImageDraw.ImageDraw, left: int, middle: int, decision: Decision) -> int:
    """Draw the word of a decision on its colour, 34 pixels high; return its right edge."""
    font = ImageFont.load_default(17)
    word, colour = _BADGES[decision]
    right = left + round(font.getlength(word)) + 28
    draw.rectangle((left, middle - 17, right, middle + 17), fill=colour)
    draw.text(((left + right) // 2, middle), word, _PAPER, font, anchor="mm")
    return right


def _draw_scale(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, middle: int, margin: int, scale: HeatScale
) -> int:
    """Draw the colour scale at the right edge; return where it begins."""
    width, height = 210, 14
    left = canvas.width - margin - 8 - width
    top = middle - height + 2
    font = ImageFont.load_default(12)
    draw.text((left + width - 1, top - 11), "x threshold", _FAINT, font, anchor="rm")
    canvas.paste(Image.fromarray(colour_scale(width, height, scale)), (left, top))
    lowest, *_, highest = LEGENDS[scale]
    for ratio in LEGENDS[scale]:
        x = round(left + (ratio - lowest) / (highest - lowest) * (width - 1))
        ink = _INK if ratio == 1.0 else _FAINT
        if ratio == 1.0:
            draw.line((x, top - 4, x, top + height + 3), _INK, 2)
        draw.text((x, top + height + 11), f"{ratio:.1f}", ink, font, anchor="mm")
    return left


def _font_for(text: str, size: int, room: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font in which a line fits: smaller where it is long, but never too small to read."""
    while size > SMALLEST and ImageFont.load_default(size).getlength(text) > room:
        size -= 1
    return ImageFont.load_default(size)


def fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> str:
    """Cut the middle out of a text wider than ``room`` pixels: both ends help to tell names."""
    if font.getlength(text) <= room:
        return text
    for kept in range(len(text) - 1, 1, -1):
        shorter = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
        if font.getlength(shorter) <= room:
            return shorter
    return "…"
