"""Paths that the user may not look at: one sentence and exit code 2, whatever the command."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import assert_refused, run_process
from tests.conftest import Cli, Job

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's capabilities")

NOBODY = 65534


@pytest.fixture
def closed(tmp_path: Path, job: Job) -> Iterator[Path]:
    """A folder that its owner closed, with a photograph and a model file inside."""
    folder = tmp_path / "closed"
    (folder / "in").mkdir(parents=True)
    shutil.copy(job.shots / "0.png", folder / "in/part.png")
    shutil.copy(job.file, folder / "part.onnx")
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    folder.chmod(0)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize(
    "command",
    [
        "score FILE CLOSED/in/part.png",
        "score FILE CLOSED/in",
        "score CLOSED/part.onnx SHOTS",
        "info CLOSED/part.onnx",
        "serve CLOSED/part.onnx",
        "finetune CLOSED/in -o OUT",
        "finetune SHOTS -o CLOSED/part",
        "export CLOSED/part",
        "eval FILE CLOSED/in",
        "bank list CLOSED/part.onnx",
        "bench CLOSED/part.onnx",
        "build CLOSED/part.onnx",
    ],
)
def test_a_path_below_a_closed_folder_is_one_sentence(
    job: Job, tmp_path: Path, closed: Path, command: str
) -> None:
    words = {"FILE": job.file, "SHOTS": job.shots, "OUT": tmp_path / "part"}
    arguments = [words.get(word, word.replace("CLOSED", str(closed))) for word in command.split()]
    assert_refused(run_process(*arguments, privileged=False), str(closed))


def test_a_closed_subfolder_is_counted_and_an_error(job: Job, tmp_path: Path, closed: Path) -> None:
    shutil.copy(job.shots / "0.png", tmp_path / "0.png")
    done = run_process("score", job.file, tmp_path, privileged=False)
    assert done.code == 2
    assert "1 image scored: 1 good, 0 anomalies; 1 skipped: 1 subfolder cannot be" in done.out


def test_what_was_taught_behind_closed_rights_is_said_not_to_count(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    file = Path(shutil.copy(job.file, tmp_path / "part.onnx"))
    assert cli("bank", "add", file, job.shots / "0.png", "--force").code == 0
    learned, nothing = tmp_path / "part.learned", "neither its images nor a threshold set there"
    said = {
        learned: f"nothing taught in {learned} counts, {nothing}",
        learned / "journal.jsonl": f"nothing taught in {learned} counts, {nothing}",
        learned / "images": "does not count, and all else does: ",
    }
    for path, words in said.items():
        mode = path.stat().st_mode
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        path.chmod(0)
        done = run_process("score", file, job.shots / "1.png", privileged=False)
        path.chmod(mode)
        assert words in done.err
        assert "let this user read it, and enter the folders above it." in done.err
        assert "undo" not in done.err  # it would delete the photograph
    assert (learned / "images" / "0001.png").exists()
