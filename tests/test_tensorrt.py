"""What can be tested of TensorRT without it: what is missing, what is refused, how it is called.

``Recorder`` replaces TensorRT's bindings where calls to the builder are tested.
``test_tensorrt_names.py`` checks that the names exist in TensorRT.
"""

from __future__ import annotations

import builtins
import dataclasses
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
from fsad_edge.deploy import build_machine, engine
from fsad_edge.deploy.build_machine import check_machine
from fsad_edge.deploy.engine import EngineResult, build_engine, header_of, rebuild_engine
from fsad_edge.deploy.engine_options import EngineOptions
from fsad_edge.deploy.engine_source import read_source
from fsad_edge.deploy.tensorrt_plan import BuildProgress
from fsad_edge.errors import ExportError, InputError, MissingExtraError, ModelFileError
from fsad_edge.learning.learner import Learner
from fsad_edge.runtime.backends import cuda, tensorrt, tensorrt_module
from fsad_edge.runtime.backends.cuda import Gpu
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.backends.providers import batch_profile, options_of
from fsad_edge.runtime.engine_file import BuildOptions, read_engine, write_engine
from fsad_edge.runtime.metadata import KEY
from fsad_edge.runtime.model import REFERENCE_INPUTS
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
    """A machine without either TensorRT, wherever this runs."""
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def file(job: Job, tmp_path: Path) -> Path:
    return Path(shutil.copy(job.file, tmp_path / "part.onnx"))


@pytest.fixture
def built(file: Path) -> Path:
    """An engine file of the model, as the build writes it, but without a real plan."""
    source = read_source(file)
    header = header_of(source, BuildOptions(), "10.3.0", ORIN)
    target = file.with_suffix(".engine")
    target.write_bytes(write_engine(header, source.reference, b"no plan"))
    return target


def change_metadata(file: Path, **changes: Any) -> None:
    """Change the metadata in an ONNX file."""
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
    refused(cli("build", file, "-o", engine_file), sentence)
    rtx = "tensorrt_rtx is not installed: run  pip install 'fsad-edge[trt-rtx]'"
    refused(cli("build", file, "--gpu", "8.9", "-o", engine_file), rtx)
    refused(cli("build", built), sentence)
    refused(cli("score", built, job.shots), sentence)
    refused(cli("bench", built), sentence)
    assert not engine_file.exists()


@pytest.mark.usefixtures("no_tensorrt")
def test_export_writes_the_onnx_file_where_tensorrt_is_missing(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    output = tmp_path / "host.onnx"
    done = cli("export", job.part, "--trt", "-o", output)
    assert done.code == 0, done.err
    assert "TensorRT is not installed" in done.out
    assert "fsad-edge build host.onnx" in done.out
    assert "pip install 'fsad-edge[trt-rtx]'" in done.out
    assert Model.load(output, "cpu").metadata.precision == "fp32"


@pytest.mark.usefixtures("no_tensorrt")
def test_a_jetson_is_told_the_name_of_its_own_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_module, "TEGRA", tmp_path)
    with pytest.raises(MissingExtraError, match="apt install python3-libnvinfer"):
        tensorrt_module.import_tensorrt()


def test_a_library_of_tensorrt_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "tensorrt":
            raise ImportError("libnvinfer.so.10: cannot open shared object file")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"does not load \(libnvinfer\.so\.10"):
        tensorrt_module.import_tensorrt()


def test_the_cuda_runtime_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_candidates", lambda: iter(["libno_such_library.so.1"]))
    cuda.load_cuda.cache_clear()
    with pytest.raises(InputError, match=r"libcudart.* sudo apt install nvidia-jetpack"):
        cuda.find_gpu()
    cuda.load_cuda.cache_clear()


# What is given


@pytest.mark.parametrize("batch", ["0", "2,1,1", "1,2", "x", "1,2,257", ""])
def test_wrong_batch_sizes_are_refused(cli: Cli, file: Path, batch: str) -> None:
    refused(cli("build", file, "--batch", batch), "take one number from 1 to 256")


def test_int8_for_a_cpu_is_refused_and_the_right_export_is_named(
    cli: Cli, job: Job, file: Path, tmp_path: Path
) -> None:
    change_metadata(file, precision="int8 (cpu)")
    refused(cli("build", file), "--precision int8 --target tensorrt", "--precision fp16")
    given = ("export", job.part, "--precision", "int8", "--trt", "-o", tmp_path / "new.onnx")
    refused(cli(*given), "--target tensorrt")


def test_files_that_no_engine_can_be_built_from_are_refused(
    cli: Cli, job: Job, tmp_path: Path, file: Path
) -> None:
    refused(cli("build", tmp_path / "missing.onnx"), "cannot be read")
    refused(cli("build", job.part), "is a model directory: run  fsad-edge export")
    other = tmp_path / "other.onnx"
    graph = onnx.helper.make_graph([], "g", [], [])
    other.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    refused(cli("build", other), "not one that  fsad-edge export  wrote")
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    refused(cli("build", file), "damaged")


def test_an_engine_is_built_again_with_its_own_options_only(cli: Cli, built: Path) -> None:
    refused(cli("build", built, "--batch", "4"), "leave out the others")


# The engine file


def test_damaged_and_stale_engines_are_refused(
    cli: Cli, job: Job, file: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = read_engine(built.read_bytes(), str(built)).header
    tensorrt.check_source(built, header)
    change_metadata(file, name="newer")
    with pytest.raises(ModelFileError, match=r"another part\.onnx .* fsad-edge build "):
        tensorrt.check_source(built, header)
    file.unlink()
    tensorrt.check_source(built, header)  # a device may hold the engine alone
    refused(cli("build", built), "part.onnx, which is not in its folder")
    built.write_bytes(built.read_bytes()[:-1])
    refused(cli("score", built, job.shots), "damaged engine file", "fsad-edge build")
    refused(cli("build", built), "damaged engine file")


def test_an_engine_of_another_machine_is_refused_with_the_command_that_builds_it(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = SimpleNamespace(__version__="10.13.3")
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda flavour: here)
    monkeypatch.setattr(tensorrt, "find_gpu", lambda: ORIN)
    with pytest.raises(ModelFileError, match=r"built by TensorRT 10\.3\.0, and this is 10\.13\.3"):
        Model.load(built)
    here.__version__ = "10.3.0"
    monkeypatch.setattr(tensorrt, "find_gpu", lambda: Gpu("Thor", "11.0", 20))
    with pytest.raises(ModelFileError, match=r"and this is Thor .*fsad-edge build .*part\.engine"):
        Model.load(built)


def test_info_reads_an_engine_on_any_machine(cli: Cli, job: Job, built: Path) -> None:
    text = cli("info", built)
    assert text.code == 0, text.err
    assert "TensorRT 10.3.0 on Orin (compute capability 8.7, 16 multiprocessors)" in text.out
    told = cli("info", built, "--json").json
    engine_part = told.pop("engine")
    of_file = cli("info", job.file, "--json").json
    assert of_file.pop("runs_fast") == "on a CPU and on a GPU"  # an engine runs on its own GPU
    assert told == of_file
    assert engine_part["key"] == read_engine(built.read_bytes(), "").header.key


def test_an_engine_runs_on_tensorrt_only(cli: Cli, job: Job, built: Path) -> None:
    refused(cli("score", built, job.shots, "--provider", "cpu"), "runs on TensorRT only")


def test_what_a_device_learned_stays_after_a_rebuild(file: Path, built: Path, job: Job) -> None:
    """The ONNX file and its engines share one folder: the journal names the ONNX file's hash."""
    image = (job.dataset / "test/good/0.png").read_bytes()
    with Model.load(file, "cpu") as model:
        with Learner.open(file, model) as learned:
            learned.add(image, "me", force=True)
        with Learner.open(built, model, write=False) as learned:
            assert len(learned.active) == 1


# The ONNX file as TensorRT reads it


def test_normal_parts_are_plain_inputs_for_tensorrt(job: Job) -> None:
    """Its parser treats initializers as constants; without them the inputs must be given."""
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
    """Replaces the bindings: it records the calls and returns fixed answers."""

    def __init__(self, plan: bytes | None = b"plan", parses: bool = True) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
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
        self.config.progress_monitor = None
        self.profile = self._object("set_shape")
        self.builder = self._object(
            create_network="network",
            create_builder_config=self.config,
            create_optimization_profile=self.profile,
            build_serialized_network=plan,
        )
        complaint = SimpleNamespace(
            desc=lambda: "no such\nthing",
            node_operator=lambda: "Gelu",
            node_name=lambda: "node_7",
        )
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


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """A machine whose TensorRT builds a plan that is not run."""
    recorder = Recorder()
    use(monkeypatch, recorder)
    monkeypatch.setattr(engine, "prove_engine", lambda data, source, target: None)
    return recorder


def use(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", recorder)
    monkeypatch.setattr(build_machine, "find_gpu", lambda: ORIN)


def test_the_builder_gets_the_options(file: Path, trt: Recorder) -> None:
    file.with_suffix(".timing").write_bytes(b"earlier timings")
    made = build_engine(file, options=EngineOptions((1, 2, 4), 256, True, True))
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
    written = read_engine(made.path.read_bytes(), "")
    assert written.plan == b"plan"
    assert written.header.options == made.options == BuildOptions((1, 2, 4), 256, True, True)
    for name, value in read_initializers(file.read_bytes()).items():
        if name in REFERENCE_INPUTS:
            np.testing.assert_array_equal(written.reference[name], value)


@pytest.mark.usefixtures("trt")
def test_an_engine_is_built_once_and_again_where_that_is_forced(file: Path) -> None:
    first, second = build_engine(file), build_engine(file)
    assert (first.built, second.built) == (True, False)
    assert first.key == second.key
    other = EngineOptions(batch=(4, 4, 4))
    with pytest.raises(InputError, match="exists: add --force"):
        build_engine(file, options=other)
    forced = build_engine(file, options=EngineOptions(batch=(4, 4, 4), force=True))
    assert forced.built
    assert forced.key != first.key


@pytest.mark.usefixtures("trt")
def test_the_command_prints_what_the_library_returns(cli: Cli, file: Path) -> None:
    done = cli("build", file, "--batch", "1,2,4", "--json")
    assert done.code == 0, done.err
    made = build_engine(file, options=EngineOptions(batch=(1, 2, 4)))
    again = cli("build", file, "--batch", "1,2,4", "--json").json
    assert done.json["built"]
    assert not again["built"]
    assert again == json.loads(json.dumps(made.to_json()))
    assert "is built already" in cli("build", file, "--batch", "1,2,4").out


@pytest.mark.usefixtures("trt")
def test_an_engine_is_built_again_as_it_was_built(cli: Cli, file: Path) -> None:
    first = build_engine(file, file.with_name("line.engine"), EngineOptions((2, 2, 2), 256))
    first.path.write_bytes(
        write_engine(read_engine(first.path.read_bytes(), "").header, {}, b"older plan")
    )
    second: EngineResult = rebuild_engine(first)
    assert second.built
    assert (second.path, second.options) == (first.path, first.options)
    assert read_engine(first.path.read_bytes(), "").plan == b"plan"
    done = cli("build", first.path, "--json")
    assert done.json["options"] == json.loads(json.dumps(dataclasses.asdict(first.options)))


@pytest.mark.usefixtures("trt")
def test_a_file_without_golden_images_is_warned_of(file: Path) -> None:
    change_metadata(file, golden=[])
    warned: list[str] = []
    made = build_engine(file, on_warning=warned.append)
    assert warned == list(made.warnings)
    assert "no golden images" in warned[0]


@pytest.mark.parametrize(
    ("recorder", "sentence"),
    [
        (
            Recorder(parses=False),
            r"does not take .* \(Gelu node_7: no such thing\): export the model",
        ),
        (Recorder(plan=None), r"cannot build .*: take a larger --workspace"),
    ],
)
def test_a_refusal_of_tensorrt_is_one_sentence(
    file: Path, monkeypatch: pytest.MonkeyPatch, recorder: Recorder, sentence: str
) -> None:
    use(monkeypatch, recorder)
    with pytest.raises(ExportError, match=sentence):
        build_engine(file)
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
    """The golden images are scored by an ONNX file in the engine's place, with other scores."""
    change_metadata(file, precision=precision)
    document = json.loads(read_metadata(file.read_bytes())[KEY])
    wrong = [{**golden, "score": golden["score"] * 1.5} for golden in document["golden"]]
    wrong_file = replace(file.read_bytes(), {}, {KEY: json.dumps({**document, "golden": wrong})})
    monkeypatch.setattr(engine, "write_engine", lambda *given: wrong_file)
    use(monkeypatch, Recorder())
    with pytest.raises(ExportError, match=f"does not score as the model does.*not kept; {instead}"):
        build_engine(file)
    assert not file.with_suffix(".engine").exists()


@pytest.mark.usefixtures("trt")
def test_a_jetson_has_no_hardware_compatibility(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_machine, "TEGRA", tmp_path)
    check_machine(EngineOptions())
    with pytest.raises(InputError, match="not available on a Jetson"):
        check_machine(EngineOptions(hardware_compatible=True))


class Stop(BaseException):
    """What a caller raises to stop a build."""


@pytest.mark.parametrize("stopped_at", ["build", "TensorRT"])
def test_an_exception_of_the_callback_stops_the_build(
    file: Path, trt: Recorder, stopped_at: str
) -> None:
    """TensorRT loses exceptions: it is told to stop, and then the exception is raised again."""
    went_on: list[bool] = []

    def build(network: Any, config: Any) -> bytes | None:
        monitor = config.progress_monitor
        monitor.phase_start("build", None, 2)
        went_on.append(monitor.step_complete("build", 0))
        monitor.phase_finish("build")
        return b"plan" if went_on[0] else None

    def stop(phase: str, fraction: float) -> None:
        if phase == stopped_at:
            raise Stop

    trt.builder.build_serialized_network = build
    with pytest.raises(Stop):
        build_engine(file, on_progress=stop)
    assert went_on == [stopped_at != "build"]
    assert not file.with_suffix(".engine").exists()


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.data())
def test_progress_rises_to_the_end_of_the_outermost_phase(
    steps: list[int], data: st.DataObject
) -> None:
    """Phases contain phases, and each may end before all of its steps are done."""
    told: list[float] = []
    phases = BuildProgress(lambda phase, fraction: told.append(fraction))

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
    assert phases.step("unknown", 3)


# ONNX Runtime's providers


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_missing_provider_is_an_error_that_says_why(
    cli: Cli, job: Job, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    outcome = cli("score", job.file, job.shots, "--provider", provider)
    refused(outcome, f"cannot use {provider}: the installed onnxruntime has CPU only")
    assert not outcome.out


def test_auto_warns_when_it_takes_the_cpu(
    cli: Cli, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The onnxruntime is built for CUDA, and the machine lacks CUDA's libraries."""
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    outcome = cli("score", job.file, job.shots, "--json")
    assert outcome.code in {0, 1}, outcome.err
    assert outcome.json["provider"] == "CPUExecutionProvider"
    assert "--provider auto uses the CPU and not cuda" in outcome.err
    refused(cli("score", job.file, job.shots, "--strict"), "--provider auto cannot use cuda: ")
    refused(cli("bench", job.file, "--strict", "--runs", "1"), "cannot use cuda: ")


def test_strict_accepts_the_cpu_where_it_is_named(cli: Cli, job: Job) -> None:
    assert cli("score", job.file, job.shots, "--provider", "cpu", "--strict").code in {0, 1}


def test_engines_of_onnx_runtime_are_cached_and_built_for_batches(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    options = options_of("tensorrt", str(job.file))
    assert options["trt_engine_cache_path"] == str(job.file.with_suffix(".tensorrt"))
    for most, largest in ((1, 8), (32, 32)):
        profile = batch_profile(job.file.read_bytes(), most)
        assert profile["trt_profile_max_shapes"] == f"image:{largest}x64x64x3"
    assert os.environ.pop("NVIDIA_TF32_OVERRIDE") == "0"
    assert options_of("cuda", "")["use_tf32"] == "0"
    assert options_of("cpu", "") == {}
