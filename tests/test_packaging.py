"""The wheel: one top-level name, and a device that needs no training framework."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fsad_edge.calibration
import fsad_edge.cli
from tests.conftest import Job

ROOT = Path(__file__).resolve().parent.parent
PACKAGED = ["fsad_edge", "cli", "calibration"]


def run(
    *command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with its links, so that nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("source")
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in PACKAGED:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, as pip builds a release."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(source)]
    if importlib.util.find_spec("setuptools"):
        command[3:3] = ["--no-isolation"]
    built = run(*command)
    if built.returncode and "--no-isolation" not in command and "pip" in built.stderr:
        pytest.skip("setuptools is not installed and pip has no index to get it from")
    assert built.returncode == 0, built.stdout + built.stderr
    assert "Warning" not in built.stdout + built.stderr
    (made,) = folder.glob("*.whl")
    return made


def test_every_package_is_in_the_list_of_packages() -> None:
    listed = re.search(r"^packages = (\[.*?\])", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert listed is not None
    names = set(ast.literal_eval(listed[1]))
    folders = {file.parent for top in PACKAGED for file in (ROOT / top).rglob("*.py")}
    assert names >= {
        ".".join(
            ("fsad_edge", *(part for part in folder.relative_to(ROOT).parts if part != "fsad_edge"))
        )
        for folder in folders
    }
    # One folder holds the page's files alone.
    assert len(names) == len(folders) + 1


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("setuptools"), reason="needs setuptools here")
def test_an_editable_install_prints_no_warning(source: Path, tmp_path: Path) -> None:
    script = "import sys; from setuptools.build_meta import *; build_editable(sys.argv[1])"
    built = run(sys.executable, "-W", "always", "-c", script, tmp_path, cwd=source)
    assert built.returncode == 0, built.stderr
    assert len(list(tmp_path.glob("*.whl"))) == 1
    assert "Warning" not in built.stdout + built.stderr


@pytest.mark.slow
def test_the_wheel_holds_one_top_level_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fsad_edge"}
    assert len(tops) == 2


@pytest.mark.slow
def test_the_wheel_holds_every_module(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {
        f"{'' if top == 'fsad_edge' else 'fsad_edge/'}{path.relative_to(ROOT)}"
        for top in PACKAGED
        for path in (ROOT / top).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == modules
    assert "fsad_edge/py.typed" in names
    assert {"fsad_edge/cli/main.py", "fsad_edge/calibration/threshold.py"} <= names


@pytest.mark.slow
def test_the_wheel_carries_the_licence_and_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {Path(name).name: name for name in archive.namelist() if ".dist-info/" in name}
        assert b"Apache License" in archive.read(texts["LICENSE"])
        assert b"fsad-edge = fsad_edge.cli.main:main" in archive.read(texts["entry_points.txt"])
        metadata = archive.read(texts["METADATA"]).decode()
    assert "Requires-Python: >=3.10" in metadata
    base = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    needed = {line.split()[1].split(">")[0] for line in base if "extra ==" not in line}
    assert needed == {"numpy", "pillow", "typer"}


def test_the_subpackages_are_the_top_level_folders() -> None:
    for package, folder in ((fsad_edge.cli, "cli"), (fsad_edge.calibration, "calibration")):
        assert package.__file__ is not None
        assert Path(package.__file__).resolve().parent == ROOT / folder


def python_3_10() -> str | None:
    found = shutil.which("python3.10")
    if found and run(found, "-c", "import ensurepip").returncode == 0:
        return found
    if shutil.which("pyenv"):
        answer = run("pyenv", "prefix", "3.10")
        python = Path(answer.stdout.strip(), "bin/python")
        if answer.returncode == 0 and python.is_file():
            return str(python)
    return None


SCORE = (
    "import sys\n"
    "from fsad_edge import Model\n"
    "with Model.load(sys.argv[1]) as model:\n"
    "    print(model.score(sys.argv[2]).score)\n"
    "print('torch' in sys.modules, *sys.version_info[:2])"
)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["this", "3.10"])
def test_the_wheel_makes_a_model_and_scores_in_an_empty_environment(
    wheel: Path, job: Job, tmp_path: Path, version: str
) -> None:
    python = sys.executable if version == "this" else python_3_10()
    if python is None:
        pytest.skip("no Python 3.10 with pip on this machine")
    made = run(python, "-m", "venv", "--without-pip", tmp_path / "venv")
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    # A pip of its own would take longer to install than the wheel.
    pip = (sys.executable, "-m", "pip", "--python", folder / "python")
    installed = run(*pip, "install", "--quiet", "--no-compile", f"{wheel}[cpu]")
    if installed.returncode and "No matching distribution" in installed.stderr:
        pytest.skip("pip has no index to install onnxruntime from")
    assert installed.returncode == 0, installed.stderr
    image = job.shots / "0.png"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run_there(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return run(folder / program, *arguments, cwd=tmp_path, env=environment)

    scored = run_there("fsad-edge", "score", job.file, image, "--csv")
    assert scored.returncode == 0, scored.stderr
    by_library = run_there("python", "-c", SCORE, job.file, image)
    assert by_library.returncode == 0, by_library.stderr
    value, facts = by_library.stdout.splitlines()
    assert float(value) == pytest.approx(
        float(scored.stdout.splitlines()[1].split(",")[1]), abs=1e-6
    )
    loaded, *got = facts.split()
    assert loaded == "False"
    if version == "3.10":
        assert got == ["3", "10"]
    absent = run_there("python", "-c", "import torch")
    assert "No module named 'torch'" in absent.stderr
    make = ("fsad-edge", "finetune", job.shots, "-o", tmp_path / "part", "--image-size", "64")
    made = run_there(*make)
    assert made.returncode == 0, made.stderr
    assert "PyTorch is not installed:  pip install 'fsad-edge[train]'  adds it" in made.stdout
    exported = run_there("fsad-edge", "export", tmp_path / "part")
    assert exported.returncode == 0, exported.stderr
    own = run_there("fsad-edge", "score", tmp_path / "part.onnx", image)
    assert own.returncode == 0, own.stderr
    eight = (tmp_path / "part", "--precision", "int8", "-o", tmp_path / "int8.onnx")
    exported = run_there("fsad-edge", "export", *eight, "--allow-drift", "1")
    assert exported.returncode == 0, exported.stderr
    own = run_there("fsad-edge", "score", tmp_path / "int8.onnx", image)
    assert own.returncode == 0, own.stderr
    refused = run_there("fsad-edge", "export", tmp_path / "part", "--force", "--precision", "fp16")
    assert "pip install 'fsad-edge[fp16]'" in refused.stderr
    assert "GB" not in refused.stderr  # it is one package of 20 MB
    for options in (("--epochs", "3"), ("--backbone", "resnet18")):
        refused = run_there(*make, "--force", *options)
        assert refused.returncode == 2
        assert "pip install 'fsad-edge[train]'" in refused.stderr
