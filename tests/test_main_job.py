"""The main job by its commands: finetune, export, score, eval, info."""

from __future__ import annotations

import copy
import csv
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
from PIL import Image

import fsad_edge.training.loop as training
from fsad_edge import Model, load_image
from fsad_edge.synthesis import load_shot
from fsad_edge.training.encoder import pretrained_encoder
from fsad_edge.training.model_directory import read_encoder, read_manifest
from tests.conftest import BANK_SIZE, MEAN, SIZE, STD, Cli, Job


@pytest.fixture(scope="module")
def scratched(job: Job) -> Path:
    return job.dataset / "test/scratch"


def finetune(cli: Cli, shots: Path, part: Path, backbone: str, *more: str) -> dict[str, Any]:
    done = cli(
        *("finetune", shots, "-o", part, "--backbone", backbone),
        *("--image-size", str(SIZE), "--epochs", "1", "--json", *more),
    )
    assert done.code == 0, done.err
    result: dict[str, Any] = done.json
    return result


def test_finetune_sums_up(job: Job) -> None:
    assert job.finetune["shots"] == 5
    assert job.finetune["bank_rows"] == 5 * (SIZE // 16) ** 2 * job.finetune["rotations"]
    assert job.finetune["threshold"] > 0
    assert "5 shots" in job.finetune["reliability"]
    assert job.finetune["next"].endswith(f"{job.part}")
    manifest = read_manifest(job.part)
    assert [entry["file"][4:] for entry in manifest.shots] == [f"{i}.png" for i in range(5)]
    assert len(manifest.encoder.sha256) == 64
    assert manifest.threshold.value == job.finetune["threshold"]
    bank = safetensors.numpy.load_file(job.part / "reference.safetensors")["bank"]
    used = np.abs(bank).sum(axis=1) > 0
    assert used.sum() == manifest.bank_rows
    np.testing.assert_allclose(np.linalg.norm(bank[used], axis=1), 1, atol=1e-5)


def test_export_proves_parity(job: Job) -> None:
    assert job.export["largest_relative_difference"] <= job.export["tolerance"] == 1e-4
    assert job.export["flips"] == 0
    assert job.export["parity_images"] > 5
    assert job.export["bytes"] == job.file.stat().st_size
    assert job.export["threshold"] == pytest.approx(job.finetune["threshold"], rel=1e-4)


def test_an_epoch_changes_the_weights_and_none_does_not(
    job: Job, backbones: dict[str, str]
) -> None:
    shots = [load_shot(path, SIZE, SIZE) for path in sorted(job.shots.iterdir())]
    for epochs in (0, 1):
        encoder = pretrained_encoder(backbones["conv"], None, SIZE, SIZE, [16])
        before = copy.deepcopy(encoder.state_dict())
        training.finetune(
            encoder, shots, training.FinetuneSettings(epochs=epochs), torch.device("cpu")
        )
        equal = [torch.equal(value, before[name]) for name, value in encoder.state_dict().items()]
        assert all(equal) is (epochs == 0)
    manifest = read_manifest(job.part)
    assert manifest.encoder.sha256 == encoder.spec.sha256


def test_training_is_the_same_for_the_same_seed(
    cli: Cli, job: Job, backbones: dict[str, str], tmp_path: Path
) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    rows = ("--bank-size", str(BANK_SIZE))
    finetune(cli, job.shots, again, backbones["conv"], *rows)
    finetune(cli, job.shots, other, backbones["conv"], *rows, "--seed", "1")
    assert read_manifest(again).files == read_manifest(job.part).files
    assert read_manifest(again).threshold == read_manifest(job.part).threshold
    assert read_manifest(other).files != read_manifest(job.part).files


def test_good_parts_pass(cli: Cli, job: Job) -> None:
    done = cli("score", job.file, job.shots, "--json")
    assert done.code == 0, done.err
    rows = done.json["images"]
    assert [Path(row["image"]).name for row in rows] == [f"{i}.png" for i in range(5)]
    for row in rows:
        assert row["decision"] == "good"
        assert row["ratio"] == pytest.approx(row["score"] / job.export["threshold"], abs=1e-3)
        assert row["ms"] > 0
        assert row["error"] is None


def test_a_defect_is_found(cli: Cli, job: Job, scratched: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps/deep"
    done = cli("score", job.file, scratched, job.shots / "0.png", "--csv", "--heatmaps", maps)
    assert done.code == 1, done.err
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["decision"] for row in rows] == ["anomaly", "anomaly", "good"]
    assert all((float(row["ratio"]) > 1) == (row["decision"] == "anomaly") for row in rows)
    pictures = sorted(maps.iterdir())
    assert len(pictures) == len({row["image"] for row in rows})
    for picture in pictures:
        assert load_image(picture).std() > 5


def test_every_image_keeps_its_own_heat_map(
    cli: Cli, job: Job, scratched: Path, tmp_path: Path
) -> None:
    same_name = [job.dataset / f"test/{kind}/0.png" for kind in ("good", "scratch", "[red]dent")]
    done = cli("score", job.file, *same_name, scratched, "--heatmaps", tmp_path)
    assert done.code == 1
    pictures = list(tmp_path.rglob("*.png"))
    assert len(pictures) == 4  # scratch/0.png is given twice


def test_rows_for_people(cli: Cli, job: Job, scratched: Path) -> None:
    done = cli("score", job.file, scratched)
    assert done.code == 1
    header, *rows, counts = done.out.splitlines()
    assert header.split() == ["score", "ratio", "decision", "ms", "image"]
    assert [row.split()[2] for row in rows] == ["anomaly", "anomaly"]
    assert all(str(scratched) in row for row in rows)
    assert counts == "2 images: 0 good, 2 anomalies"


def test_evaluation(cli: Cli, job: Job, tmp_path: Path) -> None:
    report = tmp_path / "report.png"
    done = cli("eval", job.file, job.dataset, "--report", report, "--json")
    assert done.code == 0, done.err
    figures = done.json
    assert (figures["n_good"], figures["n_defective"], figures["n_masked"]) == (3, 4, 2)
    assert figures["image_auroc"] == 1.0
    assert 0.5 < figures["pixel_auroc"] <= 1
    assert 0 < figures["aupro"] <= 1
    assert [row["defect"] for row in figures["by_defect"]] == ["[red]dent", "scratch"]
    assert figures["false_alarm_rate_asked"] == 0.01
    assert load_image(report).shape[1] > 1000
    plain = cli("eval", job.file, job.dataset, "--report", report, "--force")
    assert plain.code == 0
    assert "image AUROC   1.0000" in plain.out
    assert "[red]dent" in plain.out
    assert "1.00% was asked for" in plain.out


def test_info_of_a_file(cli: Cli, job: Job) -> None:
    document = cli("info", job.file, "--json").json
    assert document["schema"] == 1
    assert (document["height"], document["width"]) == (SIZE, SIZE)
    assert document["threshold"]["value"] == job.export["threshold"]
    assert document["shots"]["count"] == 5
    assert document["bank_rows"] == job.finetune["bank_rows"]
    assert document["precision"] == "fp32"
    assert [golden["name"] for golden in document["golden"]] == ["000_0.png", "001_1.png"]
    assert document["backbone"]["sha256"] == read_manifest(job.part).encoder.sha256
    assert "antialiasing" in document["resize"]
    text = cli("info", job.file)
    assert text.code == 0
    assert str(job.file) in text.out
    assert job.finetune["reliability"] in text.out


def test_info_of_a_directory(cli: Cli, job: Job) -> None:
    document = cli("info", job.part, "--json").json
    assert document["score"] == "patch"
    assert document["encoder"]["mean"] == MEAN
    assert document["encoder"]["std"] == STD
    assert cli("info", job.part).code == 0


def test_doctor(cli: Cli) -> None:
    found = cli("doctor", "--json").json
    assert found["found"]["torch"].startswith(torch.__version__.split("+")[0])
    assert "CPU" in found["found"]["onnxruntime"]
    for line in found["missing"].values():
        assert "pip" in line
    assert cli("doctor").code == 0


def test_golden_images_are_in_the_file_at_another_size(job: Job) -> None:
    with Model.load(job.file) as model:
        golden = model.metadata.golden
        assert len(golden) == 2
        for image in golden:
            assert load_image(image.image).shape[:2] != (SIZE, SIZE)
            assert model.score(image.image).score == pytest.approx(image.score, rel=1e-5)


def test_secret_parts_stay_out_of_the_file(cli: Cli, job: Job, tmp_path: Path) -> None:
    moved, file = tmp_path / "moved", tmp_path / "secret.onnx"
    shutil.copytree(job.part, moved)  # a model directory needs nothing outside of it
    assert "train/good" not in (moved / "manifest.json").read_text()
    done = cli("export", moved, "-o", file, "--no-golden")
    assert done.code == 0, done.err
    assert "golden images  0" in done.out
    with Model.load(file) as model:
        assert model.metadata.golden == []
        assert model.metadata.threshold.value == pytest.approx(job.export["threshold"], rel=1e-6)


def test_the_library_scores_as_the_command_does(cli: Cli, job: Job, scratched: Path) -> None:
    row = cli("score", job.file, scratched / "0.png", "--json").json["images"][0]
    with Model.load(job.file) as model:
        for source in (
            scratched / "0.png",
            str(scratched / "0.png"),
            (scratched / "0.png").read_bytes(),
            load_image(scratched / "0.png"),
        ):
            result = model.score(source)
            assert result.score == pytest.approx(row["score"], abs=1e-6)
            assert result.anomalous
            assert result.anomaly_map.shape == (SIZE // 16, SIZE // 16)
            assert set(result.timings) == {"decode", "resize", "infer", "post"}


def test_one_shot(cli: Cli, job: Job, backbones: dict[str, str], tmp_path: Path) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    shutil.copy(job.shots / "0.png", shots)
    summary = finetune(cli, shots, tmp_path / "part", backbones["conv"])
    assert summary["shots"] == 1
    assert "One shot" in summary["reliability"]
    assert cli("export", tmp_path / "part").code == 0
    assert cli("score", tmp_path / "part.onnx", shots).code == 0
    assert cli("score", tmp_path / "part.onnx", job.dataset / "test/scratch").code == 1


def test_the_image_score(
    cli: Cli, job: Job, scratched: Path, backbones: dict[str, str], tmp_path: Path
) -> None:
    part = tmp_path / "part"
    finetune(cli, job.shots, part, backbones["conv"], "--score", "image")
    exported = cli("export", part, "--json").json
    assert exported["largest_relative_difference"] <= 1e-4
    assert cli("score", tmp_path / "part.onnx", job.shots).code == 0
    assert cli("score", tmp_path / "part.onnx", scratched).code == 1
    by_patch = cli("score", job.file, scratched, "--json").json["images"]
    by_image = cli("score", tmp_path / "part.onnx", scratched, "--json").json["images"]
    assert all(a["score"] != b["score"] for a, b in zip(by_patch, by_image, strict=True))
    assert cli("info", tmp_path / "part.onnx", "--json").json["score"] == "image"


def test_a_vit(cli: Cli, job: Job, backbones: dict[str, str], tmp_path: Path) -> None:
    part, file = tmp_path / "vit", tmp_path / "vit.onnx"
    finetune(cli, job.shots, part, backbones["vit"])
    assert read_manifest(part).encoder.final_norm
    assert cli("export", part, "--json").json["largest_relative_difference"] <= 1e-4
    assert cli("score", file, job.shots).code == 0
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert cli("score", file, tmp_path / "noise.png").code == 1


def test_several_maps_are_joined(
    cli: Cli, job: Job, scratched: Path, backbones: dict[str, str], tmp_path: Path
) -> None:
    part, file, shots = tmp_path / "part", tmp_path / "part.onnx", tmp_path / "shots"
    shots.mkdir()
    for name in ("0.png", "1.png"):
        shutil.copy(job.shots / name, shots)
    finetune(
        cli, shots, part, backbones["conv"],
        *("--strides", "8,16", "--flip", "--rotations", "12", "--bank-size", "100"),
    )  # fmt: skip
    assert read_manifest(part).bank_rows == 100
    assert cli("export", part, "--json").json["largest_relative_difference"] <= 1e-4
    assert cli("score", file, scratched).code == 1
    with Model.load(file) as model:
        assert model.score(scratched / "0.png").anomaly_map.shape == (SIZE // 8, SIZE // 8)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_checkpoint_is_put_into_a_backbone(
    cli: Cli, job: Job, backbones: dict[str, str], tmp_path: Path, suffix: str
) -> None:
    source = Path(backbones["conv"].removeprefix("local-dir:")) / "model.safetensors"
    weights = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(
            {name: torch.from_numpy(v) for name, v in safetensors.numpy.load_file(source).items()},
            weights,
        )
    else:
        shutil.copy(source, weights)
    # The same network by its name, with timm's own padding, mean and deviation.
    finetune(
        cli, job.shots, tmp_path / "part", "test_efficientnet", "--weights", str(weights),
        *("--epochs", "0"),
    )  # fmt: skip
    spec = read_manifest(tmp_path / "part").encoder
    assert spec.source == f"test_efficientnet with {weights.name}"
    assert spec.sha256 == read_manifest(job.part).encoder.sha256
    assert spec.mean != MEAN


def test_a_folder_s_padding_mean_and_deviation_reach_the_graph(job: Job) -> None:
    spec = read_manifest(job.part).encoder
    assert spec.arguments == {"pad_type": "same"}
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
    for expected in (1 / (255 * std), mean / std):
        assert any(np.allclose(value, np.sort(expected)) for value in values)


def test_mean_and_deviation_are_applied(job: Job, scratched: Path) -> None:
    encoder = read_encoder(job.part, read_manifest(job.part))
    image = torch.from_numpy(load_image(scratched / "0.png").copy()).permute(2, 0, 1)[None].float()
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    plain = encoder.network((image / 255 - mean) / std)
    torch.testing.assert_close(encoder(image), plain[0])


def test_a_file_says_nothing_of_the_machine_that_made_it(job: Job) -> None:
    data = job.file.read_bytes()
    for path in (b"site-packages", str(Path.cwd()).encode(), str(job.shots.parent).encode()):
        assert path not in data


def test_nothing_hidden_is_left_behind(job: Job) -> None:
    assert {path.name for path in job.dataset.iterdir()} == {
        "train", "test", "ground_truth", "part", "part.onnx",
    }  # fmt: skip
    assert {path.name for path in job.part.iterdir()} == {
        "manifest.json", "encoder.safetensors", "reference.safetensors", "shots",
    }  # fmt: skip


HEAVY = ["torch", "timm", "onnx", "onnxruntime", "numpy", "scipy", "sklearn", "matplotlib"]


@pytest.mark.parametrize("command", ["", "finetune", "export", "score", "eval", "info", "doctor"])
def test_help_imports_nothing_heavy(command: str) -> None:
    script = (
        "import sys\n"
        "from fsad_edge.cli.main import main\n"
        "try:\n    main()\n"
        f"except SystemExit as stop:\n    print(stop.code, *(set({HEAVY}) & set(sys.modules)))"
    )
    arguments = [command, "--help"] if command else ["--help"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Usage" in done.stdout
    code, *heavy = done.stdout.splitlines()[-1].split()
    assert code == "0"
    assert set(heavy) <= {"numpy"}


def test_scoring_imports_no_training_framework(job: Job) -> None:
    script = (
        "import sys\n"
        "from fsad_edge.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    print({'torch', 'timm', 'onnx', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "score", str(job.file), str(job.shots / "0.png")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"


def test_scoring_keeps_no_books_on_its_user(job: Job, tmp_path: Path) -> None:
    """ONNX Runtime would: its telemetry leaves an identity and a database in the home folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG")}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    script = "from fsad_edge.cli.main import main\nmain()"
    subprocess.run(
        [sys.executable, "-c", script, "score", str(job.file), str(job.shots / "0.png")],
        check=True, capture_output=True, env=environment | {"HOME": str(tmp_path)},
    )  # fmt: skip
    assert list(tmp_path.rglob("*")) == []


def test_the_help_names_every_command(cli: Cli) -> None:
    done = cli("--help")
    assert done.code == 0
    for command in ("finetune", "export", "score", "eval", "info", "doctor"):
        assert re.search(rf"^ *{command}\b", done.out, re.MULTILINE)
