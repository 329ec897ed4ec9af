"""The task that is made from the shots: normal views against views with a drawn defect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fsad_edge.calibration.batches import run_batches
from fsad_edge.calibration.calibrate import CalibrationSettings, embed_shot, fit_shots
from fsad_edge.calibration.kept_patches import KeptPatches
from fsad_edge.calibration.synthetic_task import SyntheticTask, draw_on
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.folders import find_images
from fsad_edge.synthesis import load_shot
from tests.conftest import BANK_SIZE, SIZE, Job


def task_of(job: Job, count: int, settings: CalibrationSettings) -> SyntheticTask:
    files = find_images(job.shots).images[:count]
    shots = [load_shot(file, SIZE, SIZE) for file in files]
    return SyntheticTask(shots, settings, draw_on(files, settings.seed))


@pytest.fixture(scope="module")
def session(job: Job) -> OnnxSession:
    return OnnxSession(job.file.read_bytes(), "the model", "cpu")


def test_the_same_seed_makes_the_same_task_and_figures(job: Job, session: OnnxSession) -> None:
    settings = CalibrationSettings(bank_size=BANK_SIZE)
    one, two = (task_of(job, 3, settings) for _ in range(2))
    other = task_of(job, 3, replace(settings, seed=1))
    np.testing.assert_array_equal(one.defective, two.defective)
    assert not np.array_equal(one.defective, other.defective)
    assert one.solve(session, settings) == two.solve(session, settings)


def test_auroc_is_one_where_all_defects_score_higher_and_a_half_where_none_differs(
    job: Job, session: OnnxSession
) -> None:
    settings = CalibrationSettings(bank_size=BANK_SIZE)
    task = task_of(job, 3, settings)
    task.defective = [[np.full_like(image, 255) for image in images] for images in task.normal]
    assert task.solve(session, settings).auroc == 1
    assert task.solve(session, settings).found == 1
    task.defective = task.normal
    assert task.solve(session, settings).auroc == 0.5


@pytest.mark.parametrize("count", [1, 3])
def test_more_is_found_with_the_false_alarm_rate(
    job: Job, session: OnnxSession, count: int
) -> None:
    settings = CalibrationSettings(bank_size=BANK_SIZE)
    task = task_of(job, count, settings)
    solved = [
        task.solve(session, replace(settings, false_alarm_rate=rate)) for rate in (1e-15, 0.01, 0.5)
    ]
    assert len({one.auroc for one in solved}) == 1
    strictest, usual, loosest = (one.found for one in solved)
    assert strictest < 0.05
    assert strictest <= usual < loosest


def test_views_whose_patches_are_kept_score_as_images_do(job: Job, session: OnnxSession) -> None:
    settings = CalibrationSettings(bank_size=BANK_SIZE)
    task = task_of(job, 3, settings)
    reference = fit_shots(
        [embed_shot(session, shot, settings, 3, np.random.default_rng(0)) for shot in task.shots],
        BANK_SIZE,
    ).as_inputs()
    kept = KeptPatches(session, None, task.defective)
    for group, images in enumerate(task.defective):
        [scores] = run_batches(session, images, ["patch_score"], reference)
        np.testing.assert_allclose(kept.scores(group, reference), scores, rtol=1e-5)


def test_too_many_views_are_not_kept(
    job: Job, session: OnnxSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = CalibrationSettings(bank_size=BANK_SIZE)
    kept = task_of(job, 3, settings).solve(session, settings)
    monkeypatch.setattr("fsad_edge.calibration.kept_patches.MOST_BYTES", 1)
    again = task_of(job, 3, settings).solve(session, settings)
    assert again.auroc == pytest.approx(kept.auroc, abs=1e-3)
    assert again.found == pytest.approx(kept.found, abs=0.02)
