"""Student's t distribution and the pooled standard deviation, against SciPy and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fsad_edge.runtime.student_t import pooled_std, student_quantile, student_tail


@given(st.floats(0.5, 0.9999), st.integers(1, 200))
def test_quantiles_equal_scipy_s(probability: float, dof: int) -> None:
    expected = stats.t.ppf(probability, dof)
    assert student_quantile(probability, dof) == pytest.approx(expected, rel=1e-3, abs=1e-4)


@given(st.floats(-50, 50), st.integers(1, 80))
def test_tails_equal_scipy_s(t: float, dof: int) -> None:
    assert student_tail(t, dof) == pytest.approx(stats.t.sf(t, dof), abs=1e-12)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20), st.floats(0.01, 2))
def test_a_pooled_standard_deviation_is_between_the_prior_and_the_values_own(
    values: list[float], prior: float
) -> None:
    own = float(np.std(values, ddof=1))
    pooled = pooled_std(np.array(values), prior, 8)
    assert min(own, prior) - 1e-9 <= pooled.std <= max(own, prior) + 1e-9
    assert pooled.dof == 8 + len(values) - 1
    without_prior = pooled_std(np.array(values), prior, 0)
    assert without_prior.std == pytest.approx(own, abs=1e-9)
    assert math.isclose(pooled_std(np.array(values[:1]), prior, 8).std, prior)
