"""The three lines that a new user types, in a folder with nothing but ``shots/`` in it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from fsad_edge import Model
from fsad_edge.pipeline.model_directory import read_manifest
from fsad_edge.scoring.bundled import FILES
from tests.commands import all_files, assert_refused
from tests.conftest import Cli, Job, Outcome, photograph, run_cli
from tests.serving import encoded, wait_until

ROOT = Path(__file__).resolve().parent.parent
SERVICE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the three lines, with photographs as small as the model's input."""
    folder = tmp_path_factory.mktemp("owner")
    (folder / "shots").mkdir()
    rng = np.random.default_rng(0)
    for index in range(5):
        photograph(rng).save(folder / f"shots/{index}.png")
    return folder


@pytest.fixture(scope="module")
def finetuned(folder: Path) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("fsad_edge.pipeline.candidates.SIZES", (96,))
        return run_cli("finetune", "shots/")


@pytest.fixture(scope="module")
def exported(folder: Path, finetuned: Outcome) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(sys.modules, "tensorrt", None)  # also where it is installed
        return run_cli("export", "--trt")


def test_the_first_line_makes_a_model_directory(folder: Path, finetuned: Outcome) -> None:
    assert finetuned.code == 0, finetuned.err
    assert "warning" not in finetuned.err
    assert finetuned.out.startswith("Made part from 5 normal images.")
    assert "fsad-edge export part" in finetuned.out
    assert read_manifest(folder / "part").encoder.source in FILES


def test_the_second_line_exports_it_and_says_how_an_engine_is_built(
    folder: Path, exported: Outcome
) -> None:
    assert exported.code == 0, exported.err
    first, *lines = exported.out.splitlines()
    assert re.match(r"Wrote \S*part\.onnx ", first)
    sentence = next(line for line in lines if line.startswith("No TensorRT engine"))
    assert "TensorRT is not installed" in sentence
    assert "run  fsad-edge build part.onnx ." in sentence
    assert sentence.endswith("pip install 'fsad-edge[trt-rtx]'")
    assert {path.name for path in folder.iterdir()} == {"shots", "part", "part.onnx"}
    with Model.load(folder / "part.onnx") as model:
        assert not model.score(folder / "shots/0.png").anomalous


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGTERM")
@pytest.mark.usefixtures("exported")
def test_the_third_line_serves_it_until_it_is_told_to_stop(folder: Path) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8000))
        except OSError:
            pytest.skip("port 8000 is taken on this machine")
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with subprocess.Popen(
        [sys.executable, "-m", "fsad_edge.cli", "serve"],
        cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths},
    ) as process:  # fmt: skip
        try:

            def is_ready() -> bool:
                assert process.poll() is None
                try:
                    return httpx.get(f"{SERVICE}/readyz").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(is_ready, 60)
            assert list(httpx.get(f"{SERVICE}/readyz").json()["models"]) == ["part"]
            rng = np.random.default_rng(7)
            for defect, decision in ((False, "good"), (True, "anomaly")):
                image = encoded(photograph(rng, defect=defect), "PNG")
                answer = httpx.post(f"{SERVICE}/v1/score", files={"image": image})
                assert answer.json()["results"][0]["decision"] == decision
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, log
    assert "Traceback" not in log


def test_export_without_a_name_needs_one_model_directory(
    cli: Cli, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shots").mkdir()
    assert_refused(cli("export"), "there is no model directory here: run  fsad-edge finetune")
    for name in ("left", "right"):
        shutil.copytree(job.part, tmp_path / name)
    before = all_files(tmp_path)
    assert_refused(cli("export"), "several model directories", "left, right")
    assert all_files(tmp_path) == before


def test_serve_without_a_name_needs_a_model_file(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(cli("serve"), "the current folder holds no model file", "fsad-edge export")
