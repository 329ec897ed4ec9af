"""Fine-tuning is kept only where it does no harm on synthesised defects, and says which it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fsad_edge.calibration.calibrate import CalibrationSettings
from fsad_edge.calibration.synthetic_task import SyntheticTask
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.images import find_images
from fsad_edge.synthesis import load_shot
from tests.conftest import BANK_SIZE, Cli, Job


@pytest.mark.parametrize("learning_rate", ["1e-5", "0.02"])
def test_the_better_of_the_two_encoders_is_kept(
    cli: Cli, job: Job, backbones: dict[str, str], tmp_path: Path, learning_rate: str
) -> None:
    common = ["--backbone", backbones["conv"], "--image-size", "64", "--json"]
    tuned, plain = tmp_path / "tuned", tmp_path / "plain"
    options = ["--epochs", "2", "--learning-rate", learning_rate]
    done = cli("finetune", job.shots, "-o", tuned, *common, *options)
    assert done.code == 0, done.err
    assert cli("finetune", job.shots, "-o", plain, *common, "--epochs", "0").code == 0
    choice = done.json["synthetic_auroc"]
    assert 0 <= choice["before"] <= 1
    assert choice["kept"] == (choice["after"] > choice["before"] + 0.02)
    same = (tuned / "encoder.safetensors").read_bytes() == (
        plain / "encoder.safetensors"
    ).read_bytes()
    assert same == (not choice["kept"])


def test_the_same_encoder_gets_the_same_figure_twice(
    cli: Cli, job: Job, backbones: dict[str, str], tmp_path: Path
) -> None:
    options = ["--backbone", backbones["conv"], "--image-size", "64", "--json", "--epochs", "1"]
    figures = []
    for name in ("one", "two"):
        done = cli("finetune", job.shots, "-o", tmp_path / name, *options, "--learning-rate", "0")
        figures.append(done.json["synthetic_auroc"])
    assert figures[0] == figures[1]
    assert figures[0]["before"] == figures[0]["after"]
    assert figures[0]["before"] > 0.5  # even random weights see more than chance


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_found_hangs_on_the_false_alarm_rate(job: Job, count: int) -> None:
    session = OnnxSession(job.file.read_bytes(), "the model", "cpu")
    height, width = session.inputs["image"][1:3]
    shots = [load_shot(file, height, width) for file in find_images(job.shots)[:count]]
    settings = CalibrationSettings(bank_size=BANK_SIZE)
    task = SyntheticTask(shots, settings)
    solved = [
        task.solve(session, replace(settings, false_alarm_rate=rate)) for rate in (1e-15, 0.01, 0.5)
    ]
    assert len({one.auroc for one in solved}) == 1
    none, some, most = (one.found for one in solved)
    assert none < 0.05
    assert none <= some < most
    assert most > 0.3
