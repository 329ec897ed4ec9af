"""Many rejected images: told where they are clearly more than was asked for, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsad_edge.monitoring.rejections import FEWEST, MANY_TIMES, Rejections


def after(decisions: list[bool]) -> Rejections:
    rejections = Rejections()
    for rejected in decisions:
        rejections.update(rejected)
    return rejections


@pytest.mark.parametrize(("rejected", "images", "many"), [(31, 100, True), (13, 97, True),
    (5, 100, False), (3, 3, False), (20, 20, True), (0, 200, False)])  # fmt: skip
def test_it_tells_many_from_few(rejected: int, images: int, many: bool) -> None:
    seen = after([index < rejected for index in range(images)])
    assert (seen.rejected, seen.images) == (rejected, images)
    assert seen.many(0.01) is many


def test_a_line_with_two_bad_parts_in_a_hundred_is_left_in_peace() -> None:
    rng, told = np.random.default_rng(0), 0
    for _ in range(200):
        told += after([bool(one) for one in rng.uniform(size=200) < 0.02]).many(0.01)
    assert told <= 2


@given(st.lists(st.booleans(), min_size=FEWEST, max_size=80), st.floats(0.001, 0.1))
def test_it_is_told_only_where_the_share_is_above(decisions: list[bool], asked: float) -> None:
    seen = after(decisions)
    if seen.many(asked):
        assert seen.rejected / seen.images > MANY_TIMES * asked
        assert after([*decisions, True]).many(asked)
    seen.reset()
    assert (seen.images, seen.rejected, seen.many(asked)) == (0, 0, False)
