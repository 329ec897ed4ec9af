"""The second memory bank: which patches are kept, how far they reach, what images then score."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fsad_edge.errors import InputError
from fsad_edge.learning.rejected import (
    ROWS_PER_IMAGE,
    Box,
    marked_patches,
    unlike_good_parts,
    with_rejected,
)
from fsad_edge.runtime.bank import (
    REJECTED_ROWS,
    WORST_PATCHES,
    ReferenceModel,
    fit_reference,
    patch_distances,
    patch_scores,
    raised_distances,
)

Float32 = NDArray[np.float32]
DIMENSIONS = 8
SEEDS = st.integers(0, 2**32 - 1)


def drawn(rng: np.random.Generator, *shape: int, spread: float = 1.0) -> Float32:
    """Unit rows around one direction with a rarity in the last column, as the graph gives them."""
    rows = np.eye(DIMENSIONS)[0] * 2 + rng.normal(0, spread, (*shape, DIMENSIONS))
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.concatenate([rows, rng.random((*shape, 1)) / 2], axis=-1).astype(np.float32)


def model(rng: np.random.Generator, rows: int = 40) -> ReferenceModel:
    patches = drawn(rng, rows, spread=0.2)
    return fit_reference(patches, patches[:, :-1], 60)


def places(patches: Float32, chosen: Float32) -> set[int]:
    """The places of chosen patches in their image."""
    found = {row.tobytes(): place for place, row in enumerate(patches)}
    return {found[row.tobytes()] for row in chosen}


def marked(distances: list[list[float]], box: Box | None = None) -> set[tuple[int, int]]:
    """The cells that are marked on a map of distances."""
    field = np.array(distances, np.float32)
    patches = drawn(np.random.default_rng(0), field.size)
    chosen = marked_patches(patches, field.ravel(), field.shape, box)
    return {divmod(place, field.shape[1]) for place in places(patches, chosen)}


def test_the_worst_region_is_what_hangs_together_around_the_largest_distance() -> None:
    field = [
        [0.1, 0.1, 0.1, 0.1, 0.8],
        [0.1, 0.9, 0.1, 0.1, 0.1],
        [0.1, 0.1, 1.0, 0.1, 0.1],
        [0.1, 0.1, 0.1, 0.1, 0.9],
        [0.1, 0.1, 0.1, 0.1, 0.9],
    ]
    assert marked(field) == {(1, 1), (2, 2)}  # the others are as far, but elsewhere


@pytest.mark.parametrize(
    ("box", "cells"),
    [
        ((0.5, 0.0, 1.0, 0.5), {(0, 2), (0, 3), (1, 2), (1, 3)}),
        ((0.26, 0.26, 0.49, 0.49), {(1, 1)}),
        ((0.05, 0.9, 0.06, 0.91), {(3, 0)}),  # smaller than a cell
        ((-1.0, -1.0, 0.25, 0.25), {(0, 0)}),  # reaches over the edge
        ((0.1, 0.0, 0.6, 0.25), {(0, 0), (0, 1)}),  # too little of the third
    ],
)
def test_a_box_takes_the_cells_that_it_covers_half_of(
    box: Box, cells: set[tuple[int, int]]
) -> None:
    assert marked([[0.1] * 4] * 4, box) == cells


@pytest.mark.parametrize("box", [(1.0, 0.0, 2.0, 1.0), (0.5, 0.5, 0.5, 0.9), (0.9, 0.0, 0.1, 1.0)])
def test_a_box_that_covers_nothing_is_refused(box: Box) -> None:
    with pytest.raises(InputError, match="mark a place on the part"):
        marked([[0.1] * 4] * 4, box)


@given(SEEDS, st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_the_farthest_marked_patches_are_kept(
    seed: int, height: int, width: int, boxed: bool
) -> None:
    rng = np.random.default_rng(seed)
    patches, distances = drawn(rng, height * width), rng.random(height * width, np.float32)
    box = (0.0, 0.0, 1.0, 1.0) if boxed else None
    chosen = marked_patches(patches, distances, (height, width), box)
    assert 1 <= len(chosen) <= ROWS_PER_IMAGE
    kept = places(patches, chosen)
    assert int(distances.argmax()) in kept
    if boxed:
        rest = set(range(len(patches))) - kept
        assert min(distances[list(kept)]) >= max(distances[list(rest)], default=0)
        assert len(kept) == min(ROWS_PER_IMAGE, len(patches))


@given(SEEDS, st.integers(1, 30), st.integers(3, 40))
@settings(deadline=None)
def test_no_distance_falls_and_none_more_than_doubles(seed: int, bad: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    reference, images = model(rng), drawn(rng, 4, count)
    taught = with_rejected(reference, drawn(rng, bad))
    before = patch_distances(images, reference)
    after = raised_distances(images, before, taught)
    assert (after >= before).all()
    assert (after <= 2 * before).all()
    np.testing.assert_array_equal(patch_distances(images, taught), before)
    worst = np.sort(after, axis=1)[:, -WORST_PATCHES:].mean(axis=1)
    np.testing.assert_allclose(patch_scores(images, taught), worst)


@given(SEEDS, st.integers(0, 20))
@settings(deadline=None)
def test_nothing_rejected_changes_nothing(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    reference, images = model(rng), drawn(rng, 2, 20)
    empty = with_rejected(with_rejected(reference, drawn(rng, count)), images[0, :0])
    for name, value in reference.as_inputs().items():
        np.testing.assert_array_equal(empty.as_inputs()[name], value)
    np.testing.assert_array_equal(patch_scores(images, empty), patch_scores(images, reference))


@given(SEEDS, st.integers(1, 20))
@settings(deadline=None)
def test_a_kept_row_raises_the_patch_that_it_is_of(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    reference, rows = model(rng), drawn(rng, count)
    kept = unlike_good_parts(rows, reference)
    assume(len(kept))
    own = rows[[int(np.abs(rows[:, :-1] - row[:-1]).sum(axis=1).argmin()) for row in kept]]
    before = patch_distances(own, reference)
    after = raised_distances(own, before, with_rejected(reference, rows))
    assert (after >= 1.5 * before - 1e-4).all()


@given(SEEDS, st.integers(1, 20), st.integers(0, 3))
@settings(deadline=None)
def test_good_images_score_as_before(seed: int, count: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    reference, rows = model(rng), drawn(rng, count)
    good = drawn(rng, images, 20)
    taught = with_rejected(reference, rows, good)
    before = patch_distances(good, reference) if images else good[..., -1]
    after = raised_distances(good, before, taught)
    np.testing.assert_allclose(after, before, atol=1e-5)
    assert len(unlike_good_parts(rows, reference, good)) <= len(unlike_good_parts(rows, reference))


def test_nothing_is_kept_of_what_good_parts_show() -> None:
    rng = np.random.default_rng(0)
    reference = model(rng)
    assert not len(unlike_good_parts(reference.patches, reference))  # the bank itself
    bad = drawn(rng, 5)
    assert len(unlike_good_parts(bad, reference)) == 5
    assert not len(unlike_good_parts(bad, reference, [bad]))


def test_a_bank_of_one_patch_says_nothing_of_reach() -> None:
    rng = np.random.default_rng(0)
    one = drawn(rng, 1)
    reference, bad = fit_reference(one, one[:, :-1], 8), drawn(rng, 2)
    np.testing.assert_array_equal(unlike_good_parts(bad, reference), bad)


def test_more_rows_than_slots_are_thinned() -> None:
    rng = np.random.default_rng(0)
    reference = model(rng)
    taught = with_rejected(reference, drawn(rng, 3 * REJECTED_ROWS))
    assert len(taught.rejected_patches) == REJECTED_ROWS
    assert taught.rejected.shape == reference.rejected.shape
    assert len({row.tobytes() for row in taught.rejected}) == REJECTED_ROWS
