"""``fsad_edge.evaluate`` and its command: how good a model is on labelled images."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

import fsad_edge
from fsad_edge import InputError, Model, load_image
from tests.commands import assert_refused
from tests.conftest import Cli, Job


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the figures: the picture takes a second to draw."""
    drawing = "fsad_edge.pipeline.evaluate.write_report"
    monkeypatch.setattr(drawing, lambda _, samples, results, path, *rest: path.touch())


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


@pytest.mark.usefixtures("undrawn")
def test_what_was_learned_counts_unless_it_is_left_out(cli: Cli, job: Job, tmp_path: Path) -> None:
    file, report = Path(shutil.copy(job.file, tmp_path)), tmp_path / "report.png"
    for image in sorted((job.dataset / "test/scratch").iterdir()):
        same = tmp_path / f"{image.stem}.bmp"  # the images themselves would be left out
        Image.open(image).save(same)
        assert cli("bank", "add", file, same, "--force").code == 0
    learned = fsad_edge.evaluate(file, job.dataset)
    assert (learned.learned, learned.figures.missed) == (2, 2)  # they count as good now
    without = fsad_edge.evaluate(file, job.dataset, learned=False)
    assert (without.learned, without.figures) == (
        0, fsad_edge.evaluate(job.file, job.dataset).figures,
    )  # fmt: skip
    done = cli("eval", file, job.dataset, "--report", report)
    assert "with 2 images learned as good here; --no-learned scores with the file alone" in done.out
    plain = cli("eval", file, job.dataset, "--report", report, "--force", "--no-learned", "--json")
    assert (plain.json["learned"], plain.json["missed"]) == (0, 0)


@pytest.mark.usefixtures("undrawn")
def test_the_best_threshold_can_be_set_by_the_line_that_is_printed(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    file, report = Path(shutil.copy(job.file, tmp_path / "teil [b].onnx")), tmp_path / "r.png"
    done = cli("eval", file, job.dataset, "--report", report, "--json")
    best = done.json["best"]["within"]
    words = cli("eval", file, job.dataset, "--report", report, "--force").out
    [line] = [one for one in words.splitlines() if one.startswith("To set the first:")]
    [second] = [one for one in words.splitlines() if one.startswith("To set the second:")]
    assert float(second.split()[-1]) == done.json["best"]["balanced"]["threshold"]
    command, *options = shlex.split(line.partition("fsad-edge ")[2])
    assert float(options[-1]) == best["threshold"]
    assert cli(command, *options, "--who", "anna").code == 0
    after = cli("eval", file, job.dataset, "--report", report, "--force", "--json").json
    assert (after["threshold"], after["false_alarm_rate"], after["miss_rate"]) == (
        best["threshold"], best["false_alarm_rate"], best["miss_rate"],
    )  # fmt: skip
    assert after["taught"] == "with the threshold that anna set here"
    assert after["false_alarm_rate"] <= 0.01
    plain = cli("eval", file, job.dataset, "--report", report, "--force", "--no-learned", "--json")
    assert plain.json["threshold"] == done.json["threshold"]


@pytest.mark.usefixtures("undrawn")
def test_images_that_the_model_knows_are_named_and_left_out_of_the_figures(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    file, report = Path(shutil.copy(job.file, tmp_path)), tmp_path / "report.png"
    place = tmp_path / "set/test"
    shutil.copytree(job.dataset / "test", place)
    shutil.copy(job.shots / "0.png", place / "good/shot.png")
    options = (tmp_path / "set", "--report", report, "--force", "--json")
    assert cli("bank", "add", file, place / "good/0.png", "--force").code == 0
    assert cli("bank", "reject", file, place / "scratch/0.png", "--force").code == 0
    examples = ("--good", place / "good/1.png", "--bad", place / "scratch/1.png")
    assert cli("threshold", file, *examples, "--force").code == 0
    done = cli("eval", file, *options)
    assert done.code == 0, done.err
    # Of three good ones and the shot one is left; of two scratches none.
    assert (done.json["n_good"], done.json["n_defective"]) == (1, 2)
    assert {(Path(one["path"]).name, one["known_as"]) for one in done.json["known"]} == {
        ("shot.png", "shot"), ("0.png", "normal"), ("0.png", "rejected"), ("1.png", "example"),
    }  # fmt: skip
    assert (
        "5 images are left out of the figures, because the model knows them (1 shot or learned "
        "before the export, 1 learned as good, 1 called bad, 2 examples): good/0.png"
    ) in done.err
    # The file alone knows its shots alone, and a file that was exported knows all of them.
    plain = cli("eval", file, *options, "--no-learned").json
    assert (plain["n_good"], plain["n_defective"]) == (3, 4)
    new = tmp_path / "new.onnx"
    assert cli("bank", "export", file, "-o", new).code == 0
    for more in ([], ["--no-learned"]):
        again = cli("eval", new, *options, *more).json
        assert (again["n_good"], again["n_defective"]) == (1, 2)
    assert fsad_edge.evaluate(job.file, job.dataset).known == ()


def test_a_data_set_of_known_good_images_alone_measures_nothing(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    shutil.copytree(job.shots, tmp_path / "set/test/good")
    shutil.copytree(job.scratched, tmp_path / "set/test/scratch")
    done = cli("eval", job.file, tmp_path / "set", "--report", tmp_path / "report.png")
    assert_refused(done, "the model knows all good images")


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
    assert figures["not_scored"] == figures["skipped"] == []
    plain = cli("eval", job.file, job.dataset, "--report", report, "--force")
    assert plain.code == 0, plain.err
    assert "2 of 4 images with a defect had a mask." in plain.out
    assert "good images from test/good, defects from test/[red]dent, test/scratch" in plain.out
    assert "image AUROC   1.0000" in plain.out
    assert "[red]dent" in plain.out
    assert "1.00% was asked for" in plain.out


def test_images_that_are_not_judged_are_counted_apart(
    cli: Cli, job: Job, careful_file: Path, foreign: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(job.dataset / "test", folder / "test")
    for place in ("good/other.png", "scratch/other.png", "scratch/another.png"):
        shutil.copy(foreign, folder / "test" / place)
    command = ["eval", careful_file, folder, "--report", tmp_path / "report.png", "--force"]
    done = cli(*command, "--json")
    assert done.code == 0, done.err
    found = done.json
    assert (found["n_good"], found["not_judged_good"]) == (4, 1)
    assert (found["n_defective"], found["not_judged_defective"]) == (6, 2)
    assert {row["defect"]: row["not_judged"] for row in found["by_defect"]} == {
        "[red]dent": 0, "scratch": 2,
    }  # fmt: skip
    [because] = found["not_judged_because"]
    assert because["images"] == 3
    assert Path(because["image"]) == folder / "test/good/other.png"
    assert because["reason"].startswith("it is unlike the shots")
    plain = cli("eval", job.file, folder, "--report", tmp_path / "report.png", "--force", "--json")
    assert plain.json["image_auroc"] == found["image_auroc"]
    assert plain.json["false_alarms"] == found["false_alarms"] + 1
    told = cli(*command).out
    assert "not judged    1 of 4 good, 2 of 6 defective" in told
    assert "3 images such as good/other.png: it is unlike the shots" in told
    stopped = found["false_alarms"] + 1
    assert f"A line that rejects it stops {stopped} of 4 good parts" in told
    assert "one that passes it misses 2 of 6 defects." in told


@pytest.mark.usefixtures("undrawn")
def test_images_that_cannot_be_scored_are_named_and_counted(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(job.dataset / "test", folder / "test")
    shutil.copytree(job.dataset / "ground_truth", folder / "ground_truth")
    broken = folder / "test/scratch/1.jpg"
    with Image.open(broken.with_suffix(".png")) as image:
        image.save(broken)
    broken.with_suffix(".png").unlink()
    broken.write_bytes(broken.read_bytes()[:1000])  # its size can still be read
    (folder / "test/good/photo.heic").write_bytes(b"")
    command = ["eval", job.file, folder, "--report", tmp_path / "report.png", "--force"]
    done = cli(*command, "--json")
    assert done.code == 2
    found = done.json
    assert (found["n_good"], found["n_defective"], found["n_masked"]) == (3, 3, 1)
    assert [row["path"] for row in found["not_scored"]] == [str(broken)]
    assert found["skipped"] == [
        {"path": str(folder / "test/good/photo.heic"), "reason": "kind is not read", "unseen": True}
    ]
    plain = cli(*command)
    assert plain.code == 2
    assert cli(*command, "--skip-unreadable").code == 0
    assert f"Not scored: {broken}" in plain.out
    assert "1 skipped: 1 .heic is not read" in plain.out
    assert "1 of 3 images with a defect had a mask." in plain.out
