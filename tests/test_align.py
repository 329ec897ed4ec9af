"""Steadiness against light: what is learned from relit shots, and what it does to scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fsad_edge import Model
from fsad_edge.calibration.alignment import STRENGTH, alignment, illumination_scatter
from fsad_edge.cli import part
from fsad_edge.runtime.bank import projected
from fsad_edge.synthesis import relight
from tests.conftest import Cli, photograph

SIDE = 64
Float32 = NDArray[np.float32]


def unit_rows(rng: np.random.Generator, count: int, depth: int) -> Float32:
    rows = rng.normal(size=(count, depth))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


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
def test_no_light_is_no_change(seed: int, depth: int) -> None:
    patches = unit_rows(np.random.default_rng(seed), 20, depth)
    matrix = alignment(illumination_scatter(patches, np.stack([patches] * 3)), covariance(patches))
    np.testing.assert_allclose(matrix, np.eye(depth), atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.5))
@settings(deadline=None)
def test_the_direction_that_light_takes_is_shrunk_as_promised(seed: int, light: float) -> None:
    rng = np.random.default_rng(seed)
    patches = unit_rows(rng, 200, 8)
    direction = unit_rows(rng, 1, 8)[0]
    std = (patches.astype(np.float64) @ direction).var()
    assume(std > 1e-3)
    views = patches[None] + light * np.array([-1, 1])[:, None, None] * direction
    matrix = alignment(illumination_scatter(patches, views.astype(np.float32)), covariance(patches))
    expected = (1 + STRENGTH * light**2 / std) ** -0.5
    np.testing.assert_allclose(matrix @ direction, expected * direction, atol=1e-4)
    across = np.linalg.svd(direction[None])[2][1:].T
    np.testing.assert_allclose(matrix @ across, across, atol=1e-4)


def test_equal_patches_give_a_projection_all_the_same() -> None:
    patches = np.repeat(unit_rows(np.random.default_rng(0), 1, 6), 10, axis=0)
    views = np.stack([projected(patches + 0.1, np.eye(6, dtype=np.float32))] * 2)
    assert np.isfinite(alignment(illumination_scatter(patches, views), covariance(patches))).all()


@given(st.integers(0, 2**32 - 1), st.integers(8, 40), st.integers(8, 40))
@settings(deadline=None)
def test_other_light_moves_nothing(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 20, np.uint8)
    image[: height // 2, : width // 2] = 235
    view = relight(image, rng)
    assert view.shape == image.shape
    assert view.dtype == np.uint8
    bright, dark = view[: height // 2, : width // 2], view[height // 2 :, width // 2 :]
    assert bright.mean() > dark.mean()
    np.testing.assert_array_equal(relight(image, np.random.default_rng(seed)), view)


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("align") / "shots"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(5):
        photograph(rng).save(folder / f"{index}.png")
    return folder


def made(cli: Cli, shots: Path, *options: str) -> tuple[Model, dict[str, object], str]:
    """The model of the bundled encoder, what finetune said as JSON, and as a person reads it."""
    folder = shots.parent / ("part" + "".join(options))
    line = (
        "finetune",
        shots,
        "-o",
        folder,
        "--image-size",
        str(SIDE),
        "--rotations",
        "1",
        *options,
    )
    as_json, as_text = cli(*line, "--json"), cli(*line, "--force")
    exported = cli("export", folder, "--force")
    assert (as_json.code, as_text.code, exported.code) == (0, 0, 0), as_json.err + exported.err
    return Model.load(f"{folder}.onnx"), as_json.json, as_text.out


def rise(model: Model) -> float:
    """How many times higher good parts score under other light."""
    rng = np.random.default_rng(5)
    images = [np.asarray(photograph(rng)) for _ in range(12)]
    plain = np.mean([model.score(image).score for image in images])
    return float(np.mean([model.score(relight(image, rng)).score for image in images]) / plain)


def test_a_model_is_steadier_against_light_than_without(cli: Cli, shots: Path) -> None:
    steady, said, text = made(cli, shots)
    plain, said_plain, text_plain = made(cli, shots, "--no-align")
    assert said["aligned"] is True
    assert said_plain["aligned"] is False
    assert "what light changes in the features is shrunk" in text
    assert "(--no-align)" in text_plain
    depth = len(plain.reference.projection)
    np.testing.assert_array_equal(plain.reference.projection, np.eye(depth))
    assert np.abs(steady.reference.projection - np.eye(depth)).max() > 0.05
    assert steady.graph == plain.graph  # parts of both kinds share a session
    assert rise(steady) < 0.9 * rise(plain)


def test_what_would_cost_accuracy_is_left_out(
    cli: Cli, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "ALIGN_LOSS", -1.0)  # no gain is enough
    model, said, text = made(cli, shots, "--seed", "1")
    assert said["aligned"] is False
    assert "features as they are, for shrinking" in " ".join(text.split())
    np.testing.assert_array_equal(
        model.reference.projection, np.eye(len(model.reference.projection))
    )
