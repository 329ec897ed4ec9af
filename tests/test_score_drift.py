"""Score drift: false alarms as rare as stated, and real changes found."""

from __future__ import annotations

import numpy as np
import pytest

from fsad_edge.monitoring.score_drift import START, ScoreDrift


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
    # The sums of bets are on average the number of images. By a maximal inequality, the probability
    # of an alarm within that many images is at most images / run_length.
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
    assert alarms <= 1  # at most 0.4 are expected


@pytest.mark.parametrize(("shift", "direction"), [(0.2, "higher"), (-0.2, "lower")])
def test_a_drift_of_one_standard_deviation_is_found(shift: float, direction: str) -> None:
    delays: list[int] = []
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


@pytest.mark.parametrize("std", [0.1, 0.2])
def test_a_line_that_differs_from_the_shots_from_the_start_is_reported(std: float) -> None:
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
