"""TensorRT's paths as far as they go without it: each missing piece, each refusal, what is printed.

``Recorder`` stands in for TensorRT's bindings where the order of calls to the builder is what is
tested, and computes nothing; that the names are TensorRT's own is for ``test_tensorrt_names.py``.
"""

from __future__ import annotations

import builtins
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsad_edge import Model
from fsad_edge.deploy import engine
from fsad_edge.deploy.engine import REFERENCE_INPUTS, Phases
from fsad_edge.errors import ExportError, InputError, MissingExtraError
from fsad_edge.learning.learner import Learner
from fsad_edge.runtime import cuda, tensorrt_session
from fsad_edge.runtime.backends.cuda import Gpu
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.backends.providers import options_of
from fsad_edge.runtime.engine_file import BuildOptions, read_engine, write_engine
from fsad_edge.runtime.metadata import KEY
from fsad_edge.runtime.onnx_file import (
    read_initializers,
    read_metadata,
    replace,
    without_initializers,
)
from tests.conftest import Cli, Job, Outcome

ORIN = Gpu("Orin", "8.7", 16)


def refused(outcome: Outcome, *sentences: str) -> None:
    assert outcome.code == 2, outcome
    assert "error: " in outcome.err, outcome.err
    assert "Traceback" not in outcome.err
    for sentence in sentences:
        assert sentence in outcome.err, outcome.err


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without it, wherever this runs."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)


@pytest.fixture
def file(job: Job, tmp_path: Path) -> Path:
    return Path(shutil.copy(job.file, tmp_path / "part.onnx"))


@pytest.fixture
def built(file: Path) -> Path:
    """An engine file of the model, as the build writes it; its plan is none."""
    source = engine.read_source(file)
    header = engine.header_of(source, BuildOptions(), "10.3.0", ORIN)
    target = file.with_suffix(".engine")
    target.write_bytes(write_engine(header, source.reference, b"no plan"))
    return target


def described(file: Path, **changes: Any) -> None:
    """Change what an ONNX file says of itself."""
    data = file.read_bytes()
    document = {**json.loads(read_metadata(data)[KEY]), **changes}
    file.write_bytes(replace(data, {}, {KEY: json.dumps(document)}))


# What is missing


@pytest.mark.usefixtures("no_tensorrt")
def test_every_command_says_that_tensorrt_is_missing(
    cli: Cli, job: Job, file: Path, built: Path, tmp_path: Path
) -> None:
    sentence = "tensorrt is not installed: run  pip install 'fsad-edge[trt]'"
    engine_file = tmp_path / "new.engine"
    refused(cli("export", file, "--trt", "-o", engine_file), sentence)
    refused(cli("export", built, "--rebuild"), sentence)
    refused(cli("score", built, job.shots), sentence)
    refused(cli("bench", built), sentence)
    assert not engine_file.exists()
    # The host is told before it has worked for minutes, and writes nothing.
    output = tmp_path / "host.onnx"
    refused(cli("export", job.part, "--trt", "-o", output), sentence)
    assert not output.exists()


@pytest.mark.usefixtures("no_tensorrt")
def test_a_jetson_is_told_of_its_own_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_session, "TEGRA", tmp_path)
    with pytest.raises(MissingExtraError, match="apt install python3-libnvinfer"):
        tensorrt_session.import_tensorrt()


def test_a_library_of_tensorrt_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "tensorrt":
            raise ImportError("libnvinfer.so.10: cannot open shared object file")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"does not load \(libnvinfer\.so\.10"):
        tensorrt_session.import_tensorrt()


def test_the_cuda_runtime_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_candidates", lambda: iter(["libno_such_library.so.1"]))
    cuda.load_cuda.cache_clear()
    with pytest.raises(InputError, match=r"libcudart.* sudo apt install nvidia-jetpack"):
        cuda.find_gpu()
    cuda.load_cuda.cache_clear()


# What is given


@pytest.mark.parametrize("batch", ["0", "2,1,1", "1,2", "x", "1,2,257", ""])
def test_batch_sizes_that_are_none(cli: Cli, file: Path, batch: str) -> None:
    refused(cli("export", file, "--trt", "--batch", batch), "take one number from 1 to 256")


def test_int8_for_a_cpu_is_refused_with_the_export_to_take(
    cli: Cli, job: Job, file: Path, tmp_path: Path
) -> None:
    described(file, precision="int8 (cpu)")
    sentence = "--precision int8 --target tensorrt"
    refused(cli("export", file, "--trt"), sentence, "--precision fp16")
    given = ("export", job.part, "--precision", "int8", "--trt", "-o", tmp_path / "new.onnx")
    refused(cli(*given), "--target tensorrt")


def test_files_that_no_engine_can_be_built_from(cli: Cli, tmp_path: Path, file: Path) -> None:
    refused(cli("export", tmp_path / "none.onnx", "--trt"), "cannot be read")
    foreign = tmp_path / "foreign.onnx"
    graph = onnx.helper.make_graph([], "g", [], [])
    foreign.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    refused(cli("export", foreign, "--trt"), "is not a file that  fsad-edge export  wrote")
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    refused(cli("export", file, "--trt"), "damaged")
    refused(cli("export", file), "not a model directory")


# The engine file


def test_damaged_and_stale_engines_are_refused(
    cli: Cli, job: Job, file: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = read_engine(built.read_bytes(), str(built)).header
    tensorrt_session.check_source(built, header)
    described(file, name="newer")
    with pytest.raises(Exception, match=r"built from another part\.onnx .* --rebuild"):
        tensorrt_session.check_source(built, header)
    file.unlink()
    tensorrt_session.check_source(built, header)  # alone on a device it has no rival
    refused(cli("export", built, "--rebuild"), "part.onnx, which is not beside it: bring it there")
    built.write_bytes(built.read_bytes()[:-1])
    refused(cli("score", built, job.shots), "damaged engine file", "--trt --force")
    refused(cli("export", built, "--rebuild"), "damaged engine file")


def test_an_engine_from_elsewhere_is_refused_with_the_command(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = SimpleNamespace(__version__="10.13.3")
    monkeypatch.setattr(tensorrt_session, "import_tensorrt", lambda: here)
    monkeypatch.setattr(tensorrt_session, "find_gpu", lambda: ORIN)
    with pytest.raises(Exception, match=r"built by TensorRT 10\.3\.0, and this is 10\.13\.3: run"):
        Model.load(built)
    here.__version__ = "10.3.0"
    monkeypatch.setattr(tensorrt_session, "find_gpu", lambda: Gpu("Thor", "11.0", 20))
    with pytest.raises(Exception, match=r"and this is Thor .*fsad-edge export .* --rebuild\.$"):
        Model.load(built)


def test_info_reads_an_engine_anywhere(cli: Cli, job: Job, built: Path) -> None:
    text = cli("info", built)
    assert text.code == 0, text.err
    assert "TensorRT 10.3.0 on Orin (compute capability 8.7, 16 multiprocessors)" in text.out
    told = cli("info", built, "--json").json
    engine_part = told.pop("engine")
    assert told == cli("info", job.file, "--json").json
    assert engine_part["key"] == read_engine(built.read_bytes(), "").header.key


def test_an_engine_runs_on_tensorrt_alone(cli: Cli, job: Job, built: Path) -> None:
    refused(cli("score", built, job.shots, "--provider", "cpu"), "runs on TensorRT alone")


def test_what_is_learned_outlives_a_rebuild(file: Path, built: Path, job: Job) -> None:
    """The ONNX file and its engines share one folder: the journal names the ONNX file's hash."""
    image = next(job.shots.glob("*.png")).read_bytes()
    with Model.load(file, "cpu") as model:
        with Learner.open(file, model) as learned:
            learned.add(image, "me")
        with Learner.open(built, model, write=False) as learned:
            assert len(learned.active) == 1


# The ONNX file as TensorRT is given it


def test_normal_parts_are_plain_inputs_for_tensorrt(job: Job) -> None:
    """Its parser takes initializers for constants; without them the inputs must be fed."""
    data = job.file.read_bytes()
    bare = without_initializers(data, REFERENCE_INPUTS)
    onnx.checker.check_model(onnx.load_from_string(bare))
    reference = {name: read_initializers(data)[name] for name in REFERENCE_INPUTS}
    assert not set(read_initializers(bare)) & set(REFERENCE_INPUTS)
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    before = OnnxSession(data, "before", "cpu").run(["score"], {"image": image})
    after = OnnxSession(bare, "after", "cpu").run(["score"], {"image": image, **reference})
    np.testing.assert_array_equal(before[0], after[0])
    with pytest.raises(Exception, match="bank"):
        OnnxSession(bare, "after", "cpu").run(["score"], {"image": image})


# The build


class Recorder:
    """Stands in for the bindings: writes down what is called, gives back what it is told to."""

    def __init__(self, plan: bytes | None = b"plan", parses: bool = True) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.plan, self.parses = plan, parses
        self.__version__ = "10.3.0"
        self.ILogger = self.IProgressMonitor = object_with_init()
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.BuilderFlag = SimpleNamespace(TF32="tf32", VERSION_COMPATIBLE="version")
        self.HardwareCompatibilityLevel = SimpleNamespace(AMPERE_PLUS="ampere")
        self.config = self._object(
            *("set_memory_pool_limit", "clear_flag", "set_flag", "add_optimization_profile"),
            create_timing_cache="cache",
            set_timing_cache=True,
            get_timing_cache=SimpleNamespace(serialize=lambda: b"timings"),
        )
        self.profile = self._object("set_shape")
        self.builder = self._object(
            create_network="network",
            create_builder_config=self.config,
            create_optimization_profile=self.profile,
            build_serialized_network=plan,
        )
        complaint = SimpleNamespace(desc=lambda: "no such\nthing", node_operator=lambda: "Gelu")
        self.parser = self._object(parse=parses, get_error=complaint)
        self.parser.num_errors = 1

    def _object(self, *silent: str, **answers: Any) -> Any:
        def method(name: str, answer: Any) -> Any:
            def call(*arguments: Any) -> Any:
                self.calls.append((name, arguments))
                return answer

            return call

        methods = {**dict.fromkeys(silent), **answers}
        return SimpleNamespace(**{name: method(name, each) for name, each in methods.items()})

    def Builder(self, logger: Any) -> Any:  # noqa: N802
        return self.builder

    def OnnxParser(self, network: Any, logger: Any) -> Any:  # noqa: N802
        return self.parser


def object_with_init() -> type:
    return type("Base", (), {})


def run_build(
    monkeypatch: pytest.MonkeyPatch, trt: Recorder, file: Path, options: BuildOptions
) -> Path:
    monkeypatch.setattr(engine, "check_machine", lambda given: (trt, ORIN))
    target = file.with_suffix(".engine")
    source = engine.read_source(file)
    timings = file.with_suffix(".timing")
    engine.build(source, target, options, timings, lambda phase, done: None, lambda: False)
    return target


def test_the_builder_is_told_what_was_asked_for(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = Recorder()
    monkeypatch.setattr(engine, "_prove", lambda data, source, target: None)  # no plan to run
    file.with_suffix(".timing").write_bytes(b"earlier timings")
    target = run_build(monkeypatch, trt, file, BuildOptions((1, 2, 4), 256, True, True))
    assert [name for name, _ in trt.calls] == [
        *("create_network", "parse", "create_builder_config", "set_memory_pool_limit"),
        *("clear_flag", "set_flag", "create_optimization_profile", "set_shape"),
        *("add_optimization_profile", "create_timing_cache", "set_timing_cache"),
        *("build_serialized_network", "get_timing_cache"),
    ]
    calls = dict(trt.calls)
    assert calls["create_network"] == (2,)  # strongly typed
    assert calls["clear_flag"] == ("tf32",)
    assert calls["set_memory_pool_limit"] == ("workspace", 256 << 20)
    assert calls["set_shape"] == ("image", *((batch, 64, 64, 3) for batch in (1, 2, 4)))
    assert calls["create_timing_cache"] == (b"earlier timings",)
    assert trt.config.hardware_compatibility_level == "ampere"
    assert file.with_suffix(".timing").read_bytes() == b"timings"
    (graph,) = calls["parse"]
    assert not set(read_initializers(graph)) & set(REFERENCE_INPUTS)
    written = read_engine(target.read_bytes(), "")
    assert written.plan == b"plan"
    assert written.header.options == BuildOptions((1, 2, 4), 256, True, True)
    for name, value in read_initializers(file.read_bytes()).items():
        if name in REFERENCE_INPUTS:
            np.testing.assert_array_equal(written.reference[name], value)
    source = engine.read_source(file)
    again = engine.header_of(source, written.header.options, "10.3.0", ORIN)
    assert engine.is_built(target, again)
    assert not engine.is_built(target, engine.header_of(source, BuildOptions(), "10.3.0", ORIN))


@pytest.mark.parametrize(
    ("trt", "sentence"),
    [
        (Recorder(parses=False), r"does not take .* \(Gelu: no such thing\): export the model"),
        (Recorder(plan=None), r"cannot build .*: try a larger --workspace"),
    ],
)
def test_tensorrt_refuses(
    file: Path, monkeypatch: pytest.MonkeyPatch, trt: Recorder, sentence: str
) -> None:
    with pytest.raises(ExportError, match=sentence):
        run_build(monkeypatch, trt, file, BuildOptions())
    assert not file.with_suffix(".engine").exists()


@pytest.mark.parametrize(
    ("precision", "instead"),
    [
        ("int8 (tensorrt)", "export with  --precision fp16"),
        ("fp16", "export with  --precision fp32 .*issue 4723"),
        ("fp32", "score with the ONNX file"),
    ],
)
def test_an_engine_that_misses_its_golden_scores_is_not_kept(
    file: Path, monkeypatch: pytest.MonkeyPatch, precision: str, instead: str
) -> None:
    """The proof runs for real, on an ONNX file in the engine's place whose scores are others."""
    described(file, precision=precision)
    document = json.loads(read_metadata(file.read_bytes())[KEY])
    wrong = [{**golden, "score": golden["score"] * 1.5} for golden in document["golden"]]
    wrong_file = replace(file.read_bytes(), {}, {KEY: json.dumps({**document, "golden": wrong})})
    monkeypatch.setattr(engine, "write_engine", lambda *given: wrong_file)
    with pytest.raises(ExportError, match=f"does not score as the model does.*not kept; {instead}"):
        run_build(monkeypatch, Recorder(), file, BuildOptions())
    assert not file.with_suffix(".engine").exists()


def test_no_hardware_compatibility_on_a_jetson(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "import_tensorrt", Recorder)
    monkeypatch.setattr(engine, "find_gpu", lambda: ORIN)
    monkeypatch.setattr(engine, "TEGRA", tmp_path)
    engine.check_machine(BuildOptions())
    with pytest.raises(InputError, match="not to be had on a Jetson"):
        engine.check_machine(BuildOptions(hardware_compatible=True))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.data())
def test_progress_rises_to_the_end_of_the_outermost_phase(
    steps: list[int], data: st.DataObject
) -> None:
    """Phases within phases; each may end before all of its steps are done."""
    told: list[float] = []
    phases = Phases(lambda phase, fraction: told.append(fraction), lambda: False)

    def run(depth: int, parent: str | None) -> None:
        name = f"phase {depth}"
        phases.start(name, parent, steps[depth])
        for step in range(steps[depth]):
            if depth + 1 < len(steps):
                run(depth + 1, name)
            assert phases.step(name, step)
            if depth and data.draw(st.booleans()):
                break
        phases.finish(name)

    run(0, None)
    assert all(0 <= fraction <= 1 for fraction in told)
    assert told[0] == 0
    assert told[-1] == 1
    assert phases.step("unheard of", 3)


def test_a_build_can_be_stopped() -> None:
    phases = Phases(lambda phase, fraction: None, lambda: True)
    phases.start("all", None, 2)
    assert not phases.step("all", 0)


# ONNX Runtime's providers


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_is_an_error_that_says_why(
    cli: Cli, job: Job, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    outcome = cli("score", job.file, job.shots, "--provider", provider)
    refused(outcome, f"cannot have {provider}: the onnxruntime that is installed has CPU alone")
    assert not outcome.out


def test_auto_never_falls_to_the_cpu_in_silence(
    cli: Cli, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An onnxruntime that is built for CUDA, and a machine whose libraries are missing."""
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    outcome = cli("score", job.file, job.shots, "--json")
    assert outcome.code in {0, 1}, outcome.err
    assert outcome.json["provider"] == "CPUExecutionProvider"
    assert "--provider auto took the CPU and not cuda" in outcome.err
    refused(cli("score", job.file, job.shots, "--strict"), "--provider auto cannot have cuda: ")
    refused(cli("bench", job.file, "--strict", "--runs", "1"), "cannot have cuda: ")


def test_strict_asks_nothing_of_a_cpu(cli: Cli, job: Job) -> None:
    assert cli("score", job.file, job.shots, "--provider", "cpu", "--strict").code in {0, 1}


def test_engines_inside_onnx_runtime_are_kept_and_built_for_batches(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    options = options_of("tensorrt", job.file.read_bytes(), str(job.file))
    assert options["trt_engine_cache_path"] == str(job.file.with_suffix(".tensorrt"))
    assert options["trt_profile_max_shapes"] == "image:8x64x64x3"
    assert os.environ.pop("NVIDIA_TF32_OVERRIDE") == "0"
    assert options_of("cuda", b"", "") == {"use_tf32": "0"}
    assert options_of("cpu", b"", "") == {}
