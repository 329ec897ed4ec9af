"""Defects drawn into photographs: on the part, at its scale, and the same at every image size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.images import resize
from fsad_edge.synthesis import draw_defects
from fsad_edge.synthesis.part_area import find_part

SEEDS = st.integers(0, 10_000)


def plate(
    height: int = 240, width: int = 320, part: tuple[int, int, int, int] | None = (60, 50, 120, 90)
) -> UInt8Array:
    """A textured part (left, top, right, bottom) on a plain ground, or texture alone."""
    rng = np.random.default_rng(height)
    pixels = rng.normal(190, 2, (height, width, 1)).repeat(3, axis=2)
    left, top, right, bottom = part or (0, 0, width, height)
    shape = bottom - top, right - left
    pixels[top:bottom, left:right] = rng.normal((90, 110, 130), 12, (*shape, 3))
    result: UInt8Array = pixels.clip(0, 255).astype(np.uint8)
    return result


def test_a_part_on_a_plain_ground_is_found() -> None:
    area = find_part(plate())
    assert area.extent == pytest.approx((60 * 40) ** 0.5, rel=0.1)
    for seed in range(50):
        x, y = area.place(np.random.default_rng(seed))
        assert 58 <= x <= 122
        assert 48 <= y <= 92


@pytest.mark.parametrize("image", [plate(part=None), np.full((96, 64, 3), 128, np.uint8)])
def test_a_surface_that_fills_the_photograph_is_all_part(image: UInt8Array) -> None:
    area = find_part(image)
    assert area.mask.all()
    assert area.extent == pytest.approx((image.shape[0] * image.shape[1]) ** 0.5)


def test_a_part_that_fills_half_the_border_is_no_ground() -> None:
    assert find_part(plate(part=(0, 0, 320, 120))).mask.all()


def changes(image: UInt8Array, seed: int, count: int = 6) -> list[UInt8Array]:
    return [
        defect.onto(image) for defect in draw_defects(image, count, np.random.default_rng(seed))
    ]


def test_defects_lie_on_the_part_and_are_as_small_as_it_asks() -> None:
    image = plate()
    for made in changes(image, seed=1, count=40):
        rows, columns = np.nonzero((made != image).any(axis=2))
        assert len(rows)
        on_part = (rows >= 46) & (rows < 94) & (columns >= 56) & (columns < 124)
        assert on_part.mean() > 0.4
        assert max(np.ptp(rows), np.ptp(columns)) < 60


def test_defects_of_a_large_part_are_larger() -> None:
    def size(image: UInt8Array) -> float:
        spans = []
        for made in changes(image, seed=2, count=40):
            rows, columns = np.nonzero((made != image).any(axis=2))
            spans.append(max(np.ptp(rows), np.ptp(columns)))
        return float(np.median(spans))

    assert size(plate(part=(20, 20, 300, 220))) > 2 * size(plate())


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_a_defect_is_the_same_at_every_size(seed: int) -> None:
    """It shows in a smaller image as if the photograph with it had been made smaller."""
    image = plate()
    for defect in draw_defects(image, 2, np.random.default_rng(seed)):
        whole = defect.onto(image)
        for height, width in ((224, 224), (96, 160), (60, 40)):
            small = resize(image, height, width)
            expected = resize(whole, height, width)
            apart = np.abs(defect.onto(small).astype(int) - expected)
            # Pixels are rounded three times on one way and twice on the other, and clipped.
            assert apart.max() <= 8
            assert (apart > 2).mean() < 0.01


def test_equal_seeds_draw_equal_defects() -> None:
    image = plate()
    one, two, other = (np.stack(changes(image, seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("shape", [(32, 32), (32, 300), (900, 70), (1500, 1400)])
def test_photographs_of_any_shape_are_taken(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(60, 190, (*shape, 3), np.uint8)
    for defect in draw_defects(image, 3, np.random.default_rng(0)):
        left, top, right, bottom = defect.box
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        assert (defect.onto(resize(image, 64, 64)) != resize(image, 64, 64)).any()
