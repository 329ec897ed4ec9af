"""``--score image`` with a network of full depth: whole objects are told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import safetensors.torch
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

import fsad_edge
from benchmarks import whole_objects
from benchmarks.accuracy.rows import read_rows
from fsad_edge import ExportResult, FinetuneOptions, FinetuneResult, Model
from fsad_edge.errors import InputError
from fsad_edge.evaluation.metrics import image_auroc
from fsad_edge.options import Doubt, ScoreKind
from fsad_edge.pipeline.candidates import size_for_whole_objects
from fsad_edge.pipeline.model_directory import read_encoder, read_manifest
from fsad_edge.runtime.bank import fit_gaussian
from fsad_edge.training.encoder import pretrained_encoder, save_encoder
from fsad_edge.training.full_depth import FEWEST_CLASSES
from tests.conftest import MEAN, SIZE, STD, Cli

NORMAL, OTHER = "disc", "bars"


def thing(kind: str, rng: np.random.Generator, side: int = 32) -> Image.Image:
    """A red disc on green, or white bars on blue; somewhere in the photograph."""
    image = Image.new("RGB", (side, side), (40, 120, 50) if kind == NORMAL else (40, 60, 150))
    draw = ImageDraw.Draw(image)
    x, y = rng.uniform(0.35, 0.65, 2) * side
    if kind == NORMAL:
        draw.ellipse((x - side / 4, y - side / 4, x + side / 4, y + side / 4), (200, 40, 40))
    else:
        for place in range(3):
            left = x - side / 4 + place * side / 6
            draw.rectangle((left, y - side / 4, left + side / 12, y + side / 4), (240, 240, 240))
    pixels = np.asarray(image) + rng.normal(0, 6, (side, side, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def save_things(folder: Path, kind: str, count: int, seed: int) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        thing(kind, rng).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with a folder for each class, as CIFAR-10's slice."""
    folder = tmp_path_factory.mktemp("things")
    for place, kind in enumerate((NORMAL, OTHER)):
        save_things(folder / "train" / kind, kind, 5, place)
        save_things(folder / "test" / kind, kind, 8, 10 + place)
    return folder


def made(things: Path, folder: Path, backbone: str) -> FinetuneResult:
    options = FinetuneOptions(
        backbone=backbone, score=ScoreKind.IMAGE, image_size=SIZE, bank_size=50
    )
    return fsad_edge.finetune(things / "train" / NORMAL, folder / "part", options)


@pytest.fixture(scope="module")
def part(
    things: Path, backbones: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> FinetuneResult:
    return made(things, tmp_path_factory.mktemp("whole"), backbones["conv"])


def test_another_kind_of_object_is_an_anomaly(part: FinetuneResult, things: Path) -> None:
    file = fsad_edge.export(part)
    with Model.load(file, "cpu") as model:
        good, bad = (
            [model.score(path) for path in sorted((things / "test" / kind).iterdir())]
            for kind in (NORMAL, OTHER)
        )
    assert part.full_depth
    scores = [result.score for result in (*good, *bad)]
    assert image_auroc(scores, [False] * len(good) + [True] * len(bad)) == 1
    # It is what the score is to find, however unlike the shots it is.
    assert not [1 for one in bad for reason in one.reasons if reason.doubt is Doubt.UNLIKE]
    assert file.parity is not None
    assert file.parity.holds
    assert file.tensorrt is not None
    assert "the graph" in file.tensorrt
    assert "nothing that TensorRT 10.3 lacks by NVIDIA's operator tables" in file.tensorrt


def test_the_embedding_is_the_networks_own_logits(
    part: FinetuneResult, backbones: dict[str, str]
) -> None:
    network = timm.create_model(backbones["conv"], pretrained=True, pad_type="same").eval()
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    with torch.inference_mode():
        scaled = torch.from_numpy((np.float32(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
        logits = network(scaled).numpy()
    centred = logits - logits.mean(axis=1, keepdims=True)
    expected = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    with Model.load(fsad_edge.export(part, part.path.with_name("own.onnx")), "cpu") as model:
        got = model.embed(pixels)["embedding"]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def network_of(classes: int, backbones: dict[str, str], tmp_path: Path) -> tuple[str, int]:
    """A network that knows so many classes, and the length of what it pools."""
    source = Path(backbones["conv"].removeprefix("local-dir:"))
    folder = tmp_path / "backbone"
    folder.mkdir()
    config = json.loads((source / "config.json").read_text())
    config["num_classes"] = config["pretrained_cfg"]["num_classes"] = classes
    (folder / "config.json").write_text(json.dumps(config))
    network = timm.create_model(config["architecture"], num_classes=classes, pad_type="same")
    safetensors.torch.save_file(network.state_dict(), folder / "model.safetensors")
    pooled: int = cast(Any, network).num_features
    return f"local-dir:{folder}", pooled


@pytest.mark.parametrize("classes", [0, FEWEST_CLASSES - 1])
def test_a_network_that_knows_few_classes_gives_what_it_pools(
    backbones: dict[str, str], tmp_path: Path, classes: int
) -> None:
    backbone, pooled = network_of(classes, backbones, tmp_path)
    encoder = pretrained_encoder(backbone, None, SIZE, SIZE, [16], full_depth=True)
    assert encoder.embedding_channels == pooled


def test_a_network_that_knows_no_classes_is_exported(
    backbones: dict[str, str], things: Path, tmp_path: Path
) -> None:
    backbone, pooled = network_of(0, backbones, tmp_path)
    part = made(things, tmp_path, backbone)
    encoder = read_encoder(part.path, read_manifest(part.path))
    assert encoder.graph.embedding_channels == pooled
    parity = fsad_edge.export(part).parity
    assert parity is not None
    assert parity.holds


def assert_tells_apart(file: ExportResult, things: Path) -> None:
    with Model.load(file, "cpu") as model:
        good, bad = (
            [model.score(path).score for path in sorted((things / "test" / kind).iterdir())]
            for kind in (NORMAL, OTHER)
        )
    assert np.mean(good) < np.mean(bad)
    assert image_auroc([*good, *bad], [False] * len(good) + [True] * len(bad)) == 1


def test_a_transformer_is_exported(backbones: dict[str, str], things: Path, tmp_path: Path) -> None:
    assert_tells_apart(fsad_edge.export(made(things, tmp_path, backbones["vit"])), things)


def test_fp16_tells_kinds_apart(part: FinetuneResult, things: Path, tmp_path: Path) -> None:
    file = fsad_edge.export(part, tmp_path / "fp16.onnx", precision="fp16")
    assert_tells_apart(file, things)


def test_int8_reaches_beyond_the_map(part: FinetuneResult, things: Path, tmp_path: Path) -> None:
    file = fsad_edge.export(part, tmp_path / "int8.onnx", precision="int8")
    assert_tells_apart(file, things)
    assert "is not known" in " ".join(file.warnings)
    convolutions = [node for node in onnx.load(file).graph.node if node.op_type == "Conv"]
    exact = [node for node in convolutions if not node.input[1].endswith("_dequantised")]
    # Those that make the map and the embedding.
    assert len(exact) == 2 < len(convolutions)
    assert exact[-1] is convolutions[-1]


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(64, 1024))
def test_the_size_is_a_multiple_that_no_network_is_too_small_for(
    width: int, height: int, trained: int
) -> None:
    size = size_for_whole_objects([(width, height)], trained)
    assert size % 32 == 0
    assert 64 <= size <= trained


def test_the_bundled_encoder_has_a_tail_and_says_what_is_better(
    cli: Cli, things: Path, tmp_path: Path
) -> None:
    part = tmp_path / "part"
    done = cli(
        *("finetune", things / "train" / NORMAL, "-o", part, "--score", "image"),
        *("--bank-size", "50", "--json"),
    )
    assert done.code == 0, done.err
    assert (done.json["full_depth"], done.json["backbone"]) == (True, "fsad_edge")
    # Small photographs are enlarged four times, and not turned.
    assert (done.json["image_size"], done.json["rotations"]) == (128, 1)
    [said] = [one for one in done.json["warnings"] if "bundled encoder" in one]
    assert "--backbone" in said
    file = fsad_edge.export(part)
    with Model.load(file, "cpu") as model:
        good, bad = (
            [model.score(path).score for path in sorted((things / "test" / kind).iterdir())]
            for kind in (NORMAL, OTHER)
        )
    assert image_auroc([*good, *bad], [False] * len(good) + [True] * len(bad)) == 1


def test_the_tail_stands_on_the_bundled_encoder() -> None:
    images = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0)) * 255
    plain, whole = (
        pretrained_encoder("fsad_edge", None, 96, 64, [16], full_depth=deep).eval()
        for deep in (False, True)
    )
    with torch.inference_mode():
        features, embedding = whole.with_embedding(images)
        torch.testing.assert_close(features, plain(images), rtol=0, atol=1e-6)
    assert embedding.shape == (2, whole.embedding_channels)
    assert plain.embedding_channels == plain.channels


def test_other_weights_of_the_bundled_encoder_have_no_tail(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_encoder(pretrained_encoder("fsad_edge", None, SIZE, SIZE, [16]), other)
    state = safetensors.torch.load_file(other)
    plain = {name.removeprefix("model."): value for name, value in state.items()}
    safetensors.torch.save_file(plain, other)
    encoder = pretrained_encoder("fsad_edge", other, SIZE, SIZE, [16], full_depth=True)
    assert not encoder.spec.full_depth


def test_the_command_says_what_the_score_is_of(
    cli: Cli, backbones: dict[str, str], things: Path, tmp_path: Path
) -> None:
    done = cli(
        *("finetune", things / "train" / NORMAL, "-o", tmp_path / "part", "--score", "image"),
        *("--backbone", backbones["conv"], "--image-size", SIZE, "--bank-size", "50"),
    )
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "its full depth for the score" in said
    assert "kinds of objects are told apart as photographed" in said


@given(st.integers(1, 12), st.integers(1, 20), st.floats(0.05, 1), st.integers(0, 1000))
def test_the_prior_is_part_of_the_covariance(
    count: int, dimension: int, prior: float, seed: int
) -> None:
    rows = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    mean, whitening = fit_gaussian(rows, prior)
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    covariance = centred.T @ centred / count
    trace = max(float(np.trace(covariance)), 1e-6 * dimension)
    expected = (1 - prior) * covariance + prior * trace * np.eye(dimension)
    np.testing.assert_allclose(mean, rows.mean(axis=0), atol=1e-5)
    white = whitening.astype(np.float64)
    np.testing.assert_allclose(white.T @ expected @ white, np.eye(dimension), atol=1e-3)


def test_the_benchmark_continues_and_writes_a_table(
    things: Path, backbones: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        *(str(things), "--backbone", backbones["conv"], "--classes", NORMAL, "--shots", "3"),
        *("--size", str(SIZE), "--test-images", "4", "--epochs", "1", "--rates", "1e-4", "1e-3"),
        *("--layers", "last", "-o", str(tmp_path)),
    ]
    whole_objects.main(words)
    rows = read_rows(tmp_path / "whole_objects.jsonl")
    assert [row["settings"] for row in rows] == [
        f"last con+pp rate={rate} epochs=1" for rate in ("0.0001", "0.001")
    ]
    assert {row["before"] for row in rows} == {1.0}
    before = capsys.readouterr().out
    whole_objects.main(words)
    assert read_rows(tmp_path / "whole_objects.jsonl") == rows
    assert before
    assert not capsys.readouterr().out
    lines = (tmp_path / "whole_objects.md").read_text().splitlines()
    assert sum(line.startswith("| conv at") for line in lines) == 2
    assert "| 1 | 1.000 |" in lines[-1]


def test_the_benchmark_refuses_what_it_cannot_measure(
    things: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="two classes"):
        whole_objects.read_set(things / "train", SIZE, 2)
    assert whole_objects.tables([]).startswith("# Whole objects")


def test_the_benchmark_measures_without_training(
    things: Path, backbones: dict[str, str], tmp_path: Path
) -> None:
    words = [
        *(str(things), "--backbone", backbones["conv"], "--shots-alone", "2", "4", "--seeds", "0"),
        *("--size", str(SIZE), "--test-images", "4", "-o", str(tmp_path)),
    ]
    for _ in range(2):
        whole_objects.main(words)
    rows = read_rows(tmp_path / "whole_objects.jsonl")
    assert [(row["dataset"], row["shots"]) for row in rows] == [
        (kind, shots) for kind in sorted((NORMAL, OTHER)) for shots in (2, 4)
    ]
    first, second = (row["before"] for row in rows if row["shots"] == 4)
    assert 0.5 < first < second == 1  # bars lie in many places
    line = f"| 4 | {first:.3f} | {second:.3f} | {(first + second) / 2:.3f} | {OTHER} {first:.3f} |"
    assert line in (tmp_path / "whole_objects.md").read_text()
