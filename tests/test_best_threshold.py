"""The best thresholds on labelled images, against every threshold that there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsad_edge.evaluation.best_threshold import best_thresholds

scores = st.lists(st.integers(1, 40).map(lambda level: level / 20), min_size=1, max_size=30)


def rates(values: list[float], truth: list[bool], threshold: float) -> tuple[float, float]:
    """The shares of good ones above a threshold and of bad ones that are not."""
    both = list(zip(values, truth, strict=True))
    alarms = sum(value > threshold for value, bad in both if not bad) / truth.count(False)
    return alarms, sum(value <= threshold for value, bad in both if bad) / truth.count(True)


@given(scores, scores, st.sampled_from([0.0, 0.02, 0.1, 0.5]))
def test_no_other_threshold_does_better(good: list[float], bad: list[float], asked: float) -> None:
    values, truth = [*good, *bad], [False] * len(good) + [True] * len(bad)
    found = best_thresholds(values, truth, asked)
    assert found is not None
    for one in (found.within, found.balanced):
        assert rates(values, truth, one.threshold) == pytest.approx(
            (one.false_alarm_rate, one.miss_rate)
        )
        assert one.threshold > 0
    assert found.within.false_alarm_rate <= asked
    for other in (0.01, *values, *(value + 0.001 for value in values)):
        alarms, misses = rates(values, truth, other)
        assert alarms > asked or misses >= found.within.miss_rate
        best = found.balanced.false_alarm_rate + found.balanced.miss_rate
        assert alarms + misses >= best - 1e-9


def test_there_is_none_without_good_or_without_defective_images() -> None:
    assert best_thresholds([0.1, 0.2], [True, True], 0.01) is None
    assert best_thresholds([0.1, 0.2], [False, False], 0.01) is None
