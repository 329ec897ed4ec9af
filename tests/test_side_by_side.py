"""Work on many items with several threads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsad_edge.runtime.side_by_side import ahead, side_by_side
from fsad_edge.runtime.steps import Steps


@given(st.lists(st.integers()), st.integers(1, 4))
def test_results_are_in_the_order_of_the_items(items: list[int], workers: int) -> None:
    done: list[int] = []
    assert side_by_side(lambda item: -item, items, workers, done.append) == [-one for one in items]
    assert done == list(range(1, len(items) + 1))


@given(st.integers(1, 4), st.integers(0, 30))
def test_an_error_ends_the_work(workers: int, place: int) -> None:
    def work(item: int) -> int:
        if item == place:
            raise ValueError(item)
        return item

    threads = threading.active_count()
    with pytest.raises(ValueError, match=str(place)):
        side_by_side(work, range(31), workers)
    assert threading.active_count() == threads


@given(st.lists(st.integers()), st.integers(1, 4))
def test_what_is_done_ahead_comes_in_order(items: list[int], workers: int) -> None:
    assert list(ahead(lambda item: -item, items, workers)) == [-one for one in items]


def test_what_is_done_ahead_has_no_end_of_its_own() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in itertools.count():
            taken.append(item)
            yield item

    threads = threading.active_count()
    done = ahead(str, items(), 2)
    assert [next(done) for _ in range(3)] == ["0", "1", "2"]
    assert len(taken) < 10
    done.close()
    assert threading.active_count() == threads


def test_several_items_are_worked_on_at_a_time() -> None:
    together = threading.Barrier(3, timeout=30)
    assert sorted(side_by_side(lambda _: together.wait(), range(3), 3)) == [0, 1, 2]


@given(st.lists(st.floats(0.01, 0.2), min_size=1, max_size=5), st.floats(0, 1))
def test_steps_add_up(shares: list[float], done: float) -> None:
    seen: list[float] = []
    steps = Steps(seen.append)
    for share in shares:
        steps.next(share)(done)
    assert seen == sorted(seen)
    before = sum(shares[:-1])
    assert seen[-1] == pytest.approx(min(1.0, before + shares[-1] * done))
