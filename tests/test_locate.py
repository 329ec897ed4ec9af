"""Finding the part in a photograph: its place, its angle, and when it is not found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fsad_edge.calibration.locating import FoundParts, find_locator
from fsad_edge.errors import InputError
from fsad_edge.options import Locate
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.locator import Locator
from fsad_edge.runtime.placement import Placement
from fsad_edge.runtime.regions import connected_regions, filled
from tests.conftest import photograph
from tests.loose_parts import HEIGHT, LENGTH, WIDTH, at, bolt, places

SHOTS = 5

angles = st.floats(0, 360)


def found_in(shots: list[UInt8Array], locate: Locate = Locate.AUTO) -> FoundParts:
    return find_locator(shots, [f"{index}.png" for index in range(len(shots))], locate)


def locator_of(shots: list[UInt8Array], locate: Locate = Locate.AUTO) -> Locator:
    found = found_in(shots, locate)
    assert found.locator is not None, found.why
    return found.locator


@pytest.fixture(scope="module")
def bolts() -> list[UInt8Array]:
    return [bolt(*place, index) for index, place in enumerate(places(SHOTS, 1))]


@pytest.fixture(scope="module")
def locator(bolts: list[UInt8Array]) -> Locator:
    return locator_of(bolts)


def test_loose_parts_are_turned_upright_and_cropped(locator: Locator) -> None:
    assert locator.turned
    assert locator.width > 2 * locator.height  # along the part
    across, down = locator.sides((WIDTH, HEIGHT))
    assert LENGTH < across < 1.5 * LENGTH
    assert across * down < 0.15 * WIDTH * HEIGHT


@given(
    x=st.floats(60, WIDTH - 60),
    y=st.floats(60, HEIGHT - 60),
    angle=angles,
    seed=st.integers(0, 1000),
    tilt=st.floats(-0.25, 0.25),
)
@settings(max_examples=40)
def test_a_part_is_found_where_it_lies(
    locator: Locator, x: float, y: float, angle: float, seed: int, tilt: float
) -> None:
    located = locator.locate(bolt(x, y, angle, seed, tilt=tilt))
    assert located.why_not is None
    place = located.placement
    assert np.hypot(place.x - x, place.y - y) < 4
    # All parts are turned alike: which end comes first is the shots' affair.
    first = locator.locate(bolt(x, y, 0, seed, tilt=tilt)).placement.angle
    turned = (place.angle - first - angle + 180) % 360 - 180
    assert abs(turned) < 4


@pytest.mark.parametrize(("ground", "part"), [(150, 70), (60, 190), (215, 150), (35, 90)])
def test_dark_and_bright_parts_are_found(ground: float, part: float) -> None:
    shots = [
        bolt(*place, index, ground=ground, part=part) for index, place in enumerate(places(5, 3))
    ]
    locator = locator_of(shots)
    for index, (x, y, angle) in enumerate(places(10, 4)):
        located = locator.locate(bolt(x, y, angle, index, ground=ground, part=part))
        assert located.why_not is None
        assert np.hypot(located.placement.x - x, located.placement.y - y) < 5


def test_what_is_cut_out_is_upright(locator: Locator) -> None:
    cuts = []
    for index, place in enumerate(places(8, 5)):
        image = bolt(*place, index, tilt=0.0)
        cuts.append(locator.locate(image).placement.cut(image, 32, 96).astype(float).mean(axis=2))
    mean = np.mean(cuts, axis=0)
    for cut in cuts:
        assert np.corrcoef(cut.ravel(), mean.ravel())[0, 1] > 0.95


def test_colour_and_grey_are_found_alike(locator: Locator) -> None:
    grey = Image.fromarray(bolt(150, 110, 77)).convert("L")
    one, two = locator.locate(grey), locator.locate(grey.convert("RGB"))
    assert one == two


def test_the_same_photograph_with_more_pixels_has_the_same_place(locator: Locator) -> None:
    image = Image.fromarray(bolt(150, 110, 77))
    larger = image.resize((3 * WIDTH, 3 * HEIGHT), Image.Resampling.BICUBIC)
    one, two = (locator.locate(each).placement for each in (image, larger))
    assert two.x / 3 == pytest.approx(one.x, abs=1)
    assert two.y / 3 == pytest.approx(one.y, abs=1)
    assert two.width == pytest.approx(3 * one.width)
    assert (two.angle - one.angle + 180) % 360 - 180 == pytest.approx(0, abs=2)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (bolt(-500, 0, 0), "nothing differs"),
        (bolt(30, 120, 0), "cut off"),
        (bolt(80, 60, 20, others=((220, 170, 100),)), "more than one"),
        (bolt(160, 120, 20, length=40), "a piece"),
        (bolt(160, 120, 20, length=170), "times as"),
    ],
    ids=["empty", "cut off", "two", "a piece", "a long one"],
)
def test_what_is_no_whole_part_is_not_found(
    locator: Locator, image: UInt8Array, words: str
) -> None:
    located = locator.locate(image)
    assert located.why_not is not None
    assert words in located.why_not
    assert located.placement.cut(image, 32, 96).shape == (32, 96, 3)  # it gets a score all the same


@pytest.mark.parametrize("bounds", ["extent", "length", "breadth"])
def test_bounds_in_the_wrong_order_are_refused(locator: Locator, bounds: str) -> None:
    least, most = getattr(locator, bounds)
    with pytest.raises(InputError, match="wrong order"):
        replace(locator, **cast("dict[str, Any]", {bounds: (most, least)}))


def test_dust_beside_the_part_changes_nothing(locator: Locator) -> None:
    image = bolt(200, 120, 30, 7)
    dusty = image.copy()
    dusty[40:44, 40:45] = 20
    one, two = locator.locate(image).placement, locator.locate(dusty).placement
    assert np.hypot(one.x - two.x, one.y - two.y) < 0.5


@pytest.mark.parametrize("locate", list(Locate))
def test_a_surface_is_looked_at_as_a_whole(locate: Locate) -> None:
    rng = np.random.default_rng(0)
    shots = [rng.integers(90, 160, (120, 120, 3), np.uint8) for _ in range(4)]
    if locate is Locate.BOX:
        with pytest.raises(InputError, match=r"0\.png shows nothing that stands out"):
            found_in(shots, locate)
    else:
        assert found_in(shots, locate).locator is None


def test_a_hole_in_a_plate_is_no_loose_part() -> None:
    """What stays where it is may be a part of a surface that fills the photograph."""
    shots = [np.asarray(photograph(np.random.default_rng(seed))) for seed in range(5)]
    found = found_in(shots)
    assert found.locator is None
    assert "at the same place" in found.why
    assert locator_of(shots, Locate.BOX).turned is False  # who asks for it knows better


def test_a_slot_in_a_plate_is_no_part_that_lies_turned() -> None:
    """It looks the same the other way round, so that its angle may seem to differ."""
    shots = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        plate = np.full((120, 160, 3), 140, np.float64)
        plate[52:68, 50:110] = 40
        shots.append((plate + rng.normal(0, 3, plate.shape)).clip(0, 255).astype(np.uint8))
    found = found_in(shots)
    assert found.locator is None
    assert "at the same place" in found.why


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        (bolt(-500, 0, 0), "2.png shows nothing"),
        (bolt(30, 120, 0), "2.png reaches the border"),
        (bolt(80, 60, 20, others=((220, 170, 100),)), "2.png shows more than one part"),
        (bolt(160, 120, 20, length=170), "times as large as what"),
    ],
    ids=["empty", "cut off", "two", "another"],
)
def test_one_shot_without_a_clear_part_is_enough_to_look_at_the_whole(
    bolts: list[UInt8Array], spoilt: UInt8Array, words: str
) -> None:
    shots = [*bolts[:2], spoilt, *bolts[3:]]
    found = found_in(shots)
    assert found.locator is None
    assert words in found.why
    with pytest.raises(InputError, match=words):
        found_in(shots, Locate.BOX)


def test_one_shot_shows_not_how_parts_lie(bolts: list[UInt8Array]) -> None:
    assert found_in(bolts[:1]).locator is None
    locator = locator_of(bolts[:1], Locate.BOX)
    assert not locator.turned
    assert locator.width == locator.height  # room for any angle


def test_a_box_has_room_for_a_part_at_any_angle(bolts: list[UInt8Array]) -> None:
    locator = locator_of(bolts, Locate.BOX)
    assert (locator.turned, locator.template) == (False, b"")
    assert locator.width == locator.height
    for index, (x, y, angle) in enumerate(places(5, 6)):
        place = locator.locate(bolt(x, y, angle, index)).placement
        assert place.angle == 0
        for end in (-LENGTH / 2, LENGTH / 2):
            u, v = at(x, y, angle, end, 0)
            assert abs(u - place.x) < place.width / 2
            assert abs(v - place.y) < place.height / 2


def test_cells_beside_the_part_do_not_count(locator: Locator) -> None:
    cells = locator.cells(16, 48)
    assert cells[8, 2:-2].all()  # the part's axis
    assert not cells[[0, 0, -1, -1], [0, -1, 0, -1]].all()
    assert 0.3 < cells.mean() < 0.95


@given(
    x=st.floats(20, 80),
    y=st.floats(20, 60),
    angle=angles,
    row=st.integers(0, 5),
    column=st.integers(0, 11),
)
@settings(max_examples=50)
def test_a_map_comes_back_in_the_frame_of_the_photograph(
    x: float, y: float, angle: float, row: int, column: int
) -> None:
    place = Placement(x, y, angle, 40, 20, (100, 80))
    field = np.zeros((6, 12), np.float32)
    field[row, column] = 0.7
    u, v = place.to_photograph(np.array([(column + 0.5) / 12]), np.array([(row + 0.5) / 6]))
    whole = place.in_photograph(field)
    assert whole.max() == np.float32(0.7)
    assert whole.min() == 0
    if 0 < u[0] < 100 and 0 < v[0] < 80:
        top, left = np.unravel_index(whole.argmax(), whole.shape)
        height, width = whole.shape
        assert abs((left + 0.5) / width * 100 - u[0]) < 3  # less than a cell of the map
        assert abs((top + 0.5) / height * 80 - v[0]) < 3


@given(x=st.integers(15, 85), y=st.integers(15, 65))
def test_an_upright_rectangle_is_a_plain_crop(x: int, y: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (80, 100, 3), np.uint8)
    cut = Placement(x, y, 0, 20, 16, (100, 80)).cut_out(image)
    np.testing.assert_array_equal(cut, image[y - 8 : y + 8, x - 10 : x + 10])


def test_beyond_the_photograph_its_border_goes_on() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 0] = 200
    cut = Placement(0, 20, 0, 20, 10, (40, 40)).cut_out(image)
    assert (cut[:, :9] == 200).all()


def test_regions_and_holes() -> None:
    mask = np.zeros((8, 9), np.bool_)
    mask[1:6, 1:6] = True
    mask[3, 3] = False
    mask[7, 8] = True
    numbers, sizes = connected_regions(mask)
    assert sizes.tolist() == [72 - 25, 24, 1]
    assert numbers[7, 8] == 2
    assert filled(mask).sum() == 26
