"""What is said of regions: where they are, and how far the map is above its threshold there.

Figures for people have three significant digits: the line that a map draws around a defect is not
known to a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsad_edge.runtime.found_regions import Region

#: What the font of pictures lacks, and what is written there.
_IN_PICTURES = (("px²", "square px"), ("mm²", "square mm"), ("×", "x"))


def three_digits(value: float) -> str:
    """A number with three significant digits, and never as a power of ten.

    Example:
        >>> three_digits(77774.3), three_digits(0.020044), three_digits(5.0), three_digits(999.6)
        ('77,800', '0.02', '5', '1,000')
    """
    return f"{Decimal(f'{value:.3g}'):,f}"


def describe_place(region: Region, mm_per_px: float | None = None) -> str:
    """How large a region is, its width and height, and where its middle is.

    Args:
        region: the region.
        mm_per_px: millimetres that a pixel of the photograph shows; None gives pixels.
    """
    scale, unit = (1.0, "px") if mm_per_px is None else (mm_per_px, "mm")
    left, top, right, bottom = (side * scale for side in region.box)
    width, height = three_digits(right - left), three_digits(bottom - top)
    # A place is no size: its pixel is told, and there is no comma within a number.
    middle = (
        f"{one:.0f}" if mm_per_px is None else three_digits(one * scale).replace(",", "")
        for one in region.centroid
    )
    where = ", ".join(middle) + ("" if mm_per_px is None else " mm")
    area = three_digits(region.area * scale**2)
    return f"{area} {unit}² ({width} × {height} {unit}) at {where}"


def describe_regions(
    regions: Sequence[Region], more: int = 0, mm_per_px: float | None = None
) -> str:
    """Regions for a line of text: the size and the middle of the first, and how many there are.

    Example:
        >>> import numpy as np
        >>> from fsad_edge.runtime.found_regions import regions_of
        >>> found = regions_of(np.eye(4, dtype=np.float32), 0.5, size=(400, 400))
        >>> describe_regions(found)
        '42,500 px² (400 × 400 px) at 200, 200'
        >>> describe_regions(found, more=2, mm_per_px=0.1)
        '425 mm² (40 × 40 mm) at 20, 20 mm, and 2 other regions'
    """
    if not regions:
        return ""
    others = describe_others(len(regions) - 1 + more)
    return describe_place(regions[0], mm_per_px) + (f", {others}" if others else "")


def describe_others(count: int) -> str:
    """How many other regions there are: "and 2 other regions"; empty where there is none."""
    return f"and {count} other region{'s' if count > 1 else ''}" if count else ""


def in_pictures(text: str) -> str:
    """A text without the signs that the font of pictures lacks."""
    for sign, words in _IN_PICTURES:
        text = text.replace(sign, words)
    return text
