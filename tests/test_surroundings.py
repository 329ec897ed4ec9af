"""Dirt beside a part is painted over with the ground; what belongs to the part stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsad_edge.calibration.locating import find_locator
from fsad_edge.options import Locate
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.locator import Locator
from tests.loose_parts import HEIGHT, WIDTH, bolt, places

#: Rows and columns of what the model is given.
ROWS, COLUMNS = 64, 192

#: Differences of grey levels that noise and interpolation make, and that a speck makes at least.
LITTLE, PLAIN = 12, 40


def locator_of(shots: list[UInt8Array]) -> Locator:
    found = find_locator(shots, [f"{index}.png" for index in range(len(shots))], Locate.AUTO)
    assert found.locator is not None, found.why
    return found.locator


@pytest.fixture(scope="module")
def locator() -> Locator:
    return locator_of([bolt(*place, index) for index, place in enumerate(places(5, 1))])


def speck(
    image: UInt8Array,
    place: tuple[float, float, float],
    along: float,
    across: float,
    size: tuple[float, float] = (3, 3),
    level: float = 20,
) -> UInt8Array:
    """The photograph with a speck at a place of the part, half as long and broad as ``size``."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    cos, sin = np.cos(np.radians(place[2])), np.sin(np.radians(place[2]))
    u = (x - place[0]) * cos + (y - place[1]) * sin - along
    v = (y - place[1]) * cos - (x - place[0]) * sin - across
    spotted: UInt8Array = image.copy()
    spotted[(np.abs(u) <= size[0]) & (np.abs(v) <= size[1])] = level
    return spotted


def changed(locator: Locator, one: UInt8Array, two: UInt8Array) -> float:
    """The largest difference of what the model is given of two photographs, grey levels.

    Both are cut out where the part is found in the second one.
    """
    located = locator.locate(two)
    first, second = (located.cut(image, ROWS, COLUMNS) for image in (one, two))
    return float(np.abs(first.astype(int) - second).max())


@given(
    angle=st.floats(0, 360),
    along=st.floats(-40, 15),
    side=st.sampled_from([-1, 1]),
    gap=st.floats(5, 9),
    level=st.sampled_from([15, 245]),
)
@settings(max_examples=25)
def test_dirt_beside_the_part_is_not_seen(
    locator: Locator, angle: float, along: float, side: int, gap: float, level: float
) -> None:
    place = (160, 120, angle)
    image = bolt(*place, 3)
    dirty = speck(image, place, along, side * (7 + gap + 3), level=level)
    assert changed(locator, image, dirty) < LITTLE
    assert changed(replace(locator, painted=False), image, dirty) > PLAIN


@pytest.mark.parametrize("level", [30, 235], ids=["dark", "bright"])
@pytest.mark.parametrize(
    ("along", "across", "size"),
    [
        (0, 11, (2, 5)),
        (-30, -13, (1, 7)),
        (52, 0, (8, 2)),
        (0, 6, (5, 3)),
        (-10, 0, (3, 3)),
    ],
    ids=["burr", "wire", "longer", "at the edge", "on the part"],
)
def test_what_touches_the_part_stays(
    locator: Locator, along: float, across: float, size: tuple[float, float], level: float
) -> None:
    place = (160, 120, 35)
    image = bolt(*place, 3)
    assert changed(locator, image, speck(image, place, along, across, size, level)) > PLAIN


def test_a_missing_piece_shows_the_ground(locator: Locator) -> None:
    place = (160, 120, 35)
    image = bolt(*place, 3, tilt=0)
    chipped = speck(image, place, -41, 0, (5, 8), 150)
    assert changed(locator, image, chipped) > PLAIN


def test_a_clean_photograph_is_given_as_it_is(locator: Locator) -> None:
    for index, place in enumerate(places(6, 7)):
        image = bolt(*place, index, defect=True)
        located = locator.locate(image)
        plain = located.placement.cut(image, ROWS, COLUMNS)
        np.testing.assert_array_equal(located.cut(image, ROWS, COLUMNS), plain)


def ring(x: float, y: float, seed: int, dirt: tuple[float, float] | None = None) -> UInt8Array:
    """A ring with a hole of 36 pixels, and a speck at so many pixels from its middle."""
    down, across = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    radius = np.hypot(across - x, down - y)
    grey = np.where((radius > 18) & (radius < 34), 60.0, 150.0)
    if dirt is not None:
        grey[np.hypot(across - x - dirt[0], down - y - dirt[1]) < 3] = 20
    noise = np.random.default_rng(seed).normal(0, 3, (HEIGHT, WIDTH, 3))
    image: UInt8Array = (grey[..., None] + noise).round().clip(0, 255).astype(np.uint8)
    return image


def test_what_lies_in_a_hole_stays() -> None:
    """A blocked hole is a defect, and no rule tells what blocks it from dirt."""
    spots = [(80, 80), (220, 90), (150, 160), (240, 170), (100, 150)]
    locator = locator_of([ring(*spot, seed) for seed, spot in enumerate(spots)])
    assert locator.painted
    image = ring(160, 120, 9)
    assert changed(locator, image, ring(160, 120, 9, dirt=(4, 3))) > PLAIN
    assert changed(locator, image, ring(160, 120, 9, dirt=(30, 34))) < LITTLE


def test_nothing_is_painted_over_where_parts_are_in_pieces() -> None:
    """A small piece that a gap parts from the rest is no dirt where most shots show it."""
    shots = []
    for index, place in enumerate(places(5, 1)):
        shots.append(speck(bolt(*place, index), place, -30, 14, (5, 2.5)))
    assert locator_of(shots).painted is False
    one_dirty = [shots[0], *(bolt(*place, 9) for place in places(5, 1)[1:])]
    assert locator_of(one_dirty).painted


def test_the_paint_has_no_edge(locator: Locator) -> None:
    """What replaces a speck differs from the ground by no more than the ground's own noise."""
    place = (160, 120, 35)
    clean, dirty = bolt(*place, 3), speck(bolt(*place, 3), place, -10, 18)
    located = locator.locate(dirty)
    one, two = (located.cut(image, ROWS, COLUMNS) for image in (clean, dirty))
    difference = one.astype(float) - two
    assert 0 < np.abs(difference).max() < LITTLE
    assert (difference != 0).any(axis=2).mean() < 0.05


def test_a_file_from_before_leaves_all_as_photographed(locator: Locator) -> None:
    old = replace(locator, painted=False)
    for index, place in enumerate(places(3, 8)):
        image = speck(bolt(*place, index), place, -10, 18)
        located = old.locate(image)
        plain = located.placement.cut(image, ROWS, COLUMNS)
        np.testing.assert_array_equal(located.cut(image, ROWS, COLUMNS), plain)
