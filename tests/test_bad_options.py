"""Options that cannot be used: one clear sentence, exit code 2, nothing half-written."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fsad_edge
from fsad_edge import FinetuneOptions, FsadEdgeError
from fsad_edge.pipeline.model_directory import read_manifest
from tests.commands import all_files, assert_refused, run_process
from tests.conftest import SIZE, Cli, Job

Refuse = Callable[..., None]


@pytest.fixture
def shots(job: Job, tmp_path: Path) -> Path:
    """Two shots to spoil."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for name in ("0.png", "1.png"):
        shutil.copy(job.shots / name, folder)
    return folder


@pytest.fixture
def refuse(shots: Path, backbones: dict[str, str], tmp_path: Path) -> Refuse:
    """Check that the library refuses options with a sentence and writes nothing."""

    def check(words: str, **options: Any) -> None:
        before = all_files(tmp_path)
        common: dict[str, Any] = {"backbone": backbones["conv"], "image_size": SIZE, "rotations": 1}
        with pytest.raises(FsadEdgeError, match=words) as refused:
            fsad_edge.finetune(shots, tmp_path / "part", FinetuneOptions(**common | options))
        assert str(refused.value).endswith(".")
        assert all_files(tmp_path) == before

    return check


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strides": (3,)}, "no feature map at stride 3"),
        ({"strides": ()}, "strides"),
        ({"strides": (16, 16)}, "strides"),
        ({"strides": (32,), "image_size": 32}, "patches of stride 32"),
        ({"image_size": 72}, "multiple of 16"),
        ({"image_size": 9}, "32 to 4096 pixels"),
        ({"rotations": 0}, "1 to 360 steps"),
        ({"image_size": "64"}, "image_size takes int | None, not '64'"),
        ({"strides": 16}, "strides takes"),
        ({"epochs": True}, r"epochs takes int \| None, not True"),
        ({"flip": "no"}, "flip takes bool, not 'no'"),
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"bank_size": 0}, "1 to 100000 rows"),
        ({"seed": -1}, "0 or more"),
        ({"epochs": -1}, "0 or more"),
        ({"false_alarm_rate": 0.0}, "false alarm rate"),
        ({"false_alarm_rate": float("nan")}, "finite"),
        ({"lambda_con": float("inf")}, "finite"),
        ({"learning_rate": float("inf")}, "finite"),
        ({"backbone": "no_such_net"}, "no_such_net"),
        ({"backbone": "local-dir:/nowhere"}, "not a timm model folder"),
        ({"weights": Path("/nowhere.pth")}, "does not exist"),
    ],
)
def test_options_that_no_job_can_use(refuse: Refuse, options: dict[str, Any], words: str) -> None:
    refuse(words, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--strides", "many"], "--strides takes numbers such as 16 or 8,16, or auto, not 'many'"),
        (["--strides", ""], "--strides"),
        (["--rotations", "some"], "--rotations takes a whole number or auto, not 'some'"),
        (["--image-size", "large"], "--image-size takes a whole number or auto"),
        (["--workers", "2"], "for --ray alone"),
    ],
)
def test_the_command_refuses_what_it_cannot_parse(
    cli: Cli, job: Job, tmp_path: Path, options: list[str], words: str
) -> None:
    assert_refused(cli("finetune", job.shots, "-o", tmp_path / "part", *options), words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--score", "both"], "'patch', 'image'"),
        (["--device", "tpu"], "'auto', 'cpu', 'cuda'"),
        (["--seed", "-1"], "--seed"),
        (["--epochs", "-1"], "--epochs"),
        (["--budget-ms", "0"], "--budget-ms"),
        (["--image-size", "9"], "32 to 4096 pixels"),
        (["--false-alarm-rate", "nan"], "--false-alarm-rate"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_the_command_refuses_values_out_of_range(
    cli: Cli, job: Job, tmp_path: Path, options: list[str], words: str
) -> None:
    done = cli("finetune", job.shots, "-o", tmp_path / "part", *options)
    assert done.code == 2
    assert words in done.err
    assert list(tmp_path.iterdir()) == []


def test_training_that_diverges_is_not_written(
    shots: Path, backbones: dict[str, str], tmp_path: Path
) -> None:
    options = FinetuneOptions(
        backbones["conv"], image_size=SIZE, rotations=1, epochs=3, learning_rate=1e30
    )
    with pytest.raises(FsadEdgeError, match="--learning-rate"):
        fsad_edge.finetune(shots, tmp_path / "part", options)
    first = read_manifest(tmp_path / "part")  # the first model stays
    assert not first.finished
    assert not first.training.weights_kept


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", bytes(range(256)) * 9])
def test_checkpoints_that_hold_no_weights(
    refuse: Refuse, tmp_path: Path, suffix: str, content: bytes
) -> None:
    weights = tmp_path / f"weights{suffix}"
    weights.write_bytes(content)
    refuse(rf"{weights.name}.*not fit", weights=weights)


def test_weights_of_another_network(refuse: Refuse, backbones: dict[str, str]) -> None:
    other = Path(backbones["vit"].removeprefix("local-dir:")) / "model.safetensors"
    refuse(r"does not fit .*: (Missing|Unexpected) key", weights=other)


def test_a_pickle_is_not_run(refuse: Refuse, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "owned",))

    weights = tmp_path / "weights.pth"
    weights.write_bytes(pickle.dumps({"state_dict": Payload()}))
    refuse("does not fit", weights=weights)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"architecture": 7}', '{"model_args": 3}'])
def test_folders_that_hold_no_backbone(refuse: Refuse, tmp_path: Path, config: str) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "config.json").write_text(config)
    refuse("not a timm model folder", backbone=f"local-dir:{folder}")


def test_a_hub_that_cannot_be_reached(job: Job, tmp_path: Path) -> None:
    environment = {
        "HF_ENDPOINT": "https://hub.invalid", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "",
    }  # fmt: skip
    done = run_process(
        *("finetune", job.shots, "-o", tmp_path / "part", "--backbone", "mobilenetv2_100"),
        *("--image-size", "64"),
        environment=environment,
    )
    assert_refused(done, "--weights", "local-dir:")
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("export", "{part}", "-o", "{new}", "--target", "tensorrt"), "--target"),
        (("export", "{part}", "-o", "{new}", "--allow-drift", "0.2"), "--allow-drift"),
        (("export", "{part}", "-o", "{new}", "--batch", "8"), "--batch"),
        (("score", "{file}", "{shots}", "--scale", "near"), "--scale"),
        (("threshold", "{file}", "--who", "anna"), "--who"),
        (("threshold", "{file}", "--value", "1", "--skip-unreadable"), "--skip-unreadable"),
        (("bench", "{file}", "--force", "--runs", "1"), "--force"),
        (("finetune", "{shots}", "-o", "{new}", "--keep-gain", "0.1"), "--keep-gain"),
        (("finetune", "{shots}", "-o", "{new}", "--learning-rate", "0.1"), "--learning-rate"),
        (
            ("finetune", "{shots}", "-o", "{new}", "--epochs", "0", "--lambda-pp", "2"),
            "--lambda-pp",
        ),
    ],
)
def test_options_that_would_change_nothing_are_refused(
    cli: Cli, job: Job, tmp_path: Path, command: tuple[str, ...], option: str
) -> None:
    names = {"part": job.part, "file": job.file, "shots": job.shots, "new": tmp_path / "new"}
    assert_refused(cli(*(one.format(**names) for one in command)), option)
    assert list(tmp_path.iterdir()) == []


def test_an_option_for_a_new_model_of_triton_is_not_forgotten_silently(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    assert "changed nothing" not in cli("triton", job.file, tmp_path, "--batch", "1").err
    assert "--batch is for a new model" in cli("triton", job.file, tmp_path, "--batch", "2").err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("score {file} {shots}", "--threads"), ("serve {file}", "--threads"),
        ("eval {file} {shots}", "--threads"), ("bench {file}", "--threads"),
        ("bench {file}", "--batch"), ("bench {file}", "--runs"), ("bench {file}", "--seconds"),
        ("build {file}", "--workspace"), ("triton {file} {new}", "--batch"),
        ("finetune {shots}", "--epochs"), ("finetune {shots}", "--budget-ms"),
        ("finetune {shots}", "--workers"), ("finetune {shots}", "--lambda-con"),
        ("archive {file} {shots} -o {new}", "--workers"), ("serve {file}", "--timeout"),
        ("serve {file}", "--keep-mb"), ("serve {file}", "--drain"),
    ],
)  # fmt: skip
def test_every_number_has_an_upper_bound(
    cli: Cli, job: Job, tmp_path: Path, command: str, option: str
) -> None:
    names = {"file": job.file, "shots": job.shots, "new": tmp_path / "new"}
    for number in (10**9, 10**30):
        done = cli(*(part.format(**names) for part in command.split()), option, number)
        assert_refused(done)
    assert list(tmp_path.iterdir()) == []
