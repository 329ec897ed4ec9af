"""``fsad-edge region``: zones through the command line, and what every command makes of them."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fsad_edge import Model
from fsad_edge.learning.learner import store_path
from tests.commands import assert_refused
from tests.conftest import Cli, Job, photograph

LEFT = "0,0 0.5,0 0.5,1 0,1"
#: The left quarter, in pixels of a photograph of 96 x 96, where a defect is drawn.
CORNER = "0,0 40,0 40,96 0,96"


@pytest.fixture
def file(job: Job, tmp_path: Path) -> Path:
    """A model file that was taught nothing."""
    return Path(shutil.copy(job.file, tmp_path / "teil [b].onnx"))


@pytest.fixture
def spotted(tmp_path: Path) -> Path:
    """A part with a defect on its left alone."""
    image = photograph(np.random.default_rng(31))
    ImageDraw.Draw(image).rectangle((6, 40, 22, 60), (235, 60, 40))
    path = tmp_path / "spotted.png"
    image.save(path)
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.png"
    photograph(np.random.default_rng(30)).save(path)
    return path


def ratio(cli: Cli, file: Path, image: Path) -> float:
    [found] = cli("score", file, image, "--json").json["images"]
    return float(found["ratio"])


def counted(cli: Cli, file: Path) -> float:
    """The share of the part that is in no zone to ignore, with what is beside one."""
    shown = cli("region", file, "--json").json
    assert shown["beside"] > 0
    return float(shown["share"] + shown["beside"])


def test_without_a_zone_all_of_the_part_counts(cli: Cli, file: Path) -> None:
    shown = cli("region", file)
    assert shown.code == 0, shown.err
    assert "No zone is set: all of the part counts the same." in shown.out
    assert "100% of the part" in shown.out
    document = cli("region", file, "--json").json
    assert (document["share"], document["zones"]) == (1, [])
    assert np.array(document["weights"]).min() == 1
    assert not store_path(file).exists()


def test_what_is_ignored_does_not_count_until_that_is_undone(
    cli: Cli, file: Path, spotted: Path, good: Path
) -> None:
    before = ratio(cli, file, spotted)
    assert before > 1
    tried = cli("region", file, "--ignore", CORNER, "--on", good, "--dry-run")
    assert tried.code == 0, tried.err
    assert "Nothing was set" in tried.out
    assert not store_path(file).exists()
    done = cli(
        "region", file, "--ignore", CORNER, "--on", good, "--who", "anna", "--note", "the label"
    )
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert f"{shlex.quote(str(file))}: zone 1 is set: does not count" in said
    assert "of the part (100% before)" in said
    assert counted(cli, file) == pytest.approx(7 / 12, abs=0.02)
    assert "--undo 1" in said
    assert ratio(cli, file, spotted) < 1
    assert "1 zone" in " ".join(cli("info", file).out.split())
    listed = cli("region", file).out
    assert "anna" in listed
    assert "the label" in listed
    undone = cli("region", file, "--undo", 1, "--who", "otto")
    assert undone.code == 0, undone.err
    assert "counts 100% of the part (" in " ".join(undone.out.split())
    assert ratio(cli, file, spotted) == pytest.approx(before, rel=1e-6)
    assert "by otto" in cli("region", file).out
    assert_refused(cli("region", file, "--undo", 1), "1 is undone already")


def test_only_the_places_to_look_at_count(cli: Cli, file: Path, spotted: Path) -> None:
    assert cli("region", file, "--look", "0.6,0 1,0 1,0.5 0.6,0.5").code == 0
    assert ratio(cli, file, spotted) < 1
    share = cli("region", file, "--json").json["share"]
    assert share == pytest.approx(0.2, abs=0.02)
    assert cli("region", file, "--look", LEFT).code == 0
    assert ratio(cli, file, spotted) > 1
    assert cli("region", file, "--json").json["share"] == pytest.approx(0.7, abs=0.02)


def test_a_place_counts_more_or_less(cli: Cli, file: Path, spotted: Path, good: Path) -> None:
    def score() -> float:
        [found] = cli("score", file, spotted, "--json").json["images"]
        return float(found["score"])

    own = score()
    half = cli("region", file, "--weight", 0.5, "--polygon", CORNER, "--on", good)
    assert half.code == 0, half.err
    assert score() < own
    assert cli("region", file, "--undo", 1).code == 0
    assert cli("region", file, "--weight", 2, "--polygon", CORNER, "--on", good).code == 0
    assert score() == pytest.approx(2 * own, rel=1e-3)


@pytest.mark.parametrize("weight", [0.05, 2, 20])
def test_a_stricter_zone_is_stricter_there_and_changes_nothing_elsewhere(
    cli: Cli, file: Path, weight: float
) -> None:
    own = cli("region", file, "--json").json["threshold"]
    tried = cli("region", file, "--weight", weight, "--polygon", LEFT, "--dry-run")
    said = " ".join(tried.out.split())
    assert f"in the zone {own / weight:.4g} is the threshold; elsewhere {own:.4g}" in said
    done = cli("region", file, "--weight", weight, "--polygon", LEFT, "--json").json
    assert done["threshold"] == own
    trial = done["trial"]
    assert trial["threshold_in_zone"] == pytest.approx(own / weight)
    assert trial["left_out"] == 5
    assert (trial["rejected"] > trial["rejected_before"]) == (weight == 20)
    assert any("without itself" in one for one in trial["notes"]) == (weight == 20)
    assert cli("threshold", file, "--json").json["value"] == own


def test_the_list_says_what_was_asked_for_where_the_threshold_moved_since(
    cli: Cli, file: Path
) -> None:
    own = cli("region", file, "--json").json["threshold"]
    assert cli("region", file, "--own-threshold", own / 2, "--polygon", LEFT).code == 0
    shown = cli("region", file).out
    assert f"{own / 2:.4g} is the threshold in it" in shown
    assert "was asked for" not in shown
    assert cli("threshold", file, "--value", 3 * own).code == 0
    shown = cli("region", file).out
    assert f"{1.5 * own:.4g} is the threshold in it" in shown
    assert f"({own / 2:.4g} was asked for when it was set)" in shown
    refused = cli("region", file, "--own-threshold", "1e-9x", "--polygon", LEFT)
    assert_refused(refused, "from 0.01x to 100x that of the model, not 1e-9x")


def test_a_strong_stain_in_what_is_ignored_gives_the_decision_of_the_good_part(
    cli: Cli, good: Path, tmp_path: Path
) -> None:
    shots, part = tmp_path / "shots", tmp_path / "part"
    shots.mkdir()
    for seed in range(4):
        photograph(np.random.default_rng(seed)).save(shots / f"{seed}.png")
    plain = ("--image-size", 224, "--locate", "off", "--rotations", 1, "--place", "off")
    made = cli("finetune", shots, "-o", part, "--encoder", "fast", "--epochs", 0, *plain)
    assert made.code == 0, made.err
    file = tmp_path / "part.onnx"
    assert cli("export", part, "-o", file).code == 0
    image = Image.open(good)
    box = (20, 40, 32, 52)
    image.paste((250, 10, 10), box)
    image.save(tmp_path / "stained.png")
    assert ratio(cli, file, good) < 1 < ratio(cli, file, tmp_path / "stained.png")
    assert cli("region", file, "--ignore", "20,40 32,40 32,52 20,52", "--on", good).code == 0
    assert ratio(cli, file, tmp_path / "stained.png") < 1


def test_a_photograph_that_is_not_judged_takes_no_zone(
    cli: Cli, file: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (96, 96)).save(tmp_path / "black.png")
    refused = cli("region", file, "--ignore", CORNER, "--on", tmp_path / "black.png")
    assert_refused(refused, "does not judge", "it is black")


def test_an_own_threshold_is_the_one_above_which_a_place_in_the_zone_is_rejected(
    cli: Cli, file: Path
) -> None:
    own = cli("region", file, "--json").json["threshold"]
    done = cli("region", file, "--own-threshold", 1.4 * own, "--polygon", LEFT, "--json")
    assert done.code == 0, done.err
    document = done.json
    weight = document["zone"]["zone"]["weight"]
    assert document["threshold"] / weight == pytest.approx(1.4 * own, rel=1e-4)
    assert cli("region", file, "--undo", 1).code == 0
    times = cli("region", file, "--own-threshold", "2x", "--polygon", LEFT, "--json").json
    assert times["zone"]["zone"]["weight"] == 0.5
    assert cli("region", file, "--undo", times["zone"]["id"]).code == 0
    assert_refused(
        cli("region", file, "--own-threshold", 1e-9, "--polygon", LEFT),
        "is from 0.01 to 100 times that of the model",
    )


def test_a_threshold_that_was_set_stays_and_that_is_said(cli: Cli, file: Path) -> None:
    own = cli("threshold", file, "--json").json["value"]
    assert cli("threshold", file, "--value", 3 * own).code == 0
    done = cli("region", file, "--ignore", LEFT)
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert f"A person set the threshold to {3 * own:.4g}, and it stays there." in said
    assert cli("threshold", file, "--json").json["value"] == 3 * own


def test_examples_are_weighed_again_under_the_zones_for_a_threshold_that_was_set_from_them(
    cli: Cli, file: Path, good: Path, spotted: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    photograph(np.random.default_rng(40), defect=True).save(bad)
    assert cli("threshold", file, "--good", good, "--bad", bad).code == 0
    set_to = cli("threshold", file, "--json").json["value"]
    right = "0.55,0 1,0 1,1 0.55,1"
    after = cli("region", file, "--weight", 3, "--polygon", right, "--json").json
    assert after["threshold"] != set_to
    assert not any("A person set" in note for note in after["trial"]["notes"])
    document = cli("threshold", file, "--json").json
    assert document["value"] == after["threshold"]
    assert all(one["right"] for one in document["examples"])
    assert cli("region", file, "--undo", after["zone"]["id"]).code == 0
    assert cli("threshold", file, "--json").json["value"] == set_to


def test_the_threshold_is_computed_again_where_places_count_and_never_rises(
    cli: Cli, file: Path
) -> None:
    own = cli("region", file, "--json").json["threshold"]
    after = cli("region", file, "--ignore", LEFT, "--json").json
    assert after["threshold"] <= own
    other = cli("region", file, "--look", "0.2,0.2 0.7,0.2 0.7,0.7 0.2,0.7", "--json").json
    assert other["threshold"] <= own
    assert cli("region", file, "--undo", other["zone"]["id"]).code == 0
    assert after["trial"]["before"] == own
    assert after["trial"]["after"] == after["threshold"]
    assert cli("threshold", file, "--json").json["value"] == after["threshold"]


def test_a_painted_png_is_a_zone(cli: Cli, file: Path, good: Path, tmp_path: Path) -> None:
    layer = Image.new("RGBA", (96, 96))
    draw = ImageDraw.Draw(layer)
    draw.rectangle((0, 0, 23, 95), (255, 0, 0, 128))
    draw.rectangle((72, 0, 95, 95), (0, 255, 0, 255))
    layer.save(tmp_path / "painted.png")
    done = cli("region", file, "--ignore", tmp_path / "painted.png", "--on", good)
    assert done.code == 0, done.err
    assert counted(cli, file) == pytest.approx(0.5, abs=0.02)
    weights = np.array(cli("region", file, "--json").json["weights"])
    assert (weights[:, 0] == 0).all()
    assert (weights[:, -1] == 0).all()
    assert (weights[:, 1:-1] > 0).any()
    assert_refused(
        cli("region", file, "--look", tmp_path / "painted.png"), "name the photograph that"
    )
    Image.new("RGBA", (96, 96), (1, 1, 1, 0)).save(tmp_path / "empty.png")
    assert_refused(
        cli("region", file, "--ignore", tmp_path / "empty.png", "--on", good), "nothing is painted"
    )
    layer.crop((0, 0, 90, 96)).save(tmp_path / "other.png")
    assert_refused(
        cli("region", file, "--ignore", tmp_path / "other.png", "--on", good),
        "has 90 x 96 pixels, and the photograph has 96 x 96",
    )


def test_the_new_file_of_bank_export_holds_the_zones(
    cli: Cli, file: Path, spotted: Path, good: Path, tmp_path: Path
) -> None:
    assert cli("bank", "add", file, good, "--force").code == 0
    assert cli("region", file, "--ignore", CORNER, "--on", good, "--note", "label").code == 0
    here = ratio(cli, file, spotted)
    new = tmp_path / "new.onnx"
    done = cli("bank", "export", file, "--output", new)
    assert done.code == 0, done.err
    shutil.rmtree(store_path(new), ignore_errors=True)
    assert ratio(cli, new, spotted) == pytest.approx(here, rel=1e-4)
    with Model.load(new, "cpu") as model:  # its golden images have the scores that it records
        assert [entry.note for entry in model.metadata.zones] == ["label"]
        assert model.reference.weights is not None
        assert model.reference.weights.min() == 0
    shown = cli("region", new)
    assert "(in the file)" in shown.out
    assert counted(cli, new) == pytest.approx(7 / 12, abs=0.02)
    assert "1 zone" in " ".join(cli("info", new).out.split())
    # A zone on top of it counts the place again.
    back = cli("region", new, "--weight", 1, "--polygon", LEFT)
    assert back.code == 0, back.err
    assert ratio(cli, new, spotted) > 1


def test_a_zone_that_would_lose_an_example_is_refused_unless_it_is_forced(
    cli: Cli, file: Path, spotted: Path, good: Path
) -> None:
    assert cli("threshold", file, "--good", good, "--bad", spotted).code == 0
    refused = cli("region", file, "--ignore", CORNER, "--on", good)
    assert_refused(refused, "spotted.png")
    assert cli("region", file, "--json").json["zones"] == []
    forced = cli("region", file, "--ignore", CORNER, "--on", good, "--force")
    assert forced.code == 0, forced.err
    assert "lost" in forced.out
    assert cli("bank", "undo", file, "--json").json["zone"]["kind"] == "ignore"


def test_it_proposes_or_says_why_not(cli: Cli, file: Path) -> None:
    proposed = cli("region", file, "--propose", "--json").json["proposal"]
    assert proposed["sentence"]
    said = cli("region", file, "--propose")
    assert said.code == 0
    assert " ".join(proposed["sentence"].split()) in " ".join(said.out.split())
    assert not store_path(file).exists()


def test_the_zones_are_drawn(cli: Cli, file: Path, good: Path, tmp_path: Path) -> None:
    assert cli("region", file, "--ignore", LEFT).code == 0
    picture = tmp_path / "zones.png"
    for on in ((), ("--on", good)):
        assert cli("region", file, "--picture", picture, *on).code == 0
        pixels = np.asarray(Image.open(picture).convert("L"), np.float64)
        height, width = pixels.shape
        assert max(height, width) == 720
        assert pixels[height // 4, width // 8] < pixels[height // 4, 7 * width // 8]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--ignore", "0,0 1,1"), "needs 3 to"),
        (("--ignore", "0,0 1,1 x,2"), "no pair of numbers"),
        (("--ignore", "nan,0 1,1 0,1"), "finite"),
        (("--ignore", "10,10 20,10 20,20"), "fractions from 0 to 1"),
        (("--ignore", "0,0 1,0 1,1 0,1"), "nothing to look at"),
        (("--ignore", LEFT, "--look", LEFT), "exclude one another"),
        (("--weight", "2"), "give it with --polygon"),
        (("--weight", "0", "--polygon", LEFT), "the weight of a zone"),
        (("--weight", "nan", "--polygon", LEFT), "the weight of a zone"),
        (("--own-threshold", "much", "--polygon", LEFT), "a score such as 0.3"),
        (("--polygon", LEFT), "not said what for"),
        (("--undo", "7"), "no zone has the id 7"),
        (("--note", "why"), "changes nothing here"),
        (("--propose", "--undo", "1"), "exclude one another"),
        (("--ignore", "nowhere.png"), "nowhere.png"),
    ],
)
def test_what_makes_no_zone_is_refused_and_nothing_is_set(
    cli: Cli, file: Path, arguments: tuple[str, ...], words: str
) -> None:
    assert_refused(cli("region", file, *arguments), words)
    assert not (store_path(file) / "journal.jsonl").exists()


def test_a_damaged_line_of_a_zone_is_told_and_a_newer_journal_is_refused(
    cli: Cli, file: Path
) -> None:
    assert cli("region", file, "--ignore", LEFT).code == 0
    assert cli("region", file, "--weight", 2, "--polygon", LEFT).code == 0
    journal = store_path(file) / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert b'"schema": 4' in lines[1]
    journal.write_bytes(lines[0] + lines[1].replace(b"0.5", b"0.25") + lines[2])
    shown = cli("region", file)
    assert shown.code == 0
    assert "line 2 of" in shown.err
    assert [one["id"] for one in cli("region", file, "--json").json["zones"]] == [2]
    image = file.parent / "one.png"
    photograph(np.random.default_rng(3)).save(image)
    told = cli("score", file, image, "--json").json
    assert told["zones"] == 1
    assert any("line 2 of" in notice for notice in told["notices"])
    alone = cli("score", file, image, "--json", "--no-learned").json
    assert (alone["zones"], alone["notices"]) == (0, [])
