"""The benchmark of image sizes: what it measures, that it continues, and its table."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.accuracy.rows import Row, read_rows
from benchmarks.size_ranking import chosen_size, main, rank_correlation, table
from fsad_edge.pipeline import candidates
from tests.conftest import Job


def row(size: int, estimate: float, truth: float, name: str = "plates", seed: int = 0) -> Row:
    """A measured size; AUROC and what is found are both the estimate."""
    return {
        "dataset": name,
        "system": "net",
        "settings": size,
        "shots": 5,
        "seed": seed,
        "drawn_auroc": estimate,
        "drawn_found": estimate,
        "latency_ms": 1.0,
        "image_auroc": truth,
        "rotations": 1,
        "located": False,
    }


def test_every_size_is_measured_once_and_has_its_place_in_the_table(
    job: Job,
    backbones: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(candidates, "SIZES", (32, 64, 128))
    words = [
        *(str(tmp_path), "--data", str(job.dataset), str(tmp_path / "nowhere")),
        *("--backbone", backbones["conv"], "--seeds", "0"),
    ]
    assert main([*words, "--largest", "32"]) == 0
    file = tmp_path / "size_ranking.jsonl"
    [first] = read_rows(file)
    assert main(words) == 0
    told = capsys.readouterr().out
    assert told.count("32 px: ") == 1  # measured by the first command alone
    assert f"skipped: {tmp_path / 'nowhere'} is not there." in told
    rows = read_rows(file)
    assert rows[0] == first
    assert [one["settings"] for one in rows] == [32, 64]  # the photographs have 96 pixels
    for one in rows:
        assert 0 <= one["drawn_found"] <= 1
        assert 0 <= one["drawn_auroc"] <= 1
        assert 0.5 < one["image_auroc"] <= 1  # a bright bar is hard to miss
    text = (tmp_path / "size_ranking.md").read_text()
    assert text in told
    assert f"| {job.dataset.name} | conv | 5 | 0 | " in text


def test_ranks_and_what_a_choice_loses_are_in_the_table() -> None:
    agreeing = [row(224, 0.5, 0.7), row(320, 0.6, 0.8), row(448, 0.7, 0.9)]
    opposed = [row(224, 0.5, 0.7, "nuts"), row(320, 0.6, 0.5, "nuts"), row(448, 0.7, 0.6, "nuts")]
    alone = [row(224, 0.6, 0.75, "tiles")]
    text = table([*opposed, *agreeing, *alone])
    lines = [line for line in text.splitlines() if "| net |" in line]
    assert [line.partition("0 | ")[2] for line in lines] == [
        "0.500 / 0.700 | 0.600 / 0.500 | **0.700 / 0.600** | -0.50 | 0.100 |",
        "0.500 / 0.700 | 0.600 / 0.800 | **0.700 / 0.900** | +1.00 | 0.000 |",
        "**0.600 / 0.750** | – | – | one size | |",
    ]
    assert "Over 2 draws with several sizes" in text
    assert "+0.25 on the mean of the draws, +0.25 of all differences" in text
    assert "0.750 as chosen, 0.800 with the best size" in text
    assert "0.700 with the smallest, 0.750 with the largest" in text


def test_the_chosen_size_is_that_of_finetune() -> None:
    better, same = row(320, 0.7, 0.5), row(640, 0.705, 0.6)
    assert chosen_size([row(224, 0.6, 0.5), better, same]) == 320
    assert chosen_size([row(1024, 0.99, 0.9), row(224, 0.6, 0.5), better, same]) == 320
    assert chosen_size([row(1024, 0.99, 0.9), row(224, 0.6, 0.5), better]) == 1024


def test_sizes_that_are_all_alike_have_no_rank() -> None:
    assert math.isnan(rank_correlation([0.5, 0.5], [0.7, 0.8]))
    assert rank_correlation([0.5, 0.6, 0.7], [0.1, 0.2, 0.3]) == 1
