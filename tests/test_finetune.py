"""``fsad_edge.finetune`` and its command: a model directory from a few normal images."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

import fsad_edge
from fsad_edge import FinetuneOptions, FinetuneResult, Model
from fsad_edge.options import ScoreKind
from fsad_edge.pipeline.model_directory import read_manifest, read_network
from fsad_edge.runtime.images import load_image
from fsad_edge.synthesis import Shot, load_shot
from fsad_edge.training.encoder import pretrained_encoder
from fsad_edge.training.loop import train_contrastively
from fsad_edge.training.settings import TrainingSettings
from tests.conftest import BANK_SIZE, MEAN, SIZE, STD, Cli, Job


def load_shots(job: Job) -> list[Shot]:
    return [load_shot(path, SIZE, SIZE) for path in sorted(job.shots.iterdir())]


def some_shots(job: Job, folder: Path, count: int) -> Path:
    """A folder with the first of the job's shots."""
    folder.mkdir()
    for index in range(count):
        shutil.copy(job.shots / f"{index}.png", folder)
    return folder


def decisions(part: FinetuneResult, *folders: Path) -> list[list[bool]]:
    """Which images of each folder the exported model does not call good."""
    with Model.load(fsad_edge.export(part)) as model:
        return [
            [not model.score(path).good for path in sorted(folder.iterdir())] for folder in folders
        ]


def test_the_result_describes_the_model_directory(job: Job) -> None:
    result, manifest = job.finetune, read_manifest(job.part)
    assert os.fspath(result) == str(job.part)
    assert result.shots == 5
    assert result.bank_rows == 5 * (SIZE // 16) ** 2 * result.chosen.rotations
    assert "5 shots" in result.threshold.reliability
    assert [entry.file[4:] for entry in manifest.shots] == [f"{i}.png" for i in range(5)]
    assert manifest.threshold == result.threshold
    assert result.chosen in manifest.training.trials
    bank = np.load(job.part / "reference.npz")["bank"]
    used = np.abs(bank).sum(axis=1) > 0
    assert used.sum() == manifest.bank_rows == result.bank_rows
    np.testing.assert_allclose(np.linalg.norm(bank[used], axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", ["conv", "vit"])
@pytest.mark.parametrize("epochs", [0, 1])
def test_an_epoch_changes_the_weights_and_none_does_not(
    job: Job, backbones: dict[str, str], kind: str, epochs: int
) -> None:
    encoder = pretrained_encoder(backbones[kind], None, SIZE, SIZE, [16])
    before = copy.deepcopy(encoder.state_dict())
    train_contrastively(
        encoder, load_shots(job), TrainingSettings(epochs=epochs), torch.device("cpu")
    )
    equal = [torch.equal(value, before[name]) for name, value in encoder.state_dict().items()]
    assert all(equal) is (epochs == 0)


def test_training_depends_on_the_seed_alone(job: Job, backbones: dict[str, str]) -> None:
    trained = []
    for seed in (0, 0, 1):
        encoder = pretrained_encoder(backbones["conv"], None, SIZE, SIZE, [16])
        settings = TrainingSettings(epochs=1, seed=seed)
        train_contrastively(encoder, load_shots(job), settings, torch.device("cpu"))
        trained.append(torch.cat([value.ravel() for value in encoder.parameters()]))
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


def encoder_weights(part: FinetuneResult) -> bytes:
    return (part.path / "encoder.onnx").read_bytes()


def test_fine_tuned_weights_are_kept_where_they_gain_more_than_is_asked(
    job: Job, backbones: dict[str, str], tmp_path: Path
) -> None:
    """The job's own options, but for the gain: its training gains less than the default asks."""
    first = job.finetune.training
    assert not first.weights_kept
    assert first.epochs_kept == 0
    assert first.drawn_finetuned is not None
    assert first.drawn_pretrained is not None
    gain = first.drawn_finetuned - first.drawn_pretrained
    less, more = (
        fsad_edge.finetune(
            job.shots,
            tmp_path / f"{keep_gain}",
            FinetuneOptions(
                backbone=backbones["conv"],
                image_size=SIZE,
                epochs=1,
                bank_size=BANK_SIZE,
                keep_gain=keep_gain,
            ),
        )
        for keep_gain in (gain - 1e-6, gain + 1e-6)
    )
    assert less.training.weights_kept
    assert less.training.epochs_kept == 1
    assert encoder_weights(less) != encoder_weights(job.finetune)
    # What is not kept leaves no trace, and the same seed makes the same model.
    assert not more.training.weights_kept
    kept, own = (read_manifest(part).files for part in (more.path, job.part))
    assert {**kept, "manifest.json": ""} == {**own, "manifest.json": ""}
    assert more.threshold == job.finetune.threshold


def test_training_that_changes_nothing_gains_nothing(
    job: Job, backbones: dict[str, str], tmp_path: Path
) -> None:
    shots = some_shots(job, tmp_path / "shots", 3)
    options = FinetuneOptions(
        backbone=backbones["conv"], image_size=SIZE, rotations=1, epochs=1, learning_rate=0.0
    )
    record = fsad_edge.finetune(shots, tmp_path / "part", options).training
    assert record.drawn_finetuned == record.drawn_pretrained
    assert not record.weights_kept


def test_one_shot_makes_a_model_that_finds_defects(
    job: Job, backbones: dict[str, str], tmp_path: Path
) -> None:
    shots = some_shots(job, tmp_path / "shots", 1)
    options = FinetuneOptions(backbone=backbones["conv"], image_size=SIZE)
    part = fsad_edge.finetune(shots, tmp_path / "part", options)
    assert part.shots == 1
    assert "One shot" in part.threshold.reliability
    [own], scratched = decisions(part, shots, job.scratched)
    assert not own
    assert any(scratched)


def test_the_image_score_can_decide(job: Job, backbones: dict[str, str], tmp_path: Path) -> None:
    options = FinetuneOptions(backbone=backbones["conv"], image_size=SIZE, score=ScoreKind.IMAGE)
    part = fsad_edge.finetune(job.shots, tmp_path / "part", options)
    assert decisions(part, job.shots, job.scratched) == [[False] * 5, [True, True]]
    with Model.load(tmp_path / "part.onnx") as by_image, Model.load(job.file) as by_patch:
        assert by_image.metadata.score == "image"
        for path in job.scratched.iterdir():
            assert by_image.score(path).score != by_patch.score(path).score


def test_a_vision_transformer_can_be_the_encoder(
    job: Job, vit_part: FinetuneResult, tmp_path: Path
) -> None:
    assert read_manifest(vit_part.path).encoder.final_norm
    (tmp_path / "noise").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise/noise.png")
    assert decisions(vit_part, job.shots, tmp_path / "noise") == [[False] * 5, [True]]


def test_several_feature_maps_are_joined(
    job: Job, backbones: dict[str, str], tmp_path: Path
) -> None:
    shots = some_shots(job, tmp_path / "shots", 2)
    options = FinetuneOptions(
        backbone=backbones["conv"],
        image_size=SIZE,
        strides=(8, 16),
        rotations=12,
        flip=True,
        bank_size=100,
    )
    part = fsad_edge.finetune(shots, tmp_path / "part", options)
    assert part.bank_rows == 100
    assert decisions(part, job.scratched) == [[True, True]]
    with Model.load(tmp_path / "part.onnx") as model:
        image = job.scratched / "0.png"
        assert model.score(image).patch_map.shape == (SIZE // 8, SIZE // 8)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_checkpoint_is_loaded_into_a_backbone(
    job: Job, backbones: dict[str, str], tmp_path: Path, suffix: str
) -> None:
    source = Path(backbones["conv"].removeprefix("local-dir:")) / "model.safetensors"
    weights = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        values = safetensors.numpy.load_file(source)
        torch.save({name: torch.from_numpy(value) for name, value in values.items()}, weights)
    else:
        shutil.copy(source, weights)
    # The same network by its name, with timm's own padding, mean and standard deviation.
    spec = pretrained_encoder("test_efficientnet", weights, SIZE, SIZE, [16]).spec
    assert spec.source == f"test_efficientnet with {weights.name}"
    assert spec.sha256 == read_manifest(job.part).encoder.sha256
    assert spec.mean != MEAN


def test_the_encoder_normalises_pixels_with_its_mean_and_standard_deviation(job: Job) -> None:
    encoder = read_network(job.part, read_manifest(job.part))
    assert encoder is not None
    pixels = load_image(job.scratched / "0.png").copy()
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    plain = encoder.network((image / 255 - mean) / std)
    torch.testing.assert_close(encoder(image), plain[0])


def test_nothing_hidden_is_left_behind(job: Job) -> None:
    assert {path.name for path in job.dataset.iterdir()} == {
        "train", "test", "ground_truth", "part", "part.onnx",
    }  # fmt: skip
    assert {path.name for path in job.part.iterdir()} == {
        "manifest.json", "encoder.onnx", "encoder.safetensors", "reference.npz", "shots",
    }  # fmt: skip


def test_the_command_passes_its_options_on_and_prints_json(
    cli: Cli, job: Job, backbones: dict[str, str], tmp_path: Path
) -> None:
    shots, part = some_shots(job, tmp_path / "shots", 2), tmp_path / "part"
    done = cli(
        *("finetune", shots, "-o", part, "--backbone", backbones["conv"], "--image-size", SIZE),
        *("--strides", "8,16", "--rotations", "1", "--bank-size", "50", "--no-align", "--flip"),
        *("--false-alarm-rate", "0.02", "--seed", "3", "--score", "image", "--json"),
    )
    assert done.code == 0, done.err
    manifest, summary = read_manifest(part), done.json
    settings = manifest.calibration
    assert (settings.seed, settings.false_alarm_rate, settings.score) == (3, 0.02, "image")
    assert (settings.bank_size, settings.align, settings.views.flip) == (50, False, True)
    assert (summary["image_size"], summary["strides"], summary["rotations"]) == (SIZE, [8, 16], 1)
    assert (summary["shots"], summary["epochs"], summary["aligned"]) == (2, 0, False)
    assert summary["threshold"] == manifest.threshold.value
    assert summary["bank_rows"] == manifest.bank_rows == 50
    assert summary["drawn_auroc_finetuned"] is None
    assert len(summary["trials"]) == 1
    assert summary["next"] == f"fsad-edge export {part}"
    assert json.loads((part / "manifest.json").read_text())["name"] == "part"


def test_the_command_tells_people_what_it_made(
    cli: Cli, job: Job, backbones: dict[str, str], tmp_path: Path
) -> None:
    shots, part = some_shots(job, tmp_path / "shots", 2), tmp_path / "part"
    done = cli(
        *("finetune", shots, "-o", part, "--backbone", backbones["conv"]),
        *("--image-size", SIZE, "--epochs", "1"),
    )
    assert done.code == 0, done.err
    first, *facts = done.out.splitlines()
    assert first == f"Made {part} from 2 normal images."
    names = [fact[:15].strip() for fact in facts]
    assert {"encoder", "chosen", "turned parts", "training", "alignment", "threshold"} <= {*names}
    assert "AUROC" not in done.out  # on drawn defects it says nothing of real ones
    assert "cannot be known from good parts" in done.out
    assert "1 epochs in" in done.out
    assert "2 shots hardly show" in done.out
    assert facts[-1].endswith(f"  fsad-edge export {part}")
