"""Augmented views and synthesised defects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fsad_edge.runtime.images import resize
from fsad_edge.synthesis import DEFECTS, Views, add_defect, random_view, rotate
from tests.conftest import photograph

UInt8 = NDArray[np.uint8]
SEEDS = st.integers(0, 2**32 - 1)
STILL = Views(rotate=0, shift=0, zoom=0, brightness=0, contrast=0, noise=0)


def part(seed: int, side: int = 64) -> UInt8:
    return np.asarray(photograph(np.random.default_rng(seed), side))


def view(image: UInt8, views: Views, seed: int, height: int = 64, width: int = 64) -> UInt8:
    return random_view(image, height, width, views, np.random.default_rng(seed))


def apart(one: UInt8, other: UInt8) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@given(SEEDS, st.integers(32, 80), st.integers(32, 80), st.sampled_from([0.0, 2.0, 90.0, 180.0]))
@settings(max_examples=30, deadline=None)
def test_a_view_has_the_model_s_size(seed: int, height: int, width: int, rotate: float) -> None:
    image = part(seed, 50)
    views = Views(rotate=rotate, flip=True, shift=0.2, zoom=0.3, brightness=0.5)
    before = image.copy()
    made = view(image, views, seed, height, width)
    assert made.shape == (height, width, 3)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(made, view(image, views, seed, height, width))


def test_views_differ_and_stay_similar_to_the_shot() -> None:
    image = part(0, 96)
    made = [view(image, Views(), seed) for seed in range(6)]
    for index, one in enumerate(made):
        assert all(not np.array_equal(one, other) for other in made[:index])
        assert apart(one, resize(image, 64, 64)) < 20


def test_without_any_change_the_view_is_the_shot() -> None:
    image = part(0, 200)
    # Two antialiased steps blur a little more than one; nothing moves.
    assert apart(view(image, STILL, 1), resize(image, 64, 64)) < 1.5
    exact = part(0, 128)
    np.testing.assert_array_equal(view(exact, STILL, 1), resize(exact, 64, 64))


@pytest.mark.parametrize(
    "views",
    [
        Views(rotate=20, shift=0, zoom=0, brightness=0, contrast=0, noise=0),
        Views(rotate=0, shift=0.2, zoom=0, brightness=0, contrast=0, noise=0),
        Views(rotate=0, shift=0, zoom=0.3, brightness=0, contrast=0, noise=0),
        Views(rotate=0, shift=0, zoom=0, brightness=0.3, contrast=0, noise=0),
        Views(rotate=0, shift=0, zoom=0, brightness=0, contrast=0.3, noise=0),
        Views(rotate=0, shift=0, zoom=0, brightness=0, contrast=0, noise=5),
    ],
)
def test_each_range_changes_the_view(views: Views) -> None:
    image = part(0)
    still = view(image, STILL, 0)
    assert np.mean([apart(view(image, views, seed), still) for seed in range(8)]) > 1


def test_flips_give_all_four_orientations() -> None:
    image = part(0)
    views = Views(rotate=0, flip=True, shift=0, zoom=0, brightness=0, contrast=0, noise=0)
    still = view(image, STILL, 0)
    wanted = {still[::a, ::b].tobytes() for a in (1, -1) for b in (1, -1)}
    assert {view(image, views, seed).tobytes() for seed in range(40)} == wanted


def test_a_shift_stays_within_its_limit() -> None:
    image = np.zeros((128, 128, 3), np.uint8)
    image[60:68, 60:68] = 255
    views = Views(rotate=0, shift=0.1, zoom=0, brightness=0, contrast=0, noise=0)
    places = []
    for seed in range(40):
        bright = view(image, views, seed)[..., 0].astype(float)
        places.append([(bright.sum(axis=k) @ np.arange(64)) / bright.sum() for k in (0, 1)])
    moved = np.abs(np.array(places) - 31.5)
    assert moved.max() <= 6.4 + 0.1
    assert moved.max() > 4


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, 360])
def test_rotations_by_quarters_are_exact(degrees: int) -> None:
    image = part(0)
    rotated = np.rot90(image, -degrees // 90)  # clockwise, as documented
    assert apart(rotate(image, degrees), rotated) < 0.5


def test_a_rotation_fills_the_corners_from_the_image() -> None:
    image = np.full((64, 64, 3), 130, np.uint8)
    for degrees in (30, 45, 133):
        np.testing.assert_array_equal(rotate(image, degrees), image)


@pytest.mark.parametrize("kind", sorted(DEFECTS))
@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_a_defect_shows_where_its_mask_is(kind: str, seed: int) -> None:
    image = part(seed % 5)
    before = image.copy()
    made, mask = add_defect(image, np.random.default_rng(seed), kind)
    np.testing.assert_array_equal(image, before)
    assert made.shape == image.shape
    assert made.dtype == np.uint8
    assert mask.shape == image.shape[:2]
    difference = np.abs(made.astype(int) - image).max(axis=2)
    np.testing.assert_array_equal(difference > 6, mask)
    assert mask.any()
    assert mask.mean() < 0.5
    again = add_defect(image, np.random.default_rng(seed), kind)
    np.testing.assert_array_equal(made, again[0])


@pytest.mark.parametrize("kind", sorted(DEFECTS))
@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_a_defect_is_a_blend_of_a_small_part(kind: str, seed: int) -> None:
    image = part(seed % 5).astype(np.float32)
    defect = DEFECTS[kind](image.shape[0], image.shape[1], np.random.default_rng(seed))
    alpha = defect.alpha
    assert defect.replacement(image).shape == image.shape
    assert alpha.shape == image.shape[:2]
    assert alpha.dtype == np.float32
    assert 0 <= alpha.min() <= alpha.max() <= 1
    assert (alpha > 0).mean() < 0.6
    made, _ = add_defect(image.astype(np.uint8), np.random.default_rng(seed), kind)
    if _first_try(image, kind, seed):
        assert not (made != image.astype(np.uint8))[alpha == 0].any()


def _first_try(image: NDArray[np.float32], kind: str, seed: int) -> bool:
    """Whether the first draw was visible enough to be kept, so that its opacity is known."""
    defect = DEFECTS[kind](image.shape[0], image.shape[1], np.random.default_rng(seed))
    change = (defect.replacement(image) - image) * defect.alpha[..., None]
    made = (image + change).clip(0, 255).round()
    return int((np.abs(made - image).max(axis=2) > 6).sum()) >= 12


def test_the_kind_is_drawn_unless_it_is_named() -> None:
    image = part(0)
    rng = np.random.default_rng(0)
    named = {
        add_defect(image, np.random.default_rng(seed), kind)[0].tobytes()
        for kind in DEFECTS
        for seed in range(3)
    }
    drawn = {add_defect(image, rng)[0].tobytes() for _ in range(12)}
    assert len(named) == 3 * len(DEFECTS)
    assert len(drawn) == 12


@pytest.mark.parametrize("kind", sorted(DEFECTS))
def test_defects_take_small_and_oblong_images(kind: str) -> None:
    for shape in ((32, 32), (32, 200), (224, 48)):
        image = np.random.default_rng(0).integers(60, 190, (*shape, 3), np.uint8)
        made, mask = add_defect(image, np.random.default_rng(1), kind)
        assert made.shape == image.shape
        assert mask.any()
