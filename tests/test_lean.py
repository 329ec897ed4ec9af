"""The benchmark of starts and installed sizes, with real processes and real files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.lean import measure, start_commands, weigh
from tests.conftest import Job

REPOSITORY = Path(__file__).parents[1]
DEVICE = frozenset({"numpy", "onnxruntime", "PIL", "fsad_edge", "typer", "rich"})
HOST = frozenset({"torch", "timm", "onnx", "matplotlib", "scipy", "sklearn"})


def test_starts_are_measured_and_written(job: Job, tmp_path: Path) -> None:
    image = next((job.dataset / "test/good").iterdir())
    subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.lean", job.file, image),
            *("--starts", "2", "--out", tmp_path / "out"),
        ],
        check=True,
        capture_output=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    text = (tmp_path / f"out/python{version}.md").read_text()
    assert "96×96 pixels" in text
    found = re.findall(r"\| `(.+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \|", text)
    rows = {name: [float(value) for value in values] for name, *values in found}
    assert list(rows) == list(start_commands("python", "part", "image"))
    for p50, p90, cpu, _ in rows.values():
        assert 0 < p50 <= p90
        assert cpu > 0
    # Memory is what the imports and the model take, whatever else the machine does.
    empty, engine, *scores = (row[-1] for row in rows.values())
    assert 5 < empty < engine < min(scores) <= max(scores) < 1000
    assert re.search(r"\| torch \| \d{3,}\.\d \|", text)  # the tests need it, and it is large


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("python -c pass", frozenset()),
        ("import onnxruntime", {"numpy", "onnxruntime"}),
        ("Model.load and score", DEVICE - {"typer", "rich"}),
        ("fsad-edge score", DEVICE),
    ],
)
def test_a_start_imports_only_what_it_needs(job: Job, name: str, expected: frozenset[str]) -> None:
    image = next((job.dataset / "test/good").iterdir())
    command = start_commands(sys.executable, str(job.file), str(image))[name]
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode in {0, 1}, done.stderr  # 1 is an anomaly
    imported = set(re.findall(r"^import time:.*\| +(\w+)", done.stderr, re.MULTILINE))
    assert imported & (DEVICE | HOST) == expected


def test_a_failed_command_is_reported() -> None:
    with pytest.raises(SystemExit, match="no such thing"):
        measure({"broken": [sys.executable, "-c", "raise SystemExit('no such thing')"]}, 1)


def test_every_file_is_counted_once(tmp_path: Path) -> None:
    package, info = tmp_path / "thing", tmp_path / "thing-1.2.dist-info"
    for folder in (package / "__pycache__", info):
        folder.mkdir(parents=True)
    (package / "__init__.py").write_bytes(b"#" * 100)
    (package / "data.bin").write_bytes(b"0" * 1000)
    (package / "__pycache__/__init__.cpython-310.pyc").write_bytes(b"0" * 30)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.2\n")
    record = "thing/__init__.py,,\nthing/data.bin,,\nthing-1.2.dist-info/METADATA,,\n"
    (info / "RECORD").write_text(record)
    size = 1130 + (info / "METADATA").stat().st_size
    (weight,) = weigh(tmp_path)
    assert (weight.name, weight.version) == ("thing", "1.2")
    assert (weight.total, weight.bytecode) == (size, 30)
    # The same if the bytecode is on the list.
    (info / "RECORD").write_text(record + "thing/__pycache__/__init__.cpython-310.pyc,,\n")
    assert weigh(tmp_path) == [weight]
