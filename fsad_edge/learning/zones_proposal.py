"""Which places of the part a person may want to ignore: those where the shots differ most.

It only proposes. Whether a defect matters there, a person knows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsad_edge.errors import InputError
from fsad_edge.learning.taught_model import TaughtModel
from fsad_edge.learning.zones_asked import AskedZone
from fsad_edge.learning.zones_in_effect import check_takes_zones, shares_of, shots_threshold
from fsad_edge.runtime.arrays import BoolArray, Float32Array
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.painted_mask import outline_of
from fsad_edge.runtime.regions import connected_regions
from fsad_edge.runtime.zones import Corner, ZoneEntry, ZoneKind

#: Shares of what counts that are tried as places to ignore, the smallest first.
AREAS = (0.03, 0.05, 0.1, 0.15, 0.2, 0.25)

#: A place is proposed where at least this share of the largest distances of each left-out shot lies
#: in it, judging by the other shots, and where it lowers the threshold by at least this share.
LEAST_SHARE, LEAST_LOWER = 0.6, 0.1

#: The largest distances of a shot are those of so many cells.
LARGEST = 10

#: A patch of fewer cells is not worth a zone.
_LEAST_CELLS = 2


@dataclass(frozen=True)
class ZoneProposal:
    """What could be ignored, or why nothing is proposed.

    Attributes:
        zones: the places; empty where nothing is proposed.
        sentence: why, with figures.
        area: the share of what counts that they cover, 0 to 1.
        largest: the share of the largest left-out distances in them, 0 to 1.
        before: the threshold of the shots as it is.
        after: that threshold without these places.
    """

    zones: tuple[AskedZone, ...]
    sentence: str
    area: float = 0.0
    largest: float = 0.0
    before: float = 0.0
    after: float = 0.0


def propose_zones(model: Model, learner: TaughtModel) -> ZoneProposal:
    """Propose places to ignore, under the zones that count already.

    Args:
        model: the model.
        learner: what it was taught.

    Raises:
        InputError: the file takes no zones.
    """
    check_takes_zones(model)
    metadata = model.metadata
    kept, zones = metadata.left_out, learner.in_effect
    if kept is None:
        return _nothing("the file does not keep how far its shots are from one another")
    if kept.shots < 2:
        return _nothing("one shot does not show where good parts differ")
    if zones.mask is None:
        return _nothing("the file keeps no weights")
    maps = kept.maps * zones.mask
    counts = zones.mask > 0
    before = zones.threshold.value
    held = 0.0
    for area in AREAS:
        held = _share_of_largest(maps, counts, area)
        if held < LEAST_SHARE:
            continue
        places = _places(maps, counts, area, (kept.rows, kept.columns))
        if not places.any():
            continue
        found = _zones(places)
        entries = [ZoneEntry(1, "", "", one.with_weight(None)) for one in found]
        try:
            after = shots_threshold(metadata, [*zones.here, *entries])
        except InputError:  # nothing would be left to look at
            continue
        if after <= (1 - LEAST_LOWER) * before:
            share, _ = shares_of(metadata, [*zones.here, *entries])
            return _proposed(
                found, float(places.ravel()[counts].mean()), share, held, before, after
            )
    return _nothing(
        f"the largest differences between them lie all over the part: the {AREAS[-1]:.0%} of it "
        f"where they differ most hold {held:.0%} of these, and ignoring a smaller place would not "
        f"lower the threshold by {LEAST_LOWER:.0%}"
    )


def _nothing(why: str) -> ZoneProposal:
    return ZoneProposal((), f"There is nothing to propose: {why}.")


def _proposed(
    zones: tuple[AskedZone, ...],
    area: float,
    share: float,
    held: float,
    before: float,
    after: float,
) -> ZoneProposal:
    sentence = (
        f"The shots differ most from one another in {len(zones)} "
        f"{'place' if len(zones) == 1 else 'places'}, {area:.0%} of what counts: {held:.0%} of the "
        f"largest distances of left-out shots lie there. Without that the threshold would be "
        f"{after:.4g} in place of {before:.4g} ({after / before:.2f} times), and {share:.0%} of "
        "the part would count, because the cells around see what is ignored, too. Ignore it only "
        "where no defect matters."
    )
    return ZoneProposal(zones, sentence, area, held, before, after)


def joined(polygons: Sequence[Sequence[Corner]]) -> list[Corner] | None:
    """Polygons that are apart as one, joined by lines without breadth; None where there is none."""
    if not polygons:
        return None
    first, *others = polygons
    start = first[0]
    return [*first, *(point for one in others for point in (start, *one, one[0]))]


def _share_of_largest(maps: Float32Array, counts: BoolArray, area: float) -> float:
    """The share of each shot's largest distances in the place that the other shots show."""
    shares = []
    for index, one in enumerate(maps):
        others = np.delete(maps, index, axis=0)
        place = _top(others, counts, area)
        largest = np.argsort(-one, kind="stable")[:LARGEST]
        shares.append(place[largest].mean())
    return float(np.mean(shares))


def _top(maps: Float32Array, counts: BoolArray, area: float) -> BoolArray:
    """The cells of the largest mean distance, bool ``[P]``, a share of those that count."""
    field = np.where(counts, maps.mean(axis=0), -1)
    count = max(1, round(area * int(counts.sum())))
    place = np.zeros(len(field), np.bool_)
    place[np.argsort(-field, kind="stable")[:count]] = True
    return place


def _places(maps: Float32Array, counts: BoolArray, area: float, grid: tuple[int, int]) -> BoolArray:
    """The same of all shots on the map's grid, bool ``[h, w]``, without single cells."""
    place = _top(maps, counts, area).reshape(grid)
    numbers, sizes = connected_regions(place, diagonal=False)
    large = sizes >= _LEAST_CELLS
    large[0] = False
    return large[numbers]


def _zones(places: BoolArray) -> tuple[AskedZone, ...]:
    """One zone for each connected place."""
    rows, columns = places.shape
    numbers, sizes = connected_regions(places, diagonal=False)
    order: Sequence[int] = (np.argsort(-sizes[1:], kind="stable") + 1).tolist()
    return tuple(
        AskedZone(
            ZoneKind.IGNORE,
            tuple(
                (round(x / columns, 6), round(y / rows, 6)) for x, y in outline_of(numbers == one)
            ),
        )
        for one in order
    )
