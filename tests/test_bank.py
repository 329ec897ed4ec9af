"""Memory bank and Gaussian: what is true for any features of normal parts."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.bank import (
    NEIGHBOURS,
    RARITY_WEIGHT,
    UNUSED,
    WORST_PATCHES,
    ReferenceModel,
    capacity_of,
    fit_gaussian,
    fit_reference,
    greedy_coreset,
    moved_to_means,
    patch_distances,
)
from fsad_edge.runtime.onnx_file import read_initializers
from tests.conftest import BANK_SIZE, SIZE, Job

Float32 = NDArray[np.float32]


@st.composite
def unit_rows(draw: st.DrawFn, most: int = 40, dimension: int = 6) -> Float32:
    """Rows of length 1, some of them equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = rng.normal(size=(draw(st.integers(1, most)), dimension))
    rows[rng.random(len(rows)) < draw(st.sampled_from([0.0, 0.3]))] = rows[0]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


@st.composite
def patches(draw: st.DrawFn, most: int = 40) -> Float32:
    """Unit rows with a rarity in the last column, as the graph gives them."""
    rows = draw(unit_rows(most))
    rarity = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).uniform(0, 2, (len(rows), 1))
    return np.concatenate([rows, rarity.astype(np.float32)], axis=1)


def radius(rows: Float32, chosen: NDArray[np.intp]) -> float:
    """The largest distance of a row from the subset."""
    apart = np.linalg.norm(rows[:, None].astype(np.float64) - rows[chosen][None], axis=2)
    return float(apart.min(axis=1).max())


@given(unit_rows(), st.integers(1, 50))
@settings(deadline=None)
def test_a_coreset_is_a_subset_without_repeats(rows: Float32, size: int) -> None:
    chosen = greedy_coreset(rows, size)
    assert len(chosen) == min(len(rows), size)
    assert len(set(chosen.tolist())) == len(chosen)
    assert chosen.min() >= 0
    assert chosen.max() < len(rows)


@given(unit_rows())
@settings(deadline=None)
def test_a_larger_coreset_covers_no_worse(rows: Float32) -> None:
    radii = [radius(rows, greedy_coreset(rows, size)) for size in range(1, len(rows) + 1)]
    # float32 inner products tell distances under about 1e-3 apart no better than this.
    assert all(after <= before + 2e-3 for before, after in pairwise(radii))
    assert radii[-1] == 0


@given(unit_rows(most=24), st.integers(2, 8))
@settings(deadline=None)
def test_a_coreset_is_within_twice_the_best_cover(rows: Float32, size: int) -> None:
    chosen = greedy_coreset(rows, size)
    assume(len(rows) > size)
    # Gonzalez 1985: centres and the worst row are pairwise at least the radius apart, so any cover
    # by as many centres has at least half that radius.
    apart = np.linalg.norm(rows[chosen][:, None] - rows[chosen][None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert radius(rows, chosen) <= apart.min() + 2e-3


@given(unit_rows(), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_a_coreset_depends_on_the_rows_and_not_on_their_order(
    rows: Float32, size: int, seed: int
) -> None:
    rows = np.unique(rows, axis=0)
    assume(len(rows) != 2)  # both are equally near to their mean, so the start is a tie
    order = np.random.default_rng(seed).permutation(len(rows))
    one = rows[greedy_coreset(rows, size)]
    other = rows[order][greedy_coreset(rows[order], size)]
    np.testing.assert_array_equal(np.unique(one, axis=0), np.unique(other, axis=0))


@given(patches(), st.integers(1, 60))
@settings(deadline=None)
def test_a_reference_model_keeps_size_room_and_norms(rows: Float32, bank_size: int) -> None:
    reference = fit_reference(rows, rows[:, :-1], bank_size)
    assert reference.bank.shape == (capacity_of(bank_size), rows.shape[1] - 1)
    capacity = capacity_of(bank_size)
    # The graph takes the mean over NEIGHBOURS rows, none of which may be an unused one.
    assert reference.rows == max(min(len(rows), bank_size), min(NEIGHBOURS, capacity)) <= capacity
    used = reference.bank_bias > UNUSED / 2
    found = reference.patches
    np.testing.assert_allclose(np.linalg.norm(found[:, :-1], axis=1), 1, atol=1e-5)
    assert ((found[:, -1] >= -1e-5) & (found[:, -1] <= rows[:, -1].max() + 1e-5)).all()
    assert (reference.bank_bias[~used] == UNUSED).all()
    again = reference.with_patches(found)
    for name, value in reference.as_inputs().items():
        np.testing.assert_allclose(again.as_inputs()[name], value, atol=1e-6)
    for value in reference.as_inputs().values():
        assert value.dtype == np.float32
        assert np.isfinite(value).all()


@given(st.integers(0, 2**32 - 1), st.integers(40, 120), st.integers(3, 8))
@settings(deadline=None, max_examples=20)
def test_the_patches_of_an_even_ground_are_near_to_all_their_neighbours(
    seed: int, bank_size: int, dimension: int
) -> None:
    """A coreset has one row for such a ground, and a distance averages three."""
    rng = np.random.default_rng(seed)
    ground = np.eye(dimension)[0] + rng.normal(0, 1e-3, (500, dimension))
    rows = np.concatenate([ground, rng.normal(size=(300, dimension))])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    patches = np.concatenate([rows, np.zeros((len(rows), 1))], axis=1).astype(np.float32)
    reference = fit_reference(patches, patches[:, :-1], bank_size)
    assert reference.rows == bank_size
    similarity = np.sort(patches[:500, :-1] @ reference.bank[:bank_size].T, axis=1)[:, -NEIGHBOURS:]
    assert similarity.min() > 1 - 1e-3


@given(patches(), st.integers(1, 12))
@settings(deadline=None)
def test_means_stay_on_the_sphere_and_lie_nearer_to_their_rows(rows: Float32, size: int) -> None:
    seen = rows[:, :-1]
    centres = rows[greedy_coreset(seen, size)]
    moved, counts = moved_to_means(centres, rows)
    assert moved.shape == centres.shape
    np.testing.assert_allclose(np.linalg.norm(moved[:, :-1], axis=1), 1, atol=1e-5)
    # What k-means guarantees for each step: the total similarity of rows to their centres grows.
    before, after = (seen @ near[:, :-1].T for near in (centres, moved))
    assert after.max(axis=1).sum() >= before.max(axis=1).sum() - 1e-4
    # A row gets the mean rarity of its patches, and a row without patches keeps its own.
    own = before.argmax(axis=1)
    assert counts.tolist() == np.bincount(own, minlength=len(centres)).tolist()
    for row in set(own):
        if np.linalg.norm(seen[own == row].sum(axis=0)) > 1e-3:
            assert moved[row, -1] == pytest.approx(rows[own == row, -1].mean(), abs=1e-4)


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 12), st.integers(1, 8)),
        elements=st.floats(-1, 1, width=32),
    )
)
@settings(deadline=None)
def test_any_embeddings_give_a_finite_gaussian(embeddings: Float32) -> None:
    mean, whitening = fit_gaussian(embeddings)
    assert np.isfinite(mean).all()
    assert np.isfinite(whitening).all()
    distance = np.linalg.norm((embeddings - mean) @ whitening, axis=1)
    assert np.isfinite(distance).all()
    away = np.linalg.norm((mean + 1 - mean) @ whitening)
    assert away > 0


def test_one_embedding_gives_distances_that_grow() -> None:
    mean, whitening = fit_gaussian(np.eye(4, dtype=np.float32)[:1])
    steps = [np.linalg.norm(step * np.ones(4) @ whitening) for step in (0.0, 0.1, 0.2, 0.4)]
    assert steps[0] == 0
    assert np.diff(steps).min() > 0
    np.testing.assert_array_equal(mean, np.eye(4)[0])


def test_many_embeddings_give_the_mahalanobis_distance() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5)) + 2 * np.eye(5)
    truth, centre = root @ root.T, rng.normal(size=5)
    samples = rng.multivariate_normal(centre, truth, 40_000).astype(np.float32)
    mean, whitening = fit_gaussian(samples)
    probes = rng.multivariate_normal(centre, 4 * truth, 50)
    exact = np.sqrt(
        np.einsum("nd,de,ne->n", probes - centre, np.linalg.inv(truth), probes - centre)
    )
    got = np.linalg.norm((probes - mean) @ whitening, axis=1)
    np.testing.assert_allclose(got, exact, rtol=0.03)
    # Compared with the covariance of these samples, only the shrinkage differs.
    sample = np.linalg.inv(np.cov(samples.T.astype(np.float64), bias=True))
    np.testing.assert_allclose(whitening @ whitening.T, sample, rtol=0.01, atol=0.01)


def test_shrinkage_keeps_the_total_variance() -> None:
    rng = np.random.default_rng(1)
    few = rng.normal(size=(4, 50)).astype(np.float32)
    _, whitening = fit_gaussian(few)
    covariance = np.linalg.inv(whitening.astype(np.float64) @ whitening.T)
    total = np.cov(few.T, bias=True).trace()
    assert covariance.trace() == pytest.approx(total, rel=0.05)
    assert np.linalg.cond(covariance) < 2000


class Scorer:
    """An exported graph with any bank."""

    def __init__(self, job: Job) -> None:
        self._session = OnnxSession(job.file.read_bytes(), "the model", "cpu")
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
        own = read_initializers(job.file.read_bytes(), ["projection"])["projection"]
        self.patches, self.embeddings = self._session.run(
            ["patches", "embedding"],
            {"image": self.images, "projection": np.eye(len(own), dtype=np.float32)},
        )

    def maps(self, reference: ReferenceModel) -> Float32:
        feeds = {"image": self.images, **reference.as_inputs()}
        return self._session.run(["anomaly_map"], feeds)[0].reshape(len(self.images), -1)

    def reference(self, rows: Float32) -> ReferenceModel:
        return fit_reference(rows, self.embeddings, BANK_SIZE)

    def rows(self, rng: np.random.Generator, count: int) -> Float32:
        """Rows of any direction and rarity."""
        rows = rng.normal(size=(count, self.patches.shape[-1]))
        rows[:, :-1] /= np.linalg.norm(rows[:, :-1], axis=1, keepdims=True)
        rows[:, -1] = rng.uniform(0, 1, count)
        return rows.astype(np.float32)


@pytest.fixture(scope="module")
def scorer(job: Job) -> Scorer:
    return Scorer(job)


def test_a_patch_stored_often_enough_has_no_distance(scorer: Scorer) -> None:
    maps = scorer.maps(scorer.reference(np.repeat(scorer.patches[1], NEIGHBOURS, axis=0)))
    assert maps[1].max() < 1e-5
    assert maps[0].max() > 1e-3


@given(st.integers(0, 2**32 - 1), st.integers(3, 30), st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_more_rows_never_raise_a_distance(scorer: Scorer, seed: int, some: int, more: int) -> None:
    rows = scorer.rows(np.random.default_rng(seed), some + more)
    before, after = scorer.maps(scorer.reference(rows[:some])), scorer.maps(scorer.reference(rows))
    assert (after <= before + 1e-6).all()
    # Computed in float64 from the definition, not by the project's own functions.
    cosine = scorer.patches[..., :-1].astype(np.float64) @ rows[:, :-1].T
    rarer = scorer.patches[..., -1:] - rows[:, -1]
    exact = np.sort(1 - cosine + RARITY_WEIGHT * rarer)[..., :NEIGHBOURS].mean(axis=-1)
    exact = exact.clip(0)
    scores = np.sort(exact, axis=1)[:, -WORST_PATCHES:].mean(axis=1, keepdims=True)
    np.testing.assert_allclose(after, np.minimum(exact, scores), atol=1e-5)


def test_unused_rows_are_never_nearest(scorer: Scorer) -> None:
    # A used row is farthest when it points away; even then an unused row must be farther.
    patch = scorer.patches[0, :1]
    away = np.concatenate([-patch[:, :-1], patch[:, -1:]], axis=1)
    reference = scorer.reference(away)
    maps = scorer.maps(reference)
    distances = patch_distances(scorer.patches, reference)
    assert distances[0, 0] == pytest.approx(2, abs=1e-5)  # the map is limited to the score
    assert maps.max() < 2 + 2 * RARITY_WEIGHT + 1e-5
