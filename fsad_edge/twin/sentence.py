"""The sentence about a region: how it differs from its twin, how far, how large, and where."""

from __future__ import annotations

from fsad_edge.runtime.found_regions import Region
from fsad_edge.twin.comparison import Difference


def sentence_of(region: Region, compared: Difference, mm_per_px: float | None = None) -> str:
    """One sentence with figures.

    Args:
        region: the region.
        compared: how it differs from the places of the shots.
        mm_per_px: millimetres of a pixel of the photograph; None gives pixels.
    """
    scale, unit = (1.0, "px") if mm_per_px is None else (mm_per_px, "mm")
    x, y = (_number(one * scale, mm_per_px is not None) for one in region.centroid)
    area = _number(region.area * scale**2, region.area * scale**2 < 10)
    return (
        f"{compared.words}; {region.ratio:.3g} times the tolerance; {area} {unit}² at {x}, {y}"
        f"{' mm' if mm_per_px is not None else ''}."
    )


def _number(value: float, fine: bool) -> str:
    return f"{value:,.1f}" if fine else f"{value:,.0f}"
