"""Tests that need a GPU, TensorRT or a Jetson, but no torch.

    make hardware MODEL=part.onnx

runs them on the machine and prints a report. Tests without their hardware are skipped.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsad_edge import Model
from fsad_edge.bench.latency import interleave
from fsad_edge.bench.machine import peak_memory
from fsad_edge.bench.power import measure_power, power_mode, read_clocks
from fsad_edge.errors import FsadEdgeError
from fsad_edge.options import Provider
from fsad_edge.runtime.backends.cuda import find_gpu, free_memory
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.backends.tensorrt import TensorrtSession
from fsad_edge.runtime.backends.tensorrt_module import TEGRA, find_flavour, import_tensorrt
from fsad_edge.runtime.bank import empty_reference
from fsad_edge.runtime.engine_file import Flavour
from fsad_edge.runtime.model import ScoringState
from fsad_edge.runtime.where_fast import why_slow


def why_no_gpu() -> str:
    try:
        find_gpu()
    except FsadEdgeError as error:
        return str(error)
    return ""


def why_no_tensorrt() -> str:
    """Why no engine is built and run here, by neither TensorRT."""
    try:
        import_tensorrt(find_flavour())
    except FsadEdgeError as error:
        return str(error)
    return why_no_gpu()


needs_gpu = pytest.mark.skipif(bool(why_no_gpu()), reason=why_no_gpu())
needs_tensorrt = pytest.mark.skipif(bool(why_no_tensorrt()), reason=why_no_tensorrt())
needs_versions = pytest.mark.skipif(
    find_flavour() == Flavour.RTX, reason="engines of TensorRT for RTX run on one version"
)
needs_jetson = pytest.mark.skipif(not TEGRA.exists(), reason="this machine is no Jetson")


def build(*arguments: str | Path) -> dict[str, Any]:
    """Run ``fsad-edge build``; what it prints as JSON.

    Where the file or the GPU is none for TensorRT, the test is skipped with the reason.
    """
    command = [sys.executable, "-m", "fsad_edge.cli", "build", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "holds int8 for a CPU" in " ".join(done.stderr.split()):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    if document["unproved"] is not None:  # built ahead of time, for other GPUs
        pytest.skip(document["unproved"])
    return document


def noise(model: Model, count: int) -> np.ndarray:
    size = (count, model.metadata.height, model.metadata.width, 3)
    return np.random.default_rng(0).integers(0, 256, size, np.uint8)


def scores(model: Model, images: np.ndarray) -> np.ndarray:
    return np.array([result.score for result in model.score_prepared(images)])


def differences(one: Model, other: Model) -> float:
    """The largest difference of two models' scores of noise, relative to the threshold."""
    images = noise(one, 5)
    drift = np.abs(scores(one, images) - scores(other, images))
    return float(drift.max() / one.metadata.threshold.value)


def latency(models: dict[str, Model]) -> dict[str, float]:
    """Median milliseconds of one image at the model's size; the models take turns."""
    image = noise(next(iter(models.values())), 1)

    def call(model: Model) -> Any:
        return lambda repetition: model.score_prepared(image)[0].timings

    run = interleave({name: call(model) for name, model in models.items()}, seconds=5.0)
    return {name: float(np.median(samples.total)) for name, samples in run.samples.items()}


@pytest.fixture(scope="module")
def engine(
    model_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Model, dict[str, Any]]]:
    target = tmp_path_factory.mktemp("engine") / "part.engine"
    document = build(model_file, "-o", target)
    with Model.load(target) as model:  # scores its golden images
        yield model, document


@pytest.fixture
def file_for_cuda(model_file: Path) -> Path:
    """The file, where CUDA is there and runs it fast."""
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is not built for CUDA: pip install onnxruntime-gpu")
    with Model.load(model_file, "cpu", golden=False) as model:
        slow = why_slow(model.metadata.precision, Provider.CUDA)
    if slow is not None:
        pytest.skip(f"{model_file.name} {slow}")
    return model_file


@pytest.mark.gpu
@needs_gpu
def test_cuda_scores_like_the_cpu(file_for_cuda: Path, report: dict[str, Any]) -> None:
    model_file = file_for_cuda
    with Model.load(model_file, "cuda", strict=True) as cuda, Model.load(model_file, "cpu") as cpu:
        assert cuda.provider == "CUDAExecutionProvider"
        report["largest difference over threshold"] = difference = differences(cpu, cuda)
        report["ms"] = latency({"cuda": cuda, "cpu": cpu})
    assert difference < 0.02


@pytest.mark.gpu
@needs_gpu
def test_cuda_runs_every_batch_size_as_a_cuda_graph(
    file_for_cuda: Path, report: dict[str, Any]
) -> None:
    before = free_memory()
    with (
        Model.load(file_for_cuda, "cuda", strict=True, max_batch=8) as cuda,
        Model.load(file_for_cuda, "cpu") as cpu,
    ):
        report["bytes"] = [before, free_memory()]
        assert isinstance(cuda._session, OnnxSession)
        assert cuda._session.sizes == (1, 2, 4, 8)
        assert cuda.notice is None  # every size was captured
        images = noise(cpu, 11)
        expected, threshold = scores(cpu, images), cpu.threshold
        for count in (1, 3, 8, 11):
            drift = np.abs(scores(cuda, images[:count]) - expected[:count]).max()
            assert drift < 0.02 * threshold
        another = empty_reference(*cpu.reference.bank.shape)
        for model in (cuda, cpu):
            model.set_state(ScoringState(threshold, 1.0, another.as_inputs()))
        np.testing.assert_allclose(scores(cuda, images), scores(cpu, images), rtol=0.05)
        for model in (cuda, cpu):
            own = cpu.reference.as_inputs()
            model.set_state(ScoringState(threshold, 1.0, own))
        assert np.abs(scores(cuda, images) - expected).max() < 0.02 * threshold

        def call(count: int) -> Any:
            return lambda repetition: cuda.score_prepared(images[:count])[0].timings

        run = interleave({str(count): call(count) for count in (1, 2, 4, 8)}, seconds=5.0)
        report["ms, sizes in turns"] = {
            name: float(np.median(each.total)) for name, each in run.samples.items()
        }


@pytest.mark.trt
@needs_tensorrt
def test_an_engine_is_built_and_scores_its_golden_images(
    engine: tuple[Model, dict[str, Any]], report: dict[str, Any]
) -> None:
    model, document = engine
    report.update(document)
    assert model.provider == find_flavour().words
    assert isinstance(model._session, TensorrtSession)
    report["cuda graph"] = model._session.graph
    report["ms"] = latency({"engine": model})
    assert document["built"]
    assert model._session.graph  # the batch is fixed


@pytest.mark.trt
@needs_tensorrt
def test_an_onnx_file_of_the_same_graph_runs_in_the_engine(
    engine: tuple[Model, dict[str, Any]], model_file: Path, report: dict[str, Any]
) -> None:
    one = Model.load(engine[1]["output"])  # not the fixture's, which other tests use
    other = Model.load(model_file, share_with=one)  # scores its golden images
    assert other.shares_with(one)
    images = noise(one, 2)
    expected = scores(one, images)
    another = empty_reference(*one.reference.bank.shape)
    one.set_state(ScoringState(1.0, 1.0, another.as_inputs()))
    assert np.abs(scores(one, images) - expected).max() > 0.1
    np.testing.assert_array_equal(scores(other, images), expected)
    image = noise(one, 1)
    models = [one, other]
    run = interleave(
        {
            "the same bank": lambda _: other.score_prepared(image)[0].timings,
            "alternating banks": lambda turn: models[turn % 2].score_prepared(image)[0].timings,
        },
        seconds=5.0,
    )
    report["ms"] = {name: float(np.median(each.total)) for name, each in run.samples.items()}


@pytest.mark.trt
@needs_tensorrt
def test_an_engine_scores_like_onnx_runtime(
    engine: tuple[Model, dict[str, Any]], model_file: Path, report: dict[str, Any]
) -> None:
    pytest.importorskip("onnxruntime")
    with Model.load(model_file, "cpu") as cpu:
        report["largest difference over threshold"] = difference = differences(cpu, engine[0])
        report["ms"] = latency({"engine": engine[0], "cpu": cpu})
    assert difference < (0.02 if cpu.metadata.precision == "fp32" else 0.2)


@pytest.mark.trt
@needs_tensorrt
def test_a_dynamic_profile_takes_batches_of_every_size(
    engine: tuple[Model, dict[str, Any]], model_file: Path, tmp_path: Path
) -> None:
    images = noise(engine[0], 9)
    alone = scores(engine[0], images)  # in pieces of one
    target = tmp_path / "dynamic.engine"
    build(model_file, "--batch", "2,3,4", "-o", target)
    with Model.load(target) as dynamic:
        for count in (1, 2, 3, 4, 5, 9):
            together = scores(dynamic, images[:count])
            np.testing.assert_allclose(together, alone[:count], rtol=0.05)


@pytest.mark.trt
@needs_tensorrt
def test_the_reference_model_can_be_replaced(engine: tuple[Model, dict[str, Any]]) -> None:
    model = Model.load(engine[1]["output"])  # not the fixture's, which other tests use
    images = noise(model, 1)
    before, found = scores(model, images), model.embed(images)
    assert isinstance(model._session, TensorrtSession)
    shapes = {name: tuple(model._session.inputs[name]) for name in ("bank", "gaussian_mean")}
    assert shapes == {name: getattr(model.reference, name).shape for name in shapes}
    own = dataclasses.replace(
        model.reference.with_patches(found["patches"][0][: shapes["bank"][0]]),
        gaussian_mean=found["embedding"][0],
    )
    threshold = model.metadata.threshold.value
    map_threshold = model.metadata.map_threshold
    model.set_state(ScoringState(threshold, map_threshold, own.as_inputs()))
    after = scores(model, images)
    assert after[0] < before[0]  # the image is close to its own patches
    # Embedding always uses the file's own reference model.
    again = model.embed(images)
    np.testing.assert_allclose(again["patch_score"], found["patch_score"], rtol=1e-5)


@pytest.mark.trt
@needs_tensorrt
def test_an_engine_is_built_once_unless_that_is_forced(model_file: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(model_file, tmp_path / "part.onnx"))
    first, second, third = build(file), build(file), build(file, "--force")
    assert [each["built"] for each in (first, second, third)] == [True, False, True]
    again = build(file.with_suffix(".engine"))
    assert again["built"]
    assert again["key"] == first["key"]
    measured = find_flavour() == Flavour.TENSORRT
    assert file.with_suffix(".timing").exists() == measured


@pytest.mark.trt
@needs_versions
@needs_tensorrt
def test_a_version_compatible_engine_loads(model_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "part.engine"
    build(model_file, "--version-compatible", "-o", target)
    Model.load(target)


@pytest.mark.jetson
@needs_jetson
@needs_tensorrt
def test_power_clocks_and_memory_of_a_jetson(
    engine: tuple[Model, dict[str, Any]], report: dict[str, Any]
) -> None:
    image = noise(engine[0], 1)

    def call(repetition: int) -> dict[str, float]:
        return engine[0].score_prepared(image)[0].timings

    report["mode"], report["clocks"] = power_mode(), read_clocks()
    power = measure_power({"engine": call}, seconds=5.0)
    report["power"] = dataclasses.asdict(power) if power else None
    report["peak bytes"] = peak_memory()
    report["ms"] = latency({"engine": engine[0]})
    assert report["mode"] is not None
    assert report["clocks"]
