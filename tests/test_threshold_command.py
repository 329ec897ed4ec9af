"""``fsad-edge threshold``: showing and setting the threshold by the command line."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsad_edge import Model
from fsad_edge.learning.learner import store_path
from tests.commands import assert_refused
from tests.conftest import Cli, Job, photograph


@pytest.fixture
def file(job: Job, tmp_path: Path) -> Path:
    """A model file that was taught nothing."""
    return Path(shutil.copy(job.file, tmp_path / "teil [b].onnx"))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Three good parts that are no shots."""
    return save(tmp_path / "good parts", [30, 31, 32])


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """Three bad parts, in folders by defect."""
    save(tmp_path / "bad parts/bar", [40, 41], defect=True)
    save(tmp_path / "bad parts/line", [42], defect=True)
    return tmp_path / "bad parts"


def save(folder: Path, seeds: list[int], defect: bool = False) -> Path:
    folder.mkdir(parents=True)
    for seed in seeds:
        photograph(np.random.default_rng(seed), defect=defect).save(folder / f"{seed}.png")
    return folder


def test_without_options_it_shows_the_threshold_and_changes_nothing(
    cli: Cli, file: Path, job: Job
) -> None:
    shown = cli("threshold", file)
    assert shown.code == 0
    assert f"{job.export.threshold.value:.4g}, the file's own" in shown.out
    assert "1 % are expected to be rejected, judging by 5 shots" in shown.out
    document = cli("threshold", file, "--json").json
    assert document["value"] == document["file_value"] == job.export.threshold.value
    assert document["expected_false_alarms"] == pytest.approx(0.01, rel=0.01)
    assert document["set_id"] is None
    assert not store_path(file).exists()


def test_examples_set_it_and_every_command_scores_with_it(
    cli: Cli, file: Path, good: Path, bad: Path
) -> None:
    tried = cli("threshold", file, "--good", good, "--bad", bad, "--dry-run", "--json").json
    assert not store_path(file).exists()
    # It does not rise for good parts that it accepts, and need not fall for bad ones far above it.
    assert tried["value"] == tried["file_value"] >= tried["after"]["value"]
    done = cli("threshold", file, "--good", good, "--bad", bad, "--who", "anna")
    assert done.code == 0, done.err
    bound = "at most 63 % of all such parts, with 95 % confidence"
    assert f"0 of 3 bad parts missed: {bound}" in done.out
    assert f"0 of 3 good parts rejected: {bound}" in done.out
    assert "--undo" in done.out
    shown = cli("threshold", file, "--json").json
    assert shown["value"] == tried["after"]["value"]
    assert (shown["set_by"], shown["set_id"]) == ("anna", 7)
    assert shown["errors"]["missed"] == {
        "wrong": 0,
        "count": 3,
        "bound": pytest.approx(0.632, 1e-2),
    }
    assert {(one["role"], one["name"], one["right"]) for one in shown["examples"]} == {
        *(("good", f"good parts/{seed}.png", True) for seed in (30, 31, 32)),
        *(("bad", f"bar/{seed}.png", True) for seed in (40, 41)),
        ("bad", "line/42.png", True),
    }
    scored = cli("score", file, good, "--json").json["images"][0]
    assert scored["score"] / scored["ratio"] == pytest.approx(shown["value"], rel=1e-3)
    assert "set by anna" in cli("threshold", file).out


@pytest.mark.parametrize("side", ["--good", "--bad"])
def test_one_photograph_of_one_kind_is_enough(
    cli: Cli, file: Path, good: Path, bad: Path, side: str
) -> None:
    image = good / "30.png" if side == "--good" else bad / "line/42.png"
    done = cli("threshold", file, side, image)
    assert done.code == 0, done.err
    assert f"0 of 1 {'good parts rejected' if side == '--good' else 'bad parts missed'}" in done.out


def test_examples_that_say_nothing_new_leave_the_threshold_and_that_is_said(
    cli: Cli, file: Path, good: Path, bad: Path
) -> None:
    assert cli("threshold", file, "--good", good, "--bad", bad).code == 0
    before = cli("threshold", file, "--json").json["value"]
    again = cli("threshold", file, "--good", good, "--bad", bad)
    assert again.code == 0, again.err
    assert "the threshold stays where it was" in " ".join(again.out.split())
    assert cli("threshold", file, "--json").json["value"] == before


def test_what_is_set_already_is_not_set_again(cli: Cli, file: Path, good: Path, bad: Path) -> None:
    asked = [("--good", good, "--bad", bad), ("--value", "0.31"), ("--false-alarm-rate", "0.02")]
    for number, options in enumerate(asked, 1):
        first = cli("threshold", file, *options, "--json").json
        again = cli("threshold", file, *options, "--json").json
        assert (first["done"], again["done"]) == ("set", "unchanged")
        assert len(again["settings"]) == number
        assert again["value"] == first["value"]
        assert "there is nothing to undo" in cli("threshold", file, *options).out
    cli("threshold", file, "--undo")
    assert cli("threshold", file, "--json").json["value"] == pytest.approx(0.31)


def test_good_and_bad_examples_that_overlap_are_told(
    cli: Cli, file: Path, good: Path, bad: Path
) -> None:
    mixed_up = cli("threshold", file, "--good", bad, "--bad", good)
    assert mixed_up.code == 0, mixed_up.err
    said = " ".join(mixed_up.out.split())
    assert "no threshold separates these examples: 3 of 3 bad ones" in said


def test_no_share_is_foretold_where_a_good_example_is_rejected(
    cli: Cli, file: Path, good: Path, bad: Path
) -> None:
    assert cli("threshold", file, "--good", good, "--bad", bad).code == 0
    assert cli("threshold", file, "--json").json["expected_false_alarms"] < 0.1
    assert cli("threshold", file, "--value", 1e-6, "--force").code == 0
    shown = " ".join(cli("threshold", file).out.split())
    assert "is not known, because the threshold rejects 3 of 3 good examples" in shown
    assert cli("threshold", file, "--json").json["expected_false_alarms"] is None


def test_numbers_set_it_and_undo_takes_them_back_one_by_one(cli: Cli, file: Path) -> None:
    own = cli("threshold", file, "--json").json["value"]
    assert cli("threshold", file, "--value", 0.5, "--json").json["value"] == 0.5
    assert cli("threshold", file, "--ratio", 2, "--json").json["value"] == 1.0
    rate = cli("threshold", file, "--false-alarm-rate", 0.05, "--json").json
    assert rate["value"] < own
    assert (rate["false_alarm_rate"], rate["rate_promised"]) == (0.05, True)
    listed = cli("threshold", file).out
    assert "2 thresholds set before" in listed
    for expected in (1.0, 0.5, own):
        done = cli("threshold", file, "--undo", "--who", "otto", "--json").json
        assert done["value"] == expected
    assert {one["undone_by"] for one in done["settings"]} == {"otto"}
    assert_refused(cli("threshold", file, "--undo"), "nobody has set the threshold")


def test_an_undo_says_what_was_undone_and_which_examples_stay(
    cli: Cli, file: Path, good: Path, bad: Path
) -> None:
    own = cli("threshold", file, "--json").json["value"]
    assert cli("threshold", file, "--value", 0.5, "--who", "anna").code == 0
    plain = cli("threshold", file, "--undo", "--who", "otto")
    assert "undone: the threshold 0.5 that anna set on 20" in plain.out
    assert "UTC (id 1: as a value)" in plain.out
    assert "stay" not in plain.out
    assert cli("threshold", file, "--good", good, "--bad", bad).code == 0
    done = cli("threshold", file, "--undo")
    assert f"{own:.4g} (" in done.out
    assert "6 examples stay, also those that were given with it: 2 (good parts/" in done.out
    command = done.out.partition("To remove one:  fsad-edge ")[2].splitlines()[0]
    removed = cli(*shlex.split(command), "--who", "otto")
    assert removed.code == 0, removed.err
    assert "2 is undone: the image good parts/3" in removed.out
    assert "gave as an example of a good part." in removed.out
    assert len(cli("threshold", file, "--json").json["examples"]) == 5


def test_a_number_that_would_lose_an_example_needs_force(
    cli: Cli, file: Path, good: Path, bad: Path
) -> None:
    assert cli("threshold", file, "--good", good, "--bad", bad).code == 0
    before = cli("threshold", file, "--json").json["value"]
    tried = cli("threshold", file, "--ratio", 100, "--dry-run", "--json").json
    assert [one["lost"] for one in tried["changes"]] == [True] * 3
    refused = cli("threshold", file, "--ratio", 100)
    assert_refused(refused, "3 of the examples wrongly", "40.png", "anomaly -> good")
    assert cli("threshold", file, "--json").json["value"] == before
    done = cli("threshold", file, "--ratio", 100, "--force")
    assert done.code == 0
    assert done.out.count("lost: bad example") == 3
    assert "3 of 3 bad parts missed" in done.out
    assert cli("threshold", file).out.count("WRONG") == 3
    undone = cli("threshold", file, "--undo")
    assert undone.out.count("changes sides: bad example") == 3


def test_what_cannot_be_an_example_is_an_error_before_anything_is_set(
    cli: Cli, file: Path, good: Path, bad: Path, job: Job, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes((good / "30.png").read_bytes()[:300])
    twin = Path(shutil.copy(good / "30.png", tmp_path / "twin.png"))
    shot = next(job.shots.iterdir())
    for options, words in (
        (["--good", good, "--bad", broken], "broken.png"),
        (["--good", good, "--bad", twin], "as a good and as a bad example"),
        (["--good", tmp_path / "none"], "none cannot be read"),
        (["--good", job.dataset / "test"], "looks like a data set"),
        (["--bad", job.dataset / "test"], "holds the folder good"),
        (["--good", job.shots], "the model holds such an image"),
        (["--bad", shot], "one of the shots"),
        (["--good", good, "--value", 1], "exclude one another"),
        (["--value", 0], "must be a number above 0"),
        (["--false-alarm-rate", 0.9], "a fraction from 1e-06 up to 0.5"),
        (["--false-alarm-rate", 1e-300], "a fraction from 1e-06 up to 0.5"),
        (["--dry-run"], "--dry-run tries examples or a number"),
    ):
        assert_refused(cli("threshold", file, *options), words)
    (bad / "phone.heic").write_bytes(b"not read")
    assert_refused(cli("threshold", file, "--bad", bad), "1 .heic is not read")
    assert not (store_path(file) / "journal.jsonl").exists()
    done = cli("threshold", file, "--bad", bad, "--skip-unreadable")
    assert (done.code, "1 .heic is not read" in done.out) == (0, True)


def test_files_of_one_name_are_told_apart_by_their_folders(
    cli: Cli, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "good", [30])
    save(tmp_path / "bad", [30, 40], defect=True)
    assert cli("threshold", file, "--good", tmp_path / "good", "--bad", tmp_path / "bad").code == 0
    refused = cli("threshold", file, "--ratio", 100)
    assert_refused(refused, "(bad/30.png, by", "(bad/40.png, by")
    for shown in (cli("threshold", file).out, cli("bank", "list", file).out):
        assert "good/30.png" in shown
        assert "bad/30.png" in shown
    # What is learned and rejected has such a name, too, from wherever it is named.
    monkeypatch.chdir(save(tmp_path / "more", [33, 34]))
    assert cli("bank", "add", file, "33.png", "--force").code == 0
    assert cli("bank", "reject", file, "../more/34.png", "--force").code == 0
    names = [one["name"] for one in cli("bank", "list", file, "--json").json["entries"]]
    assert names[-2:] == ["more/33.png", "more/34.png"]


def test_an_image_that_was_called_the_opposite_is_refused(
    cli: Cli, file: Path, good: Path, bad: Path
) -> None:
    assert cli("threshold", file, "--bad", bad / "line").code == 0
    assert_refused(cli("threshold", file, "--good", bad / "line"), "42.png was called bad, as 1")
    assert_refused(cli("bank", "add", file, bad / "line/42.png", "--force"), "was called bad")
    assert cli("bank", "add", file, good / "30.png", "--force").code == 0
    assert_refused(cli("threshold", file, "--bad", good / "30.png"), "30.png was called good")


def test_images_that_were_learned_do_not_count_as_examples(
    cli: Cli, file: Path, good: Path, bad: Path
) -> None:
    assert cli("bank", "add", file, good / "30.png", "--force").code == 0
    assert_refused(cli("threshold", file, "--good", good / "30.png"), "30.png does not count")
    done = cli("threshold", file, "--good", good, "--bad", bad, "--json").json
    assert done["errors"]["rejected"]["count"] == 2
    assert ["30.png does not count" in one for one in done["remarks"]] == [True]


def test_the_threshold_follows_a_rate_and_keeps_a_value_when_more_is_learned(
    cli: Cli, file: Path, good: Path
) -> None:
    assert cli("threshold", file, "--value", 0.7).code == 0
    assert cli("bank", "add", file, good, "--force").code == 0
    with Model.load(file, "cpu") as model:
        own = model.metadata.threshold.value
    assert cli("threshold", file, "--json").json["value"] == 0.7
    assert cli("threshold", file, "--false-alarm-rate", 0.01).code == 0
    learned = cli("threshold", file, "--json").json
    assert learned["value"] != own
    assert "3 of them of images learned" in learned["method"]
    assert "set by" in learned["method"]


@pytest.mark.parametrize("options", [[], ["--examples"], ["--examples", "--dry-run"]])
def test_the_picture_shows_scores_and_thresholds(
    cli: Cli, file: Path, good: Path, bad: Path, tmp_path: Path, options: list[str]
) -> None:
    picture, plain = tmp_path / "threshold.png", tmp_path / "plain.png"
    assert cli("threshold", file, "--picture", plain).code == 0
    if options:
        options = ["--good", str(good), "--bad", str(bad), *options[1:]]
    done = cli("threshold", file, *options, "--picture", picture)
    assert done.code == 0, done.err
    assert f"The picture is {picture}" in done.out
    with Image.open(picture) as drawn, Image.open(plain) as before:
        assert drawn.width == before.width
        assert (drawn.height > before.height) == bool(options)  # rows for the examples
    # No reader of folders takes it for a part.
    assert "made by fsad-edge" in str(cli("score", file, tmp_path, "--json").json["skipped"])
    refused = cli("threshold", file, "--value", 0.3, "--picture", tmp_path / "picture.jpg")
    assert_refused(refused, "must be a .png file")
