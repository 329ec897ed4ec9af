"""Features made steady against light: the projection, and what it does to scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fsad_edge
import fsad_edge.pipeline.training_steps as pipeline
from fsad_edge import FinetuneResult, Model
from fsad_edge.calibration.alignment import STRENGTH, alignment, illumination_scatter
from fsad_edge.pipeline.model_directory import read_manifest, read_reference
from fsad_edge.runtime.bank import projected
from fsad_edge.synthesis import relight
from tests.conftest import SIZE, Cli, Job, photograph

Float32 = NDArray[np.float32]


def unit_rows(rng: np.random.Generator, count: int, depth: int) -> Float32:
    rows = rng.normal(size=(count, depth))
    unit: Float32 = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def covariance(rows: Float32) -> NDArray[np.float64]:
    return np.cov(rows.T.astype(np.float64), bias=True)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.floats(0, 0.5))
@settings(deadline=None)
def test_a_projection_shrinks_and_never_stretches(seed: int, depth: int, light: float) -> None:
    rng = np.random.default_rng(seed)
    patches = unit_rows(rng, 60, depth)
    views = patches + light * rng.normal(size=(4, 60, depth)) * rng.random(depth)
    matrix = alignment(illumination_scatter(patches, views.astype(np.float32)), covariance(patches))
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    factors = np.linalg.eigvalsh(matrix.astype(np.float64))
    assert 0 < factors.min() <= factors.max() <= 1 + 1e-6


@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
@settings(deadline=None)
def test_without_a_change_of_light_nothing_is_shrunk(seed: int, depth: int) -> None:
    patches = unit_rows(np.random.default_rng(seed), 20, depth)
    matrix = alignment(illumination_scatter(patches, np.stack([patches] * 3)), covariance(patches))
    np.testing.assert_allclose(matrix, np.eye(depth), atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.5))
@settings(deadline=None)
def test_the_direction_that_light_changes_is_shrunk_by_the_stated_factor(
    seed: int, light: float
) -> None:
    rng = np.random.default_rng(seed)
    patches = unit_rows(rng, 200, 8)
    direction = unit_rows(rng, 1, 8)[0]
    variance = (patches.astype(np.float64) @ direction).var()
    assume(variance > 1e-3)
    views = patches[None] + light * np.array([-1, 1])[:, None, None] * direction
    matrix = alignment(illumination_scatter(patches, views.astype(np.float32)), covariance(patches))
    expected = (1 + STRENGTH * light**2 / variance) ** -0.5
    np.testing.assert_allclose(matrix @ direction, expected * direction, atol=1e-4)
    across = np.linalg.svd(direction[None])[2][1:].T
    np.testing.assert_allclose(matrix @ across, across, atol=1e-4)


def test_equal_patches_give_a_finite_projection() -> None:
    patches = np.repeat(unit_rows(np.random.default_rng(0), 1, 6), 10, axis=0)
    views = np.stack([projected(patches + 0.1, np.eye(6, dtype=np.float32))] * 2)
    assert np.isfinite(alignment(illumination_scatter(patches, views), covariance(patches))).all()


@given(st.integers(0, 2**32 - 1), st.integers(8, 40), st.integers(8, 40))
@settings(deadline=None)
def test_relighting_moves_nothing_and_depends_on_the_seed_alone(
    seed: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 20, np.uint8)
    image[: height // 2, : width // 2] = 235
    view = relight(image, rng)
    assert view.shape == image.shape
    assert view.dtype == np.uint8
    bright, dark = view[: height // 2, : width // 2], view[height // 2 :, width // 2 :]
    assert bright.mean() > dark.mean()
    np.testing.assert_array_equal(relight(image, np.random.default_rng(seed)), view)


def rise(model: Model) -> float:
    """How many times higher good parts score under other light."""
    rng = np.random.default_rng(5)
    images = [np.asarray(photograph(rng)) for _ in range(12)]
    plain = np.mean([model.score(image).score for image in images])
    return float(np.mean([model.score(relight(image, rng)).score for image in images]) / plain)


def test_an_aligned_model_is_steadier_against_light(
    cli: Cli, job: Job, bundled_part: FinetuneResult, bundled_file: Path, tmp_path: Path
) -> None:
    """With the bundled encoder: one with random weights has learned nothing about light."""
    assert bundled_part.aligned
    unaligned = tmp_path / "part"
    said = cli(
        *("finetune", job.shots, "-o", unaligned, "--no-align"),
        *("--encoder", "fast", "--epochs", 0, "--image-size", 96, "--rotations", 1),
    )
    assert said.code == 0, said.err
    assert "off (--no-align)" in said.out
    with Model.load(bundled_file) as steady, Model.load(fsad_edge.export(unaligned)) as plain:
        identity = np.eye(len(plain.reference.projection))
        np.testing.assert_array_equal(plain.reference.projection, identity)
        assert np.abs(steady.reference.projection - identity).max() > 0.05
        assert steady.graph == plain.graph  # models of both kinds share a session
        assert rise(steady) < 0.9 * rise(plain)


def test_alignment_that_would_cost_accuracy_is_left_out(
    cli: Cli,
    job: Job,
    backbones: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(pipeline, "ALIGNMENT_MAY_COST", -1.0)  # no gain is enough
    done = cli(
        *("finetune", job.shots, "-o", tmp_path / "part", "--backbone", backbones["conv"]),
        *("--image-size", SIZE, "--rotations", "1", "--epochs", 0),
    )
    assert done.code == 0, done.err
    assert "left out, because drawn defects would stand out less" in done.out
    manifest = read_manifest(tmp_path / "part")
    assert not manifest.training.aligned
    assert manifest.training.drawn_aligned is not None
    projection = read_reference(tmp_path / "part", manifest).projection
    np.testing.assert_array_equal(projection, np.eye(len(projection)))
