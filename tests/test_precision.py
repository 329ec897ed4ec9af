"""int8 and fp16: the file decides as the fp32 one does, in the form that engines run well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from PIL import ImageOps

from fsad_edge import Model
from fsad_edge.errors import ExportError
from fsad_edge.graph.quantize import (
    add_outputs,
    encoder_nodes,
    features_name,
    quantised_names,
    quantize,
)
from fsad_edge.graph.scoring_graph import ScoringGraph, build_graph
from fsad_edge.options import ScoreKind, Target
from fsad_edge.pipeline.precision import check_drift
from fsad_edge.pipeline.precision_report import PrecisionReport
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.model import REFERENCE_INPUTS
from fsad_edge.runtime.onnx_file import read_initializers
from fsad_edge.training.encoder import BUNDLED, pretrained_encoder
from tests.conftest import SIZE, Cli, Job, photograph

KINDS = {
    "int8": ("--precision", "int8"),
    "int8-tensorrt": ("--precision", "int8", "--target", "tensorrt"),
    "fp16": ("--precision", "fp16"),
}


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory, job: Job, cli: Cli) -> Path:
    """The bundled encoder on the job's shots."""
    folder = tmp_path_factory.mktemp("precision") / "part"
    made = cli("finetune", job.shots, "-o", folder, "--image-size", "96", "--strides", "16")
    assert made.code == 0, made.err
    return folder


@pytest.fixture(scope="module")
def files(part: Path, cli: Cli) -> dict[str, Path]:
    """The same part in every precision."""
    found = {}
    for name, options in {"fp32": (), **KINDS}.items():
        found[name] = part.with_name(f"{name}.onnx")
        made = cli("export", part, "-o", found[name], *options, "--json")
        assert made.code == 0, made.err
        report = made.json["against_fp32"]
        assert (report is None) == (name == "fp32")
        if report:
            assert report["flips"] <= 0.1 * report["images"]
            assert min(report["ms_before"], report["ms_after"]) > 0
    return found


def test_another_part_takes_the_ranges_and_shares_the_graph(
    files: dict[str, Path], tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / "shots").mkdir()
    rng = np.random.default_rng(1)
    for index in range(3):
        ImageOps.invert(photograph(rng)).save(tmp_path / f"shots/{index}.png")
    made = cli(
        *("finetune", tmp_path / "shots", "-o", tmp_path / "part"),
        *("--image-size", "96", "--strides", "16", "--rotations", "1"),
    )
    assert made.code == 0, made.err
    export = ("export", tmp_path / "part", "--precision", "int8", "--allow-drift", "1")
    made = cli(*export, "--ranges-of", files["int8"])
    assert made.code == 0, made.err
    one = Model.load(files["int8"], "cpu")
    other = Model.load(tmp_path / "part.onnx", "cpu", share_with=one)  # scores its golden images
    assert other.shares_with(one)
    assert other.metadata.threshold != one.metadata.threshold
    for wrong in ("fp32", "fp16", "int8-tensorrt"):
        refused = cli(*export, "--ranges-of", files[wrong], "--force")
        assert refused.code == 2
        assert "both must be alike" in refused.err


@pytest.mark.parametrize(("kind", "share"), [("fp16", 0.3), ("int8", 0.4), ("int8-tensorrt", 0.5)])
def test_it_scores_as_fp32_does(files: dict[str, Path], job: Job, kind: str, share: float) -> None:
    """Loosely: of plates as alike as these any rounding chooses other rows for the bank."""
    exact, other = Model.load(files["fp32"]), Model.load(files[kind])
    assert other.metadata.precision.startswith(kind.split("-")[0])
    for path in sorted((job.dataset / "test").rglob("*.png")):
        expected, got = exact.score(path).ratio, other.score(path).ratio
        assert got == pytest.approx(expected, rel=share)
        if not 1 - share < expected < 1 + share:
            assert (got > 1) == (expected > 1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_bank_stays_in_fp32(files: dict[str, Path], kind: str) -> None:
    inputs = {value.name: value.type.tensor_type for value in onnx.load(files[kind]).graph.input}
    assert inputs["image"].elem_type == TensorProto.UINT8
    assert inputs["bank"].elem_type == TensorProto.FLOAT


def test_onnx_runtime_runs_the_encoder_in_eight_bits(
    files: dict[str, Path], tmp_path: Path
) -> None:
    """All convolutions but the last, without a step to float and back between them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(files["int8"]), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    convolutions = [n for n in onnx.load(files["fp32"]).graph.node if n.op_type == "Conv"]
    assert kinds.count("QLinearConv") == len(convolutions) - 1
    assert kinds.count("Conv") == 1
    assert kinds.count("QuantizeLinear") == 0
    assert kinds.count("DequantizeLinear") == 1


def test_the_placement_that_tensorrt_takes(files: dict[str, Path]) -> None:
    """Symmetric int8, weights by channel, activations by tensor, biases as they are."""
    graph = onnx.load(files["int8-tensorrt"]).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    quantised = [n for n in graph.node if n.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert quantised
    for node in quantised:
        zero = values[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    for node in convolutions[:-1]:
        assert made[node.input[0]].op_type == "DequantizeLinear"
        weight = made[node.input[1]]
        assert len(values[weight.input[1]]) == len(values[weight.input[0]])
        assert node.input[2] in values


def test_the_encoder_of_an_fp16_file_is_fp16(files: dict[str, Path]) -> None:
    graph = onnx.load(files["fp16"]).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        assert {types[name] for name in node.input[1:]} == {TensorProto.FLOAT16}


def test_distances_of_an_fp16_file_are_fp32(files: dict[str, Path]) -> None:
    session = OnnxSession(files["fp16"].read_bytes(), "the model", "cpu")
    onnx.checker.check_model(onnx.load(files["fp16"]))
    height, width = session.inputs["image"][1:3]
    image = np.random.default_rng(0).integers(0, 256, (4, height, width, 3), np.uint8)
    for values in session.run(["patches", "anomaly_map", "score", "image_score"], {"image": image}):
        assert (values.astype(np.float16) != values).mean() > 0.5
    # and the normal parts are still inputs
    own = read_initializers(files["fp16"].read_bytes(), REFERENCE_INPUTS)
    plain, *changed = (
        session.run(["patch_score", "image_score"], {"image": image, **reference})
        for reference in ({}, *({name: value * 0.5 + 0.1} for name, value in own.items()))
    )
    assert len(changed) == len(REFERENCE_INPUTS)
    assert all(not np.array_equal(plain, other) for other in changed)


@given(st.integers(0, 2**32 - 1), st.sampled_from(Target))
@settings(max_examples=10, deadline=None)
def test_features_keep_their_shape(seed: int, target: Target) -> None:
    """Within ranges that it was given, eight bits change the features by a tenth, of noise."""
    encoder = pretrained_encoder(BUNDLED, None, SIZE, SIZE, [16])
    model = build_graph(ScoringGraph(encoder, ScoreKind.PATCH), 8)
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 256, (4, SIZE // 8, SIZE // 8, 3)).astype(np.uint8)
    images = cells.repeat(8, axis=1).repeat(8, axis=2)
    names = quantised_names(model, target)
    seen = run(add_outputs(model, names), names, images)
    ranges = {name: (float(a.min()), float(a.max())) for name, a in zip(names, seen, strict=True)}
    spec = encoder.spec
    eight = quantize(model, ranges, spec.mean, spec.std, target)
    features = [features_name(model)]
    (expected,) = run(add_outputs(model, features), features, images)
    (got,) = run(add_outputs(eight, features), features, images)
    assert np.linalg.norm(got - expected) < 0.25 * np.linalg.norm(expected)


def run(model: onnx.ModelProto, names: list[str], images: np.ndarray) -> list[np.ndarray]:
    return OnnxSession(model.SerializeToString(), "test", "cpu").run(names, {"image": images})


def test_the_encoder_is_found() -> None:
    encoder = pretrained_encoder(BUNDLED, None, SIZE, SIZE, [16])
    model = build_graph(ScoringGraph(encoder, ScoreKind.PATCH), 8)
    kinds = [node.op_type for node in encoder_nodes(model)]
    assert kinds.count("Conv") == len([n for n in model.graph.node if n.op_type == "Conv"])
    assert "TopK" not in kinds


@pytest.mark.parametrize(
    ("flips", "auroc", "holds"),
    [(0, 0.9, True), (10, 0.9, True), (11, 0.9, False), (0, 0.86, True), (0, 0.84, False)],
)
def test_what_another_precision_may_lose(flips: int, auroc: float, holds: bool) -> None:
    report = PrecisionReport(100, 0.1, 0.1, flips, 0.9, auroc, 2.0, 1.0)
    assert report.holds(0.1) == holds
    if holds:
        check_drift(report, "int8", 0.1)
    else:
        with pytest.raises(ExportError, match="--allow-drift"):
            check_drift(report, "int8", 0.1)


def test_what_drifts_is_not_written(part: Path, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "part.onnx"
    options = ("--precision", "int8", "--target", "tensorrt", "--json")
    report = cli("export", part, "-o", file, *options).json["against_fp32"]
    kept = PrecisionReport(**report).holds(0)
    file.unlink()
    made = cli("export", part, "-o", file, *options, "--allow-drift", "0")
    assert made.code == (0 if kept else 2)
    assert file.exists() == kept


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--precision", "int4"), "fp32, fp16, int8"),
        (("--precision", "int8", "--target", "gpu"), "cpu, tensorrt"),
    ],
)
def test_no_such_precision(part: Path, cli: Cli, options: tuple[str, ...], said: str) -> None:
    made = cli("export", part, "-o", part.with_name("none.onnx"), *options)
    assert made.code == 2
    assert said in made.err
    assert not part.with_name("none.onnx").exists()


def test_int8_of_a_transformer_is_refused(
    job: Job, backbones: dict[str, str], cli: Cli, tmp_path: Path
) -> None:
    made = cli(
        *("finetune", job.shots, "-o", tmp_path / "vit", "--backbone", backbones["vit"]),
        *("--image-size", str(SIZE)),
    )
    assert made.code == 0, made.err
    refused = cli("export", tmp_path / "vit", "--precision", "int8")
    assert refused.code == 2
    assert "convolutional" in refused.err
    assert not (tmp_path / "vit.onnx").exists()
