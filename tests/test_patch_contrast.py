"""The features are fine-tuned: what the training of a projection does, and when it is kept."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import fsad_edge
from fsad_edge import FinetuneOptions, FinetuneResult, Progress
from fsad_edge.errors import ModelFileError
from fsad_edge.options import ScoreKind
from fsad_edge.pipeline.fine_tuning import MUST_GAIN
from fsad_edge.pipeline.model_directory import read_manifest, read_reference
from fsad_edge.runtime.arrays import AnyArray, Float32Array
from fsad_edge.runtime.files import sha256
from fsad_edge.training.patch_contrast import STEPS, train_projection
from fsad_edge.training.settings import LossWeights, ShotPatches
from tests.conftest import SIZE, Cli, Job
from tests.seals import write_manifest

DEPTH = 8


def unit(rows: npt.NDArray[Any]) -> Float32Array:
    result: Float32Array = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return result


def made_up_shots(seed: int, shots: int = 4) -> list[ShotPatches]:
    """Normal patches differ along the first axes but one; a defect changes the last one alone."""
    rng = np.random.default_rng(seed)
    spread = np.array([0.0, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.01])

    def normal(*shape: int) -> Float32Array:
        return unit(np.eye(DEPTH)[0] + rng.normal(size=(*shape, DEPTH)) * spread)

    views = [normal(1, 40) + rng.normal(0, 0.01, (3, 40, DEPTH)) for _ in range(shots)]
    return [
        ShotPatches(
            normal(60), unit(view), [unit(normal(3) + 0.15 * np.eye(DEPTH)[-1]) for _ in range(6)]
        )
        for view in views
    ]


def lead(shots: list[ShotPatches], projection: Float32Array) -> float:
    """How much farther from the other shots defects are than the worst normal patches."""

    def far(rows: Float32Array, bank: Float32Array) -> Float32Array:
        near: Float32Array = np.sort(1 - unit(rows @ projection) @ unit(bank @ projection).T)
        nearest: Float32Array = near[:, :3].mean(axis=1)
        return nearest

    found = []
    for place, shot in enumerate(shots):
        bank = np.concatenate([one.bank for one in shots[:place] + shots[place + 1 :]])
        worst = np.sort(far(shot.normal[0], bank))[-3:].mean()
        found.append(np.mean([far(rows, bank).max() for rows in shot.defective]) / worst)
    return float(np.mean(found))


def test_defects_on_other_shots_stand_out_more() -> None:
    """On the mean of twelve draws: on one in sixteen they stand out less."""
    gains = []
    for seed in range(12):
        trained, unseen = made_up_shots(seed), made_up_shots(seed + 5000)
        projection = train_projection(trained, LossWeights(), seed)
        plain = np.eye(DEPTH, dtype=np.float32)
        gains.append(lead(unseen, projection) - lead(unseen, plain))
    assert np.mean(gains) > 0.002


def test_the_same_seed_gives_the_same_projection() -> None:
    shots = made_up_shots(0)
    first, again, other = (train_projection(shots, LossWeights(), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_projection_stays_near_the_features_that_it_begins_with() -> None:
    projection = train_projection(made_up_shots(0), LossWeights(), 0)
    assert 0 < np.abs(projection - np.eye(DEPTH)).max() < 0.05


def test_training_takes_a_device() -> None:
    shots = made_up_shots(0)
    plain = train_projection(shots, LossWeights(), 0)
    there = train_projection(shots, LossWeights(), 0, device=torch.device("cpu"))
    np.testing.assert_array_equal(there, plain)


def test_without_losses_nothing_changes() -> None:
    projection = train_projection(made_up_shots(0), LossWeights(0, 0, 0), 0)
    np.testing.assert_array_equal(projection, np.eye(DEPTH, dtype=np.float32))


def test_one_shot_has_no_pair() -> None:
    with pytest.raises(ValueError, match="need two shots"):
        train_projection(made_up_shots(0, shots=1), LossWeights(), 0)


def options(backbone: str, **others: Any) -> FinetuneOptions:
    plain = FinetuneOptions(backbone=backbone, image_size=SIZE, rotations=1, bank_size=40)
    return replace(plain, **others)


@pytest.fixture(scope="module")
def progress() -> list[Progress]:
    """What was said while ``learned_part`` was made."""
    return []


@pytest.fixture(scope="module")
def learned_part(
    job: Job,
    backbones: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    progress: list[Progress],
) -> FinetuneResult:
    """A model whose fine-tuned features were kept, whatever they gain."""
    part = tmp_path_factory.mktemp("learned") / "part"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fsad_edge.pipeline.fine_tuning.MUST_GAIN", -1.0)
        asked = options(backbones["conv"])
        return fsad_edge.finetune(job.shots, part, asked, on_progress=progress.append)


def change_manifest(part: Path, change: Callable[[Any], None]) -> None:
    document = json.loads((part / "manifest.json").read_text())
    change(document)
    write_manifest(part, document)


def test_the_projection_is_a_tensor_beside_a_manifest_that_people_read(
    learned_part: FinetuneResult,
) -> None:
    part, manifest = learned_part.path, read_manifest(learned_part.path)
    tensors = dict(np.load(part / "learned.npz"))
    projection = tensors.pop("projection")
    assert projection.dtype == np.float32
    assert projection.shape == (learned_part.channels, learned_part.channels)
    assert not tensors
    assert manifest.calibration.learned == projection.tobytes()
    assert hash(manifest.calibration) == hash(read_manifest(part).calibration)
    text = (part / "manifest.json").read_text()
    assert "learned" not in json.loads(text)["calibration"]
    assert max(map(len, text.splitlines())) < 300


def test_a_projection_in_the_manifest_of_an_earlier_version_counts(
    learned_part: FinetuneResult, tmp_path: Path
) -> None:
    older = shutil.copytree(learned_part.path, tmp_path / "part")
    learned = read_manifest(older).calibration.learned
    (older / "learned.npz").unlink()

    def as_it_was(document: Any) -> None:
        del document["files"]["learned.npz"]
        document["calibration"]["learned"] = base64.b64encode(learned).decode()

    change_manifest(older, as_it_was)
    assert read_manifest(older).calibration == read_manifest(learned_part.path).calibration
    made = fsad_edge.export(older)
    assert made.threshold.value == pytest.approx(learned_part.threshold.value, rel=1e-5)


def test_a_projection_that_is_missing_or_changed_is_named(
    learned_part: FinetuneResult, tmp_path: Path
) -> None:
    part = shutil.copytree(learned_part.path, tmp_path / "part")
    file = part / "learned.npz"
    for data in (file.read_bytes()[:-1] + b"\x00" + b"\x01", b""):
        file.write_bytes(data)
        with pytest.raises(ModelFileError, match=r"learned.*SHA-256.*finetune  again"):
            fsad_edge.export(part)
    file.unlink()
    with pytest.raises(ModelFileError, match=r"learned\.npz is missing: .*finetune  again"):
        fsad_edge.export(part)


def arrays(**values: AnyArray) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **values)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no tensors", "is damaged"),
        (arrays(other=np.eye(3, dtype=np.float32)), "holds no projection"),
        (arrays(projection=np.eye(3, dtype=np.float32)), "has 36 bytes and"),
        (arrays(projection=np.array([{}])), "is damaged"),
    ],
)
def test_a_projection_that_is_corrupt_with_a_matching_hash_is_named(
    learned_part: FinetuneResult, tmp_path: Path, data: bytes, words: str
) -> None:
    part = shutil.copytree(learned_part.path, tmp_path / "part")
    (part / "learned.npz").write_bytes(data)
    change_manifest(part, lambda document: document["files"].update({"learned.npz": sha256(data)}))
    with pytest.raises(ModelFileError, match=f"{words}.*finetune  again"):
        fsad_edge.export(part)


@pytest.mark.usefixtures("learned_part")
def test_progress_moves_with_the_steps_of_the_training(progress: list[Progress]) -> None:
    fractions = [event.fraction or 0.0 for event in progress if event.stage == "fine-tuning"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len({*fractions}) > 3 * STEPS  # of each half, and of all shots
    assert np.diff(fractions).max() < 0.1


def test_what_was_trained_is_in_the_model_and_in_its_file(
    cli: Cli, job: Job, backbones: dict[str, str], tmp_path: Path
) -> None:
    made = fsad_edge.finetune(job.shots, tmp_path / "part", options(backbones["conv"]))
    features = made.training.features
    assert features is not None
    assert features.kept == (features.held_out_after > features.held_out_before + MUST_GAIN)
    manifest = read_manifest(made.path)
    assert bool(manifest.calibration.learned) == features.kept
    plain = fsad_edge.finetune(job.shots, tmp_path / "plain", options(backbones["conv"], epochs=0))
    assert plain.training.features is None
    projections = [read_reference(one.path, read_manifest(one.path)) for one in (made, plain)]
    differ = (projections[0].projection != projections[1].projection).any()
    assert differ == features.kept
    # The export calibrates again, and comes to the same threshold.
    file = fsad_edge.export(made, tmp_path / "part.onnx")
    assert file.threshold.value == pytest.approx(made.threshold.value, rel=1e-5)
    for path in (made.path, file.path):
        said = cli("info", path)
        assert (
            "fine-tuned contrastively for this part" in " ".join(said.out.split())
        ) == features.kept
    assert cli("info", made.path, "--json").json["calibration"]["learned"] == features.kept


def test_the_summary_says_whether_it_was_kept(cli: Cli, job: Job, tmp_path: Path) -> None:
    arguments = ["--image-size", SIZE, "--encoder", "fast", "--rotations", 1]
    done = cli("finetune", job.shots, "-o", tmp_path / "part", *arguments)
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "features fine-tuned contrastively in" in said
    assert ("; kept, because" in said) != ("; left out, because" in said)
    features = read_manifest(tmp_path / "part").training.features
    assert features is not None
    figures = f"{features.held_out_before:.3f} before and {features.held_out_after:.3f} after"
    assert f"(AUROC {figures}, which compares the features and does not say how many" in said
    assert "encoder fast, 96 features at stride 16 chosen 64 px" in said
    assert "fsad_edge" not in said.replace("fsad-edge", "")


@pytest.mark.parametrize("others", [{"epochs": 0}, {"score": ScoreKind.IMAGE}])
def test_it_is_not_trained_where_it_is_not_asked_for_or_has_no_use(
    job: Job, backbones: dict[str, str], tmp_path: Path, others: dict[str, Any]
) -> None:
    made = fsad_edge.finetune(job.shots, tmp_path / "part", options(backbones["conv"], **others))
    assert made.training.features is None
    assert not read_manifest(made.path).calibration.learned


def test_three_shots_are_too_few(cli: Cli, job: Job, tmp_path: Path) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    for file in sorted(job.shots.iterdir())[:3]:
        (shots / file.name).write_bytes(file.read_bytes())
    arguments = ["--image-size", SIZE, "--encoder", "fast", "--rotations", 1]
    done = cli("finetune", shots, "-o", tmp_path / "part", *arguments)
    assert done.code == 0, done.err
    assert "it needs 4 shots" in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--epochs", 0], "(--epochs 0)"),
        (["--lambda-con", 0, "--lambda-pp", 0, "--lambda-np", 0], "(all --lambda weights are 0)"),
    ],
)
def test_the_summary_says_why_nothing_was_trained(
    cli: Cli, job: Job, tmp_path: Path, arguments: list[str | int], why: str
) -> None:
    fixed = ["--image-size", SIZE, "--encoder", "fast", "--rotations", 1]
    done = cli("finetune", job.shots, "-o", tmp_path / "part", *fixed, *arguments)
    assert done.code == 0, done.err
    assert why in " ".join(done.out.split())


def test_a_projection_that_was_cut_short_is_named(cli: Cli, job: Job, tmp_path: Path) -> None:
    part = shutil.copytree(job.part, tmp_path / "part")
    change_manifest(part, lambda document: document["calibration"].update(learned="AAAA"))
    done = cli("export", part)
    assert (done.code, "has 3 bytes and not" in " ".join(done.err.split())) == (2, True)


@pytest.mark.parametrize("text", ["many", "1.5"])
def test_epochs_are_a_number_or_auto(cli: Cli, job: Job, tmp_path: Path, text: str) -> None:
    done = cli("finetune", job.shots, "-o", tmp_path / "part", "--epochs", text)
    assert (done.code, done.out) == (2, "")
    assert "--epochs takes a whole number or auto" in " ".join(done.err.split())
