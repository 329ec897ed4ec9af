"""int8 and fp16: the file decides as the fp32 one does, in the form that engines run well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from PIL import ImageOps

import fsad_edge
from fsad_edge import (
    ExportError,
    ExportOptions,
    ExportResult,
    FinetuneOptions,
    FinetuneResult,
    InputError,
    Model,
)
from fsad_edge.options import BundledEncoder, Precision, ScoreKind, Target
from fsad_edge.pipeline.precision import PrecisionReport
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.bank import REJECTED_ROWS, empty_reference
from fsad_edge.runtime.encoder_names import bundled_name
from fsad_edge.runtime.model import REFERENCE_INPUTS
from fsad_edge.runtime.onnx_file import read_initializers
from fsad_edge.scoring.bundled import bundled_encoder
from fsad_edge.scoring.encoder_graph import EncoderGraph
from fsad_edge.scoring.onnx_graph import Graph
from fsad_edge.scoring.quantize import (
    encoder_nodes,
    features_name,
    quantised_names,
    quantize,
    with_outputs,
)
from fsad_edge.scoring.scoring_graph import build_scoring_graph
from tests.conftest import SIZE, Cli, Job, photograph

KINDS = {
    "int8": ExportOptions(precision=Precision.INT8),
    "int8-tensorrt": ExportOptions(precision=Precision.INT8, target=Target.TENSORRT),
    "fp16": ExportOptions(precision=Precision.FP16),
}


@pytest.fixture(scope="module")
def exports(
    bundled_part: FinetuneResult, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, ExportResult]:
    """The bundled encoder's model in the other precisions."""
    folder = tmp_path_factory.mktemp("precision")
    return {
        name: fsad_edge.export(bundled_part, folder / f"{name}.onnx", options)
        for name, options in KINDS.items()
    }


@pytest.fixture(scope="module")
def files(exports: dict[str, ExportResult], bundled_file: Path) -> dict[str, Path]:
    """The same part in every precision."""
    return {"fp32": bundled_file, **{name: made.path for name, made in exports.items()}}


def test_a_rewritten_graph_is_compared_with_fp32(exports: dict[str, ExportResult]) -> None:
    names = ["int8 (cpu)", "int8 (tensorrt)", "fp16"]
    assert [made.precision for made in exports.values()] == names
    for name, made in exports.items():
        report = made.precision_report
        assert report is not None
        assert report.images > 180  # normal views, and more with a defect
        # The bundled weights are fp16 already.
        assert (report.normal_drift > 0) == (name != "fp16")
        assert report.flips < 0.1 * report.images
        assert min(report.ms_before, report.ms_after) > 0


def test_another_part_takes_the_ranges_and_shares_the_graph(
    files: dict[str, Path], tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / "shots").mkdir()
    rng = np.random.default_rng(1)
    for index in range(3):
        ImageOps.invert(photograph(rng)).save(tmp_path / f"shots/{index}.png")
    options = FinetuneOptions(encoder=BundledEncoder.FAST, image_size=96, rotations=1, align=False)
    part = fsad_edge.finetune(tmp_path / "shots", tmp_path / "part", options)
    file, how = tmp_path / "part.onnx", ("--precision", "int8", "--allow-drift", "1", "--json")
    made = cli("export", part.path, *how, "--ranges-of", files["int8"])
    assert made.code == 0, made.err
    assert made.json["precision"] == "int8 (cpu)"
    assert PrecisionReport(**made.json["against_fp32"]).images > 180
    with (
        Model.load(files["int8"], "cpu") as one,
        Model.load(file, "cpu", share_with=one) as other,  # scores its golden images
    ):
        assert other.shares_with(one)
        assert other.metadata.threshold != one.metadata.threshold
    for wrong in ("fp32", "fp16", "int8-tensorrt"):
        refused = replace(KINDS["int8"], ranges_of=files[wrong], force=True)
        with pytest.raises(InputError, match="both must be the same"):
            fsad_edge.export(part, file, refused)


def test_a_file_says_where_it_runs_fast(
    cli: Cli, files: dict[str, Path], bundled_part: FinetuneResult, tmp_path: Path
) -> None:
    places = {
        "fp32": "on a CPU and on a GPU",
        "fp16": "on a GPU",
        "int8": "on a CPU; for a GPU",
        "int8-tensorrt": "as a TensorRT engine",
    }
    for name, file in files.items():
        assert cli("info", file, "--json").json["runs_fast"].startswith(places[name])
        assert places[name] in cli("info", file).out
    made = cli("export", bundled_part.path, "-o", tmp_path / "again.onnx")
    assert places["fp32"] in made.out, made.err


@pytest.fixture
def built_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime says that it is built for CUDA, whose libraries are missing."""
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)


@pytest.mark.usefixtures("built_for_cuda")
def test_an_int8_file_for_the_cpu_runs_there_and_says_so(
    cli: Cli, files: dict[str, Path], job: Job
) -> None:
    outcome = cli("score", files["int8"], job.shots, "--json")
    assert outcome.code in {0, 1}, outcome.err
    assert outcome.json["provider"] == "CPUExecutionProvider"
    said = " ".join(outcome.err.split())
    assert "is an int8 file for the CPU" in said
    assert "--provider auto uses the CPU." in said
    for provider in ("auto", "cuda"):
        strict = cli("score", files["int8"], job.shots, "--strict", "--provider", provider)
        said = " ".join(strict.err.split())
        assert strict.code == 2
        assert "--strict refuses cuda" in said
        assert "take --provider cpu" in said
        assert "--precision fp16" in said
    assert cli("score", files["int8"], job.shots, "--provider", "cpu", "--strict").code in {0, 1}


@pytest.mark.usefixtures("built_for_cuda")
def test_an_int8_file_for_tensorrt_asks_for_an_engine(
    cli: Cli, files: dict[str, Path], job: Job
) -> None:
    for provider in ("auto", "cuda"):
        strict = cli("score", files["int8-tensorrt"], job.shots, "--strict", "--provider", provider)
        said = " ".join(strict.err.split())
        assert strict.code == 2
        assert "build an engine with fsad-edge build" in said
    # It is no file for the CPU either, which is taken only because there is no GPU here.
    outcome = cli("score", files["int8-tensorrt"], job.shots)
    assert "--provider auto uses the CPU and not cuda" in " ".join(outcome.err.split())
    assert "is an int8 file for TensorRT, which is not written to run fast on a CPU" in outcome.err


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_for_another_processor_says_so_on_the_cpu(
    cli: Cli, files: dict[str, Path], job: Job, kind: str
) -> None:
    told = cli("score", files[kind], job.shots, "--provider", "cpu", "--strict")
    assert told.code in {0, 1}
    assert ("not written to run fast on a CPU" in told.err) is (kind == "int8-tensorrt")
    assert ("which a CPU computes as fp32" in told.err) is (kind == "fp16")


@pytest.mark.parametrize(("kind", "share"), [("fp16", 0.3), ("int8", 0.4), ("int8-tensorrt", 0.5)])
def test_it_scores_as_fp32_does(files: dict[str, Path], job: Job, kind: str, share: float) -> None:
    """Only roughly: the plates are so similar that any rounding chooses other rows for the bank."""
    images = sorted((job.dataset / "test").rglob("*.png"))
    defective = [path.parent.name != "good" for path in images]
    assert defective.count(True) == 4
    with Model.load(files["fp32"]) as exact, Model.load(files[kind]) as other:
        expected, got = ([model.score(path).ratio for path in images] for model in (exact, other))
    assert got == pytest.approx(expected, rel=share)
    assert [ratio > 1 for ratio in expected] == [ratio > 1 for ratio in got] == defective


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
    assert len(convolutions) > 1
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
    # The reference model still comes in through inputs.
    own = read_initializers(files["fp16"].read_bytes(), REFERENCE_INPUTS)
    # Slots of the second bank hold nothing: what replaces them are patches of the images.
    (patches,) = session.run(["patches"], {"image": image})
    seen = empty_reference(1, patches.shape[-1] - 1).with_rejected_patches(
        patches[0][:REJECTED_ROWS]
    )
    changes = [{name: value * 0.5 + 0.1} for name, value in own.items() if "rejected" not in name]
    changes += [{"rejected": seen.rejected, "rejected_bias": seen.rejected_bias}]
    plain, *changed = (
        session.run(["patch_score", "image_score"], {"image": image, **reference})
        for reference in ({}, *changes)
    )
    assert len(changed) == len(REFERENCE_INPUTS) - 1
    assert all(not np.array_equal(plain, other) for other in changed)


@pytest.fixture(scope="module")
def encoder() -> EncoderGraph:
    """The bundled encoder."""
    found = bundled_encoder(bundled_name(BundledEncoder.FAST))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def graph(encoder: EncoderGraph) -> Graph:
    """Its graph without a reference model."""
    return build_scoring_graph(encoder, SIZE, SIZE, ScoreKind.PATCH, None, 8)


@given(st.integers(0, 2**32 - 1), st.sampled_from(Target))
@settings(max_examples=6, deadline=None)
def test_features_keep_their_shape(
    graph: Graph, encoder: EncoderGraph, seed: int, target: Target
) -> None:
    """Within the ranges that it was given, int8 changes the features of noise by about a tenth."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 256, (4, SIZE // 8, SIZE // 8, 3)).astype(np.uint8)
    images = cells.repeat(8, axis=1).repeat(8, axis=2)
    names = quantised_names(graph, target)
    seen = run(with_outputs(graph, names), names, images)
    ranges = {name: (float(a.min()), float(a.max())) for name, a in zip(names, seen, strict=True)}
    eight = quantize(graph, ranges, encoder.mean, encoder.std, target)
    features = [features_name(graph)]
    (expected,) = run(with_outputs(graph, features), features, images)
    (got,) = run(with_outputs(eight, features), features, images)
    assert np.linalg.norm(got - expected) < 0.25 * np.linalg.norm(expected)


def run(graph: Graph, names: list[str], images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    return OnnxSession(graph.to_bytes(), "test", "cpu").run(names, {"image": images})


def test_the_encoder_s_nodes_are_found(graph: Graph) -> None:
    kinds = [node.operator for node in encoder_nodes(graph)]
    assert kinds.count("Conv") == len([n for n in graph.nodes if n.operator == "Conv"])
    assert "TopK" not in kinds


@pytest.mark.parametrize(
    ("flips", "auroc", "holds"),
    [(0, 0.9, True), (10, 0.9, True), (11, 0.9, False), (0, 0.86, True), (0, 0.84, False)],
)
def test_what_another_precision_may_lose(flips: int, auroc: float, holds: bool) -> None:
    report = PrecisionReport(100, 0.1, 0.1, flips, 0.9, auroc, 2.0, 1.0)
    assert report.holds(0.1) == holds
    if holds:
        report.check(Precision.INT8, 0.1)
    else:
        with pytest.raises(ExportError, match="--allow-drift"):
            report.check(Precision.INT8, 0.1)


def test_a_graph_that_changes_too_much_is_not_written(job: Job, tmp_path: Path) -> None:
    none_at_all = replace(KINDS["int8"], allow_drift=0.0)
    with pytest.raises(ExportError, match="int8 changes too much"):
        fsad_edge.export(job.part, tmp_path / "part.onnx", none_at_all)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--precision", "int4"), "'fp32', 'fp16', 'int8'"),
        (("--precision", "int8", "--target", "gpu"), "'cpu', 'tensorrt'"),
    ],
)
def test_the_command_lists_the_precisions_that_there_are(
    job: Job, cli: Cli, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    done = cli("export", job.part, "-o", tmp_path / "none.onnx", *options)
    assert done.code == 2
    assert said in done.err
    with pytest.raises(InputError, match="there is no precision 'int4': take one of fp32, fp16"):
        fsad_edge.export(job.part, tmp_path / "none.onnx", precision="int4")
    assert list(tmp_path.iterdir()) == []


def test_int8_of_a_transformer_is_refused(vit_part: FinetuneResult, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="convolutional"):
        fsad_edge.export(vit_part, tmp_path / "vit.onnx", precision="int8")
    assert list(tmp_path.iterdir()) == []
