"""The examples in the docstrings run, and print what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import io
import shutil
from pathlib import Path
from typing import Any

import pytest

import fsad_edge
from fsad_edge import FinetuneResult
from fsad_edge.serve import create_app
from tests.conftest import Job

PACKAGE = Path(fsad_edge.__file__).parent
#: cli and calibration are links, which rglob does not follow.
FILES = [file for folder in ("", "cli", "calibration") for file in (PACKAGE / folder).rglob("*.py")]
MODULES = sorted(
    ".".join(("fsad_edge", *file.relative_to(PACKAGE).with_suffix("").parts))
    for file in FILES
    if ">>> " in file.read_text()
)


@pytest.fixture
def names(job: Job, bundled_part: FinetuneResult, tmp_path: Path) -> dict[str, Any]:
    """What the examples take for granted."""
    part_file, folder = tmp_path / "part.onnx", tmp_path / "folder"
    shutil.copy(job.file, part_file)  # a device writes what it learns next to it
    folder.mkdir()
    return {
        "part_file": str(part_file),
        "photograph": str(job.shots / "0.png"),
        "shots": str(job.shots),
        "dataset": str(job.dataset),
        "folder": folder,
        "part": bundled_part,
    }


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(names: dict[str, Any], name: str) -> None:
    module = importlib.import_module(name)
    runner, report = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS), io.StringIO()
    for test in doctest.DocTestFinder().find(module, name, extraglobs=names):
        runner.run(test, out=report.write)
    assert runner.tries > 0
    assert runner.failures == 0, report.getvalue()


@pytest.mark.parametrize(
    "door", [fsad_edge.finetune, fsad_edge.export, fsad_edge.evaluate, fsad_edge.Model, create_app]
)
def test_every_door_of_the_library_has_an_example(door: object) -> None:
    assert doctest.DocTestParser().get_examples(inspect.getdoc(door) or "")
