"""How shots are embedded and left out, on which the threshold depends."""

from __future__ import annotations

import numpy as np

from fsad_edge.calibration.batches import run_batches
from fsad_edge.calibration.calibrate import (
    CalibrationSettings,
    Embedded,
    embed_shot,
    fit_shots,
    leave_one_out,
)
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.bank import projected_patches
from fsad_edge.runtime.onnx_file import read_initializers, replace
from fsad_edge.synthesis import load_shot
from tests.conftest import SIZE, Job


def test_a_left_out_shot_is_scored_with_a_bank_as_coarse_as_the_whole_one() -> None:
    rng = np.random.default_rng(0)
    embedded = []
    for _ in range(4):
        rows = rng.normal(size=(60, 8)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        patches = np.concatenate([rows, np.ones((60, 1), np.float32)], axis=1)
        embedded.append(Embedded(patches, patches, rows[:2], None, np.ones(1, np.float32)))
    assert fit_shots(embedded, 40).rows == 40
    left_out = list(leave_one_out(embedded, 40))
    assert [reference.rows for reference in left_out] == [30] * 4
    # The graph's capacity is the same in all of them.
    assert {len(reference.bank) for reference in left_out} == {50}
    (alone,) = leave_one_out(embedded[:1], 40)
    assert alone.rows == 40


def test_embedding_ignores_the_projection_in_the_graph(job: Job) -> None:
    data = job.file.read_bytes()
    depth = len(read_initializers(data, ["projection"])["projection"])
    rotated = np.linalg.qr(np.random.default_rng(1).normal(size=(depth, depth)))[0]
    rotated = np.ascontiguousarray(rotated * np.linspace(0.1, 1, depth), np.float32)
    shot = load_shot(next(job.shots.iterdir()), SIZE, SIZE)
    settings = CalibrationSettings(bank_size=50)
    found = []
    for projection in (np.eye(depth, dtype=np.float32), rotated):
        session = OnnxSession(replace(data, {"projection": projection}, {}), "a graph", "cpu")
        rng = np.random.default_rng(2)
        found.append((session, embed_shot(session, shot, settings, 2, rng)))
    (_, plain), (session, other) = found
    for name in ("patches", "pool", "embeddings", "illumination"):
        np.testing.assert_array_equal(getattr(other, name), getattr(plain, name))
    # The graph itself does multiply by it.
    (patches,) = run_batches(session, [shot.image], ["patches"])
    np.testing.assert_allclose(patches[0], projected_patches(plain.pool, rotated), atol=1e-5)
