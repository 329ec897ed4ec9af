"""The benchmark of the way from photographs to the first score."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.finetune.__main__ import CASES, photographs
from benchmarks.finetune.report import GROUPS, grouped, markdown, plot, words_of
from benchmarks.finetune.steps import START, Case, Installed, Timed, time_commands
from fsad_edge.errors import InputError


def test_it_times_the_commands_as_a_user_runs_them(tmp_path: Path) -> None:
    case = Case(5, 96, 64, first_model=True)
    shots = photographs(case, tmp_path)
    assert sorted(path.name for path in shots.iterdir()) == [
        f"{index:03d}.jpg" for index in range(5)
    ]
    with Image.open(min(shots.iterdir())) as image:
        assert image.size == (96, 64)
    timed = time_commands(Path(sys.executable), shots, case, tmp_path)
    steps = list(timed.steps)
    assert steps[0] == f"finetune: {START}"
    assert "finetune: first model" in steps
    assert "finetune: drawing defects" not in steps  # there was no time for it
    assert "export: memory bank and threshold" in steps
    assert steps[-1] == "first score"
    assert timed.to_first_model is not None
    assert 0 < timed.to_first_model < timed.seconds
    assert sum(grouped(timed).values()) == pytest.approx(timed.seconds)
    with pytest.raises(InputError, match="exists: add --force"):
        time_commands(Path(sys.executable), shots, case, tmp_path)


def test_the_report_shows_every_row() -> None:
    steps = {"finetune: start": 0.5, "finetune: choosing for the part": 30.25, "first score": 0.5}
    rows = [Timed("fsad-edge", case, steps, 4.5) for case in CASES]
    text = markdown(rows, {"fsad-edge": Installed(Path("python"), 14.4, 250.0)}, {"cpu": "one"})
    for case in CASES:
        assert f"| fsad-edge | {words_of(case)} |" in text
    assert "| 30.2 |" in text
    assert "**31.2**" in text
    assert "| fsad-edge | 14 s, downloads included | 250 MB |" in text
    assert text.splitlines()[6].count("|") == len(GROUPS) + 5
    with Image.open(io.BytesIO(plot(rows))) as image:
        assert image.width > 1000
