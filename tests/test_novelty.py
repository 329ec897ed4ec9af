"""The memory bank that learns: what it covers, its room, and what has to leave first."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fsad_edge.learning.novelty import (
    NOVEL,
    NOVEL_ROTATED,
    MemoryBank,
    Novelty,
    in_coreset_order,
    nearest,
)
from fsad_edge.runtime.bank import NEIGHBOURS, UNUSED, WORST_PATCHES, fit_reference

Float32 = NDArray[np.float32]
#: The fingerprint of an image, which a memory bank does not look at.
PRINT = np.zeros(64, np.uint8)


def novelty_with(upright: Float32, rotated: Float32) -> Novelty:
    """Patches of which each counts as it is."""
    ones = np.ones(len(upright) + len(rotated), np.float32)
    known = np.zeros(WORST_PATCHES, np.float32)
    return Novelty(upright, rotated, known, PRINT, ones, ones[: len(upright)], known)


@st.composite
def patches(draw: st.DrawFn, most: int) -> Float32:
    """Unit rows with a rarity in the last column, as the graph gives them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, most))
    rows = rng.normal(size=(count, 8)) + draw(st.sampled_from([0.0, 2.0]))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.concatenate([rows, rng.random((count, 1))], axis=1).astype(np.float32)


@given(st.integers(6, 60), patches(80), st.lists(st.tuples(patches(8), patches(16))))
@settings(deadline=None, max_examples=60)
def test_a_bank_covers_what_it_learns_and_keeps_its_size(
    bank_size: int, shots: Float32, images: list[tuple[Float32, Float32]]
) -> None:
    assume(len(shots) > 0)
    file = in_coreset_order(fit_reference(shots, shots[:, :-1], bank_size))
    capacity = len(file.bank)
    bank, threshold = MemoryBank(file, 0.1), 0.1
    for upright, rotated in images:
        novelty = novelty_with(upright, rotated)
        rows = bank.select_rows(novelty)
        fits = len(bank.learned_rows) + len(rows) <= bank.max_learned_rows
        room_before = capacity - len(bank.learned_rows) - len(rows) >= file.rows
        bank.add(novelty, rows)
        if fits and room_before:  # no row of the file had to go
            near = nearest(np.concatenate([upright, rotated]), bank.rows)
            distance = 1 - near.mean(axis=1)
            assert (distance[: len(upright)] <= NOVEL * threshold + 1e-5).all()
            assert (distance <= NOVEL_ROTATED * threshold + 1e-5).all()
        assert len(bank.learned_rows) <= bank.max_learned_rows
    reference = bank.reference()
    assert reference.bank.shape == file.bank.shape
    assert reference.rows == min(file.rows + len(bank.learned_rows), capacity)
    used = reference.bank_bias > UNUSED / 2
    kept = reference.bank[used][: reference.rows - len(bank.learned_rows)]
    known = {row.tobytes() for row in file.bank}
    assert all(row.tobytes() in known for row in kept)
    assert len(bank.scores()) == len(images)


def test_the_rows_that_represent_most_patches_are_the_last_to_leave() -> None:
    rng = np.random.default_rng(0)
    ground = np.eye(6) + rng.normal(0, 1e-3, (200, 6, 6))
    rows = np.concatenate([ground.reshape(-1, 6), rng.normal(size=(300, 6))])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    shots = np.concatenate([rows, np.zeros((len(rows), 1))], axis=1).astype(np.float32)
    file = in_coreset_order(fit_reference(shots, shots[:, :-1], 240))
    repeated = {row.tobytes() for row in file.patches[: 6 * NEIGHBOURS]}
    assert len(repeated) == 6
    bank = MemoryBank(file, 0.1)
    while len(bank.learned_rows) < bank.max_learned_rows:
        new = rng.normal(size=(bank.max_learned_rows - len(bank.learned_rows), 6))
        new /= np.linalg.norm(new, axis=1, keepdims=True)
        upright = np.concatenate([new, np.zeros((len(new), 1))], axis=1).astype(np.float32)
        novelty = novelty_with(upright, upright[:0])
        bank.add(novelty, upright)
    kept = [row.tobytes() for row in bank.reference().patches]
    assert len(kept) - len(bank.learned_rows) < file.rows
    assert all(kept.count(row) == NEIGHBOURS for row in repeated)


def test_a_patch_unlike_all_others_is_added_for_each_neighbour() -> None:
    rows = np.eye(8, 9, dtype=np.float32)  # their rarity is 0
    shots = rows[:4].repeat(3, axis=0)
    bank = MemoryBank(fit_reference(shots, shots[:, :-1], 40), 0.1)
    alone = rows[[7]]
    rows = bank.select_rows(novelty_with(alone, alone[:0]))
    assert len(rows) == NEIGHBOURS


@given(patches(40), st.lists(patches(8), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_the_score_of_a_learned_image_leaves_out_its_own_rows(
    shots: Float32, images: list[Float32]
) -> None:
    assume(len(shots) >= NEIGHBOURS)
    file = in_coreset_order(fit_reference(shots, shots[:, :-1], 200))
    bank = MemoryBank(file, 0.1)
    learned = []
    for upright in images:
        novelty = novelty_with(upright, upright[:0])
        learned.append(bank.select_rows(novelty))
        bank.add(novelty, learned[-1])
    for index, upright in enumerate(images):
        others = [file.patches, *learned[:index], *learned[index + 1 :]]
        distances = (1 - nearest(upright, np.concatenate(others)).mean(axis=1)).clip(0)
        worst = np.sort(np.concatenate([distances, np.zeros(WORST_PATCHES)]))[-WORST_PATCHES:]
        np.testing.assert_allclose(bank.scores()[index], worst.mean(), atol=1e-6)
