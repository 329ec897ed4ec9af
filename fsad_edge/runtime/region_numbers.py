"""The numbers of regions on a picture: each beside its region, within the picture."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from fsad_edge.runtime.found_regions import Region

#: A picture whose shorter side has fewer pixels has no room for numbers.
LEAST_SIDE = 160

#: The height of the digits in pixels: a share of the longer side of the picture, within bounds.
SHARE, SMALLEST, LARGEST = 1 / 36, 11, 30

_PAPER, _INK = (255, 255, 255), (28, 32, 38)

Box = tuple[float, float, float, float]


def draw_numbers(picture: Image.Image, regions: Sequence[Region]) -> None:
    """Write the numbers of regions on a picture that shows them.

    Args:
        picture: of mode ``RGB``; it is drawn on.
        regions: in pixels of the picture.
    """
    if min(picture.size) < LEAST_SIDE or not regions:
        return
    draw = ImageDraw.Draw(picture)
    digits = min(max(max(picture.size) * SHARE, SMALLEST), LARGEST)
    font = ImageFont.load_default(digits)
    margin = digits / 4
    height = digits + margin
    sizes = [
        (max(font.getlength(str(region.number)) + 2 * margin, height), height) for region in regions
    ]
    for region, box in zip(regions, place_labels(regions, sizes, picture.size), strict=True):
        draw.rounded_rectangle(box, margin, fill=_INK, outline=_PAPER)
        middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        draw.text(middle, str(region.number), _PAPER, font, anchor="mm")


def place_labels(
    regions: Sequence[Region], sizes: Sequence[tuple[float, float]], picture: tuple[int, int]
) -> list[Box]:
    """Find a place for the label of each region: where it covers other labels and regions least.

    Args:
        regions: in pixels of the picture.
        sizes: width and height of each label in pixels.
        picture: width and height of the picture in pixels; no label is larger.

    Returns:
        left, top, right and bottom of each label, within the picture.
    """
    placed: list[Box] = []
    for region, (width, height) in zip(regions, sizes, strict=True):
        left, top, right, bottom = region.box
        middle = (left + right - width) / 2, (top + bottom - height) / 2
        corners = [
            (right, top - height), (left - width, top - height),
            (right, bottom), (left - width, bottom),
            (middle[0], top - height), (middle[0], bottom),
            (right, middle[1]), (left - width, middle[1]),
            # Inside, for a region as large as the picture.
            (right - width, top), (left, top), (right - width, bottom - height), middle,
        ]  # fmt: skip
        boxes = []
        for x, y in corners:
            x0 = min(max(x, 0.0), picture[0] - 1 - width)
            y0 = min(max(y, 0.0), picture[1] - 1 - height)
            boxes.append((x0, y0, x0 + width, y0 + height))
        # Two labels on one another cannot be read; one on a region hides what it names.
        costs = [
            sum(10 * _shared(box, other) for other in placed)
            + sum(_shared(box, other.box) for other in regions)
            for box in boxes
        ]
        placed.append(boxes[costs.index(min(costs))])
    return placed


def _shared(one: Box, other: Box) -> float:
    """The area of two boxes that they share."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0.0) * max(down, 0.0)
