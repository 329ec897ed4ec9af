"""The benchmark of starts and sizes: real processes, real files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.lean import measure, weigh
from tests.conftest import Job


def test_a_start_is_measured_and_written_down(job: Job, tmp_path: Path) -> None:
    image = next((job.dataset / "test/good").iterdir())
    subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.lean", job.file, image),
            *("--starts", "2", "--out", tmp_path / "out"),
        ],
        check=True,
        capture_output=True,
        cwd=Path(__file__).parents[1],
    )
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    text = (tmp_path / f"out/python{version}.md").read_text()
    assert "96×96 pixels" in text
    found = re.findall(r"\| `(.+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \|", text)
    rows = {name: [float(value) for value in values] for name, *values in found}
    empty, engine, score = (
        rows[name] for name in ("python -c pass", "import onnxruntime", "fsad-edge score")
    )
    assert 0 < empty[2] < engine[2] < score[2]
    assert 5 < engine[3] < score[3] < 1000
    assert re.search(r"\| torch \| \d{3,}\.\d \|", text)  # the tests need it, and it is heavy


def test_a_command_that_fails_is_said() -> None:
    with pytest.raises(SystemExit, match="no such thing"):
        measure({"broken": [sys.executable, "-c", "raise SystemExit('no such thing')"]}, 1)


def test_every_file_is_weighed_once(tmp_path: Path) -> None:
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
    # The same where pip has the bytecode on its list.
    (info / "RECORD").write_text(record + "thing/__pycache__/__init__.cpython-310.pyc,,\n")
    assert weigh(tmp_path) == [weight]
