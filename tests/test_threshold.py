"""Thresholds from a few normal scores: the rules, and what is said of their reliability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsad_edge.calibration.threshold import (
    PRIOR_STD,
    ROTATED_STD,
    prior_std_for,
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


@pytest.mark.parametrize("prior", [PRIOR_STD, ROTATED_STD])
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


def test_the_prior_standard_deviation_is_smaller_for_larger_images() -> None:
    for rotated, std in ((False, PRIOR_STD), (True, ROTATED_STD)):
        priors = [prior_std_for(rotated, side) for side in (96, 224, 448, 896)]
        assert priors == pytest.approx([std, std, std / 2**0.5, std / 2])


@pytest.mark.parametrize(
    ("count", "words"),
    [(2, "hardly"), (5, "guarantee no less than 17%"), (99, "follow a normal distribution.")],
)
def test_the_reliability_of_few_shots_is_said(count: int, words: str) -> None:
    values = np.random.default_rng(count).normal(1, 0.1, count).tolist()
    assert words in threshold_from_scores(values, 0.01).reliability


def test_a_single_shot_guarantees_nothing() -> None:
    threshold = threshold_from_one_shot([0.2, 0.25, 0.22, 0.21], 0.01)
    assert threshold.value > 0.25
    assert "no false alarm rate can be guaranteed" in threshold.reliability


def test_blank_parts_do_not_make_the_threshold_zero() -> None:
    assert threshold_from_scores([0.0, 0.0, 0.0], 0.01).value > 0
    assert threshold_from_one_shot([0.0], 0.01).value > 0
