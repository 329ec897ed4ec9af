"""Paths of models: folders with faulty files in them, names with ``=``, paths that lead nowhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import fsad_edge
from fsad_edge import Model
from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.serve import ServeOptions, create_app
from fsad_edge.serve.model_files import find_model_files
from tests.conftest import Cli, Job
from tests.serving import assert_problem, wait_until

ODD = "odd name ä"


@pytest.fixture
def folder(job: Job, tmp_path: Path) -> Path:
    """A folder with a model and files that cannot be served."""
    parts = tmp_path / "parts"
    parts.mkdir()
    for name in ("good", ODD):
        shutil.copy(job.file, parts / f"{name}.onnx")
    (parts / "torn.onnx").write_bytes(job.file.read_bytes()[:5000])
    (parts / "gone.onnx").symlink_to("nowhere")
    (parts / "folder.engine").mkdir()
    os.mkfifo(parts / "pipe.onnx")  # opening it would wait for ever
    return parts


def test_faulty_files_of_a_folder_are_reported_and_the_others_served(
    job: Job, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faulty = {"torn", "gone", "folder", "pipe", ODD}
    image = min(job.shots.iterdir()).read_bytes()
    with TestClient(create_app(folder), base_url="http://localhost") as client:
        listed = client.get("/v1/models").json()
        assert [one["name"] for one in listed["models"]] == ["good"]
        assert {one["name"] for one in listed["not_served"]} == faulty
        for one in listed["not_served"]:
            assert one["file"] in one["error"]
            assert one["error"] in caplog.text
            answer = client.post(f"/v1/score?model={one['name']}", content=image)
            assert one["error"] in str(assert_problem(answer, 404)["detail"])
        assert client.get("/readyz").json()["ready"]
        assert "fsad_edge_models_not_served 5.0" in client.get("/metrics").text
        assert client.post("/v1/score?model=good", content=image).status_code == 200
        # A file that is repaired is taken into service.
        shutil.copy(job.file, folder / "new")
        (folder / "new").replace(folder / "torn.onnx")
        wait_until(lambda: "torn" in client.get("/readyz").json()["models"])
        assert client.post("/v1/score?model=torn", content=image).status_code == 200
        faults = client.get("/v1/models").json()["not_served"]
        assert {one["name"] for one in faults} == faulty - {"torn"}


def test_a_folder_with_a_fault_is_refused_where_that_is_asked_for(cli: Cli, folder: Path) -> None:
    strict = cli("serve", folder, "--strict")
    assert strict.code == 2
    assert "5 of 6 model files cannot be served" in strict.err
    for name in ("torn.onnx", "gone.onnx", "folder.engine", ODD):
        assert name in strict.err
    (folder / "good.onnx").unlink()
    none = cli("serve", folder)
    assert none.code == 2
    assert "5 of 5 model files cannot be served" in none.err
    # A file that is named must be served.
    with pytest.raises(ModelFileError, match=r"torn\.onnx"):
        create_app([folder / "torn.onnx"])


def test_a_watched_folder_belongs_to_a_model_that_is_served(folder: Path) -> None:
    options = ServeOptions(watch=(f"torn={folder}",))
    with pytest.raises(InputError, match=r"--watch torn=.*torn\.onnx"):
        create_app(folder, options)


def test_a_path_with_an_equals_sign_is_a_path_where_it_exists(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run=3", "3"):
        Path(name).mkdir()
    shutil.copy(job.file, "run=3/part.onnx")

    def found(text: str) -> dict[str, Path]:
        return {one.name: one.path for one in find_model_files(text)}

    part = Path("run=3/part.onnx")
    assert found("run=3/part.onnx") == found("run=3") == {"part": part}
    assert found(f"{tmp_path}/run=3/part.onnx") == {"part": tmp_path / part}
    assert found("nut=run=3/part.onnx") == {"nut": part}
    assert found("run=4/part.onnx") == {"run": Path("4/part.onnx")}
    watched = create_app("run=run=3/part.onnx", ServeOptions(watch=("run=3",)))
    assert watched.service.sources[0].status().waiting == 0  # type: ignore[union-attr]
    assert Path("run=3/fsad-edge").is_dir()


COMMANDS = [
    ["serve", "{}"],
    ["serve", "part={}"],
    ["info", "{}"],
    ["score", "{}", "image.png"],
    ["export", "{}"],
    ["bench", "{}"],
    ["build", "{}"],
    ["triton", "{}", "repository", "--name", "part"],
    ["archive", "{}", "DATA", "-o", "results"],
    ["bank", "list", "{}"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command))
def test_a_path_that_cannot_be_reached_is_one_sentence(
    cli: Cli, job: Job, tmp_path: Path, command: list[str]
) -> None:
    loop = tmp_path / "loop.onnx"
    loop.symlink_to(loop)
    words = [word.replace("DATA", str(job.dataset)) for word in command]
    for path in ("n" * 300 + ".onnx", "d/" * 3000 + "d", loop):
        outcome = cli(*(word.replace("{}", str(path)) for word in words))
        assert outcome.code == 2, outcome
        assert "Traceback" not in outcome.err
        sentence = outcome.err.splitlines()[-1]
        assert sentence.startswith("error: ")
        assert f"{path} cannot be re" in sentence  # reached, or read


def test_the_library_names_a_path_that_cannot_be_reached(tmp_path: Path) -> None:
    for path in (tmp_path / ("n" * 300), tmp_path / "a\0b.onnx"):
        for call in (Model.load, create_app, fsad_edge.export):
            with pytest.raises(InputError, match=r"cannot be reached|a null byte"):
                call(path)
