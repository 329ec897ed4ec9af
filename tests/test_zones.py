"""Zones: what polygons and painted masks make of the cells of a map."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from fsad_edge.errors import ImageError, ImageTooLargeError, InputError
from fsad_edge.runtime.arrays import BoolArray
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.documents import from_document, to_document
from fsad_edge.runtime.painted_mask import outline_in_frame, outline_of, read_painted
from fsad_edge.runtime.placement import Placement
from fsad_edge.runtime.zones import (
    POINTS,
    Corner,
    Zone,
    ZoneKind,
    check_covers,
    counted_share,
    mask_of,
    share_of_cells,
    weights_of,
)

SQUARE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
LEFT = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))


def ignore(polygon: tuple[Corner, ...]) -> Zone:
    return Zone(ZoneKind.IGNORE, 0.0, polygon)


def look(polygon: tuple[Corner, ...]) -> Zone:
    return Zone(ZoneKind.LOOK, 1.0, polygon)


def weigh(weight: float, polygon: tuple[Corner, ...]) -> Zone:
    return Zone(ZoneKind.WEIGHT, weight, polygon)


@st.composite
def zones(draw: st.DrawFn) -> Zone:
    """Any zone: its outline may cross itself and leave the frame."""
    place = st.floats(-1, 2).map(lambda one: round(one, 3))
    corners = draw(st.lists(st.tuples(place, place), min_size=3, max_size=7))
    kind = draw(st.sampled_from(ZoneKind))
    fixed = {ZoneKind.IGNORE: 0.0, ZoneKind.LOOK: 1.0}
    weight = fixed[kind] if kind in fixed else draw(st.floats(0.01, 100))
    try:
        return Zone(kind, weight, tuple(corners))
    except InputError:
        return Zone(kind, weight, SQUARE)


GRIDS = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(st.lists(zones(), max_size=4), GRIDS)
def test_weights_lie_between_those_of_the_zones_and_one(
    some: list[Zone], grid: tuple[int, int]
) -> None:
    weights = weights_of(some, *grid)
    assert weights.shape == (grid[0] * grid[1],)
    known = [1.0, *(zone.weight for zone in some)]
    least = 0.0 if any(zone.kind is ZoneKind.LOOK for zone in some) else min(known)
    assert (weights >= least - 1e-6).all()
    assert (weights <= max(known) * (1 + 1e-6)).all()


@given(zones(), GRIDS)
def test_what_is_ignored_does_not_count_and_what_is_far_from_it_does(
    zone: Zone, grid: tuple[int, int]
) -> None:
    share = share_of_cells(zone, *grid).ravel()
    left = weights_of([ignore(zone.polygon)], *grid)
    assert (left <= 1 - share + 1e-6).all()
    assert not weights_of([look(zone.polygon), ignore(zone.polygon)], *grid)[share == 1].any()
    assert weights_of([look(zone.polygon)], *grid) == pytest.approx(share)


def test_cells_beside_what_is_ignored_count_ever_more() -> None:
    box = ((0.4, 0.4), (0.5, 0.4), (0.5, 0.5), (0.4, 0.5))
    weights = weights_of([ignore(box)], 20, 20).reshape(20, 20)
    row = weights[9, 8:]
    assert (row[:4] == 0).all()  # the zone's two cells, and two more
    assert 0 < row[4] < 1
    assert (row[5:] == 1).all()
    assert weights[5, 5] == 1  # a corner is further away than a side
    assert counted_share([ignore(box)], None, (20, 20)) == pytest.approx(1 - 33 / 400, abs=0.02)


@given(zones(), st.integers(2, 9), st.integers(2, 9), st.sampled_from([(0.0, 0.0), (1.0, 0.0)]))
def test_a_shift_of_a_cell_is_the_weight_of_the_next_one(
    zone: Zone, rows: int, columns: int, shift: tuple[float, float]
) -> None:
    if zone.kind is ZoneKind.IGNORE:
        zone = look(zone.polygon)
    plain, moved = (
        weights_of([zone], rows, columns, one).reshape(rows, columns) for one in ((0, 0), shift)
    )
    by = int(shift[0])
    assert moved[:, : columns - by] == pytest.approx(plain[:, by:])


@given(st.lists(zones(), max_size=4), GRIDS)
def test_the_mask_knows_no_zone_that_counts_more_or_less(
    some: list[Zone], grid: tuple[int, int]
) -> None:
    mask = mask_of(some, *grid)
    assert ((mask >= 0) & (mask <= 1 + 1e-6)).all()
    if not any(zone.kind in {ZoneKind.IGNORE, ZoneKind.LOOK} for zone in some):
        assert (mask == 1).all()


@given(st.lists(zones(), max_size=3), zones(), GRIDS)
def test_the_later_zone_wins_and_only_where_it_is(
    some: list[Zone], last: Zone, grid: tuple[int, int]
) -> None:
    before, after = weights_of(some, *grid), weights_of([*some, last], *grid)
    share = share_of_cells(last, *grid).ravel()
    if last.kind is not ZoneKind.LOOK:
        if last.kind is ZoneKind.WEIGHT:
            assert after[share == 0] == pytest.approx(before[share == 0])
        if not any(zone.kind is ZoneKind.LOOK for zone in some):
            assert after[share == 1] == pytest.approx(last.weight)
    assert weights_of([*some, last, last], *grid) == pytest.approx(after)


@given(zones(), zones(), GRIDS)
def test_zones_to_look_at_are_looked_at_together_in_any_order(
    one: Zone, other: Zone, grid: tuple[int, int]
) -> None:
    pair = [look(one.polygon), look(other.polygon)]
    together = weights_of(pair, *grid)
    assert (together == weights_of(pair[::-1], *grid)).all()
    for zone in pair:
        assert (together >= weights_of([zone], *grid) - 1e-6).all()


@given(zones())
def test_a_zone_is_written_and_read_as_it_is(zone: Zone) -> None:
    assert from_document(Zone, to_document(zone)) == zone


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
def test_a_rectangle_covers_its_area(left: int, top: int, width: int, height: int) -> None:
    right, bottom = min(left + width, 32), min(top + height, 32)
    box = [(left, top), (right, top), (right, bottom), (left, bottom)]
    zone = ignore(tuple((x / 32, y / 32) for x, y in box))
    share = share_of_cells(zone, 4, 4)
    assert share.mean() == pytest.approx((right - left) * (bottom - top) / 32**2)
    assert counted_share([zone], margins=(0.0,)) == pytest.approx(1 - share.mean())


def test_what_an_outline_that_crosses_itself_goes_around_twice_is_outside() -> None:
    star = [(np.sin(turn * 4 / 5 * np.pi), np.cos(turn * 4 / 5 * np.pi)) for turn in range(5)]
    zone = ignore(tuple((0.5 + 0.5 * x, 0.5 + 0.5 * y) for x, y in star))
    share = share_of_cells(zone, 20, 20)
    assert share[10, 10] == 0  # the middle of a star is crossed twice
    assert share.max() == 1


@pytest.mark.parametrize(
    ("polygon", "words"),
    [
        (((0, 0), (1, 1)), "needs 3 to"),
        (((0, 0), (0.5, 0.5), (1, 1)), "one line"),
        (((0.2, 0.2),) * 4, "one line"),
        (((0, 0), (1, 0), (float("nan"), 1)), "finite"),
        (((0, 0), (1, 0), (float("inf"), 1)), "finite"),
        (((0, 0), (1, 0), (1e9, 1)), "far outside"),
        (((0, 0), (1, 0), (1, 1)) * 2000, "needs 3 to"),
    ],
)
def test_what_is_no_polygon_is_refused(polygon: tuple[Corner, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ignore(polygon)


@pytest.mark.parametrize(
    ("kind", "weight"),
    [
        (ZoneKind.IGNORE, 1.0),
        (ZoneKind.LOOK, 0.0),
        (ZoneKind.WEIGHT, 0.0),
        (ZoneKind.WEIGHT, -1.0),
        (ZoneKind.WEIGHT, 1e6),
        (ZoneKind.WEIGHT, float("nan")),
    ],
)
def test_a_weight_that_is_none_is_refused(kind: ZoneKind, weight: float) -> None:
    with pytest.raises(InputError, match="weight"):
        Zone(kind, weight, SQUARE)


@pytest.mark.parametrize(
    "polygon",
    [
        ((1.5, 0), (2, 0), (2, 1)),
        ((0, 0), (1, 0), (0, 1), (1, 0)),  # there and back
        ((0.5, 0.5), (0.50001, 0.5), (0.5, 0.50001)),
    ],
)
def test_a_zone_that_covers_nothing_is_refused(polygon: tuple[Corner, ...]) -> None:
    with pytest.raises(InputError, match="covers nothing"):
        check_covers(ignore(polygon))


MASKS = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@given(MASKS)
def test_the_outline_of_a_mask_encloses_the_mask(mask: BoolArray) -> None:
    rows, columns = mask.shape
    corners = tuple((x / columns, y / rows) for x, y in outline_of(mask))
    if mask.any():
        assert (share_of_cells(ignore(corners), rows, columns) == mask).all()
    else:
        assert not corners


@given(
    MASKS,
    st.floats(-180, 180),
    st.floats(0.3, 0.7),
    st.floats(0.3, 0.7),
)
def test_a_mask_and_its_corners_are_carried_into_the_frame_alike(
    mask: BoolArray, angle: float, x: float, y: float
) -> None:
    rows, columns = mask.shape
    size = columns * 20, rows * 20
    place = Placement(x * size[0], y * size[1], angle, 0.4 * size[0], 0.3 * size[1], size)
    seen = outline_in_frame(mask, place, 12 * POINTS, 12 * POINTS)
    across, down = np.array(outline_of(mask), np.float64).reshape(-1, 2).T
    u, v = place.from_photograph(across * 20, down * 20)
    moved = tuple(zip(u.tolist(), v.tolist(), strict=True))
    expected = share_of_cells(ignore(moved), 12, 12) if moved else np.zeros((12, 12))
    found = share_of_cells(ignore(seen), 12, 12) if seen else np.zeros((12, 12))
    assert np.abs(found - expected).max() < 0.1


@given(st.floats(-100, 100), st.floats(-100, 100), st.floats(-360, 360))
def test_into_the_frame_and_back_is_the_same_place(x: float, y: float, angle: float) -> None:
    place = Placement(30, 40, angle, 20, 10, (100, 80))
    u, v = place.from_photograph(np.array([x]), np.array([y]))
    back = place.to_photograph(u, v)
    assert (back[0][0], back[1][0]) == (pytest.approx(x, abs=1e-6), pytest.approx(y, abs=1e-6))


def png(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def painted(mode: str, background: object, paint: object) -> Image.Image:
    image = Image.new(mode, (40, 30), background)  # type: ignore[arg-type]
    image.paste(paint, (10, 5, 20, 25))  # type: ignore[arg-type]
    return image


@pytest.mark.parametrize(
    "image",
    [
        painted("RGBA", (0, 0, 0, 0), (255, 0, 0, 90)),
        painted("RGBA", (255, 255, 255, 0), (255, 255, 255, 255)),
        painted("RGB", (0, 0, 0), (0, 0, 1)),
        painted("L", 0, 255),
        painted("1", 0, 1),
        painted("LA", (0, 0), (3, 255)),
        painted("I;16", 0, 700),
        painted("P", 0, 1),
    ],
)
def test_what_is_neither_transparent_nor_black_is_painted(image: Image.Image) -> None:
    if image.mode == "P":
        image.putpalette([0, 0, 0, 200, 10, 10])
    found = read_painted(png(image))
    expected = np.zeros((30, 40), np.bool_)
    expected[5:25, 10:20] = True
    assert (found == expected).all()


def photographed() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    noise[0, 0] = 0
    image = Image.fromarray(noise)
    image.paste((255, 0, 0), (10, 5, 20, 25))
    return image


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(painted("L", 0, 255), "JPEG"), "no PNG"),
        (b"", "no PNG"),
        (png(painted("L", 0, 255))[:60], "cannot be read"),
        (png(Image.new("RGBA", (40, 30))), "nothing is painted"),
        (png(painted("RGBA", (0, 0, 0, 0), (0, 0, 0, 255))), "nothing is painted"),
        (png(Image.new("L", (40, 30), 9)), "all of"),
        (png(photographed()), "looks like a photograph"),
    ],
)
def test_a_mask_that_says_nothing_clear_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        read_painted(data)


def test_a_mask_of_another_size_is_refused_before_it_is_decoded() -> None:
    huge = png(Image.new("1", (9000, 9000)))
    cut = huge[: len(huge) // 2]  # whose pixels cannot be decoded
    with pytest.raises(InputError, match="9000 x 9000 pixels, and the photograph has 448 x 448"):
        read_painted(cut, size=(448, 448))
    mask = painted("L", 0, 255)
    assert read_painted(png(mask), size=(40, 30)).shape == (30, 40)
    with pytest.raises(InputError, match="40 x 30"):
        read_painted(png(mask), size=(30, 40))


def test_a_mask_takes_no_more_memory_than_the_gate_lends() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GATE, "memory", 1 << 20)
        with pytest.raises(ImageTooLargeError, match="decode"):
            read_painted(png(painted("L", 0, 255).resize((1000, 1000))))


def test_a_mask_is_read_in_strips_as_it_is_whole() -> None:
    rng = np.random.default_rng(5)
    expected = rng.random((900, 700)) < 0.3  # more than one strip
    assert (read_painted(png(Image.fromarray(expected))) == expected).all()
