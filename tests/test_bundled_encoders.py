"""The encoders inside the package: which one is taken, and that each can be made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

import fsad_edge
from fsad_edge import FinetuneOptions
from fsad_edge.errors import FsadEdgeError
from fsad_edge.options import BundledEncoder, ScoreKind
from fsad_edge.pipeline.model_directory import read_manifest
from fsad_edge.runtime.encoder_names import bundled_name
from fsad_edge.scoring.bundled import FILES
from fsad_edge.training.encoder import load_encoder, pretrained_encoder, save_encoder
from tests.conftest import SIZE, Job

SMALL: dict[str, Any] = {
    "image_size": SIZE, "strides": (16,), "rotations": 1, "align": False, "epochs": 0
}  # fmt: skip


@pytest.mark.parametrize("kind", list(BundledEncoder))
def test_an_encoder_is_made_again_from_its_specification(
    kind: BundledEncoder, tmp_path: Path
) -> None:
    encoder = pretrained_encoder(bundled_name(kind), None, SIZE, SIZE, [16])
    save_encoder(encoder, tmp_path / "weights.safetensors")
    file = tmp_path / "weights.safetensors"
    again = load_encoder(encoder.spec, file.read_bytes(), str(file))
    image = torch.randint(256, (1, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(again(image.float()), encoder(image.float()))
    assert (encoder.spec.architecture, encoder.stride) == (bundled_name(kind), 16)


def test_both_fit_into_a_wheel_that_is_quickly_downloaded() -> None:
    assert sum(file.stat().st_size for file in FILES.values()) <= 12e6


def test_both_are_tried_and_one_is_taken(job: Job, tmp_path: Path) -> None:
    made = fsad_edge.finetune(job.shots, tmp_path / "part", FinetuneOptions(**SMALL))
    assert [trial.encoder for trial in made.trials] == list(BundledEncoder)
    assert made.chosen.encoder is not None
    assert made.backbone == bundled_name(made.chosen.encoder)


@pytest.mark.parametrize("kind", list(BundledEncoder))
def test_the_one_that_is_asked_for_is_taken(job: Job, tmp_path: Path, kind: BundledEncoder) -> None:
    options = FinetuneOptions(encoder=kind, **SMALL)
    made = fsad_edge.finetune(job.shots, tmp_path / "part", options)
    assert [trial.encoder for trial in made.trials] == [kind]
    assert made.backbone == bundled_name(kind)


def test_a_small_budget_takes_the_fast_one(job: Job, tmp_path: Path) -> None:
    options = FinetuneOptions(budget_ms=0.01, **SMALL)
    made = fsad_edge.finetune(job.shots, tmp_path / "part", options)
    assert [trial.encoder for trial in made.trials] == [BundledEncoder.FAST]
    said = " ".join(made.warnings)
    assert "takes more than the 0.01 ms of --budget-ms" in said
    assert "not tried, because they take more than the 0.01 ms of --budget-ms here" in said
    assert f": accurate at {SIZE} px (" in said


def test_the_image_score_takes_the_encoder_that_has_full_depth(job: Job, tmp_path: Path) -> None:
    options = FinetuneOptions(score=ScoreKind.IMAGE, **SMALL)
    made = fsad_edge.finetune(job.shots, tmp_path / "part", options)
    assert [trial.encoder for trial in made.trials] == [BundledEncoder.FAST]
    assert made.full_depth


def test_an_encoder_without_full_depth_gives_no_image_score(job: Job, tmp_path: Path) -> None:
    options = FinetuneOptions(score=ScoreKind.IMAGE, encoder=BundledEncoder.ACCURATE)
    with pytest.raises(FsadEdgeError, match="has no full depth"):
        fsad_edge.finetune(job.shots, tmp_path / "part", options)


def test_weights_are_loaded_into_the_encoder_that_is_named(job: Job, tmp_path: Path) -> None:
    fast, accurate = (tmp_path / f"{kind}.safetensors" for kind in BundledEncoder)
    for kind, file in zip(BundledEncoder, (fast, accurate), strict=True):
        network = timm.create_model(bundled_name(kind), pretrained=True)
        safetensors.torch.save_file(network.state_dict(), file)
    options = FinetuneOptions(encoder=BundledEncoder.ACCURATE, weights=accurate, **SMALL)
    made = fsad_edge.finetune(job.shots, tmp_path / "part", options)
    assert made.encoder == f"accurate with {accurate.name}"
    assert read_manifest(made.path).encoder.architecture == bundled_name(BundledEncoder.ACCURATE)
    for others in ({"weights": accurate}, {"weights": fast, "encoder": BundledEncoder.ACCURATE}):
        with pytest.raises(FsadEdgeError, match="does not fit"):
            fsad_edge.finetune(job.shots, tmp_path / "no", FinetuneOptions(**others, **SMALL))


def test_one_encoder_is_named_and_not_two(job: Job, tmp_path: Path) -> None:
    options = FinetuneOptions(encoder=BundledEncoder.FAST, backbone="resnet18")
    with pytest.raises(FsadEdgeError, match="give one of them"):
        fsad_edge.finetune(job.shots, tmp_path / "part", options)
