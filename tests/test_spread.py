"""The spread of scores that patch maps foretell, on maps whose scores are known to spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsad_edge.calibration.spread import LEAST_STD, MOST_STD, spread_of_scores
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.bank import WORST_PATCHES


def maps(scale: float, count: int = 5, side: int = 14, seed: int = 0) -> Float32Array:
    """Maps whose logarithms have an exponential tail of this scale."""
    tails = np.random.default_rng(seed).exponential(scale, (count, side, side))
    return (0.05 * np.exp(tails)).astype(np.float32)


@pytest.mark.parametrize("scale", [0.1, 0.2, 0.4])
@pytest.mark.parametrize("side", [14, 28])
def test_a_few_maps_foretell_how_scores_spread(scale: float, side: int) -> None:
    """Of independent patches, which is the least that scores can spread."""
    many = maps(scale, 2000, side).reshape(2000, -1)
    scores = np.sort(many, axis=1)[:, -WORST_PATCHES:].mean(axis=1)
    foretold = spread_of_scores(maps(scale, side=side, seed=1))
    assert foretold is not None
    assert 1 < foretold / np.log(scores).std() < 2


@given(st.floats(0.01, 100))
def test_the_unit_of_the_scores_does_not_matter(unit: float) -> None:
    assert spread_of_scores(unit * maps(0.2)) == pytest.approx(spread_of_scores(maps(0.2)))


def test_one_broken_shot_does_not_decide() -> None:
    broken = maps(0.1)
    broken[2] **= 8
    assert spread_of_scores(broken) == pytest.approx(spread_of_scores(maps(0.1)), rel=0.3)


def test_a_map_that_the_graph_limits_foretells_the_same() -> None:
    """The graph's map stops at the image's score, which is the mean of its worst patches."""
    plain = maps(0.2)
    limit = np.sort(plain.reshape(5, -1), axis=1)[:, -WORST_PATCHES:].mean(axis=1)
    limited = np.minimum(plain, limit[:, None, None]).astype(np.float32)
    assert spread_of_scores(limited) == pytest.approx(spread_of_scores(plain), rel=0.1)


def test_the_spread_stays_within_sane_bounds() -> None:
    assert spread_of_scores(np.zeros((3, 14, 14), np.float32)) == LEAST_STD
    assert spread_of_scores(maps(5.0)) == MOST_STD
    assert spread_of_scores(maps(0.2, side=4)) is None
