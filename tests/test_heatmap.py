"""Heat maps: what is coloured, what stays clean, and that any image and map can be drawn."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fsad_edge.runtime.heatmap import (
    MAX_SIDE,
    colour_scale,
    describe,
    overlay,
    render,
    shrink,
    upsample,
)


def grey(height: int, width: int, value: int = 120) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, dtype=np.uint8)


def peak(side: int = 14, level: float = 0.2, height: float = 1.2) -> NDArray[np.float32]:
    anomaly_map = np.full((side, side), level, dtype=np.float32)
    anomaly_map[4:7, 8:11] = height
    return anomaly_map


def test_a_map_well_below_the_threshold_leaves_the_image_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    map_ = np.random.default_rng(1).uniform(0, 0.3, (14, 14)).astype(np.float32)
    np.testing.assert_array_equal(overlay(image, map_, 0.5), image)


def test_only_the_surroundings_of_the_peak_change() -> None:
    image = grey(140, 140)
    changed = (overlay(image, peak(), 0.5) != image).any(axis=2)
    assert changed[50, 95]
    assert changed[30:80, 70:120].sum() == changed.sum()


def test_colours_follow_the_threshold_not_the_range_of_the_map() -> None:
    image = grey(96, 96)
    map_ = peak()
    np.testing.assert_array_equal(overlay(image, map_, 0.5), overlay(image, map_ * 3, 1.5))
    strong, weak = (int(overlay(image, map_, t)[32, 64, 2]) for t in (0.5, 1.3))
    assert strong < weak  # the higher above the threshold, the redder, and so the less blue


def test_the_line_is_where_the_map_crosses_the_threshold() -> None:
    map_ = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (32, 1))
    column = overlay(grey(320, 320, 0), map_, 0.5)[160].astype(int).sum(axis=1).argmax()
    assert abs(column - 159.5) <= 1.5


@pytest.mark.parametrize("level", [0.4, 0.6])
def test_a_map_that_does_not_cross_has_no_line(level: float) -> None:
    drawn = overlay(grey(64, 64), np.full((8, 8), level, dtype=np.float32), 0.5)
    assert (drawn == drawn[0, 0]).all()


def test_the_colours_get_redder_and_darker() -> None:
    scale = colour_scale(200, 1, 1.0, 2.0)[0].astype(float)
    luminance = scale @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) <= 1).all()
    assert luminance[0] - luminance[-1] > 50


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=20),
        elements=st.floats(0, 2, width=32),
    ),
    st.integers(1, 70),
    st.integers(1, 70),
    st.floats(1e-3, 10),
)
@settings(max_examples=60, deadline=None)
def test_any_shape_is_drawn_without_a_warning(
    map_: NDArray[np.float32], height: int, width: int, threshold: float
) -> None:
    drawn = overlay(grey(height, width), map_, threshold)
    assert drawn.shape == (height, width, 3)
    assert drawn.dtype == np.uint8
    stretched = upsample(map_, height, width)
    assert stretched.shape == (height, width)
    assert map_.min() <= stretched.min() <= stretched.max() <= map_.max()


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_threshold_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        overlay(grey(32, 32), peak(), threshold)


def test_a_map_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        overlay(grey(32, 32), np.array([[0.1, np.nan]], dtype=np.float32), 0.5)


@pytest.mark.parametrize(
    ("height", "width"), [(16, 16), (300, 40), (60, 900), (700, 700), (2000, 3000), (16, 4000)]
)
@pytest.mark.parametrize("anomalous", [True, False, None])
def test_rendered_images_have_room_for_everything_and_stay_small(
    height: int, width: int, anomalous: bool | None
) -> None:
    caption = describe("x" * 300 + ".jpg", 0.6, 0.5)
    drawn = render(grey(height, width), peak(), 0.5, caption, anomalous)
    assert drawn.mode == "RGB"
    assert max(drawn.size) <= MAX_SIDE
    assert drawn.width >= 720
    # Nothing was written over the right margin.
    assert (np.asarray(drawn)[-70:, -6:] == 255).all()


def test_a_rendered_image_shows_the_photograph_next_to_its_overlay() -> None:
    image = np.random.default_rng(0).integers(0, 256, (520, 520, 3), dtype=np.uint8)
    drawn = np.asarray(render(image, peak(), 0.5, "one line"))
    np.testing.assert_array_equal(drawn[8:528, 8:528], image)
    np.testing.assert_array_equal(drawn[8:528, 536:1056], overlay(image, peak(), 0.5))


def test_captions_say_score_and_ratio() -> None:
    assert describe("a.jpg", 0.6, 0.5) == "a.jpg\nscore 0.6  =  1.20 x threshold"


def test_shrinking_keeps_the_aspect_and_small_images() -> None:
    assert shrink(grey(1000, 500), 100).shape == (100, 50, 3)
    small = grey(20, 30)
    assert shrink(small, 100) is small
