"""Thresholds from a few normal scores: the rules, and what is said of their reliability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsad_edge.calibration.threshold import (
    LEFT_OUT_BIAS,
    scores_of_new_parts,
    threshold_from_one_shot,
    threshold_from_scores,
)

scores = st.lists(st.floats(0.01, 2, allow_nan=False), min_size=2, max_size=50)
rates = st.sampled_from([0.001, 0.01, 0.05, 0.2])


@given(scores, rates, st.floats(0.1, 10))
def test_the_threshold_scales_with_the_scores(
    values: list[float], rate: float, scale: float
) -> None:
    plain = threshold_from_scores(values, rate).value
    scaled = threshold_from_scores([scale * value for value in values], rate).value
    assert scaled == pytest.approx(scale * plain, rel=1e-6)


@given(scores, rates)
def test_fewer_false_alarms_need_a_higher_threshold(values: list[float], rate: float) -> None:
    strict, loose = (threshold_from_scores(values, asked) for asked in (rate / 2, rate))
    assert strict.value >= loose.value >= np.exp(np.mean(np.log(values))) - 1e-9
    single_strict, single_loose = (threshold_from_one_shot(values, a) for a in (rate / 2, rate))
    assert single_strict.value > single_loose.value > 0


@pytest.mark.parametrize("prior", [0.1, 0.2, 0.4])
@pytest.mark.parametrize(("count", "rate"), [(3, 0.05), (5, 0.01), (5, 0.05), (10, 0.01)])
def test_the_rate_is_met_where_logarithms_are_normally_distributed(
    count: int, rate: float, prior: float
) -> None:
    rng = np.random.default_rng(0)
    drawn = np.exp(rng.normal(-1, 1.15 * prior, (4000, count + 1)))
    alarms = [
        row[-1] > threshold_from_scores(row[:-1].tolist(), rate, prior).value for row in drawn
    ]
    assert rate / 2 <= np.mean(alarms) <= 2 * rate


def test_left_out_scores_come_down_to_those_of_new_parts() -> None:
    left_out = np.array([0.2, 0.3], np.float32)
    ratios = [scores_of_new_parts(left_out, shots) / left_out for shots in (1, 2, 5, 10, 1000)]
    assert all(ratio[0] == pytest.approx(ratio[1]) for ratio in ratios)
    single, two, five, ten, many = (float(ratio[0]) for ratio in ratios)
    assert two == five < ten < many
    assert single == 1 == pytest.approx(many, abs=1e-3)
    assert five == pytest.approx(np.exp(-LEFT_OUT_BIAS / 5))


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (2, "2 shots hardly show how much good parts vary"),
        (5, "About 1 in 100 good parts should be rejected, if they vary as the 5 shots do. "),
        (5, "the best that they can prove is 17 in 100, and 1 in 100 takes 99 shots."),
        (99, "About 1 in 100 good parts should be rejected, if they vary as the 99 shots do."),
    ],
)
def test_the_reliability_of_few_shots_is_said(count: int, words: str) -> None:
    values = np.random.default_rng(count).normal(1, 0.1, count).tolist()
    assert words in threshold_from_scores(values, 0.01).reliability


def test_a_single_shot_guarantees_nothing() -> None:
    threshold = threshold_from_one_shot([0.2, 0.25, 0.22, 0.21], 0.01)
    assert threshold.value > 0.25
    assert "not known how many of them will be rejected" in threshold.reliability


def test_blank_parts_do_not_make_the_threshold_zero() -> None:
    assert threshold_from_scores([0.0, 0.0, 0.0], 0.01).value > 0
    assert threshold_from_one_shot([0.0], 0.01).value > 0
