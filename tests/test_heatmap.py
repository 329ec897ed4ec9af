"""Heat maps: what is coloured, what stays clean, and that any image and map can be drawn."""

from __future__ import annotations

from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fsad_edge
from fsad_edge import FinetuneOptions, Model
from fsad_edge.options import Decision, HeatScale, ScoreKind
from fsad_edge.runtime.heatmap import (
    MAX_SIDE,
    colour_scale,
    describe,
    overlay,
    render,
    shrink,
    upsample,
)
from fsad_edge.runtime.model import ScoringState
from tests.conftest import SIZE, Job, photograph


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
    changed = (overlay(image, peak(), 0.5, numbered=False) != image).any(axis=2)
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
    scale = colour_scale(300, 1)[0].astype(float)[100:]  # from the threshold to twice of it
    luminance = scale @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) <= 1).all()
    assert luminance[0] - luminance[-1] > 50


def test_the_second_scale_is_cold_below_the_threshold_and_the_first_one_above_it() -> None:
    near = colour_scale(500, 1, HeatScale.NEAR)[0].astype(int)  # from 0.2 to 1.2
    below, above = near[:399], near[401:]
    assert (below[:, 2] - below[:, 0] >= -1).all()
    assert (np.diff(below @ [0.2126, 0.7152, 0.0722]) <= 1).all()
    assert (above[:, 0] - above[:, 2] > 30).all()
    map_ = np.full((8, 8), 0.3, np.float32)
    assert (overlay(grey(64, 64), map_, 0.5) == 120).all()
    assert (overlay(grey(64, 64), map_, 0.5, HeatScale.NEAR) != 120).any()
    high = np.full((8, 8), 0.6, np.float32)
    np.testing.assert_array_equal(
        overlay(grey(64, 64), high, 0.5), overlay(grey(64, 64), high, 0.5, HeatScale.NEAR)
    )


def one_patch() -> NDArray[np.float32]:
    """Distances that are high in one patch; with two pixels for each, none lies on its middle."""
    distances = np.full((16, 16), 0.05, dtype=np.float32)
    distances[5, 9] = 0.8
    return distances


def has_line(map_: NDArray[np.float32], threshold: float, side: int, scale: HeatScale) -> bool:
    """Whether there is a line on a black image, which no colour of a scale makes so bright."""
    drawn = overlay(grey(side, side, 0), map_, threshold, scale, numbered=False)
    return bool(drawn.min(axis=2).max() > 120)


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=16),
        elements=st.floats(0.0625, 2, width=32),
    ),
    st.floats(0.5, 2),
    st.integers(20, 90),
    st.sampled_from(HeatScale),
)
@example(one_patch(), 1.03, 32, HeatScale.THRESHOLD)
@settings(deadline=None)
def test_a_line_is_drawn_exactly_where_the_score_is_above_the_threshold(
    distances: NDArray[np.float32], ratio: float, side: int, scale: HeatScale
) -> None:
    """As the graph makes map and score: the mean of the worst three, which limits the map."""
    score = np.float32(np.sort(distances, axis=None)[-3:].mean())
    map_ = np.minimum(distances, score)
    threshold = float(score) / ratio
    lies_all_above = map_.min() / np.float32(threshold) > 1
    assert has_line(map_, threshold, side, scale) == (score > threshold and not lies_all_above)


@pytest.fixture(scope="module")
def files(
    job: Job, backbones: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[ScoreKind, Path]:
    """A file that decides by each score."""
    options = FinetuneOptions(
        backbone=backbones["conv"], image_size=SIZE, rotations=1, score=ScoreKind.IMAGE
    )
    part = fsad_edge.finetune(job.shots, tmp_path_factory.mktemp("image") / "part", options)
    return {ScoreKind.PATCH: job.file, ScoreKind.IMAGE: fsad_edge.export(part).path}


@pytest.mark.parametrize("kind", ScoreKind)
def test_no_good_part_has_a_line_and_each_anomaly_has_one(
    files: dict[ScoreKind, Path], kind: ScoreKind
) -> None:
    rng = np.random.default_rng(0)
    parts = [np.asarray(photograph(rng, defect=index % 2 == 1)) for index in range(30)]
    noise = [rng.integers(0, 255, (96, 96, 3), dtype=np.uint8) for _ in range(5)]
    with Model.load(files[kind]) as model:
        for image in parts + noise:
            score = model.score(image).score
            for ratio in (0.5, 0.98, 1 - 1e-7, 1.0, 1 + 1e-7, 1.0001, 1.02, 1.5):
                threshold = score / ratio
                model.set_state(ScoringState(threshold, threshold, model.reference.as_inputs()))
                result = model.score(image)
                drawn = has_line(result.anomaly_map, result.map_threshold, 96, HeatScale.THRESHOLD)
                if result.score <= threshold:
                    assert not drawn
                elif ratio > 1.00001:
                    everywhere = result.anomaly_map.min() > result.map_threshold
                    assert drawn or everywhere


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
@pytest.mark.parametrize("decision", [Decision.GOOD, Decision.ANOMALY, Decision.NOT_JUDGED, None])
@pytest.mark.parametrize("scale", HeatScale)
def test_rendered_images_have_room_for_everything_and_stay_small(
    height: int, width: int, decision: Decision | None, scale: HeatScale
) -> None:
    reasons = ["it is dark"] * 20 if decision is Decision.NOT_JUDGED else []
    caption = describe("x" * 300 + ".jpg", 0.6, 0.5, reasons)
    drawn = render(grey(height, width), peak(), 0.5, caption, decision, scale)
    assert drawn.mode == "RGB"
    assert max(drawn.size) <= MAX_SIDE
    assert drawn.width >= 720
    # Nothing was written over the right margin and the lower edge.
    assert (np.asarray(drawn)[-3:] == 255).all()
    assert (np.asarray(drawn)[-70:, -6:] == 255).all()


def test_a_rendered_image_shows_the_photograph_next_to_its_overlay() -> None:
    image = np.random.default_rng(0).integers(0, 256, (520, 520, 3), dtype=np.uint8)
    drawn = np.asarray(render(image, peak(), 0.5, "one line"))
    np.testing.assert_array_equal(drawn[8:528, 8:528], image)
    np.testing.assert_array_equal(drawn[8:528, 536:1056], overlay(image, peak(), 0.5))


def test_captions_say_score_and_ratio_and_why_an_image_is_not_judged() -> None:
    assert describe("a.jpg", 0.6, 0.5) == "a.jpg\nscore 0.6  =  1.20 x threshold"
    assert describe("a.jpg", 0.6, 0.5, ["it is dark", "it is blurred"]) == (
        "a.jpg\nscore 0.6  =  1.20 x threshold\nit is dark; it is blurred"
    )


def test_the_place_and_what_is_missing_have_lines_of_their_own() -> None:
    told = describe("a.jpg", 0.6, 0.5, (), "1.2 mm² (3 × 4 mm) at 5, 6 mm", "something is missing")
    lines = ["a.jpg", "score 0.6  =  1.20 x threshold"]
    assert told.split("\n") == [
        *lines,
        "1.2 square mm (3 x 4 mm) at 5, 6 mm",
        "something is missing",
    ]
    drawn = [
        np.asarray(render(grey(900, 200), peak(), 0.5, told.replace("6", last), Decision.ANOMALY))
        for last in ("6", "7")
    ]
    assert (drawn[0] != drawn[1]).any()


def test_shrinking_keeps_the_aspect_and_small_images() -> None:
    assert shrink(grey(1000, 500), 100).shape == (100, 50, 3)
    small = grey(20, 30)
    assert shrink(small, 100) is small
