"""``fsad-edge bank``: learning, undoing and exporting by the command line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsad_edge import Model
from fsad_edge.learning.decided import Decided
from fsad_edge.learning.journal import Role
from fsad_edge.learning.learner import Learner, store_path
from fsad_edge.options import Decision
from fsad_edge.runtime.documents import read_document, write_document
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.metadata import KEY
from fsad_edge.runtime.onnx_file import read_metadata, replace
from tests.commands import assert_refused
from tests.conftest import Cli, Job, photograph


@pytest.fixture
def file(job: Job, tmp_path: Path) -> Path:
    """A model file that has learned nothing."""
    return Path(shutil.copy(job.file, tmp_path / "teil [b].onnx"))


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Good parts, two of three with a groove that no shot has."""
    folder = tmp_path / "new"
    folder.mkdir()
    paths = []
    for seed in range(3):
        image = photograph(np.random.default_rng(seed))
        if seed:
            image.paste((96, 99, 106), (8, 78, 88, 86))
        paths.append(folder / f"{seed}.png")
        image.save(paths[-1])
    return paths


def test_list_add_undo(cli: Cli, file: Path, images: list[Path]) -> None:
    assert "has learned nothing" in cli("bank", "list", file).out
    assert cli("bank", "list", file, "--json").json["entries"] == []
    assert not store_path(file).exists()

    done = cli("bank", "add", file, images[0].parent, "--who", "anna", "--force", "--json")
    assert done.code == 0, done.err
    assert [row["id"] for row in done.json["learned"]] == [1, 2, 3]
    listed = cli("bank", "list", file, "--json").json
    assert [entry["who"] for entry in listed["entries"]] == ["anna"] * 3
    assert listed["threshold"] == done.json["threshold"]

    undone = cli("bank", "undo", file, "2", "--who", "otto")
    assert "2 is undone" in undone.out
    assert cli("bank", "undo", file, "--json").json["id"] == 3
    words = cli("bank", "list", file).out
    assert words.count("undone") == 2
    assert "by otto" in words
    assert "1 image learned as good, in" in words
    again = cli("bank", "undo", file, "2")
    assert (again.code, "2 is undone already" in again.err) == (2, True)


def test_the_list_shows_the_users_names_and_add_names_what_it_did_not_learn(
    cli: Cli, file: Path, images: list[Path], job: Job
) -> None:
    assert cli("bank", "add", file, images[0]).code == 2  # one of the shots
    assert cli("bank", "add", file, images[1], "--force").code == 0
    photograph(np.random.default_rng(20)).save(images[2])
    (images[0].parent / "phone.heic").write_bytes(b"not read")
    again = cli("bank", "add", file, images[1], images[0].parent, "--json")
    assert again.code == 2
    assert [Path(row["image"]).name for row in again.json["not_learned"]] == ["1.png", "0.png"]
    assert "learned already, as 1 (new/1.png, by" in again.json["not_learned"][0]["error"]
    assert "one of the shots" in again.json["not_learned"][1]["error"]
    assert [row["name"] for row in again.json["learned"]] == ["new/2.png"]
    assert [Path(one["path"]).name for one in again.json["skipped"]] == ["phone.heic"]
    words = cli("bank", "list", file).out
    assert "  new/1.png" in words
    assert "0001" not in words
    assert "1 .heic is not read" in cli("bank", "add", file, images[0].parent).out


def test_every_reader_finds_what_was_learned_under_another_name(
    cli: Cli, file: Path, images: list[Path], tmp_path: Path
) -> None:
    assert cli("bank", "add", file, images[1], "--force").code == 0
    folder = store_path(file)
    cell = file.rename(tmp_path / "cell.onnx")
    assert cli("score", cell, images[1], "--json").json["learned"] == 1
    taught = cli("info", cell, "--json").json["taught"]
    assert (taught["learned"], taught["folder"]) == (1, str(folder))
    assert len(cli("bank", "list", cell, "--json").json["entries"]) == 1
    new = tmp_path / "new.onnx"
    assert cli("bank", "export", cell, "-o", new).code == 0
    # Another file under the old name is told of the folder, unless it holds all of it.
    shutil.copy(cell, file)
    file.write_bytes(replace(file.read_bytes(), {}, {"note": "another content"}))
    for command, codes in (
        (["score", file, images[1]], {0, 1}),
        (["bank", "list", file], {0}),
        (["info", file], {0}),
        (["threshold", file], {0}),
        (["bank", "add", file, images[1]], {2}),
        (["bank", "undo", file], {2}),
        (["bank", "export", file, "-o", tmp_path / "none.onnx"], {2}),
    ):
        told = cli(*command)
        assert "was learned with another model file" in told.err
        assert told.code in codes
    new.replace(file)
    assert cli("score", file, images[1], "--json").json["learned"] == 0
    assert cli("bank", "add", file, images[2], "--force").code == 0
    assert len(list(tmp_path.glob("*.learned"))) == 2
    assert cli("score", cell, images[1], "--json").json["learned"] == 1


def test_a_path_that_cannot_be_looked_at_is_one_sentence(cli: Cli, file: Path) -> None:
    """A name that is too long gets an OSError of its own, as a folder without permission does."""
    long = "x" * 300
    for command in (
        ["list", file.parent / long],
        ["add", file.parent / long, file],
        ["add", file, file.parent / long],
        ["undo", file.parent / long],
        ["export", file, "-o", file.parent / long / "new.onnx"],
    ):
        done = cli("bank", *command)
        assert done.code == 2
        assert [line for line in done.err.splitlines() if "error: " in line], done.err
        assert "should not happen" not in done.err


def test_a_data_set_is_not_learned_as_good(cli: Cli, job: Job, file: Path, tmp_path: Path) -> None:
    assert_refused(cli("bank", "add", file, job.dataset), "looks like a data set")
    (tmp_path / "more/today").mkdir(parents=True)
    shutil.copy(job.dataset / "test/good/0.png", tmp_path / "more/today")
    assert_refused(cli("bank", "add", file, tmp_path / "more"), "only the folders today")
    done = cli("bank", "add", file, tmp_path / "more", "--recursive", "--force", "--json")
    assert done.code == 0, done.err
    assert len(done.json["learned"]) == 1


def test_score_uses_what_was_learned(cli: Cli, file: Path, images: list[Path]) -> None:
    before = cli("score", file, images[1], "--json").json
    assert before["learned"] == 0
    assert cli("bank", "add", file, *images, "--force").code == 0
    after = cli("score", file, images[1], "--json")
    assert after.json["learned"] == 3
    assert "3 images learned as good here" in after.err
    assert after.json["images"][0]["score"] < before["images"][0]["score"]
    without = cli("score", file, images[1], "--no-learned", "--json").json
    assert without["images"][0]["score"] == before["images"][0]["score"]
    assert without["learned"] == 0


def test_a_defect_and_a_broken_image_are_reported_and_the_rest_is_learned(
    cli: Cli, file: Path, images: list[Path], tmp_path: Path
) -> None:
    defect, broken = tmp_path / "defect.png", tmp_path / "broken.png"
    photograph(np.random.default_rng(5), defect=True).save(defect)
    broken.write_bytes(images[1].read_bytes()[:500])
    plain = tmp_path / "plain.png"
    photograph(np.random.default_rng(8)).save(plain)
    done = cli("bank", "add", file, defect, broken, tmp_path / "none.png", plain)
    assert done.code == 2
    assert f"{defect}: the image scores" in done.err
    assert f"{broken}: " in done.err
    assert done.err.count("none.png") == 1
    assert "none.png cannot be read" in done.err
    assert "learned" in done.out
    assert len(cli("bank", "list", file, "--json").json["entries"]) == 1


def test_export_writes_a_file_that_scores_the_same(
    cli: Cli, file: Path, images: list[Path], tmp_path: Path
) -> None:
    new = tmp_path / "new.onnx"
    nothing = cli("bank", "export", file, "-o", new)
    assert (nothing.code, "nothing to export" in nothing.err) == (2, True)
    assert cli("bank", "add", file, *images, "--force").code == 0
    itself = cli("bank", "export", file, "-o", file, "--force")
    assert (itself.code, "name another file" in itself.err) == (2, True)

    done = cli("bank", "export", file, "-o", new, "--json")
    assert done.code == 0, done.err
    assert done.json["learned"] == 3
    rngs = map(np.random.default_rng, range(40, 46))
    others = [photograph(rng, defect=index % 2 == 0) for index, rng in enumerate(rngs)]
    with Model.load(file, "cpu") as model, Model.load(new, "cpu") as exported:
        with Learner.open(file, model, write=False) as learner:
            expected = learner.threshold
            counted = sum(not entry.forced for entry in learner.active)
        assert exported.metadata.threshold == expected
        assert exported.threshold == model.threshold == exported.metadata.map_threshold
        for image in map(np.asarray, [*map(Image.open, images), *others]):
            here, there = model.score(image), exported.score(image)
            assert there.score == pytest.approx(here.score, rel=1e-4, abs=1e-6)
            assert there.anomalous == here.anomalous
        assert len(exported.metadata.golden) == len(model.metadata.golden) > 0
        assert exported.metadata.shots.count == model.metadata.shots.count + counted
        assert counted
        exported.check_golden()
        with Learner.open(new, exported) as learner:  # it can go on learning
            learner.add(_bytes(tmp_path, others[1]), "anna", force=True)
    assert cli("info", new).code == 0
    again = cli("bank", "export", file, "-o", new)
    assert (again.code, "add --force" in again.err) == (2, True)


@pytest.fixture
def faint(tmp_path: Path) -> list[Path]:
    """Parts with a faint stain each, which the model misses."""
    paths = []
    for seed in range(3):
        image = photograph(np.random.default_rng(50 + seed))
        image.paste((134, 138, 150), (8 + 2 * seed, 10, 26 + 2 * seed, 26))
        paths.append(tmp_path / f"faint{seed}.png")
        image.save(paths[-1])
    return paths


def test_what_was_missed_is_called_bad_and_its_like_is_rejected_sooner(
    cli: Cli, file: Path, faint: list[Path]
) -> None:
    noise = np.random.default_rng(0).integers(-2, 3, (96, 96, 3))
    again = np.asarray(Image.open(faint[0])).astype(int) + noise
    Image.fromarray(again.clip(0, 255).astype(np.uint8)).save(faint[1])  # its like
    before = cli("score", file, *faint, "--json")
    assert before.code == 0, before.out  # they are all missed
    done = cli("bank", "reject", file, faint[0], "--box", "6,8,28,28", "--who", "anna")
    assert done.code == 0, done.err
    assert f"called {faint[0]} bad as 1" in done.out
    assert "now" in done.out
    after = cli("score", file, *faint, "--json")
    assert "with 1 image called bad here; --no-learned scores with the file alone" in after.err
    ratios = [
        [one["ratio"] for one in outcome.json["images"]]
        for outcome in (before, after, cli("score", file, *faint, "--no-learned", "--json"))
    ]
    assert ratios[1][0] > 1.2 * ratios[0][0]
    assert ratios[1][1] > 1.2 * ratios[0][1]
    assert ratios[1][2] == pytest.approx(ratios[0][2], rel=0.1)  # another stain, not the like
    assert ratios[2] == ratios[0]
    listed = cli("bank", "list", file)
    assert "rejected" in listed.out
    entry = cli("bank", "list", file, "--json").json["entries"][0]
    assert (entry["who"], entry["box"], entry["role"]) == ("anna", [6, 8, 28, 28], "rejected")
    assert entry["rows"] > 0
    assert cli("bank", "undo", file).code == 0
    undone = cli("score", file, *faint, "--json").json["images"]
    assert [one["ratio"] for one in undone] == ratios[0]


def test_what_cannot_be_called_bad_is_refused(
    cli: Cli, file: Path, faint: list[Path], images: list[Path], job: Job
) -> None:
    assert cli("bank", "reject", file, faint[0]).code == 0
    again = cli("bank", "reject", file, faint[0], faint[1])
    assert (again.code, "called bad already, as 1" in again.err) == (2, True)
    assert "as 2" in again.out  # the other one is taken
    assert cli("bank", "add", file, images[1], "--force").code == 0
    shot = next(job.shots.iterdir())
    for options, words in (
        ([images[1]], "was called good, as 3"),
        ([shot], "one of the shots"),
        ([faint[2].parent], "is a folder"),
        ([faint[2], "--box", "1,2,3"], "--box is four whole numbers"),
        ([faint[2], "--box", "10,10,200,20"], "is not within the photograph of 96 x 96 pixels"),
        ([faint[2], "--box", "10,10,5,5"], "is empty or inverted"),
        ([faint[1], faint[2], "--box", "1,2,3,4"], "give one image"),
    ):
        assert_refused(cli("bank", "reject", file, *options), words)
    assert_refused(cli("bank", "add", file, faint[0], "--force"), "was called bad, as 1")


def test_a_place_that_looks_as_good_parts_do_is_only_an_example(
    cli: Cli, file: Path, tmp_path: Path
) -> None:
    good = tmp_path / "good.png"
    photograph(np.random.default_rng(45)).save(good)
    done = cli("bank", "reject", file, good, "--box", "20,20,40,40")
    assert done.code == 0, done.err
    told = " ".join(done.out.split())
    assert "The place inside the box was used." in told
    assert "kept as an example, and nothing is rejected sooner" in told
    assert cli("bank", "list", file, "--json").json["wrong"] == [1]
    assert "WRONG" in cli("bank", "list", file).out


def test_the_place_that_was_marked_without_a_box_is_named_in_pixels(
    cli: Cli, file: Path, tmp_path: Path
) -> None:
    square, wide = tmp_path / "square.png", tmp_path / "wide.png"
    part = photograph(np.random.default_rng(50))
    part.paste((20, 20, 20), (8, 10, 26, 26))
    part.save(square)
    part.resize((192, 96)).save(wide)
    for image, stretch in ((square, 1), (wide, 2)):
        done = cli("bank", "reject", file, image, "--force", "--json").json["learned"][0]
        left, top, right, bottom = done["marked"]["box"]
        assert left < 26 * stretch
        assert right > 8 * stretch
        assert top < 26
        assert bottom > 10
        assert (right - left) * (bottom - top) < 0.5 * 96 * 96 * stretch
        assert (
            f"right and bottom are {left},{top},{right},{bottom} pixels"
            in (done["marked"]["message"])
        )


def test_what_is_not_judged_is_called_bad_only_by_force(
    cli: Cli, careful_file: Path, foreign: Path, tmp_path: Path
) -> None:
    file = Path(shutil.copy(careful_file, tmp_path / "part.onnx"))
    assert_refused(cli("bank", "reject", file, foreign), "it is a bad part all the same")
    assert_refused(cli("bank", "reject", file, foreign), "The option is --force.")
    assert cli("bank", "reject", file, foreign, "--force").code == 0


def test_undo_is_no_loss_of_the_same_image_given_as_an_example(
    cli: Cli, file: Path, faint: list[Path]
) -> None:
    assert cli("threshold", file, "--bad", faint[0]).code == 0
    assert cli("threshold", file, "--undo").code == 0
    assert cli("bank", "reject", file, faint[0], "--box", "6,8,28,28", "--force").code == 0
    undone = cli("bank", "undo", file)
    assert undone.code == 0, undone.err


def test_every_command_counts_what_was_taught_alike(
    cli: Cli, file: Path, images: list[Path], job: Job, tmp_path: Path
) -> None:
    for image in (images[1], images[2], images[1]):  # one of them twice
        assert cli("bank", "add", file, image, "--force").code == 0
    assert cli("bank", "reject", file, job.scratched / "0.png", "--force").code == 0
    examples = ("--good", job.dataset / "test/good", "--bad", job.scratched / "1.png")
    assert cli("threshold", file, *examples, "--force", "--who", "anna").code == 0
    images_words = "2 images learned as good, 1 image called bad"
    words = f"{images_words}, 3 good examples, 1 bad example, threshold "
    for command in (["info", file], ["bank", "list", file]):
        assert words in cli(*command).out
    score = cli("score", file, job.shots, "--json")
    assert f"with {images_words} and the threshold that anna set here" in score.err
    assert (score.json["learned"], score.json["rejected"]) == (2, 1)
    exported = cli("bank", "export", file, "-o", tmp_path / "new.onnx", "--json")
    assert exported.json["learned"] == 2
    taught = cli("info", file, "--json").json["taught"]
    assert (taught["learned"], taught["good_examples"], taught["bad_examples"]) == (2, 3, 1)


def test_what_would_lose_an_example_is_refused_unless_forced(
    cli: Cli, file: Path, images: list[Path], tmp_path: Path
) -> None:
    """A defect is kept as an example, and then its like is called good."""
    defect, same = tmp_path / "defect.png", tmp_path / "same.png"
    image = photograph(np.random.default_rng(61), defect=True)
    image.save(defect)
    pixels = np.asarray(image).astype(int) + np.random.default_rng(0).integers(-1, 2, (96, 96, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(same)
    assert cli("threshold", file, "--bad", defect).code == 0
    refused = cli("bank", "add", file, same)
    assert (refused.code, "times the threshold" in refused.err) == (2, True)
    assert len(cli("bank", "list", file, "--json").json["entries"]) == 1
    done = cli("bank", "add", file, same, "--force")
    assert done.code == 0
    assert "lost: bad example 1 (own/defect.png" in done.out
    undone = cli("bank", "undo", file, 3, "--json")
    assert [(one["id"], one["after"], one["lost"]) for one in undone.json["changes"]] == [
        (1, "anomaly", False)
    ]


def test_undo_takes_thresholds_back_by_their_ids(cli: Cli, file: Path, images: list[Path]) -> None:
    assert cli("threshold", file, "--value", 0.5).code == 0
    assert cli("bank", "add", file, images[1], "--force").code == 0
    assert cli("threshold", file, "--value", 0.6).code == 0
    listed = cli("bank", "list", file).out
    assert [line.split()[1] for line in listed.splitlines()[1:4]] == [
        "threshold", "normal", "threshold",
    ]  # fmt: skip
    assert cli("bank", "undo", file, 1, "--json").json["value"] == 0.5
    assert cli("threshold", file, "--json").json["value"] == 0.6
    assert cli("bank", "undo", file).code == 0  # 3, the last one
    assert cli("threshold", file, "--json").json["set_id"] is None


def test_export_carries_threshold_rejected_rows_and_examples_into_the_file(
    cli: Cli, file: Path, faint: list[Path], images: list[Path], tmp_path: Path
) -> None:
    assert cli("bank", "reject", file, faint[0], "--box", "6,8,28,28").code == 0
    assert cli("bank", "add", file, images[1], "--force").code == 0
    assert cli("threshold", file, "--good", images[2], "--force").code == 0
    assert cli("threshold", file, "--value", 0.07, "--force", "--who", "anna").code == 0
    new = tmp_path / "cell/new.onnx"
    new.parent.mkdir()
    done = cli("bank", "export", file, "-o", new)
    assert done.code == 0, done.err
    assert f"The examples are in {new.with_suffix('.learned')}" in done.out
    with Model.load(file, "cpu") as model, Model.load(new, "cpu") as exported:
        with Learner.open(file, model, write=False) as learner:
            assert learner.examples()
            for image in map(np.asarray, map(Image.open, [*faint, *images])):
                here, there = model.score(image), exported.score(image)
                assert there.score == pytest.approx(here.score, rel=1e-4, abs=1e-6)
                assert there.decision is here.decision
        assert exported.threshold == 0.07
        assert "set by anna" in exported.metadata.threshold.method
        assert len(exported.reference.rejected_patches) > 0
        exported.check_golden()
        with Learner.open(new, exported) as learner:
            assert [entry.role for entry in learner.active] == [Role.BAD, Role.GOOD, Role.GOOD]
            assert learner.state is None  # all of it is in the file
            assert learner.check_examples() is not None
            learner.add(images[0].read_bytes(), "anna", force=True)
            assert exported.threshold == 0.07  # which a person set
            patches = exported.reference.rejected_patches
            assert len(learner.reference.rejected_patches) == len(patches)
    # What the banks of the file hold says nothing of other parts.
    counted = cli("threshold", new, "--json").json["errors"]
    assert (counted["missed"]["count"], counted["rejected"]["count"]) == (0, 1)
    again = cli("bank", "reject", new, faint[0])
    assert (again.code, "called bad before this file was exported" in again.err) == (2, True)
    (tmp_path / "alone").mkdir()
    alone = shutil.copy(new, tmp_path / "alone")  # without the examples beside it
    good = cli("bank", "add", alone, faint[0], "--force")
    assert (good.code, "the image was called bad before this file" in good.err) == (2, True)


def test_export_works_where_a_threshold_alone_was_set(cli: Cli, file: Path, tmp_path: Path) -> None:
    assert cli("threshold", file, "--value", 0.5).code == 0
    new = tmp_path / "new.onnx"
    done = cli("bank", "export", file, "-o", new, "--json")
    assert done.code == 0, done.err
    assert (done.json["threshold"], done.json["examples"]) == (0.5, None)
    assert not new.with_suffix(".learned").exists()
    with Model.load(new, "cpu") as exported:
        assert exported.threshold == exported.metadata.map_threshold == 0.5


def test_export_over_a_file_does_not_lose_its_examples(
    cli: Cli, file: Path, faint: list[Path], images: list[Path], tmp_path: Path
) -> None:
    assert cli("bank", "add", file, images[0], "--force").code == 0
    line = tmp_path / "line.onnx"
    assert cli("bank", "export", file, "-o", line).code == 0
    low = cli("threshold", line, "--bad", faint[0], "--json").json["value"]
    shown = cli("threshold", line, "--json").json["examples"]
    value = next(one["score"] for one in shown if one["name"].endswith(faint[0].name))
    assert cli("threshold", line, "--value", min(low, 0.9 * value), "--force").code == 0
    refused = cli("bank", "export", file, "-o", line, "--force")
    assert refused.code == 2
    assert "would decide 1 of 2 examples" in refused.err
    assert "--allow-lost" in refused.err


def test_export_over_a_file_says_that_its_threshold_does_not_count(
    cli: Cli, file: Path, tmp_path: Path
) -> None:
    line = tmp_path / "line.onnx"
    assert cli("threshold", file, "--value", 0.5).code == 0
    assert cli("bank", "export", file, "-o", line).code == 0
    assert cli("threshold", line, "--value", 0.2, "--who", "otto").code == 0
    done = cli("bank", "export", file, "-o", line, "--force")
    assert done.code == 0, done.err
    assert "The threshold 0.2 that otto set does not count" in " ".join(done.out.split())
    assert "fsad-edge threshold line.onnx" in " ".join(done.out.split())


def test_what_another_file_was_taught_is_taught_again_as_what_it_was(
    cli: Cli, file: Path, faint: list[Path], images: list[Path], tmp_path: Path
) -> None:
    assert cli("bank", "reject", file, faint[0], "--box", "6,8,28,28").code == 0
    assert cli("bank", "add", file, images[1], "--force").code == 0
    assert cli("threshold", file, "--good", images[2], "--force").code == 0
    old = store_path(file).rename(tmp_path / "old.learned")
    file.write_bytes(replace(file.read_bytes(), {}, {"note": "another content"}))
    for given in (old, old / "images"):  # never as what it was not
        shutil.rmtree(store_path(file), ignore_errors=True)
        done = cli("bank", "add", file, given, "--force", "--json")
        assert done.code == 0, done.err
        roles = [(one["role"], one["name"], one["box"]) for one in done.json["learned"]]
        assert roles == [
            ("rejected", "own/faint0.png", [6, 8, 28, 28]),
            ("normal", "new/1.png", None),
            ("good", "new/2.png", None),
        ]
        for _ in range(3):
            assert cli("bank", "undo", file, "--force").code == 0
    assert "does not come along" in cli("bank", "add", file, old, "--force").out


def test_folders_that_overlap_are_taken_along_once_and_what_was_undone_stays_undone(
    cli: Cli, file: Path, images: list[Path], tmp_path: Path
) -> None:
    here = tmp_path / "here/part.onnx"
    here.parent.mkdir()
    shutil.copy(file, here)
    for image, who in zip(images, ("anna", "otto", "otto"), strict=True):
        assert cli("bank", "add", file, image, "--who", who, "--force").code == 0
    folder, backup = store_path(file), tmp_path / "backup.learned"
    shutil.copytree(folder, backup)
    assert cli("bank", "undo", file, 2, "--who", "chef").code == 0
    assert cli("bank", "add", here, images[0], "--who", "emil", "--force").code == 0
    # The folder of another place is in use there, and what counts here is not that.
    assert "does not count here" not in cli("score", here, images[0]).err

    done = cli("bank", "add", here, folder, backup, "--force", "--json").json
    listed = cli("bank", "list", here, "--json").json["entries"]
    assert [(one["id"], one["name"][-5:], one["who"]) for one in listed] == [
        (1, "0.png", "emil"),
        (2, "2.png", "otto"),
    ]
    assert [one["why"][:16] for one in done["left_out"]] == [
        "it is taught her",
        "it is taught her",
        "chef undid it on",
        "it is taught her",
    ]
    assert "left out" in cli("bank", "add", here, folder, "--force").out


def test_an_update_that_turns_an_example_is_told(cli: Cli, file: Path, images: list[Path]) -> None:
    assert cli("bank", "add", file, images[1], "--force").code == 0
    decisions = store_path(file) / "decisions.json"
    said, model = read_document(Decided, decisions.read_bytes(), "", ""), sha256(file.read_bytes())
    assert said.decisions == {"1": Decision.GOOD}
    assert "changed sides" not in cli("threshold", file).err
    made_with = {**said.made_with, "numpy": "1.0"}
    turned = dataclasses.replace(said, made_with=made_with, decisions={"1": Decision.ANOMALY})
    decisions.write_text(write_document(turned.sealed(model)))
    for command in (["threshold", file], ["bank", "list", file]):
        told = cli(*command).err
        assert "1 of 1 examples have changed sides since something was taught last" in told
        assert "numpy 1.0 -> " in told
        assert "good example 1 (new/1.png" in told
    for text in (
        write_document(dataclasses.replace(turned, journal=model).sealed(model)),
        write_document(turned.sealed(said.journal)),  # of another model file
        write_document(turned),  # not sealed
        "{",
    ):
        decisions.write_text(text)
        assert cli("threshold", file).err == ""


def test_a_model_that_decides_by_the_image_score_learns_nothing(
    cli: Cli, file: Path, images: list[Path]
) -> None:
    document = json.loads(read_metadata(file.read_bytes())[KEY])
    document.update(score="image", golden=[])
    file.write_bytes(replace(file.read_bytes(), {}, {KEY: json.dumps(document)}))
    done = cli("bank", "add", file, images[0])
    assert (done.code, "decides by the image score" in done.err) == (2, True)


def _bytes(folder: Path, image: Image.Image) -> bytes:
    image.save(folder / "one.png")
    return (folder / "one.png").read_bytes()
