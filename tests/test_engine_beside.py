"""An engine and an ONNX file in one folder: which is written, which is served, and what is said."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import fsad_edge
from fsad_edge.deploy.stale_engines import find_stale_engines
from fsad_edge.errors import ModelFileError
from fsad_edge.options import Provider
from fsad_edge.runtime.backends.tensorrt import check_source
from fsad_edge.runtime.engine_file import BuildOptions, Flavour, read_engine
from fsad_edge.runtime.metadata import KEY
from fsad_edge.runtime.onnx_file import read_metadata, replace
from fsad_edge.serve.app import create_app
from fsad_edge.serve.options import ServeOptions
from tests.conftest import Cli, Job
from tests.engine_files import write_fake_engine
from tests.serving import wait_until


@pytest.fixture(autouse=True)
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without either TensorRT, wherever this runs."""
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def file(job: Job, tmp_path: Path) -> Path:
    return Path(shutil.copy(job.file, tmp_path / "part.onnx"))


def another(file: Path, name: str) -> Path:
    """A model file beside another one, with another content."""
    data = file.read_bytes()
    document = read_metadata(data)[KEY].replace('"name": "', '"name": "other ')
    target = file.with_name(name)
    target.write_bytes(replace(data, {}, {KEY: document}))
    return target


# Names


@pytest.mark.parametrize("output", ["new.onnx", "NEW.ONNX", "part.onnx"])
def test_an_engine_has_no_name_of_an_onnx_file(cli: Cli, file: Path, output: str) -> None:
    before = file.read_bytes()
    done = cli("build", file, "-o", file.with_name(output), "--force")
    assert done.code == 2
    assert "is the name of an ONNX file" in done.err or "is read here" in done.err
    assert file.read_bytes() == before
    assert {one.name for one in file.parent.iterdir()} == {"part.onnx"}


def test_an_engine_does_not_replace_an_onnx_file_of_any_name(cli: Cli, file: Path) -> None:
    for name in ("bare", "odd.engine"):
        other = another(file, name)
        before = other.read_bytes()
        done = cli("build", file, "-o", other, "--force")
        assert done.code == 2
        assert "holds an ONNX file" in done.err
        assert other.read_bytes() == before


def test_an_engine_does_not_take_the_name_of_another_onnx_file(cli: Cli, file: Path) -> None:
    another(file, "bolt.onnx")
    done = cli("build", file, "-o", file.with_name("bolt.engine"))
    assert done.code == 2
    assert re.search(r"would take the name of \S*bolt\.onnx, which is another file", done.err)
    # A copy of its own ONNX file is none.
    shutil.copy(file, file.with_name("copy.onnx"))
    done = cli("build", file, "-o", file.with_name("copy.engine"))
    assert "tensorrt is not installed" in done.err


def test_an_onnx_file_has_no_name_of_an_engine(cli: Cli, job: Job, tmp_path: Path) -> None:
    done = cli("export", job.part, "-o", tmp_path / "part.engine", "--force")
    assert done.code == 2
    assert "is the name of an engine" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["build", "info", "score"])
def test_what_is_empty_or_junk_says_how_it_is_made_again(
    cli: Cli, job: Job, tmp_path: Path, command: str
) -> None:
    images = [job.shots] if command == "score" else []
    for name, data in (("part.onnx", b""), ("part.engine", b""), ("junk.engine", b"x" * 500)):
        (tmp_path / name).write_bytes(data)
        done = cli(command, tmp_path / name, *images)
        assert done.code == 2
        assert ("is empty" in done.err) is (not data)
        cure = "export it again" if name == "part.onnx" else "fsad-edge build "
        assert cure in done.err
        assert (name != "part.onnx") or "build it again" not in done.err


@pytest.mark.parametrize("batch", ["", " "])
def test_an_empty_batch_is_called_empty(cli: Cli, file: Path, batch: str) -> None:
    done = cli("build", file, "--batch", batch)
    assert "--batch is empty: take one number from 1 to 256" in done.err


# A new file


def test_an_export_tells_of_the_engines_of_the_file_before(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    file = Path(shutil.copy(job.file, tmp_path / "part.onnx"))
    engine = write_fake_engine(file)
    write_fake_engine(file, tmp_path / "line.engine", Flavour.RTX)
    write_fake_engine(another(file, "bolt.onnx"))
    (tmp_path / "torn.engine").write_bytes(engine.read_bytes()[:-1])
    done = cli("export", job.part, "-o", file, "--force", "--json")
    assert done.code == 0, done.err
    for name in ("part.engine", "line.engine"):
        sentence = f"{name} was built from the part.onnx before this one"
        assert sentence in done.err
        assert any(sentence in one for one in done.json["warnings"])
        assert f"fsad-edge build {tmp_path / name} " in done.err
    assert "bolt" not in done.err
    header = read_engine(engine.read_bytes(), "").header
    with pytest.raises(ModelFileError, match=r"another part\.onnx"):
        check_source(engine, header)  # as every load of it does
    by_library = fsad_edge.export(job.part, tmp_path / "line.onnx")
    assert by_library.stale_engines == ()


def test_an_engine_of_the_same_file_is_not_stale(file: Path) -> None:
    write_fake_engine(file)
    assert find_stale_engines(file, file.read_bytes()) == ()


# A folder with both that is served


def test_a_damaged_engine_leaves_its_onnx_file_in_service(
    job: Job, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    engine = write_fake_engine(file)
    engine.write_bytes(engine.read_bytes()[:-1])
    image = min(job.shots.iterdir()).read_bytes()
    with TestClient(create_app(file.parent), base_url="http://localhost") as client:
        assert "part.engine is a damaged engine file" in caplog.text
        assert re.search(r"part\.onnx is served instead of \S*part\.engine", caplog.text)
        assert client.post("/v1/score", content=image).status_code == 200
        ready = client.get("/readyz").json()
        assert ready["ready"]
        assert "damaged engine file" in ready["models"]["part"]["error"]
        (fault,) = client.get("/v1/models").json()["not_served"]
        assert (fault["name"], Path(fault["file"]).name) == ("part", "part.engine")
        assert "fsad_edge_models_not_served 1.0" in client.get("/metrics").text
        # What replaces it is tried; this one is for another machine, and no fault.
        write_fake_engine(file, file.with_name("new"))
        file.with_name("new").replace(engine)
        wait_until(lambda: client.get("/readyz").json()["models"]["part"]["error"] is None)
        assert client.get("/v1/models").json()["not_served"] == []
        # An ONNX file under that name loads, and takes its place.
        shutil.copy(file, file.with_name("new"))
        file.with_name("new").replace(engine)
        wait_until(lambda: "is in service now" in caplog.text)
        assert client.post("/v1/score", content=image).status_code == 200


def test_an_engine_of_another_file_does_not_take_its_place(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bolt = another(file, "bolt.onnx")
    write_fake_engine(file, bolt.with_suffix(".engine"))
    with TestClient(create_app(file.parent), base_url="http://localhost") as client:
        assert set(client.get("/readyz").json()["models"]) == {"bolt", "part"}
        assert "bolt.engine was built from another file than" in caplog.text


def test_an_engine_without_its_tensorrt_leaves_the_onnx_file_and_is_no_fault(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_fake_engine(file)
    with TestClient(create_app(file.parent), base_url="http://localhost") as client:
        assert "tensorrt is not installed" in caplog.text
        assert client.get("/readyz").json()["models"]["part"]["error"] is None
        assert client.get("/v1/models").json()["not_served"] == []


@pytest.mark.parametrize(
    "options",
    [ServeOptions(strict=True), ServeOptions(provider=Provider.TENSORRT)],
    ids=["strict", "tensorrt"],
)
def test_no_other_file_is_served_where_the_engine_was_asked_for(
    file: Path, options: ServeOptions
) -> None:
    engine = write_fake_engine(file)
    engine.write_bytes(engine.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r"1 of 1 model files cannot .*part\.engine"):
        create_app(file.parent, options)


def test_the_cpu_runs_the_onnx_file_and_does_not_ask_the_engine(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write_fake_engine(file)
    for strict in (False, True):
        caplog.clear()
        options = ServeOptions(provider=Provider.CPU, strict=strict)
        with TestClient(create_app(file.parent, options), base_url="http://localhost") as client:
            assert client.get("/readyz").json()["ready"]
        assert "part.onnx is served, because --provider cpu runs no engine" in caplog.text
        assert "WARNING" not in caplog.text


# What is said of batches and providers


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ((1, 1, 1), "one image a run"),
        ((1, 4, 8), "1 to 8 images a run, usually 4"),
        ((8, 8, 8), "8 images a run"),
    ],
)
def test_info_tells_the_images_of_a_run_in_words(
    cli: Cli, file: Path, batch: tuple[int, int, int], words: str
) -> None:
    engine = write_fake_engine(file, options=BuildOptions(batch))
    assert f", {words}, from part.onnx" in cli("info", engine).out


def test_a_provider_is_given_once(cli: Cli, job: Job) -> None:
    twice = ("--provider", "cuda", "--provider=cpu")
    done = cli("score", job.file, job.shots, *twice)
    assert done.code == 2
    assert "--provider is given twice" in done.err
    measured = cli("bench", job.file, "--provider", "cpu", "--provider", "cpu", "--runs", "1")
    assert "(2)" not in measured.out, measured.err
    assert "p50" in measured.out


LIMITED = """
import resource, sys
import numpy as np
from fsad_edge import Model
from fsad_edge.errors import InputError
with Model.load(sys.argv[1], "cpu", threads=1) as model:
    side = model.metadata.height
    images = np.zeros((2000, side, side, 3), np.uint8)
    model.embed(images[:1])
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
    try:
        model.embed(images)
    except InputError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited by Linux's means")
def test_too_many_images_for_the_memory_name_the_options(bundled_file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, bundled_file],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.startswith("there is not enough memory for 2000 images in one run of")
    assert "a smaller --batch of  fsad-edge bench  or --max-batch of" in done.stdout
