"""The regions of a map: their laws, and that they are what pictures show."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fsad_edge.runtime.found_regions import (
    MOST_REGIONS,
    Region,
    find_regions,
    region_document,
    regions_of,
)
from fsad_edge.runtime.heatmap import overlay
from fsad_edge.runtime.outlines import MOST_POINTS
from fsad_edge.runtime.region_numbers import place_labels
from fsad_edge.runtime.region_words import describe_regions, in_pictures, three_digits
from fsad_edge.runtime.upsampling import upsample

Field = NDArray[np.float32]

#: Maps up to those of large models and of located parts, from smooth to noise.
MAPS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
    elements=st.floats(0, 2, width=32),
)
SIZES = st.tuples(st.integers(16, 5000), st.integers(16, 5000))


def spots(*places: tuple[float, float, float, float], shape: tuple[int, int] = (28, 28)) -> Field:
    """A map with round spots: row, column and radius in cells, and height."""
    down, across = np.mgrid[: shape[0], : shape[1]]
    field = np.zeros(shape, np.float32)
    for row, column, radius, height in places:
        distance = (down - row) ** 2 + (across - column) ** 2
        field += height * np.exp(-distance / (2 * radius**2)).astype(np.float32)
    return field


def mask_of(regions: tuple[Region, ...], size: tuple[int, int]) -> NDArray[np.bool_]:
    """What the polygons cover of a picture."""
    picture = Image.new("1", size)
    for region in regions:
        ImageDraw.Draw(picture).polygon([(x - 0.5, y - 0.5) for x, y in region.polygon], fill=1)
    return np.asarray(picture)


@pytest.mark.parametrize("cells", [14, 28, 64, 100, 160])
def test_polygons_follow_the_line_that_heat_maps_draw(cells: int) -> None:
    half = cells / 28
    field = spots(
        (6 * half, 8 * half, 3 * half, 1.0),
        (18 * half, 20 * half, 2 * half, 1.4),
        (0, 24 * half, 2 * half, 1.2),  # at the border
        shape=(cells, cells),
    )
    size = (700, 560)
    regions = regions_of(field, 0.5, size)
    shown = upsample(field, size[1], size[0]) > 0.5
    covered = mask_of(regions, size)
    assert len(regions) == 3
    assert (covered & shown).sum() / (covered | shown).sum() > 0.96
    assert sum(region.area for region in regions) == pytest.approx(shown.sum(), rel=0.01)


@given(MAPS, st.floats(0.01, 2), SIZES)
@example(np.ones((1, 1), np.float32), 0.5, (16, 16))
@example(np.eye(30, dtype=np.float32), 0.5, (300, 300))
@settings(deadline=None)
def test_regions_obey_their_laws(field: Field, threshold: float, size: tuple[int, int]) -> None:
    found = find_regions(field, threshold, size)
    assert bool(found.regions) == (float(field.max()) > threshold)
    assert found == find_regions(field, threshold, size)
    assert len(found.regions) <= MOST_REGIONS
    assert (len(found.regions) == MOST_REGIONS) or not found.more
    assert [region.number for region in found.regions] == [*range(1, len(found.regions) + 1)]
    peaks = [region.peak for region in found.regions]
    assert peaks == sorted(peaks, reverse=True)
    assert not peaks or peaks[0] == field.max()
    width, height = size
    for region in found.regions:
        left, top, right, bottom = region.box
        assert 0 <= left <= right <= width
        assert 0 <= top <= bottom <= height
        assert left <= region.centroid[0] <= right
        assert top <= region.centroid[1] <= bottom
        assert 0 <= region.area <= (right - left + 0.1) * (bottom - top + 0.1)
        assert 3 <= len(region.polygon) <= MOST_POINTS
        assert all(left <= x <= right and top <= y <= bottom for x, y in region.polygon)
        assert threshold <= region.mean <= region.peak * (1 + 1e-6)
        assert region.ratio == region.peak / threshold > 1


@given(MAPS, st.floats(0.01, 2))
@settings(deadline=None)
def test_areas_add_up_to_the_pixels_above_the_threshold(field: Field, threshold: float) -> None:
    """All regions, holes left out: as many as the stretched map has pixels above its threshold."""
    threshold = float(np.float32(threshold))
    # Of a plateau near the threshold, little decides which pixels are above it.
    assume(not np.isclose(field, threshold, rtol=0.05, atol=0.01).any())
    height, width = (16 * side for side in field.shape)
    regions, more = find_regions(field, threshold, (width, height), most=10_000)
    assert more == 0
    shown = upsample(field, height, width) > threshold
    # Between the points of its grid the outline is straight: along its length it is about a pixel
    # from the line on average, of 16 for a cell. It cuts the corners of the picture, and a peak
    # that is hardly above its threshold is known to a few pixels.
    edges = (np.diff(shown, axis=0) != 0).sum() + (np.diff(shown, axis=1) != 0).sum()
    apart = abs(sum(region.area for region in regions) - shown.sum())
    assert apart <= 1.25 * edges + 20


@given(MAPS, st.floats(0.01, 2), st.integers(-6, 6), st.integers(2, 9))
@settings(deadline=None)
def test_regions_depend_on_the_ratio_and_follow_the_size(
    field: Field, threshold: float, power: int, times: int
) -> None:
    """Neither the unit of the map changes them nor the resolution of the photograph."""
    threshold = float(np.float32(threshold))
    one = find_regions(field, threshold, (400, 400))
    scaled = find_regions(field * np.float32(2.0**power), threshold * 2.0**power, (400, 400))
    assert [region.polygon for region in one.regions] == [
        region.polygon for region in scaled.regions
    ]
    larger = find_regions(field, threshold, (400 * times, 400 * times))
    assert len(larger.regions) == len(one.regions)
    for small, large in zip(one.regions, larger.regions, strict=True):
        assert large.box == pytest.approx([times * side for side in small.box], abs=0.1 * times)
        assert large.area == pytest.approx(times**2 * small.area, abs=0.01 * times**2 + 0.01)


def test_a_hole_counts_in_the_area_and_is_left_out_of_the_polygon() -> None:
    down, across = np.mgrid[:40, :40] - 19.5
    radius = np.hypot(down, across)
    ring = ((radius > 6) & (radius < 14)).astype(np.float32)
    (region,) = regions_of(ring, 0.5, (400, 400))
    assert region.area == pytest.approx(math.pi * (140**2 - 60**2), rel=0.05)
    assert mask_of((region,), (400, 400)).sum() == pytest.approx(math.pi * 140**2, rel=0.05)
    assert region.centroid == pytest.approx((200, 200), abs=1)


def test_parts_that_touch_at_a_corner_are_one_region() -> None:
    assert len(regions_of(np.eye(6, dtype=np.float32), 0.5, (60, 60))) == 1
    assert len(regions_of(np.eye(200, dtype=np.float32), 0.5, (400, 400))) == 1


def test_the_highest_peak_comes_first_then_the_largest() -> None:
    field = spots((5, 5, 1, 1.0), (20, 5, 1, 1.5), (5, 20, 2, 1.0), (20, 20, 1, 0.8))
    regions = regions_of(field, 0.5, (280, 280))
    near = [(round(x / 10), round(y / 10)) for x, y in (region.centroid for region in regions)]
    assert near == [(6, 20), (20, 6), (6, 6), (20, 20)]


def test_thousands_of_regions_are_counted_and_few_are_listed() -> None:
    field = np.zeros((300, 300), np.float32)
    field[1::3, 1::3] = np.random.default_rng(0).uniform(1, 2, (100, 100))
    found = find_regions(field, 0.5, (3000, 3000))
    assert (len(found.regions), found.more) == (MOST_REGIONS, 10_000 - MOST_REGIONS)
    assert [region.peak for region in found.regions] == sorted(
        field.ravel().tolist(), reverse=True
    )[:MOST_REGIONS]


def test_a_winding_outline_is_told_in_few_points() -> None:
    comb = np.zeros((301, 301), np.float32)
    comb[1::4], comb[:, 0] = 1, 1
    (region,) = regions_of(comb, 0.5, (301, 301))
    assert len(region.polygon) <= MOST_POINTS
    assert region.area == pytest.approx(comb.sum(), rel=0.1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_map_that_holds_no_finite_number_has_no_region(value: float) -> None:
    field = np.full((4, 4), 0.1, np.float32)
    field[1, 1] = value
    assert find_regions(field, 0.5, (40, 40)) == ((), 0)


def test_a_document_tells_millimetres_where_the_scale_is_known() -> None:
    (region,) = regions_of(spots((10, 10, 2, 1.0)), 0.5, (280, 280))
    plain, scaled = region_document(region), region_document(region, 0.05)
    assert scaled.items() >= plain.items()
    assert scaled.keys() - plain.keys() == {"area_mm2", "box_mm", "centroid_mm"}
    assert scaled["area_mm2"] == pytest.approx(region.area * 0.0025, rel=5e-4)
    assert scaled["box_mm"] == pytest.approx([side * 0.05 for side in region.box], rel=5e-4)
    assert scaled["centroid_mm"] == pytest.approx([5.25, 5.25], abs=0.01)
    left, top, right, bottom = region.box
    size = f"({three_digits(right - left)} × {three_digits(bottom - top)} px)"
    area = three_digits(region.area)
    told = describe_regions((region,), 1)
    assert told == f"{area} px² {size} at 105, 105, and 1 other region"
    assert in_pictures(told).isascii()
    assert describe_regions((region,), 0, 0.05).endswith(" mm) at 5.25, 5.25 mm")


@given(st.floats(1e-12, 1e12))
def test_figures_for_people_have_three_digits_and_no_power_of_ten(value: float) -> None:
    told = three_digits(value)
    assert set(told) <= set("0123456789.,")
    assert float(told.replace(",", "")) == float(f"{value:.3g}")


@given(
    st.lists(
        st.tuples(st.floats(0, 27), st.floats(0, 27), st.floats(0.5, 6), st.floats(0.6, 2)),
        min_size=1,
        max_size=12,
    ),
    st.integers(160, 400),
    st.integers(160, 400),
)
@settings(deadline=None, max_examples=50)
def test_numbers_stay_within_the_picture(
    places: list[tuple[float, float, float, float]], width: int, height: int
) -> None:
    regions = regions_of(spots(*places), 0.5, (width, height))
    assume(regions)
    sizes = [(18.0, 16.0)] * len(regions)
    for left, top, right, bottom in place_labels(regions, sizes, (width, height)):
        assert 0 <= left < right < width
        assert 0 <= top < bottom < height
    black = np.zeros((height, width, 3), np.uint8)
    numbered, plain = (overlay(black, spots(*places), 0.5, numbered=one) for one in (True, False))
    assert (numbered != plain).any()


def test_numbers_do_not_cover_one_another_where_there_is_room() -> None:
    field = spots(*((4 + 5 * i, 4 + 5 * j, 0.8, 1.0) for i in range(4) for j in range(4)))
    regions = regions_of(field, 0.5, (400, 400))
    assert len(regions) == 16
    labels = place_labels(regions, [(20.0, 18.0)] * 16, (400, 400))
    covered = np.zeros((400, 400), np.intp)
    for left, top, right, bottom in labels:
        covered[round(top) : round(bottom), round(left) : round(right)] += 1
    assert covered.max() == 1
