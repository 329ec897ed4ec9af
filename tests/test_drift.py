"""Drift: false alarms as rare as stated, real changes found, bad photographs flagged."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fsad_edge import Model
from fsad_edge.errors import ModelFileError
from fsad_edge.monitoring.photograph import (
    PhotographCheck,
    find_shift,
    image_quality,
)
from fsad_edge.monitoring.score_drift import START, ScoreDrift
from tests.conftest import Job, photograph

UInt8 = NDArray[np.uint8]


@pytest.mark.parametrize("distribution", ["log-normal", "few values", "one in ten a defect"])
def test_false_alarms_are_as_rare_as_stated(distribution: str) -> None:
    run_length, images, lines = 2000, 200, 300
    alarms = 0
    for seed in range(lines):
        rng = np.random.default_rng(seed)
        scores = rng.lognormal(-2, 0.2, images)
        if distribution == "few values":
            scores = rng.integers(1, 4, images) / 10
        if distribution == "one in ten a defect":
            scores[rng.random(images) < 0.1] *= 3
        drift = ScoreDrift(run_length=run_length, seed=seed)
        for score in scores:
            drift.update(float(score))
        alarms += drift.drifted is not None
    # The sums of bets are on average the number of images: of a maximal inequality, a line has an
    # alarm within so many with a chance of images / run_length at most.
    chance = images / run_length
    assert alarms / lines <= chance + 3 * (chance * (1 - chance) / lines) ** 0.5


def test_a_full_reference_keeps_false_alarms_rare() -> None:
    alarms = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        drift = ScoreDrift(seed=seed)  # 100,000 images without a false alarm, on average
        for score in rng.lognormal(-2, 0.2, 10_000):  # five times the reference
            drift.update(float(score))
        alarms += drift.drifted is not None
    assert alarms <= 1  # at most 0.4 are to be expected


@pytest.mark.parametrize(("shift", "direction"), [(0.2, "higher"), (-0.2, "lower")])
def test_a_drift_of_one_spread_is_found(shift: float, direction: str) -> None:
    delays = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        drift = ScoreDrift(seed=seed)
        for score in rng.lognormal(-2, 0.2, 1000):
            drift.update(float(score))
        assert drift.drifted is None
        while drift.drifted is None and drift.images < 2000:
            drift.update(float(rng.lognormal(-2 + shift, 0.2)))
        assert drift.drifted == direction
        delays.append(drift.images - 1000)
        drift.reset()
        assert (drift.drifted, drift.images, drift.evidence) == (None, 0, 0)
    assert np.median(delays) < 80


@pytest.mark.parametrize("spread", [0.1, 0.2])
def test_a_line_that_never_was_like_the_shots_is_told_of(std: float) -> None:
    shots = [0.10, 0.12, 0.13, 0.11, 0.12]
    wrong = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        own = rng.lognormal(-2, std, 5).tolist()
        drift = ScoreDrift(own, prior_std=std)
        for score in rng.lognormal(-2, std, START):
            assert not drift.unlike_shots()
            drift.update(float(score))
        wrong += drift.unlike_shots(0.05)
    assert wrong <= 0.05 * 200 + 3 * (0.05 * 0.95 * 200) ** 0.5
    drift = ScoreDrift(shots, prior_std=std)
    for _ in range(START):
        drift.update(0.2)
    assert drift.unlike_shots()
    assert drift.ratio_to_shots == pytest.approx(0.2 / np.exp(np.log(shots).mean()))
    assert ScoreDrift([0.1]).ratio_to_shots is None


def shots() -> list[UInt8]:
    rng = np.random.default_rng(0)
    return [np.asarray(photograph(rng, 64)) for _ in range(5)]


def blurred(image: UInt8) -> UInt8:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.5)))


def test_bad_photographs_are_flagged_and_good_ones_are_not() -> None:
    check = PhotographCheck(describe(shots()))
    rng = np.random.default_rng(1)
    good = [np.asarray(photograph(rng, 64)) for _ in range(40)]
    assert sum(bool(check.check(image)) for image in good) <= 1
    for image in good[:10]:
        assert "dark" in check.check((image * 0.4).astype(np.uint8))
        assert "bright" in check.check((255 - (255 - image) * 0.2).astype(np.uint8))
        assert "flat" in check.check((image * 0.1 + 105).astype(np.uint8))
        assert "blurred" in check.check(blurred(image))
        assert check.check(np.roll(image, (8, -6), (0, 1))) == ["shifted"]


def test_a_shift_is_looked_for_only_where_parts_lie_alike() -> None:
    rng = np.random.default_rng(0)
    scattered = [np.roll(image, rng.integers(0, 64, 2), (0, 1)) for image in shots()]
    for images in (scattered, shots()[:2]):
        document = describe(images)
        assert document["similarity"] is None
        assert "shifted" not in PhotographCheck(document).check(np.roll(shots()[0], 9, 0))


@given(st.integers(-12, 12), st.integers(-12, 12), st.integers(0, 99))
@settings(deadline=None)
def test_a_shift_is_measured(down: int, right: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(32, 32)).astype(np.float32)
    shift, peak = find_shift(np.roll(image, (down, right), (0, 1)), image)
    # The window hides what has moved far: half of the image is then another.
    if abs(down) < 8 and abs(right) < 8:
        assert shift == (down, right)
    assert 0 < peak <= 1.001


@given(st.integers(16, 80), st.integers(16, 80), st.integers(0, 99), st.booleans())
@settings(deadline=None)
def test_any_image_is_measured(height: int, width: int, seed: int, plain: bool) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    if plain:
        image[:] = seed
    quality = image_quality(image)
    green = image[:, :, 1].astype(np.float64)
    assert quality.brightness == pytest.approx(green.mean(), abs=0.01)
    assert quality.contrast == pytest.approx(green.std() / max(green.mean(), 1), abs=0.01)
    assert np.isfinite([quality.sharpness, *quality.small.ravel()]).all()
    assert quality.small.shape == (32, 32)
    assert quality.small.mean() == pytest.approx(green.mean(), abs=8)
    for flags in (
        PhotographCheck(describe([image])).check(image),
        PhotographCheck({}).check(image),
    ):
        assert flags == []


def test_an_exported_file_knows_its_shots(job: Job) -> None:
    with Model.load(job.file, "cpu") as model:
        metadata = model.metadata
    assert len(metadata.appearance["brightness"]) == 5
    check = PhotographCheck(metadata.appearance)
    image = np.asarray(photograph(np.random.default_rng(3)).resize((64, 64)))
    assert check.check(image) == []
    assert "dark" in check.check(image // 4)
    assert "mean_image" not in metadata.summary()["appearance"]
    assert "mean_image" in metadata.appearance
    for damage in ({"brightness": 3}, {"mean_image": "AAAA"}, {"similarity": "x"}):
        damaged = dataclasses.replace(metadata, appearance={**metadata.appearance, **damage})
        if metadata.appearance["similarity"] is None and "mean_image" in damage:
            continue
        with pytest.raises(ModelFileError, match="description of its shots is damaged"):
            PhotographCheck(damaged.appearance)
