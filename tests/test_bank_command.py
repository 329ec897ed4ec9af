"""``fsad-edge bank``: learning, undoing and exporting by the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsad_edge import Model
from fsad_edge.learning.learner import Learner, store_path
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
    assert "1 image in" in words
    again = cli("bank", "undo", file, "2")
    assert (again.code, "no learned image 2 to undo" in again.err) == (2, True)


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
    assert "learned already, as 1 (1.png, by" in again.json["not_learned"][0]["error"]
    assert "one of the shots" in again.json["not_learned"][1]["error"]
    assert [row["name"] for row in again.json["learned"]] == ["2.png"]
    assert [Path(one["path"]).name for one in again.json["skipped"]] == ["phone.heic"]
    words = cli("bank", "list", file).out
    assert "  1.png" in words
    assert "0001" not in words
    assert "1 .heic is not read" in cli("bank", "add", file, images[0].parent).out


def test_every_reader_finds_what_was_learned_under_another_name(
    cli: Cli, file: Path, images: list[Path], tmp_path: Path
) -> None:
    assert cli("bank", "add", file, images[1], "--force").code == 0
    folder = store_path(file)
    cell = file.rename(tmp_path / "cell.onnx")
    assert cli("score", cell, images[1], "--json").json["learned"] == 1
    assert cli("info", cell, "--json").json["learned"] == {"images": 1, "folder": str(folder)}
    assert len(cli("bank", "list", cell, "--json").json["entries"]) == 1
    new = tmp_path / "new.onnx"
    assert cli("bank", "export", cell, "-o", new).code == 0
    # Another file under the old name is told of the folder, unless it holds all of it.
    shutil.copy(cell, file)
    file.write_bytes(replace(file.read_bytes(), {}, {"note": "another content"}))
    for command in (["score", file, images[1]], ["bank", "list", file], ["bank", "add", file]):
        refused = cli(*command, *([images[1]] if "add" in command else []))
        assert (refused.code, "was learned with another model file" in refused.err) == (2, True)
    told = cli("info", file)
    assert (told.code, "was learned with another model file" in told.err) == (0, True)
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
    assert "3 images learned here" in after.err
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
