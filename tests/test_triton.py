"""A model repository for Triton, checked with Triton's own schema and with the ONNX file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from fsad_edge import Metadata
from fsad_edge.runtime.documents import from_document
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.images import load_resized
from fsad_edge.runtime.metadata import KEY, Judgement
from fsad_edge.runtime.onnx_file import read_metadata, replace
from tests.conftest import SIZE, Cli, Job
from tests.serving import serving, wait_until

model_config_pb2 = pytest.importorskip(
    "tritonclient.grpc.model_config_pb2", reason="needs tritonclient[grpc]"
)
from google.protobuf import text_format  # type: ignore[import-untyped]  # noqa: E402

#: ONNX Runtime's names of types, and Triton's.
TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
DOCUMENT = Path(__file__).parents[1] / "docs" / "triton.md"


@pytest.fixture
def file(job: Job, tmp_path: Path) -> Path:
    return Path(shutil.copy(job.file, tmp_path / "part.onnx"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def metadata_of(file: Path) -> Metadata:
    return Metadata.from_json(read_metadata(file.read_bytes())[KEY], str(file))


def changed(file: Path, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The bytes of the file with changed metadata."""
    document = json.loads(read_metadata(file.read_bytes())[KEY])
    change(document)
    return replace(file.read_bytes(), {}, {KEY: json.dumps(document)})


def read_config(model: Path) -> Any:
    """Read a configuration with Triton's schema: an unknown field or value is an error."""
    text = (model / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_configuration_describes_the_file(file: Path, repository: Path, cli: Cli) -> None:
    done = cli("triton", file, repository, "--batch", "1,4,6", "--json")
    assert done.code == 0, done.err
    model = repository / "part"
    assert done.json["output"] == str(model / "1" / "model.onnx")
    assert (model / "1" / "model.onnx").read_bytes() == file.read_bytes()
    assert {path.name for path in model.iterdir()} == {"1", "warmup", "config.pbtxt"}
    config = read_config(model)
    assert (config.name, config.backend, config.max_batch_size) == ("part", "onnxruntime", 6)
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert config.default_model_filename == "model.onnx"
    session = open_session(model / "1" / config.default_model_filename)
    # With max_batch_size above 0, Triton leaves out the first dimension, which must be free.
    # Every input without a default must be named; outputs may be left out.
    assert [tensor.name for tensor in config.input] == [one.name for one in session.get_inputs()]
    assert [tensor.name for tensor in config.output] == ["score", "anomaly_map", "image_score"]
    values = {one.name: one for one in [*session.get_inputs(), *session.get_outputs()]}
    for tensor in [*config.input, *config.output]:
        value = values[tensor.name]
        assert isinstance(value.shape[0], str)
        assert model_config_pb2.DataType.Name(tensor.data_type) == TYPES[value.type]
        # Triton allows no empty shape: a reshape makes it empty.
        assert len(tensor.dims) > 0
        dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
        assert list(dims) == value.shape[1:]
        assert np.prod(tensor.dims) == np.prod(dims)
    # Inputs with a default are not named: Triton makes no batches for optional inputs.
    assert "bank" in {one.name for one in session.get_overridable_initializers()}
    metadata = metadata_of(file)
    parameters = {key: one.string_value for key, one in config.parameters.items()}
    assert parameters["title"] == metadata.name
    assert float(parameters["threshold_1"]) == metadata.threshold.value
    judgement = from_document(Judgement, json.loads(parameters["judgement_1"]))
    assert judgement == metadata.judgement
    assert parameters["sha256_1"] == sha256(file.read_bytes())


def test_the_warm_up_scores_the_golden_images(file: Path, repository: Path, cli: Cli) -> None:
    assert cli("triton", file, repository).code == 0
    model, metadata = repository / "part", metadata_of(file)
    session, config = open_session(model / "1" / "model.onnx"), read_config(model)
    scores = []
    for warmup in config.model_warmup:
        (tensor,) = warmup.inputs.values()
        assert list(tensor.dims) == list(config.input[0].dims)
        assert warmup.count == 1
        data = (model / "warmup" / tensor.input_data_file).read_bytes()
        image = np.frombuffer(data, np.uint8).reshape(1, *tensor.dims)
        batch = np.repeat(image, warmup.batch_size, axis=0)
        scores.append(session.run(["score"], {"image": batch})[0])
    golden = [golden.score for golden in metadata.golden]
    assert [len(score) for score in scores] == [1, 1, 8]
    assert [float(score[0]) for score in scores[:2]] == pytest.approx(golden, rel=1e-4)


def test_a_file_without_golden_images_warms_up_with_zeros(
    file: Path, repository: Path, cli: Cli
) -> None:
    file.write_bytes(changed(file, lambda document: document.update(golden=[])))
    assert cli("triton", file, repository, "--batch", "1").code == 0
    (warmup,) = read_config(repository / "part").model_warmup
    assert warmup.inputs["image"].zero_data


@pytest.mark.parametrize("device", ["auto", "cpu", "gpu", "tensorrt"])
def test_the_device_can_be_chosen(file: Path, repository: Path, cli: Cli, device: str) -> None:
    arguments = ("--device", device, "--name", "line-2")
    assert cli("triton", file, repository, *arguments).code == 0
    config = read_config(repository / "line-2")
    kinds = [
        group.KIND_CPU if device == "cpu" else group.KIND_GPU for group in config.instance_group
    ]
    assert [group.kind for group in config.instance_group] == kinds
    assert len(kinds) == (device != "auto")
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    names = {"cpu": [], "tensorrt": ["tensorrt", "cuda"]}.get(device, ["cuda"])
    assert [one.name for one in accelerators] == names
    if names:
        assert accelerators[-1].parameters["use_tf32"] == "0"
    if device == "tensorrt":
        largest = accelerators[0].parameters["trt_profile_max_shapes"]
        assert largest == f"image:8x{SIZE}x{SIZE}x3"


def test_versions_are_added_and_never_changed(file: Path, repository: Path, cli: Cli) -> None:
    def add(*arguments: str) -> Any:
        done = cli("triton", file, repository, "--json", *arguments)
        assert done.code == 0, done.err
        return done.json

    assert (add()["version"], add("--name", "other")["version"]) == (1, 1)
    model = repository / "part"
    config = model / "config.pbtxt"
    config.write_text(config.read_text().replace("microseconds: 500", "microseconds: 70") + "# ä")
    before = snapshot(repository)
    again = add()
    assert (again["version"], again["written"]) == (1, False)
    assert snapshot(repository) == before

    # Another file is another version with its own threshold.
    first = file.read_bytes()
    file.write_bytes(changed(file, lambda document: document["threshold"].update(value=0.25)))
    second = file.read_bytes()
    # A stopped export leaves a folder that is no version, and a parameter that is replaced.
    (model / ".2.abc").mkdir()
    with config.open("a") as opened:
        opened.write('\nparameters { key: "threshold_2" value { string_value: "9" } }\n')
    added = add()
    assert (added["version"], added["written"], added["configured"]) == (2, True, False)
    assert (model / "2" / "model.onnx").read_bytes() == second
    after = snapshot(repository)
    assert {name for name in before if after[name] != before[name]} == {"part/config.pbtxt"}
    assert config.read_text().startswith(before["part/config.pbtxt"][0].decode())
    read = read_config(model)
    assert read.dynamic_batching.max_queue_delay_microseconds == 70
    assert read.parameters["threshold_2"].string_value == "0.25"
    assert float(read.parameters["threshold_1"].string_value) != 0.25

    # The first file again: Triton serves the highest number, so it becomes a third version.
    file.write_bytes(first)
    assert add()["version"] == 3
    # A configuration that was removed is written again.
    config.unlink()
    assert (add()["configured"], read_config(model).name) == (True, "part")


def test_a_configuration_without_an_output_gets_it_with_the_next_version(
    file: Path, repository: Path, cli: Cli
) -> None:
    assert cli("triton", file, repository).code == 0
    config = repository / "part/config.pbtxt"
    lines = config.read_text().splitlines()
    config.write_text("\n".join(line for line in lines if "image_score" not in line))
    file.write_bytes(changed(file, lambda document: document["threshold"].update(value=0.25)))
    assert cli("triton", file, repository).code == 0
    names = [tensor.name for tensor in read_config(repository / "part").output]
    assert names == ["score", "anomaly_map", "image_score"]


def save_other_model(path: Path) -> None:
    """Write a graph with outputs of the same names, for images of another size."""
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["n", 32, 32, 3])
    outputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 32, 32, 3])
        for name in ("score", "anomaly_map", "image_score")
    ]
    nodes = [
        onnx.helper.make_node("Cast", ["image"], [output.name], to=onnx.TensorProto.FLOAT)
        for output in outputs
    ]
    graph = onnx.helper.make_graph(nodes, "other", [image], outputs)
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), path)


def test_a_wrong_input_is_one_sentence(
    job: Job, file: Path, repository: Path, tmp_path: Path, cli: Cli
) -> None:
    assert cli("triton", file, repository).code == 0
    before = snapshot(repository)
    shape = Path(shutil.copy(file, tmp_path / "shape.onnx"))
    (repository / "shape" / "1").mkdir(parents=True)
    save_other_model(repository / "shape" / "1" / "model.onnx")
    engine, torn, way = (tmp_path / name for name in ("part.engine", "torn.onnx", "way.onnx"))
    engine.write_bytes(b"FSADTRT1" + bytes(100))
    torn.write_bytes(file.read_bytes()[:9000])
    golden = tmp_path / "golden.onnx"
    golden.write_bytes(changed(file, lambda document: document["golden"][0].update(score=9.0)))
    shutil.copy(file, way)
    (repository / "way" / "1").mkdir(parents=True)
    for given, arguments, words in (
        (shape, [], "other inputs or outputs"),
        (engine, [], "--device tensorrt"),
        (torn, [], "is damaged"),
        (golden, [], "golden image"),
        (way, [], "in the way"),
        (job.part, [], "export"),
        (tmp_path / "nothing.onnx", [], "cannot be read"),
        (file, ["--name", "../part"], "cannot name a model"),
        (file, ["--name", ""], "cannot name a model"),
        (file, ["--batch", "4,2"], "--batch"),
    ):
        done = cli("triton", given, repository, *arguments)
        assert done.code == 2, arguments
        assert words in done.err, done.err
        assert done.err.strip().splitlines()[-1].startswith("error: ")
    assert "cannot be written" in cli("triton", file, file).err
    assert "auto" in cli("triton", file, repository, "--device", "tpu").err
    for name in ("way", "shape"):
        shutil.rmtree(repository / name)
    assert snapshot(repository) == before


def test_a_file_without_the_learned_images_is_warned_of(
    job: Job, file: Path, repository: Path, cli: Cli
) -> None:
    quiet = cli("triton", file, repository)
    assert "learned" not in quiet.err
    assert cli("bank", "add", file, job.dataset / "test/good/1.png").code == 0
    warned = cli("triton", file, repository)
    assert warned.code == 0
    assert f"bank export {file}" in warned.err


def test_the_command_needs_neither_torch_nor_onnx(file: Path, repository: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'timm', 'onnx', 'scipy']));"
        "from fsad_edge.cli.main import main; main()"
    )
    command = [sys.executable, "-c", code, "triton", str(file), str(repository)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (repository / "part" / "1" / "model.onnx").is_file()


def documented() -> Callable[[Any, str, str], tuple[float, float, list[str]]]:
    """The client's function in docs/triton.md."""
    code = DOCUMENT.read_text("utf-8").split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    function: Callable[[Any, str, str], tuple[float, float, list[str]]] = names["score"]
    return function


def test_the_documented_client_scores_here(job: Job, careful_file: Path, foreign: Path) -> None:
    http = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    metadata = metadata_of(job.file)
    with (
        serving(careful_file) as server,
        http.InferenceServerClient(f"127.0.0.1:{server.port}") as client,
    ):
        score, threshold, reasons = documented()(client, "part", str(job.shots / "0.png"))
        (why,) = documented()(client, "part", str(foreign))[2]
    assert reasons == []
    assert "unlike the shots" in why
    assert threshold == metadata.threshold.value
    image = load_resized(job.shots / "0.png", SIZE, SIZE)[None]
    expected = open_session(job.file).run(["score"], {"image": image})[0]
    assert score == pytest.approx(float(expected[0]), rel=1e-5)


#: Replaces the ONNX Runtime backend, where Triton has only the Python backend.
STAND_IN = """
import os
import numpy, onnxruntime
import triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, args):
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options)

    def execute(self, requests):
        images = [triton.get_input_tensor_by_name(one, "image").as_numpy() for one in requests]
        print("images in a run:", [len(image) for image in images], flush=True)
        names = ["score", "anomaly_map"]
        arrays = self.session.run(names, {"image": numpy.concatenate(images)})
        ends = numpy.cumsum([len(image) for image in images])[:-1]
        parts = zip(*(numpy.split(array, ends) for array in arrays))
        return [
            triton.InferenceResponse([triton.Tensor(*pair) for pair in zip(names, part)])
            for part in parts
        ]
"""


@pytest.fixture
def triton(repository: Path, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port and the log of a real Triton that polls the repository."""
    server = os.environ.get("FSAD_EDGE_TRITONSERVER")
    if not server:
        pytest.skip("needs Triton: name its tritonserver in FSAD_EDGE_TRITONSERVER")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    repository.mkdir()
    command = [server, "--model-repository", str(repository), "--http-port", str(port)]
    command += ["--allow-grpc=false", "--allow-metrics=false"]
    command += ["--model-control-mode=poll", "--repository-poll-secs=1"]
    python = os.environ.get("FSAD_EDGE_TRITON_STAND_IN")
    if python:
        backends = tmp_path / "backends"
        (backends / "onnxruntime").mkdir(parents=True)
        (backends / "onnxruntime" / "model.py").write_text(STAND_IN)
        (backends / "python").symlink_to(python)
        command += ["--backend-directory", str(backends)]
    log = tmp_path / "log"
    with log.open("w") as opened:
        process = subprocess.Popen(command, stdout=opened, stderr=subprocess.STDOUT)
        try:
            yield port, log
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def test_triton_serves_the_repository(
    job: Job, file: Path, repository: Path, cli: Cli, triton: tuple[int, Path]
) -> None:
    http = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")

    port, log = triton
    first = metadata_of(file).threshold.value
    shot = str(job.shots / "0.png")
    image = load_resized(shot, SIZE, SIZE)[None]
    expected = float(open_session(file).run(["score"], {"image": image})[0][0])
    with http.InferenceServerClient(f"127.0.0.1:{port}") as client:

        def is_served() -> bool:
            try:
                return bool(client.is_model_ready("part"))
            except OSError:  # Triton does not listen yet
                return False

        wait_until(lambda: not is_served() and log.read_text().count("HTTPService"), 60)
        assert cli("triton", file, repository, "--device", "cpu").code == 0
        wait_until(is_served, 60)
        score, threshold, _ = documented()(client, "part", shot)
        assert score == pytest.approx(expected, rel=1e-5)
        assert threshold == first
        batch = http.InferInput("image", [3, SIZE, SIZE, 3], "UINT8")
        batch.set_data_from_numpy(np.repeat(image, 3, axis=0))
        result = client.infer("part", [batch])
        assert result.as_numpy("score").shape == (3, 1)
        assert result.as_numpy("anomaly_map").shape[0] == 3
        # A new version takes over with its own threshold, and no request fails.
        file.write_bytes(changed(file, lambda document: document["threshold"].update(value=0.25)))
        assert cli("triton", file, repository).code == 0
        seen = []

        def is_swapped() -> bool:
            score, threshold, _ = documented()(client, "part", shot)
            assert score == pytest.approx(expected, rel=1e-5)
            seen.append(threshold)
            return threshold == 0.25

        wait_until(is_swapped, 60)
        assert set(seen) == {first, 0.25}
    text = log.read_text()
    # Triton may report once that a new model is not complete.
    _, _, later = text.partition("successfully loaded 'part'")
    assert "successfully loaded 'part'" in later, text
    assert "failed" not in later, text
    if os.environ.get("FSAD_EDGE_TRITON_STAND_IN"):
        runs = [line for line in text.splitlines() if line.startswith("images in a run")]
        assert {f"images in a run: {[1] * count}" for count in (1, 8)} <= set(runs)
