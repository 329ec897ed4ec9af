"""Recall and precision of found regions against masks, and false regions in good images."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsad_edge.evaluation.rate import joined, rate
from fsad_edge.evaluation.region_figures import LEAST_SHARED, Polygon, RegionCounts, meet
from fsad_edge.runtime.arrays import BoolArray
from fsad_edge.runtime.found_regions import regions_of
from fsad_edge.runtime.regions import connected_regions

SIZE = 96


def box(left: float, top: float, right: float, bottom: float) -> Polygon:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


@st.composite
def masks(draw: st.DrawFn) -> BoolArray:
    """Masks of one or more rectangles of at least 8 pixels, which may touch."""
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    for _ in range(draw(st.integers(1, 4))):
        left, top = draw(st.integers(0, SIZE - 8)), draw(st.integers(0, SIZE - 8))
        mask[top : top + draw(st.integers(8, 40)), left : left + draw(st.integers(8, 40))] = True
    return mask


def counted(found: list[Polygon], mask: BoolArray, good: int) -> RegionCounts:
    counts = RegionCounts()
    counts.add_defective(found, mask)
    counts.add_good(good)
    return counts


@given(masks())
def test_a_perfect_map_has_a_recall_and_a_precision_of_one(mask: BoolArray) -> None:
    found = [region.polygon for region in regions_of(mask.astype(np.float32), 0.5, (SIZE, SIZE))]
    figures = counted(list(found), mask, 0).figures()
    defects = len(connected_regions(mask)[1]) - 1
    assert (figures.recall.count, figures.recall.of, figures.recall.share) == (defects, defects, 1)
    assert figures.precision.share == 1
    assert figures.area_on_defects is not None
    assert figures.area_on_defects > 0.9
    assert figures.false_regions_per_good == 0


@given(masks())
def test_the_edges_of_pixels_outline_just_these_pixels(mask: BoolArray) -> None:
    _, sizes = connected_regions(mask)
    if len(sizes) == 2:
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        around = box(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        found = meet([around], mask)
        assert found.area == len(range(rows[0], rows[-1] + 1)) * (columns[-1] + 1 - columns[0])
        assert found.area_on_defects == sizes[1]


@given(masks())
def test_an_empty_map_finds_nothing_and_its_precision_is_undefined(mask: BoolArray) -> None:
    figures = counted([], mask, 0).figures()
    assert (figures.recall.count, figures.recall.share) == (0, 0.0)
    assert (figures.precision.share, figures.area_on_defects) == (None, None)
    assert (figures.precision.low, figures.precision.high) == (0, 1)
    json.dumps(asdict(figures), allow_nan=False)


@given(masks(), st.integers(0, 5))
def test_regions_beside_the_defect_cost_precision_and_no_recall(mask: BoolArray, more: int) -> None:
    wide = np.zeros((SIZE, 2 * SIZE), dtype=bool)
    wide[:, :SIZE] = mask
    right = [box(0, 0, SIZE, SIZE)]
    wrong = [box(SIZE + 10 * index, 0, SIZE + 10 * index + 8, 8) for index in range(more)]
    before, after = (counted(list(found), wide, more).figures() for found in (right, right + wrong))
    assert before.recall == after.recall
    assert (after.precision.count, after.precision.of) == (1, 1 + more)
    assert after.false_regions_per_good == more
    assert (after.good_with_regions.count, after.good_with_regions.of) == (min(more, 1), 1)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 19))
def test_regions_meet_by_a_tenth_of_the_smaller_one(side: int, other: int, shared: int) -> None:
    mask = np.zeros((40, 80), dtype=bool)
    mask[0:20, 20 : 20 + side] = True
    shared = min(shared, side, other)
    found = box(20 - other + shared, 0, 20 + shared, 20)
    met = meet([found], mask).met
    assert met.shape == (1, 1)
    assert bool(met[0, 0]) == (shared > 0 and shared >= LEAST_SHARED * min(side, other))


def test_a_region_that_covers_all_meets_all_but_its_area_tells() -> None:
    mask = np.zeros((100, 100), dtype=bool)
    mask[:10, :10] = mask[50:60, 50:60] = True
    figures = counted([box(0, 0, 100, 100)], mask, 0).figures()
    assert (figures.recall.share, figures.precision.share) == (1, 1)
    assert figures.area_on_defects == 0.02


def test_a_hair_thin_crack_is_found_by_the_coarse_region_over_it() -> None:
    mask = np.zeros((100, 100), dtype=bool)
    mask[50, 30:70] = True
    assert meet([box(24, 40, 80, 60)], mask).met.all()
    assert not meet([box(24, 60, 80, 80)], mask).met.any()


@pytest.mark.parametrize(
    "polygon", [box(-30, -30, -10, -10), box(200, 0, 210, 10), [(5, 5), (5, 5), (5, 5)]]
)
def test_an_outline_beside_the_image_or_without_area_meets_nothing(polygon: Polygon) -> None:
    assert not meet([polygon], np.ones((50, 50), dtype=bool)).met.any()


def test_nothing_counted_is_undefined_and_never_not_a_number() -> None:
    figures = RegionCounts().figures()
    assert (figures.recall.share, figures.precision.share) == (None, None)
    assert figures.false_regions_per_good is None
    assert all(not math.isnan(one.low + one.high) for one in (figures.recall, figures.precision))


def test_rates_are_joined_case_by_case() -> None:
    assert joined([rate(1, 2), rate(3, 10), rate(0, 0)]) == rate(4, 12)
