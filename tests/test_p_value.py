"""P-values: that they agree with their threshold, and are as frequent as they say."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsad_edge.calibration.p_value import LEAST, PValue
from fsad_edge.calibration.prediction import PRIOR_SCORES, PRIOR_STD
from fsad_edge.calibration.threshold import (
    threshold_from_one_shot,
    threshold_from_scores,
)

scores = st.lists(st.floats(0.01, 10), min_size=2, max_size=20)


@given(scores, st.sampled_from([0.001, 0.01, 0.05, 0.3]), st.floats(0.05, 0.4))
def test_the_p_value_of_the_threshold_is_the_false_alarm_rate(
    values: list[float], rate: float, std: float
) -> None:
    threshold = threshold_from_scores(values, rate, std)
    p_value = PValue.behind(threshold)
    assert p_value is not None
    assert p_value(threshold.value) == pytest.approx(rate, rel=0.02)


@given(scores)
def test_a_higher_score_has_a_lower_p_value(values: list[float]) -> None:
    p_value = PValue(values)
    found = [p_value(score) for score in np.geomspace(1e-5, 1e3, 50)]
    assert all(one >= other - 1e-12 for one, other in itertools.pairwise(found))
    assert LEAST <= found[-1] <= found[0] <= 1


def test_p_values_are_uniform_for_parts_that_follow_the_prior() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(8000):
        std = PRIOR_STD * np.sqrt(PRIOR_SCORES / rng.chisquare(PRIOR_SCORES))
        *values, new = np.exp(rng.normal(-2, std, 6))
        found.append(PValue(values)(new))
    for level in (0.02, 0.1, 0.5):
        assert np.mean(np.asarray(found) < level) == pytest.approx(level, rel=0.2)


def test_a_threshold_by_another_rule_has_no_p_values() -> None:
    values = [0.1, 0.11, 0.13]
    assert PValue.behind(threshold_from_one_shot(values, 0.01)) is None
    by_hand = dataclasses.replace(threshold_from_scores(values, 0.01), value=0.5)
    assert PValue.behind(by_hand) is None
