"""Fine-tuning is kept only where it does no harm on synthesised defects, and says which it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Cli, Job


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
