"""The sentence about a region: how it differs from its twin, how far, how large, and where."""

from __future__ import annotations

from fsad_edge.runtime.found_regions import Region
from fsad_edge.runtime.region_words import describe_place, three_digits
from fsad_edge.twin.comparison import Difference


def sentence_of(region: Region, compared: Difference, mm_per_px: float | None = None) -> str:
    """One sentence with figures: what differs, and apart from it how far the map is above its
    threshold, and over which area.

    Args:
        region: the region.
        compared: how it differs from the places of the shots.
        mm_per_px: millimetres of a pixel of the photograph; None gives pixels.
    """
    return (
        f"{compared.words}; up to {three_digits(region.ratio)} times the threshold, over "
        f"{describe_place(region, mm_per_px)}."
    )
