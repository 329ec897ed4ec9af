"""``fsad_edge.export`` and its command: one file that scores as the trained model does."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import fsad_edge
from fsad_edge import ExportOptions, FinetuneOptions, InputError, Model
from fsad_edge.errors import ExamplesLostError
from fsad_edge.graph.parity import TOLERANCE
from fsad_edge.pipeline.model_directory import read_manifest
from fsad_edge.runtime.images import load_image
from tests.commands import assert_refused
from tests.conftest import MEAN, SIZE, STD, Cli, Job, photograph
from tests.seals import write_manifest


def test_the_exported_file_scores_as_torch_does(job: Job) -> None:
    result = job.export
    assert os.fspath(result) == str(job.file)
    assert result.parity is not None
    assert result.parity.images > 5
    assert result.parity.largest_difference <= TOLERANCE
    assert result.parity.flips == 0
    assert abs(result.size - job.file.stat().st_size) < 100  # the fixture set a bound since
    assert result.precision == "fp32"
    assert result.precision_report is None
    assert result.threshold.value == pytest.approx(job.finetune.threshold.value, rel=1e-4)
    assert result.warnings == ()


def test_golden_images_are_in_the_file_at_another_size(job: Job) -> None:
    assert job.export.golden_images == 2
    with Model.load(job.file) as model:
        assert len(model.metadata.golden) == 2
        for golden in model.metadata.golden:
            assert load_image(golden.image).shape[:2] != (SIZE, SIZE)
            assert model.score(golden.image).score == pytest.approx(golden.score, rel=1e-5)


def test_a_folder_s_padding_mean_and_deviation_reach_the_graph(job: Job) -> None:
    assert read_manifest(job.part).encoder.arguments == {"pad_type": "same"}
    model = onnx.load(job.file)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    pads = [list(a.ints) for node in convolutions for a in node.attribute if a.name == "pads"]
    # TensorFlow's 'same' pads a stride-2 convolution more at the end than at the start.
    assert [0, 0, 1, 1] in pads or any(node.op_type == "Pad" for node in model.graph.node)
    values = [
        np.sort(onnx.numpy_helper.to_array(tensor).ravel())
        for tensor in model.graph.initializer
        if np.prod(tensor.dims) == 3
    ]
    mean, std = np.array(MEAN), np.array(STD)
    for expected in (1 / (255 * std), -mean / std):
        assert any(np.allclose(value, np.sort(expected)) for value in values)


def test_a_file_says_nothing_of_the_machine_that_made_it(job: Job) -> None:
    data = job.file.read_bytes()
    for path in (b"site-packages", str(Path.cwd()).encode(), str(job.shots.parent).encode()):
        assert path not in data


def test_what_the_file_before_had_learned_is_told(cli: Cli, job: Job, tmp_path: Path) -> None:
    file = Path(shutil.copy(job.file, tmp_path))
    image = job.dataset / "test/good/0.png"
    assert cli("bank", "add", file, image, "--force").code == 0
    done = cli("export", job.part, "-o", file, "--no-golden", "--force", "--allow-lost")
    assert done.code == 0, done.err
    assert "was learned with another model file" in done.err
    assert "bank add --force" in done.err


def test_examples_of_files_of_the_part_are_tried_and_none_is_lost_unless_allowed(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    file, bent = Path(shutil.copy(job.file, tmp_path)), tmp_path / "bent.png"
    image = photograph(np.random.default_rng(1))
    image.paste((96, 99, 106), (8, 78, 88, 86))  # a groove, which no shot has
    image.save(bent)
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    photograph(np.random.default_rng(45)).save(good)
    photograph(np.random.default_rng(45), defect=True).save(bad)
    assert cli("threshold", file, "--bad", bad, "--good", good).code == 0
    beside = tmp_path / "cell.onnx"
    done = cli("export", job.part, "-o", beside)
    assert done.code == 0, done.err
    assert "2 of files of this part were tried, 0 of them change sides" in done.out
    assert cli("bank", "add", file, bent, "--force").code == 0  # it was rejected before
    folder, before = file.with_suffix(".learned"), file.read_bytes()
    for output, options in (
        (tmp_path / "int8.onnx", ["--precision", "int8", "--allow-drift", "1"]),
        (file, ["--force"]),
    ):
        refused = cli("export", job.part, "-o", output, *options)
        assert_refused(refused, f"1 of 3 examples in {folder} wrongly", "bent.png", "--allow-lost")
    assert not (tmp_path / "int8.onnx").exists()
    assert file.read_bytes() == before
    done = cli("export", job.part, "-o", beside, "--force", "--allow-lost", "--json")
    assert done.code == 0, done.err
    [tried] = done.json["examples"]
    assert (tried["count"], [one["name"] for one in tried["changes"]]) == (3, ["own/bent.png"])
    assert "1 of 3 examples" in done.err
    with pytest.raises(ExamplesLostError):
        fsad_edge.export(job.part, beside, ExportOptions(force=True))
    # Of another part nothing is tried.
    shutil.copytree(job.part, tmp_path / "other")
    manifest = json.loads((tmp_path / "other/manifest.json").read_text())
    write_manifest(tmp_path / "other", {**manifest, "name": "other"})
    assert fsad_edge.export(tmp_path / "other", tmp_path / "other.onnx").regression == ()


def test_a_threshold_that_a_new_file_leaves_out_is_told(cli: Cli, job: Job, tmp_path: Path) -> None:
    file = Path(shutil.copy(job.file, tmp_path))
    assert cli("threshold", file, "--value", 0.5, "--who", "anna").code == 0
    done = cli("export", job.part, "-o", file, "--force")
    assert done.code == 0, done.err
    assert "The threshold 0.5 that anna set does not count with the new file" in done.err


def test_a_file_in_place_of_a_model_directory_is_refused(job: Job, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a file, not a model directory.*fsad-edge build"):
        fsad_edge.export(job.file, tmp_path / "again.onnx")
    with pytest.raises(InputError, match="is a folder: name a file"):
        fsad_edge.export(job.part, tmp_path, fsad_edge.ExportOptions(force=True))
    assert list(tmp_path.iterdir()) == []


def test_the_command_leaves_secret_parts_out_of_the_file(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    moved, file = tmp_path / "moved", tmp_path / "secret.onnx"
    shutil.copytree(job.part, moved)  # a model directory needs nothing outside of it
    assert "train/good" not in (moved / "manifest.json").read_text()
    done = cli("export", moved, "-o", file, "--no-golden")
    assert done.code == 0, done.err
    assert done.out.startswith(f"Wrote {file} (")
    assert "golden images  0" in done.out
    assert "0 decisions flip" in done.out
    assert f"fsad-edge score {file} IMAGE|FOLDER" in done.out
    with Model.load(file) as model:
        assert model.metadata.golden == []
        assert model.metadata.threshold.value == pytest.approx(job.export.threshold.value, rel=1e-6)


def test_the_names_of_secret_shots_stay_out_of_the_file(
    job: Job, backbones: dict[str, str], tmp_path: Path
) -> None:
    shots = Path(shutil.copytree(job.shots, tmp_path / "shots"))
    shutil.copy(shots / "0.png", shots / "twice.png")
    asked = FinetuneOptions(backbones["conv"], image_size=SIZE, rotations=1, epochs=0)
    part = fsad_edge.finetune(shots, tmp_path / "part", asked)
    for golden in (True, False):
        file = fsad_edge.export(
            part, tmp_path / "part.onnx", ExportOptions(golden=golden, force=True)
        )
        assert (b"twice.png" in file.path.read_bytes()) is golden


def test_the_command_refuses_int8_for_a_cpu_as_an_engine(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    done = cli("export", job.part, "-o", tmp_path / "a.onnx", "--trt", "--precision", "int8")
    assert_refused(done, "--target tensorrt")
    assert list(tmp_path.iterdir()) == []
