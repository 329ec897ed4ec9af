"""Rarity: how much a patch differs from the rest of its own image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsad_edge.graph.scoring_graph import rarity
from fsad_edge.runtime.bank import NEIGHBOURS
from fsad_edge.scoring.scoring_graph import AROUND, COMPARED


def unit_map(seed: int, height: int, width: int, depth: int = 5) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(size=(2, height, width, depth))
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    return torch.from_numpy(values.astype(np.float32))


@given(
    st.integers(0, 2**32 - 1),
    st.integers(9, 34) | st.sampled_from([56, 80]),
    st.integers(9, 34) | st.sampled_from([56, 80]),
)
@settings(deadline=None, max_examples=30)
def test_rarity_is_the_distance_to_the_nearest_patches_elsewhere(
    seed: int, height: int, width: int
) -> None:
    maps = unit_map(seed, height, width)
    got = rarity(maps).numpy()
    step = max(1, math.isqrt(height * width) // COMPARED)
    around = min(AROUND * step, (min(height, width) - 1) // 4)
    for y, x in np.random.default_rng(seed).integers(0, (height, width), (5, 2)):
        away = [
            1 - float(maps[1, y, x].double() @ maps[1, other_y, other_x].double())
            for other_y in range(step // 2, height, step)
            for other_x in range(step // 2, width, step)
            if max(abs(other_y - y), abs(other_x - x)) > around
        ]
        assert got[1, y, x] == pytest.approx(np.mean(sorted(away)[:NEIGHBOURS]), abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 2), (3, 7), (4, 4), (8, 8)])
def test_a_map_of_a_few_patches_has_a_rarity_too(height: int, width: int) -> None:
    got = rarity(unit_map(0, height, width))
    assert got.shape == (2, height, width)
    assert ((got >= 0) & (got <= 2)).all()
    assert bool((got > 0).any()) == (height * width > 1)


@pytest.mark.parametrize("side", [14, 20, 28, 40])
def test_a_spot_is_rare_and_a_texture_is_not(side: int) -> None:
    maps = torch.zeros(1, side, side, 5)
    maps[..., 0] = 1
    maps[:, :, torch.arange(side) // 2 % 2 == 0, 1] = 1  # stripes
    maps[0, side // 2, side // 2] = torch.tensor([0.0, 0, 0, 1, 0])
    maps /= maps.norm(dim=-1, keepdim=True)
    got = rarity(maps)[0]
    assert got[side // 2, side // 2] == pytest.approx(1)
    assert got.sum() - got[side // 2, side // 2] < 1e-4
