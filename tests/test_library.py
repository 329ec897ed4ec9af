"""The library as its users call it: five lines, progress, warnings, errors and quick imports."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

import fsad_edge
from fsad_edge import ExportOptions, FinetuneOptions, InputError, MissingExtraError, Model, Progress
from fsad_edge.options import Precision
from tests.commands import all_files, run_process
from tests.conftest import SIZE, Job, photograph
from tests.seals import write_manifest


class Stopped(KeyboardInterrupt):
    """What Ctrl-C raises, told apart from a real one."""


class Recorder:
    """Keeps the progress and the warnings of a job, and stops it at an event if that is wanted."""

    def __init__(self, stop_at: Progress | None = None) -> None:
        self.events: list[Progress] = []
        self.warnings: list[str] = []
        self.stop_at = stop_at

    def progress(self, event: Progress) -> None:
        self.events.append(event)
        if event == self.stop_at:
            raise Stopped

    @property
    def stages(self) -> list[str]:
        return [stage for stage, _ in itertools.groupby(event.stage for event in self.events)]

    def assert_forward(self) -> None:
        """Fractions never fall within a stage, and each stage ends at 1."""
        for stage, events in itertools.groupby(self.events, lambda event: event.stage):
            fractions = [event.fraction for event in events if event.fraction is not None]
            assert fractions == sorted(fractions), stage
            assert fractions[-1] == 1.0, stage


def test_the_five_lines_of_the_package_work_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At one small image size; all else is as a user has it."""
    monkeypatch.setattr("fsad_edge.pipeline.candidates.SIZES", (SIZE,))
    rng = np.random.default_rng(0)
    for name, count in (("shots", 2), ("dataset/test/good", 2), ("dataset/test/bar", 2)):
        (tmp_path / name).mkdir(parents=True)
        for index in range(count):
            image = photograph(rng, defect=name.endswith("bar"))
            image.save(tmp_path / name / f"{index}.png")
    photograph(rng, defect=True).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    assert fsad_edge.__doc__ is not None
    start, end = (fsad_edge.__doc__.index(text) for text in ("import fsad_edge\n", "\nNames are"))
    names: dict[str, object] = {}
    exec(fsad_edge.__doc__[start:end], names)
    decision, good, score, ratio = capsys.readouterr().out.split()
    assert float(score) > 0
    assert float(ratio) > 1
    assert (decision, good) == ("anomaly", "False")
    report = names["report"]
    assert isinstance(report, fsad_edge.EvaluationReport)
    assert report.figures.image_auroc == 1
    assert {path.name for path in tmp_path.iterdir()} == {
        "shots", "dataset", "photo.jpg", "part", "part.onnx",
    }  # fmt: skip


def test_results_can_be_given_wherever_a_path_can(job: Job) -> None:
    assert isinstance(job.finetune, os.PathLike)
    assert isinstance(job.export, os.PathLike)
    assert os.fspath(job.finetune) == str(job.finetune.path) == str(job.part)
    assert os.fspath(job.export) == str(job.export.path) == str(job.file)
    assert Path(job.export).is_file()


@pytest.mark.parametrize("line", ["", "fsad_edge.FinetuneOptions()", "fsad_edge.Model"])
def test_a_device_imports_no_torch(line: str) -> None:
    script = f"import sys, fsad_edge\n{line}\nprint({{'torch', 'timm', 'onnx'}} & set(sys.modules))"
    done = run_process(script=script)
    assert done.code == 0, done.err
    assert done.out == "set()\n"


def test_every_public_name_is_there() -> None:
    assert set(fsad_edge.__all__) <= set(dir(fsad_edge))
    assert all(getattr(fsad_edge, name) is not None for name in fsad_edge.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fsad_edge.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("module", "call", "extra"),
    [
        ("timm", "fsad_edge.finetune(sys.argv[4], options=EPOCHS)", "train"),
        ("onnx", "fsad_edge.export(sys.argv[3], options=INT8)", "train"),
        ("scipy", "fsad_edge.evaluate(sys.argv[1], sys.argv[2])", "eval"),
        ("onnxruntime", "fsad_edge.Model.load(sys.argv[1])", "cpu"),
    ],
)
def test_a_missing_extra_is_an_error_that_names_it(
    job: Job, module: str, call: str, extra: str
) -> None:
    script = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "import fsad_edge\n"
        "EPOCHS = fsad_edge.FinetuneOptions(epochs=1)\n"
        "INT8 = fsad_edge.ExportOptions(precision='int8', force=True)\n"
        f"try:\n    {call}\n"
        "except fsad_edge.MissingExtraError as error:\n    print(error)"
    )
    done = run_process(job.file, job.dataset, job.part, job.shots, script=script)
    assert done.code == 0, done.err
    assert done.out.startswith(module)
    assert f"is not installed: run  pip install 'fsad-edge[{extra}]'" in done.out
    assert issubclass(MissingExtraError, fsad_edge.FsadEdgeError)


def some_shots(job: Job, folder: Path, names: Iterable[str]) -> Path:
    folder.mkdir()
    for name in names:
        shutil.copy(job.shots / "0.png", folder / name)
    return folder


def test_finetune_tells_its_progress_and_its_warnings(
    job: Job, backbones: dict[str, str], tmp_path: Path
) -> None:
    shots, seen = some_shots(job, tmp_path / "shots", ("a.png", "b.png")), Recorder()
    part = fsad_edge.finetune(
        shots,
        tmp_path / "part",
        FinetuneOptions(backbones["conv"], image_size=SIZE, epochs=1, budget_ms=0.001),
        on_progress=seen.progress,
        on_warning=seen.warnings.append,
    )
    assert seen.stages == [
        "checking the shots",
        "looking for the part",
        "first model",
        "drawing defects",
        "choosing for the part",
        "fine-tuning",
        "alignment",
        "memory bank and threshold",
    ]
    seen.assert_forward()
    assert any("loss" in event.note for event in seen.events)
    assert seen.warnings == list(part.warnings)
    twice, few, slow = seen.warnings
    assert "is the same file as" in twice
    assert "too few to promise a false alarm rate" in few
    assert "--budget-ms" in slow


def test_export_warns_where_the_threshold_is_not_that_of_the_training(
    job: Job, tmp_path: Path
) -> None:
    part, seen = tmp_path / "part", Recorder()
    shutil.copytree(job.part, part)
    manifest = json.loads((part / "manifest.json").read_text())
    manifest["threshold"]["value"] *= 1.1
    write_manifest(part, manifest)
    file = fsad_edge.export(part, on_progress=seen.progress, on_warning=seen.warnings.append)
    assert seen.stages == [
        "graph",
        "memory bank and threshold",
        "parity with torch",
        "golden images",
    ]
    seen.assert_forward()
    (warning,) = file.warnings
    assert seen.warnings == [warning]
    assert "at training" in warning
    # The file's own threshold is the graph's.
    assert file.threshold.value == pytest.approx(job.export.threshold.value, rel=1e-6)


@pytest.mark.parametrize(
    "last", [Progress("drawing defects"), Progress("memory bank and threshold", 1.0)]
)
def test_an_interrupted_finetune_leaves_what_was_there(
    job: Job, backbones: dict[str, str], tmp_path: Path, last: Progress
) -> None:
    options = FinetuneOptions(
        backbones["conv"], image_size=SIZE, rotations=1, align=False, epochs=0, force=True
    )
    shutil.copytree(job.part, tmp_path / "part")
    before, seen = all_files(tmp_path), Recorder(stop_at=last)
    with pytest.raises(Stopped):
        fsad_edge.finetune(job.shots, tmp_path / "part", options, on_progress=seen.progress)
    assert all_files(tmp_path) == before


def test_an_interrupted_export_leaves_what_was_there(job: Job, tmp_path: Path) -> None:
    (tmp_path / "part.onnx").write_bytes(b"older")
    before, seen = all_files(tmp_path), Recorder(stop_at=Progress("golden images", 1.0))
    options = ExportOptions(precision=Precision.FP16, allow_drift=1, force=True)
    with pytest.raises(Stopped):
        fsad_edge.export(job.part, tmp_path / "part.onnx", options, on_progress=seen.progress)
    assert all_files(tmp_path) == before
    assert seen.stages == [
        "graph",
        "memory bank and threshold",
        "parity with torch",
        "fp16: memory bank and threshold",
        "comparison with fp32",
        "golden images",
    ]
    seen.assert_forward()


def test_evaluate_tells_its_progress_and_stops_when_it_is_told(job: Job, tmp_path: Path) -> None:
    seen, report = Recorder(), tmp_path / "report.png"
    fsad_edge.evaluate(job.export, job.dataset, on_progress=seen.progress)
    assert seen.stages == ["checking the masks", "scoring", "computing the figures"]
    assert len(seen.events) == 2 + 1 + 7 + 2  # two masks, seven images
    seen.assert_forward()
    stopping = Recorder(stop_at=Progress("drawing the report"))
    with pytest.raises(Stopped):
        fsad_edge.evaluate(job.export, job.dataset, report, on_progress=stopping.progress)
    assert list(tmp_path.iterdir()) == []


def test_a_choice_can_be_given_as_a_word(job: Job) -> None:
    with Model.load(job.export, "cpu") as model:
        assert model.provider == "CPUExecutionProvider"
    with pytest.raises(InputError, match="there is no provider 'tpu': take one of auto, cpu"):
        Model.load(job.export, "tpu")


def test_words_of_export_options_are_taken_or_refused_and_never_written_as_they_are() -> None:
    assert ExportOptions(precision="int8").precision == Precision.INT8  # type: ignore[arg-type]
    for wrong in ({"precision": "int4"}, {"target": "gpu"}, {"golden": "no"}):
        with pytest.raises(InputError):
            ExportOptions(**wrong)  # type: ignore[arg-type]
