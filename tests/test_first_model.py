"""A first model is there after seconds, and the search goes on within its time."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fsad_edge
from fsad_edge import FinetuneOptions, InputError, Model
from fsad_edge.options import BundledEncoder
from fsad_edge.pipeline.candidates import Shape
from fsad_edge.pipeline.events import Progress
from fsad_edge.pipeline.finetune_job import FinetuneJob
from fsad_edge.pipeline.model_directory import read_manifest
from fsad_edge.pipeline.time_budget import TimeBudget
from fsad_edge.runtime.encoder_names import bundled_name
from tests.conftest import Cli, Job

FAST, ACCURATE = (bundled_name(kind) for kind in BundledEncoder)

SMALL = FinetuneOptions(encoder=BundledEncoder.FAST, image_size=96, rotations=1, epochs=0)


def test_no_time_at_all_gives_the_first_model(job: Job, tmp_path: Path, cli: Cli) -> None:
    part = tmp_path / "part"
    made = cli("finetune", job.shots, "-o", part, "--image-size", 96, "--budget-s", 0, "--json")
    assert made.code == 0, made.err
    assert "budget" not in made.err  # it was asked for
    [trial] = made.json["trials"]
    assert (trial["encoder"], trial["image_size"]) == ("fast", 96)
    assert trial["drawn_auroc"] is None
    assert made.json["drawn_auroc_pretrained"] is None
    assert not made.json["aligned"]
    file = fsad_edge.export(part)
    good, bad = (job.dataset / "test" / kind for kind in ("good", "scratch"))
    with Model.load(file) as model:
        scores = [
            max(model.score(path).ratio for path in folder.iterdir()) for folder in (good, bad)
        ]
    assert scores[0] < 1 < scores[1]


def test_the_summary_says_what_there_was_no_time_for(job: Job, tmp_path: Path, cli: Cli) -> None:
    short = ("--image-size", 96, "--budget-s", 0.01)
    made = cli("finetune", job.shots, "-o", tmp_path / "part", *short)
    assert made.code == 0, made.err
    assert "the 0.01 seconds of --budget-s are too few to look at drawn defects" in made.err
    assert "--budget-s left no time for it" in made.out
    assert "alignment" in made.out


def test_what_did_not_fit_is_named(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allows(time: TimeBudget, backbone: str, shape: Shape, trials: float) -> bool:
        return backbone == FAST

    monkeypatch.setattr(TimeBudget, "allows", allows)
    options = FinetuneOptions(image_size=96, rotations=1, epochs=0, budget_s=60)
    made = fsad_edge.finetune(job.shots, tmp_path / "part", options)
    assert [trial.encoder for trial in made.trials] == [BundledEncoder.FAST]
    assert any("--budget-s did not suffice: accurate at 96 px" in one for one in made.warnings)


class Stopped(KeyboardInterrupt):
    """Ctrl-C."""


@pytest.mark.parametrize("error", [Stopped, RuntimeError])
def test_a_search_that_is_stopped_or_fails_keeps_the_first_model(
    job: Job, tmp_path: Path, error: type[BaseException]
) -> None:
    part, seen = tmp_path / "part", list[Progress]()

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if progress.stage == "choosing for the part":
            raise error

    with pytest.raises(error):
        fsad_edge.finetune(job.shots, part, SMALL, on_progress=stop)
    assert any("can be exported; Ctrl-C keeps it" in one.note for one in seen)
    made = fsad_edge.export(part)
    assert made.golden_images == 2
    assert any("the first model of a search that was stopped" in one for one in made.warnings)


def test_what_others_put_into_the_directory_is_left_alone(job: Job, tmp_path: Path) -> None:
    part = tmp_path / "part"

    def add(progress: Progress) -> None:
        if progress.stage == "choosing for the part":
            (part / "notes.txt").write_text("mine")

    made = fsad_edge.finetune(job.shots, part, SMALL, on_progress=add)
    assert made.path == tmp_path / "part.finished"
    assert (part / "notes.txt").read_text() == "mine"
    assert any("holds other files by now" in one for one in made.warnings)
    assert not fsad_edge.export(made).warnings


def test_another_model_that_was_put_there_is_left_alone(job: Job, tmp_path: Path) -> None:
    part, other = tmp_path / "part", tmp_path / "other"
    fsad_edge.finetune(job.shots, other, replace(SMALL, bank_size=20))

    def swap(progress: Progress) -> None:
        if progress.stage == "choosing for the part" and other.exists():
            shutil.rmtree(part)
            other.rename(part)

    made = fsad_edge.finetune(job.shots, part, SMALL, on_progress=swap)
    assert made.path == tmp_path / "part.finished"
    assert any("holds another model by now" in one for one in made.warnings)
    assert read_manifest(part).calibration.bank_size == 20


def test_the_first_size_keeps_the_budget_of_milliseconds_that_it_was_taken_for(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the same size takes when it is timed again."""
    monkeypatch.setattr("fsad_edge.pipeline.candidates.SIZES", (32, 64))
    timed = iter((29.5, 8.0, 99.0, 99.0))
    monkeypatch.setattr(FinetuneJob, "latency_ms", lambda *given: next(timed))
    options = FinetuneOptions(encoder=BundledEncoder.FAST, rotations=1, epochs=0, budget_ms=30)
    made = fsad_edge.finetune(job.shots, tmp_path / "part", options)
    assert {trial.latency_ms for trial in made.trials} == {8.0, 29.5}
    assert not any("nothing faster was tried" in one for one in made.warnings)


def test_a_budget_and_a_number_of_epochs_exclude_one_another(job: Job, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave one of them out"):
        fsad_edge.finetune(job.shots, tmp_path / "part", FinetuneOptions(epochs=3, budget_s=5))
    with pytest.raises(InputError, match="0 or more seconds"):
        fsad_edge.finetune(job.shots, tmp_path / "part", FinetuneOptions(budget_s=-1))


shapes = st.integers(2, 40).map(lambda cells: Shape(16 * cells, (16,)))


@given(shapes, shapes, st.floats(0.1, 100), st.floats(0, 1000))
def test_what_fits_fits_when_it_is_smaller(
    tried: Shape, other: Shape, took: float, seconds: float
) -> None:
    time = TimeBudget(seconds)
    time.note(FAST, tried, took)
    if time.allows(ACCURATE, other, 2.0):
        assert time.allows(FAST, other, 2.0)
        assert time.allows(ACCURATE, other, 1.0)
        assert TimeBudget(None).allows(ACCURATE, other, 1.0)
    assert time.allows(FAST, tried, 1.0) == (took < seconds) or abs(took - seconds) < 1
