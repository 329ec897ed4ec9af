"""``fsad_edge.evaluate`` and its command: how good a model is on labelled images."""

from __future__ import annotations

from pathlib import Path

import pytest

import fsad_edge
from fsad_edge import InputError, Model, load_image
from tests.conftest import Cli, Job


def test_a_loaded_model_is_evaluated_and_stays_open(job: Job, tmp_path: Path) -> None:
    with Model.load(job.file) as model:
        report = fsad_edge.evaluate(model, job.dataset, tmp_path / "report.png")
        assert model.score(job.scratched / "0.png").anomalous
    assert report.picture == tmp_path / "report.png"
    assert load_image(report.picture).shape[1] > 1000
    assert report.false_alarm_rate_asked == 0.01
    assert report.title == f"part on {job.dataset.name}"
    without = fsad_edge.evaluate(job.export, job.dataset)
    assert without.picture is None
    assert without.figures == report.figures


@pytest.mark.parametrize("name", ["report.jpg", "folder.png", "nowhere/report.png"])
def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    job: Job, tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError):
        fsad_edge.evaluate(tmp_path / "no_model.onnx", job.dataset, tmp_path / name)


def test_the_command_prints_the_figures(cli: Cli, job: Job, tmp_path: Path) -> None:
    report = tmp_path / "report.png"
    done = cli("eval", job.file, job.dataset, "--report", report, "--json")
    assert done.code == 0, done.err
    figures = done.json
    assert (figures["n_good"], figures["n_defective"], figures["n_masked"]) == (3, 4, 2)
    assert figures["image_auroc"] == 1.0
    assert 0.5 < figures["pixel_auroc"] <= 1
    assert 0 < figures["aupro"] <= 1
    assert [row["defect"] for row in figures["by_defect"]] == ["[red]dent", "scratch"]
    assert figures["false_alarm_rate_asked"] == 0.01
    assert load_image(report).shape[1] > 1000
    assert figures["dataset"]["masks"] == str(job.dataset / "ground_truth")
    assert figures["skipped"] == []
    plain = cli("eval", job.file, job.dataset, "--report", report, "--force")
    assert plain.code == 0, plain.err
    assert "2 of 4 images with a defect had a mask." in plain.out
    assert "good images from test/good, defects from test/[red]dent, test/scratch" in plain.out
    assert "image AUROC   1.0000" in plain.out
    assert "[red]dent" in plain.out
    assert "1.00% was asked for" in plain.out
