"""The bounds of a rate, against SciPy and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fsad_edge.runtime.clopper_pearson import both_bounds, upper_bound


@given(st.data(), st.integers(1, 2000), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_bounds_equal_scipy_s(data: st.DataObject, count: int, confidence: float) -> None:
    errors = data.draw(st.integers(0, count))
    interval = stats.binomtest(errors, count, alternative="less").proportion_ci(confidence)
    assert upper_bound(errors, count, confidence) == pytest.approx(interval.high, abs=1e-9)


@given(st.data(), st.integers(1, 2000), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_both_bounds_equal_scipy_s(data: st.DataObject, count: int, confidence: float) -> None:
    cases = data.draw(st.integers(0, count))
    interval = stats.binomtest(cases, count).proportion_ci(confidence)
    expected = pytest.approx((interval.low, interval.high), abs=1e-9)
    assert both_bounds(cases, count, confidence) == expected


def test_the_true_rate_is_below_the_bound_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for count, rate in ((3, 0.3), (12, 0.1), (100, 0.01)):
        covered = [rate <= upper_bound(int(x), count) for x in rng.binomial(count, rate, 2000)]
        assert np.mean(covered) >= 0.94


@given(st.integers(0, 50), st.integers(1, 50))
def test_more_cases_without_a_further_error_lower_the_bound(errors: int, more: int) -> None:
    count = errors + 5
    assert upper_bound(errors, count + more) < upper_bound(errors, count)
    assert upper_bound(errors + 1, count) > upper_bound(errors, count)


@pytest.mark.parametrize(("errors", "count"), [(2, 1), (-1, 3), (0, -1)])
def test_counts_that_cannot_be_are_refused(errors: int, count: int) -> None:
    with pytest.raises(ValueError, match="cases"):
        upper_bound(errors, count)
