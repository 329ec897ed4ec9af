"""The benchmark of a service beside a GPU, on a machine that has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.serve import gpu
from tests.conftest import Job, photograph
from tests.serving import encoded


def test_the_whole_table_is_printed_on_a_cpu_and_says_what_is_missing(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "part.jpg"
    image.write_bytes(encoded(photograph(np.random.default_rng(0)), "JPEG"))
    monkeypatch.setattr(gpu, "RUNS", 3)
    arguments = [str(job.file), str(image), "--provider", "cpu", "--output", str(tmp_path)]
    load = ["--clients", "1", "3", "--images", "2", "--seconds", "0.3", "--rounds", "1"]
    gpu.main([*arguments, *load, "--client-processes", "2"])
    text = capsys.readouterr().out
    assert text.rstrip() == (tmp_path / "serve_gpu.md").read_text().rstrip()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    loads = [row for row in rows if row[0].isdecimal()]
    assert [row[:2] for row in loads] == [["1", "1"], ["3", "1"], ["8", "2"]]
    assert all(int(row[2]) > 0 and row[8] == "0" for row in loads)  # scored, and no other error
    alone = {row[0]: row[1] for row in rows if len(row) == 2}
    assert float(alone["graph alone, batch 32"]) > 0
    assert "no --peers-python" in alone["patchcore-resnet18, batch 1"]
    assert "Not measured: a GPU." in text
