"""The service inside another program, and the model files that it finds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fsad_edge import Model
from fsad_edge.errors import InputError
from fsad_edge.serve import ListenOptions, ServeOptions, create_app, run_server
from tests.conftest import Cli, Job, photograph
from tests.serving import assert_problem, encoded, serving, wait_until

TOKEN = "0123456789abcdef"
PREFIX = "/cell/3"


@pytest.fixture
def model_file(job: Job, tmp_path: Path) -> Path:
    return Path(shutil.copy(job.file, tmp_path / "part.onnx"))


@pytest.fixture(scope="module")
def image() -> bytes:
    return encoded(photograph(np.random.default_rng(5)), "PNG")


def test_an_embedded_service_scores_behind_its_guard(
    model_file: Path, image: bytes, tmp_path: Path
) -> None:
    watched = tmp_path / "in"
    watched.mkdir()
    options = ServeOptions(
        token=TOKEN, allowed_hosts=("line.example",), watch=(f"nut={watched}",), queue=2
    )
    other = tmp_path / "other.onnx"
    shutil.copy(model_file, other)
    app = create_app([f"nut={model_file}", other], options)
    with TestClient(app, base_url="http://line.example") as client:
        assert_problem(client.get("/v1/models"), 401)
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert_problem(client.get("/v1/models", headers={"Host": "localhost"}), 421)
        answer = client.post("/v1/score?model=nut", content=image)
        assert answer.headers["x-frame-options"] == "DENY"
        with Model.load(model_file) as model:
            expected = model.score(image).score
        assert answer.json()["results"][0]["score"] == pytest.approx(expected, rel=1e-6)
        (watched / "new.png").write_bytes(image)
        wait_until(lambda: client.get("/v1/status").json()["watch"]["scored"] == 1)
    assert app.service.draining
    assert "new.png" in (watched / "fsad-edge/results.jsonl").read_text()


@pytest.mark.parametrize("sent", [PREFIX, ""], ids=["kept", "stripped"])
def test_a_service_below_a_root_path_answers_there(model_file: Path, sent: str) -> None:
    app = create_app(model_file, ServeOptions(root_path=PREFIX, token=TOKEN))
    with TestClient(app, base_url="https://localhost", follow_redirects=False) as client:
        assert client.get(sent + "/healthz").status_code == 200
        assert_problem(client.get(sent + "/v1/models"), 401)
        assert_problem(client.get("/cell/v1/models"), 401)
        assert f'src="{PREFIX}/page/main.js"' in client.get(sent + "/").text
        assert client.get(sent + "/page/main.js").status_code == 200
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert client.get(sent + "/openapi.json").json()["servers"] == [{"url": PREFIX}]
        assert client.get(sent + "/v1/models/").headers["location"] == PREFIX + "/v1/models"
        assert "error" in client.get(sent + "/v2/models/none").json()
        assert client.get(PREFIX).headers["location"] == PREFIX + "/"


def test_a_mounted_service_answers_below_its_path(model_file: Path, image: bytes) -> None:
    app = FastAPI()
    service = create_app(model_file, ServeOptions(token=TOKEN))
    app.mount("/inspection", service)
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/inspection/healthz").status_code == 200  # needs no token
        assert 'src="/inspection/page/main.js"' in client.get("/inspection").text
        assert_problem(client.post("/inspection/v1/score", content=image), 401)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = client.post("/inspection/v1/score", content=image, headers=headers)
        assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/v1", "page/x", "/a b", "/a/../b", "/ä", "/a?b", "a//b"])
def test_a_root_path_that_cannot_be_used_is_refused(path: str) -> None:
    with pytest.raises(InputError, match="--root-path /inspection"):
        ServeOptions(root_path=path)


def test_the_package_imports_no_web_framework() -> None:
    code = (
        "import sys, fsad_edge.serve; print({'fastapi', 'starlette', 'uvicorn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_options_that_cannot_be_used_are_refused(model_file: Path) -> None:
    with pytest.raises(InputError, match="queue must be from 0 to 1024"):
        ServeOptions(queue=-1)
    with pytest.raises(InputError, match="needs a token"):
        ServeOptions(allowed_hosts=("*",))
    app = create_app(model_file)
    with pytest.raises(InputError, match="can be reached from other machines"):
        run_server(app, ListenOptions(host="0.0.0.0", port=0))


def test_the_command_serves_the_current_folder(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bolt.onnx", "nut.onnx"):
        shutil.copy(job.file, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with serving() as server, server.client() as client:
        assert [one["name"] for one in client.get("/v1/models").json()["models"]] == ["bolt", "nut"]


def test_a_folder_without_model_files_is_one_error(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = cli("serve")
    assert outcome.code == 2
    assert outcome.err == (
        "error: the current folder holds no model file (.onnx or .engine): write one with  "
        "fsad-edge export,  or name a file.\n"
    )


def test_help_lists_the_choices(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    words = cli("serve", "--help").out
    assert "all|not-good" in words
    assert "auto|cpu|cuda|tensorrt" in words


def test_options_that_the_service_does_not_know_are_refused(model_file: Path) -> None:
    with pytest.raises(InputError, match="no model is named"):
        create_app([])
    with pytest.raises(InputError, match="take one of all, not-good"):
        create_app(model_file, ServeOptions(publish="anomaly"))  # type: ignore[arg-type]
    assert create_app(model_file, ServeOptions(publish="not-good"))  # type: ignore[arg-type]
