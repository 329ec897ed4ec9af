"""Learning on a device: what it does to scores, and what a killed process leaves behind."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import fsad_edge.learning.learner as learner_module
from fsad_edge import Model, Threshold
from fsad_edge.calibration.threshold import threshold_from_scores
from fsad_edge.errors import (
    ExamplesLostError,
    ImageError,
    InputError,
    NotNormalError,
)
from fsad_edge.learning.journal import Entry, Role
from fsad_edge.learning.learner import Learner, store_path
from fsad_edge.learning.novelty import NOVEL
from fsad_edge.learning.refusals import DEFECT_RATIO
from fsad_edge.learning.threshold import LEAST_RATIO, MOST_RATIO, learned_threshold
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.model import Result
from fsad_edge.runtime.onnx_file import replace
from tests.commands import all_files
from tests.conftest import Job, photograph

#: How often a process is killed while it learns.
KILLS = 20


@pytest.fixture
def file(job: Job, tmp_path: Path) -> Path:
    """A model file that has learned nothing."""
    return Path(shutil.copy(job.file, tmp_path / "part.onnx"))


@pytest.fixture
def model(file: Path) -> Iterator[Model]:
    with Model.load(file, "cpu", threads=1) as loaded:
        yield loaded


def encoded(image: Image.Image, kind: str = "PNG", **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bent(seed: int) -> Image.Image:
    """A good part that looks different from the shots: it has a groove next to the hole."""
    image = photograph(np.random.default_rng(seed))
    image.paste((96, 99, 106), (8, 78, 88, 86))
    return image


def photographed(seed: int) -> bytes:
    return encoded(photograph(np.random.default_rng(seed)))


def state(learner: Learner) -> tuple[bytes, float]:
    """Everything that scores depend on."""
    arrays = learner.reference.as_inputs().values()
    return b"".join(array.tobytes() for array in arrays), learner.threshold.value


def test_a_learned_image_scores_below_the_threshold(file: Path, model: Model) -> None:
    images = [bent(seed) for seed in range(3)]
    before = [model.score(encoded(image)) for image in images]
    assert any(result.anomalous for result in before)
    with Learner.open(file, model) as learner:
        for image in images:
            learner.add(encoded(image), "anna", force=True)
        for image, earlier in zip(images, before, strict=True):
            noise = np.random.default_rng(0).normal(0, 2, (*image.size, 3))
            noisy = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
            for copy in (encoded(image), encoded(image, "JPEG", quality=90), encoded(noisy)):
                now = model.score(copy)
                assert not now.anomalous
                assert now.score < earlier.score
            assert model.score(encoded(image)).score <= NOVEL * model.metadata.map_threshold * 1.02
    model.check_golden()  # with the file's own reference model


def test_undo_leaves_nothing_behind(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learner:
        states = [state(learner)]
        for seed in range(4):
            learner.add(encoded(bent(seed)), "anna", force=True)
            states.append(state(learner))
        assert len(set(states)) == 5
        for number in (4, 3, 2, 1):
            assert state(learner) == states[number]
            undone = learner.undo(who="otto")
            assert (undone.id, undone.undone_by) == (number, "otto")
            assert isinstance(undone, Entry)
            assert not learner.image_path(undone).exists()
        assert state(learner) == states[0]
        assert model.threshold == model.metadata.threshold.value
        with pytest.raises(InputError, match="no learned image to undo"):
            learner.undo()


def test_undoing_an_earlier_image_is_as_if_it_had_never_been_learned(
    file: Path, model: Model, tmp_path: Path
) -> None:
    images = [encoded(bent(seed)) for seed in range(4)]
    with Learner.open(file, model) as learner:
        for image in images:
            learner.add(image, "anna", force=True)
        learner.undo(2, "anna")
        with pytest.raises(InputError, match=r"2 is undone already: take one of 1, 3, 4"):
            learner.undo(2)
        got = state(learner)
    (tmp_path / "elsewhere").mkdir()  # beside each other they would learn together
    other = Path(shutil.copy(file, tmp_path / "elsewhere"))
    with Learner.open(other, model) as learner:
        for index in (0, 2, 3):
            learner.add(images[index], "anna", force=True)
        assert state(learner) == got


def test_the_next_process_finds_the_same_state(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learner:
        for seed in range(3):
            learner.add(encoded(bent(seed)), "anna", force=True)
        learner.undo(1, "otto")
        expected, entries = state(learner), learner.entries()
    images = store_path(file) / "images"
    kept = sorted(images.glob("*.npz"))
    assert len(kept) == 2
    (images / "0009.png").write_bytes(b"of a killed process")
    (images / ".0010.png.part").write_bytes(b"half written")
    shutil.copy(images / "0002.png", images / "0011.png")
    for stray in images.iterdir():
        os.utime(stray, (0, 0))  # nobody is teaching it now
    kept[0].unlink()
    kept[1].write_bytes(kept[1].read_bytes()[:-40])
    with Learner.open(file, model, write=False) as reader:
        assert (state(reader), reader.entries()) == (expected, entries)
        assert "names 0009.png, 0011.png in" in (reader.notice or "")
        assert reader.damage is None
    with Learner.open(file, model) as learner:
        assert (state(learner), learner.entries()) == (expected, entries)
        first = learner.add(encoded(bent(9)), "anna", force=True)
        assert first.id == 4  # no id is used twice
        assert sorted(path.name for path in images.iterdir()) == [
            f"000{number}.{suffix}" for number in (2, 3, 4) for suffix in ("npz", "png")
        ] + ["0009.png"]  # nobody knows it: it may have been acknowledged
        assert "names 0009.png in" in (learner.notice or "")


def defect(seed: int) -> bytes:
    return encoded(photograph(np.random.default_rng(seed), defect=True))


def faint(seed: int) -> bytes:
    """A bad part that the model misses: it has a faint stain."""
    image = photograph(np.random.default_rng(seed))
    image.paste((134, 138, 150), (8, 10, 26, 26))
    return encoded(image)


def change_in_every_way(learner: Learner) -> Iterator[int]:
    """Change what a model was taught, and give the id that each change got."""
    yield learner.add(encoded(bent(0)), "anna", force=True).id
    yield learner.set_threshold("otto", ratio=1.1, force=True).id
    yield learner.reject(faint(50), "anna", box=(6, 8, 28, 28), force=True).id
    good, bad = [("g.png", photographed(20))], [("b.png", defect(60))]
    yield learner.set_threshold_from_examples(good, bad, "anna", force=True).id
    yield learner.reject(defect(61), "otto", force=True).id
    yield learner.set_threshold("anna", false_alarm_rate=0.05, force=True).id
    yield learner.add(encoded(bent(1)), "anna", force=True).id
    yield learner.keep_example(photographed(21), "otto", good=True).id


def test_every_kind_of_change_can_be_undone_and_is_found_again(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learner:
        states, numbers = [state(learner)], []
        for number in change_in_every_way(learner):
            numbers.append(number)
            states.append(state(learner))
            with Model.load(file, "cpu", threads=1) as again, Learner.open(file, again) as other:
                assert state(other) == states[-1]
                assert other.setting == learner.setting
                check = other.check_examples()
                assert check is not None
                assert check.changes == ()
                assert check.count == len({entry.sha256 for entry in other.active})
        assert len(set(states)) == len(states) - 1  # the last is an example only
        assert numbers == [1, 2, 3, 6, 7, 8, 9, 10]  # 4 and 5 are the examples of 6
        for number, before in zip(reversed(numbers), states[-2::-1], strict=True):
            undone = learner.undo(number, "otto", force=True)
            assert (undone.id, undone.undone_by) == (number, "otto")
            assert state(learner) == before
        assert [entry.role for entry in learner.active] == [Role.GOOD, Role.BAD]
        assert model.threshold == model.metadata.threshold.value


def test_undoing_a_reject_in_the_middle_is_as_if_it_had_never_been_made(
    file: Path, model: Model, tmp_path: Path
) -> None:
    with Learner.open(file, model) as learner:
        learner.reject(faint(50), "anna", box=(6, 8, 28, 28))
        learner.reject(defect(61), "anna")
        learner.set_threshold("anna", value=0.9, force=True)
        learner.undo(1, "otto", force=True)
        got = state(learner)
    (tmp_path / "elsewhere").mkdir()
    other = Path(shutil.copy(file, tmp_path / "elsewhere"))
    with Learner.open(other, model) as learner:
        learner.reject(defect(61), "anna")
        learner.set_threshold("anna", value=0.9, force=True)
        assert state(learner) == got


def test_a_change_that_loses_an_example_changes_nothing_unless_forced(
    file: Path, model: Model
) -> None:
    with Learner.open(file, model) as learner:
        learner.set_threshold_from_examples([], [("b.png", defect(60))], "anna")
        before, entries, settings = state(learner), learner.entries(), learner.settings()
        journal = (learner.folder / "journal.jsonl").read_bytes()
        with pytest.raises(
            ExamplesLostError, match=r"b\.png, by anna\): anomaly -> good"
        ) as raised:
            learner.set_threshold("otto", ratio=1000)
        assert raised.value.lost == (1,)
        assert (state(learner), learner.entries(), learner.settings()) == (
            before, entries, settings,
        )  # fmt: skip
        assert (learner.folder / "journal.jsonl").read_bytes() == journal
        learner.set_threshold("otto", ratio=1000, force=True)
        assert [(one.entry.id, one.lost) for one in learner.changes] == [(1, True)]
        assert [one.right for one in learner.examples()] == [False]
        # What is wrong already is not lost a second time.
        learner.set_threshold("otto", ratio=2)
        with pytest.raises(InputError, match="was called bad, as 1"):
            learner.add(defect(60), "anna", force=True)


def test_a_photograph_that_is_not_judged_teaches_nothing_without_force(
    file: Path, model: Model
) -> None:
    squashed = encoded(photograph(np.random.default_rng(20)).resize((192, 64)))
    assert [str(doubt) for doubt in model.score(squashed).doubts] == ["shape"]
    with Learner.open(file, model) as learner:
        before = learner.threshold
        with pytest.raises(NotNormalError, match="is not judged"):
            learner.add(squashed, "anna")
        with pytest.raises(InputError, match="no example that counts"):
            learner.set_threshold_from_examples([("wide.png", squashed)], [], "anna")
        assert (learner.threshold, learner.examples()) == (before, [])
        learner.keep_example(squashed, "anna", good=False)
        [example] = learner.examples()
        assert str(example.decision) == "not_judged"


def test_going_back_loses_no_example_that_was_wrong_before(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learner:
        own = learner.threshold.value
        missed = learner.keep_example(faint(50), "anna", good=False)
        assert missed.score < own
        learner.set_threshold("anna", value=0.9 * missed.score, force=True)
        assert [one.right for one in learner.examples()] == [True]
        learner.undo(who="otto")
        assert [(str(one.before), str(one.after)) for one in learner.changes] == [
            ("anomaly", "good")
        ]
        assert learner.threshold.value == own


def test_what_cannot_be_read_is_not_called_bad(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learner:
        with pytest.raises(ImageError):
            learner.reject(b"junk", "anna")
        assert learner.entries() == []


def test_a_name_is_one_line(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learner:
        assert learner.set_threshold("anna\n\x1b[31m otto\t", ratio=1.1).who == "anna [31m otto"


def test_only_one_number_sets_the_threshold(file: Path, model: Model) -> None:
    numbers: list[dict[str, Any]] = [
        {}, {"value": 1.0, "ratio": 1.0}, {"value": 0.0}, {"ratio": -1.0},
        {"value": float("nan")}, {"ratio": float("inf")}, {"false_alarm_rate": 0.6},
        {"value": 1e-309}, {"value": 1e308}, {"value": True}, {"ratio": "1.1"},
    ]  # fmt: skip
    with Learner.open(file, model) as learner:
        for given_numbers in numbers:
            with pytest.raises(InputError):
                learner.set_threshold("anna", **given_numbers)
        assert learner.settings() == []


def test_the_examples_nearest_to_the_threshold_are_kept_where_there_is_no_room(
    file: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner_module, "MAX_IMAGES", 3)
    good = [(f"{seed}.png", photographed(seed)) for seed in range(20, 26)]
    bad = [("far.png", defect(60))]
    with Learner.open(file, model) as learner:
        setting = learner.set_threshold_from_examples(good, bad, "anna")
        kept = {entry.name for entry in learner.active}
        found = learner.weighed
        assert found is not None
        assert (len(found.good), len(found.bad), len(kept)) == (6, 1, 3)
        near = sorted(found.new, key=lambda one: abs(np.log(one.score / setting.value)))
        assert kept == {one.name for one in near[:3]}
        with pytest.raises(InputError, match="are kept, and at most 3"):
            learner.reject(defect(62), "anna")


def test_what_is_known_or_no_good_photograph_is_learned_only_by_force(
    file: Path, model: Model, job: Job
) -> None:
    good = photograph(np.random.default_rng(20))
    (shot, *_), new = sorted(job.shots.iterdir()), encoded(good)
    dark = encoded(good.point(lambda level: level // 3))
    with Learner.open(file, model) as learner:
        assert learner.add(new, "anna", name="20.png").name == "20.png"
        before, entries = state(learner), learner.entries()
        refused = {
            new: r"learned already, as 1 .20\.png, by anna",
            encoded(good, "BMP"): r"nearly the same .* as one that is learned already, 1 .20\.png",
            encoded(good, "JPEG", quality=90): "nearly the same .* learned already",
            shot.read_bytes(): "is one of the shots",
            encoded(Image.open(shot), "TIFF"): "nearly the same photograph as one of the shots",
            dark: "the photograph is dark",
        }
        for image, sentence in refused.items():
            with pytest.raises(NotNormalError, match=sentence):
                learner.add(image, "otto")
        assert (state(learner), learner.entries()) == (before, entries)
        assert learner.add(photographed(21), "otto").id == 2  # another part is none of these
        before = state(learner)
        twice = learner.add(new, "otto", force=True)
        assert (twice.id, twice.sha256, twice.rows) == (3, sha256(new), 0)
        assert state(learner) == before  # its score counts once
        assert learner.add(dark, "otto", force=True).id == 4
        with pytest.raises(NotNormalError, match="learned already"):  # rather than dark
            learner.add(encoded(Image.open(io.BytesIO(dark)), "BMP"), "otto")


def test_an_image_without_a_person_is_refused_and_the_journal_opens(
    file: Path, model: Model
) -> None:
    nobody: Any = None
    with Learner.open(file, model) as learner:
        learner.add(encoded(bent(0)), "anna", force=True)
        with pytest.raises(InputError, match="who is None and not a text"):
            learner.add(encoded(bent(1)), nobody, force=True)
        with pytest.raises(InputError, match="who is None and not a text"):
            learner.undo(1, nobody)
    with Learner.open(file, model) as learner:
        assert [entry.who for entry in learner.active] == ["anna"]


def test_a_defect_is_refused_and_never_moves_the_threshold(file: Path, model: Model) -> None:
    image = encoded(photograph(np.random.default_rng(5), defect=True))
    ratio = model.score(image).ratio
    assert ratio > DEFECT_RATIO
    with Learner.open(file, model) as learner:
        with pytest.raises(NotNormalError, match=rf"scores {ratio:.1f} times the threshold"):
            learner.add(image, "anna")
        assert not learner.entries()
        entry = learner.add(image, "anna", force=True)
        assert entry.forced
        assert learner.threshold.value == model.threshold == model.metadata.threshold.value
        assert not model.score(image).anomalous


@given(
    st.lists(st.floats(0.01, 10), min_size=1, max_size=10),
    st.lists(st.floats(0, 1e3), max_size=20),
    st.booleans(),
)
def test_learning_moves_the_threshold_by_its_rule_within_bounds(
    shots: list[float], scores: list[float], left_out: bool
) -> None:
    file = Threshold(2.0, 0.01, "method", shots, "reliability", 0.2, True)
    found = learned_threshold(file, left_out, scores)
    assert LEAST_RATIO * 2 <= found.value <= MOST_RATIO * 2
    pooled = shots + scores if left_out else scores
    if scores and len(pooled) > 1:
        rule = threshold_from_scores(pooled, 0.01, file.prior_std).value
        most = max(2, min(max(scores), MOST_RATIO * 2))
        assert found.value == pytest.approx(min(max(rule, LEAST_RATIO * 2), most))
    else:
        assert found == file


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_makes_no_part_good(
    file: Path, model: Model, score: float
) -> None:
    own = Threshold(2.0, 0.01, "method", [1.0, 1.1], "reliability", 0.2, True)
    for scores, more in (([1.0, score], [1.0]), ([1.0, 1.1], [score])):
        with pytest.raises(InputError, match="is not a finite number"):
            learned_threshold(replace_fields(own, scores=scores), True, more)
    result = model.score(photographed(20))
    assert result.good
    assert not replace_fields(result, score=score).good
    assert not replace_fields(result, threshold=float("nan")).good


def test_confirmed_good_images_narrow_the_threshold(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learner:
        for seed in range(20, 32):
            learner.add(encoded(photograph(np.random.default_rng(seed))), "anna", force=True)
        assert "12 of them of images learned" in learner.threshold.method
        assert model.threshold == learner.threshold.value


def test_learning_stops_at_its_limits(
    file: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Learner.open(file, model) as learner:
        learner.add(encoded(bent(0)), "anna", force=True)
        before = state(learner)
        for name, value in (("MAX_IMAGES", 1), ("MAX_BYTES", 1000)):
            with monkeypatch.context() as patch:
                patch.setattr(learner_module, name, value)
                with pytest.raises(InputError, match="are kept, and at most"):
                    learner.add(encoded(bent(1)), "anna", force=True)
        with monkeypatch.context() as patch:
            bank = learner._taught.bank
            patch.setattr(bank, "max_learned_rows", len(bank.learned_rows))
            with pytest.raises(InputError, match="has no room for"):
                learner.add(encoded(bent(1)), "anna", force=True)
        with pytest.raises(ImageError):
            learner.add(b"no image", "anna")
        assert state(learner) == before
        assert len(learner.entries()) == 1


def test_two_processes_learn_in_turns_and_see_what_the_other_learned(
    file: Path, model: Model, tmp_path: Path
) -> None:
    with (
        Model.load(file, "cpu", threads=1) as other_model,
        Learner.open(file, model) as one,
        Learner.open(file, other_model) as other,
        Learner.open(file, model, write=False) as reader,
    ):
        one.add(encoded(bent(0)), "anna", force=True)
        assert [entry.id for entry in other.active] == []
        assert other.add(encoded(bent(1)), "otto", force=True).id == 2
        assert one.undo(1, "otto").undone_by == "otto"
        assert one.add(encoded(bent(2)), "anna", force=True).id == 3
        assert (one.refresh(), other.refresh(), other.refresh()) == (False, True, False)
        assert state(one) == state(other)
        assert other_model.threshold == model.threshold
        with pytest.raises(InputError, match="opened for reading"):
            reader.add(encoded(bent(3)), "otto")
        with pytest.raises(InputError, match="opened for reading"):
            reader.set_threshold("otto", value=1.0)
        assert one.set_threshold("anna", value=1.0, force=True).id == 4
        assert other.reject(faint(50), "otto", box=(6, 8, 28, 28), force=True).id == 5
        assert other_model.threshold == 1.0  # what the other one set first
        assert one.refresh()
        assert state(one) == state(other)
        assert other.undo(4, "otto", force=True).undone_by == "otto"
        assert one.undo(5, "anna", force=True).undone_by == "anna"
        assert one.setting is None
        assert other.refresh()
        folder = store_path(file)
        folder.rename(tmp_path / "away")
        assert other.refresh()
        assert other_model.threshold == model.metadata.threshold.value
        (tmp_path / "away").rename(tmp_path / "cell.learned")  # belongs to the content
        assert other.refresh()
        assert state(one) == state(other)


def test_what_another_process_taught_and_cannot_be_read_is_told_until_it_can(
    file: Path, model: Model
) -> None:
    with Model.load(file, "cpu", threads=1) as other_model, Learner.open(file, model) as one:
        other = Learner.open(file, other_model)
        image = one.image_path(one.add(encoded(bent(0)), "anna", force=True))
        image.with_suffix(".npz").unlink()
        away = image.rename(file.with_name("away"))
        assert other.refresh()
        for _ in range(2):
            assert re.search(
                r"image 1 .*does not count.*0001.png cannot be read", other.damage or ""
            )
            assert (other.active, [*other.lost]) == ([], [1])
            assert other_model.threshold == other_model.metadata.threshold.value
            assert not other.refresh()
        away.rename(image)
        assert other.refresh()
        assert other.damage is None
        assert state(one) == state(other)


@pytest.mark.parametrize("how", ["renamed", "copied", "hard link", "link", "moved with folder"])
def test_what_was_learned_belongs_to_the_content_of_the_file(
    file: Path, model: Model, tmp_path: Path, how: str
) -> None:
    with Learner.open(file, model) as learner:
        learner.add(encoded(bent(0)), "anna", force=True)
        expected = state(learner)
    other = tmp_path / "elsewhere"
    other.mkdir()
    if how == "renamed":
        new = file.rename(file.with_name("cell.onnx"))
    elif how == "copied":
        new = Path(shutil.copy(file, file.with_name("cell.onnx")))
    elif how == "hard link":
        new = file.with_name("cell.onnx")
        new.hardlink_to(file)
    elif how == "link":
        new = other / "cell.onnx"
        new.symlink_to(file)
    else:
        shutil.move(store_path(file), other / "any name.learned")
        new = file.rename(other / "cell.onnx")
    with Model.load(new, "cpu") as loaded, Learner.open(new, loaded) as learner:
        assert state(learner) == expected
        assert learner.notice is None
        learner.add(encoded(bent(1)), "anna", force=True)
        assert learner.folder.name == ("any name" if new == file else learner.folder.stem) + (
            ".learned"
        )
    assert len(list(tmp_path.rglob("*.learned"))) == 1


def test_a_file_that_was_moved_alone_says_where_its_folder_is(
    file: Path, model: Model, tmp_path: Path
) -> None:
    with Learner.open(file, model) as learner:
        learner.add(encoded(bent(0)), "anna", force=True)
        expected = state(learner)
    (tmp_path / "elsewhere").mkdir()
    new = file.rename(tmp_path / "elsewhere/part.onnx")
    sentence = rf" 1 in {store_path(file)}: .*copy or move .* to {store_path(new)}"
    with Learner.open(new, model, write=False) as learner:
        assert re.search(sentence, learner.notice or "")
        assert not learner.active
    shutil.copytree(store_path(file), store_path(new))
    with Learner.open(new, model, write=False) as learner:
        assert learner.notice is None
        assert state(learner) == expected


def test_what_a_copy_learned_before_it_became_a_link_is_told(
    file: Path, model: Model, tmp_path: Path
) -> None:
    copy = tmp_path / "R2/part.onnx"
    copy.parent.mkdir()
    shutil.copy(file, copy)
    for path, seeds in ((file, [0]), (copy, [1, 2])):
        with Learner.open(path, model) as learner:
            for seed in seeds:
                learner.add(encoded(bent(seed)), "anna", force=True)
    copy.unlink()
    copy.symlink_to("../part.onnx")
    with Learner.open(copy, model) as learner:
        images = store_path(copy) / "images"
        cure = rf" 2 in {store_path(copy)}: .* bank add --force {copy} {store_path(copy)} \."
        assert (len(learner.active), learner.folder) == (1, store_path(file))
        assert re.search(cure, learner.notice or "")
        for image in images.glob("*.png"):
            learner.add(image.read_bytes(), "anna", force=True)
        assert learner.notice is None
        learner.undo()  # on purpose
        assert learner.notice is None


def test_folders_beside_the_one_that_counts_are_told(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learner:
        learner.add(encoded(bent(0)), "anna", force=True)
        other, backup, hidden, broken = (
            file.with_name(f"{name}.learned") for name in ("other", "backup", "hidden", "broken")
        )
        shutil.copytree(store_path(file), backup)
        assert learner.notice is None  # all of it counts
        learner.add(encoded(bent(1)), "anna", force=True)
        shutil.copytree(store_path(file), other)
        shutil.rmtree(store_path(file))
        shutil.copytree(backup, store_path(file))
    with Learner.open(file, model, write=False) as learner:
        assert len(learner.active) == 1
        assert re.search(rf" not count here, 1 in {other}: .*bank add", learner.notice or "")
        shutil.rmtree(other)
        hidden.mkdir()
        (hidden / "journal.jsonl").symlink_to("journal.jsonl")  # not even root can read it
        broken.mkdir()
        (broken / "journal.jsonl").write_bytes(b"0123\n")
        assert re.search(
            rf"{broken} may belong .* no line of .* can be .* {hidden} may belong .*cannot be read",
            learner.notice or "",
        )


@pytest.mark.parametrize("noted", [True, False])
def test_a_folder_that_was_moved_before_its_file_is_told(
    file: Path, model: Model, tmp_path: Path, noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not noted:  # as for a user without a home
        monkeypatch.setenv("XDG_STATE_HOME", str(file))
    folders = [tmp_path / name for name in ("TA", "TB", "far/TC" if noted else "TC")]
    folders[0].mkdir()
    part = file.rename(folders[0] / "part.onnx")
    with Learner.open(part, model) as learner:
        learner.add(encoded(bent(0)), "anna", force=True)
    part = folders[0].rename(folders[1]) / "part.onnx"
    with Learner.open(part, model, write=False) as learner:
        assert len(learner.active) == 1
        assert learner.notice is None
    folders[2].mkdir(parents=True)
    part = part.rename(folders[2] / "part.onnx")
    with Learner.open(part, model, write=False) as learner:
        assert not learner.active
        assert f" 1 in {folders[1] / 'part.learned'}: " in (learner.notice or "")


def test_two_folders_of_one_content_are_not_chosen_between_by_chance(
    file: Path, model: Model
) -> None:
    with Learner.open(file, model) as learner:
        learner.add(encoded(bent(0)), "anna", force=True)
    shutil.copytree(store_path(file), file.with_name("backup.learned"))
    Learner.open(file, model).close()  # the one of its own name
    new = file.rename(file.with_name("cell.onnx"))
    with Learner.open(new, model) as learner:
        sentence = r"backup.learned and .*part.learned were both.*rename"
        assert re.search(sentence, learner.fault or "")
        with pytest.raises(InputError, match=f"cannot be taught: .*{sentence}"):
            learner.add(encoded(bent(1)), "anna", force=True)
        file.with_name("backup.learned").rename(file.with_name("cell.learned"))
        assert learner.refresh()
        assert (learner.fault, len(learner.active)) == (None, 1)


def test_a_new_file_that_was_taught_beside_the_old_one_can_replace_it(
    file: Path, model: Model
) -> None:
    with Learner.open(file, model) as learner:
        learner.add(encoded(bent(0)), "anna", force=True)
    old, new = file.read_bytes(), file.with_name("new.onnx")
    new.write_bytes(replace(old, {}, {"note": "a new export"}))
    with Model.load(new, "cpu") as loaded, Learner.open(new, loaded) as learner:
        assert not learner.active
        learner.add(learner.folder.parent.joinpath("part.learned/images/0001.png").read_bytes(),
                    "anna", force=True)  # fmt: skip
    new.replace(file)
    with Model.load(file, "cpu") as loaded, Learner.open(file, loaded) as learner:
        assert (len(learner.active), learner.folder.name) == (1, "new.learned")
    file.write_bytes(old)  # a rollback finds its own again
    with Learner.open(file, model) as learner:
        assert (len(learner.active), learner.folder.name) == (1, "part.learned")


def test_what_another_model_file_learned_does_not_count_until_somebody_decides(
    file: Path, model: Model
) -> None:
    with Learner.open(file, model) as learner:
        learner.add(encoded(bent(0)), "anna", force=True)
        learner.set_threshold("anna", ratio=1.2, force=True)
    folder, before = store_path(file), all_files(store_path(file))
    file.write_bytes(replace(file.read_bytes(), {}, {"note": "the same model, another file"}))
    with Model.load(file, "cpu") as other, Learner.open(file, other) as learner:
        sentence = r"learned with another model file.*until somebody decides.*mv .*bank add"
        assert re.search(sentence, learner.notice or "")
        assert other.threshold == other.metadata.threshold.value
        with pytest.raises(InputError, match=f"cannot be taught: .*{sentence}"):
            learner.add(encoded(bent(1)), "anna", force=True)
        with pytest.raises(InputError, match=f"cannot be taught: .*{sentence}"):
            learner.set_threshold("anna", ratio=2)
        with pytest.raises(InputError, match=f"cannot be taught: .*{sentence}"):
            learner.undo(who="anna")
        assert all_files(folder) == before
        folder.rename(file.with_name("part-before.learned"))
        assert learner.refresh()
        assert learner.notice is None
        learner.add(encoded(bent(1)), "anna", force=True)
        assert (len(learner.active), learner.folder) == (1, folder)


def test_a_torn_last_line_was_never_acknowledged(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learner:
        learner.add(encoded(bent(0)), "anna", force=True)
        before, expected = state(learner), learner.entries()
        learner.add(encoded(bent(1)), "anna", force=True)
    journal = store_path(file) / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-40])
    with Learner.open(file, model) as learner:
        assert "never finished" in (learner.notice or "")
        assert (state(learner), learner.entries()) == (before, expected)
        learner.add(encoded(bent(1)), "anna", force=True)  # again, as whoever got no answer does
        expected = learner.entries()
    with Learner.open(file, model) as learner:
        assert learner.notice is None
        assert learner.entries() == expected


def test_a_full_disk_loses_nothing(
    file: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Learner.open(file, model) as learner:
        learner.add(encoded(bent(0)), "anna", force=True)
        before, entries = state(learner), learner.entries()
        sync, calls, failing = os.fsync, 0, [0]

        def full(handle: int) -> None:
            nonlocal calls
            calls += 1
            if calls in failing:
                raise OSError(28, "No space left on device")
            sync(handle)

        for place in (1, 3):  # the image's, the journal's; the second is the folder's
            calls, failing = 0, [place]
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", full)
                with pytest.raises(InputError, match="No space left"):
                    learner.add(encoded(bent(1)), "anna", force=True)
            assert (state(learner), learner.entries()) == (before, entries)
        learner.add(encoded(bent(1)), "anna", force=True)
        expected = state(learner)
    with Learner.open(file, model) as learner:
        assert state(learner) == expected


def test_it_learns_while_others_score(file: Path, model: Model) -> None:
    image = encoded(bent(0))
    stop = threading.Event()

    def score() -> None:
        while not stop.is_set():
            result = model.score(image)
            if not (np.isfinite(result.score) and result.threshold > 0):
                failures.append(result)

    failures: list[Result] = []
    thread = threading.Thread(target=score)
    thread.start()
    try:
        with Learner.open(file, model) as learner:
            adding = [
                threading.Thread(target=learner.add, args=(encoded(bent(seed)), "anna", True))
                for seed in range(6)
            ]
            for one in adding:
                one.start()
            for one in adding:
                one.join()
            assert [entry.id for entry in learner.active] == list(range(1, 7))
    finally:
        stop.set()
        thread.join()
    assert not failures


# Forks a process that learns for each line that it reads. A fork starts quickly.
LEARN = """
import os, random, sys, traceback
from pathlib import Path
from fsad_edge import Model
from fsad_edge.learning.learner import Learner
from fsad_edge.errors import InputError
from tests.test_learner import bent, defect, encoded, photographed

file, said = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
images = [encoded(bent(seed)) for seed in range(120)]
defects = [defect(seed) for seed in range(60)]
goods = [photographed(seed) for seed in range(100, 160)]  # 0 is a shot
model = Model.load(file, "cpu", threads=1)

def say(*words):
    os.write(said, (" ".join(map(str, words)) + "\\n").encode())

def change(learner):
    way = random.choice(["add", "reject", "set", "rate", "examples"])
    if way == "add":
        entry = learner.add(random.choice(images), "anna", force=True)
        say("learned", entry.id, entry.sha256)
    elif way == "reject":
        entry = learner.reject(random.choice(defects), "anna", force=True)
        say("learned", entry.id, entry.sha256)
    elif way == "set":
        setting = learner.set_threshold("otto", value=random.uniform(0.01, 1), force=True)
        say("set", setting.id, setting.value)
    elif way == "rate":
        setting = learner.set_threshold("otto", false_alarm_rate=0.02, force=True)
        say("set", setting.id, setting.value)
    else:
        good = [("g.png", random.choice(goods))]
        setting = learner.set_threshold_from_examples(good, [], "otto", force=True)
        say("set", setting.id, setting.value)

def learn(life):
    random.seed(life)
    with Learner.open(file, model) as learner:
        say("open")
        while True:
            settings = [one.id for one in learner.settings() if one.undone is None]
            active = [entry.id for entry in learner.active] + settings
            if len(active) > 12 or active and random.random() < 0.25:
                number = random.choice(active)
                say("undoing", number)
                learner.undo(number, "otto", force=True)
                say("undone", number)
            else:
                change(learner)

print("ready", flush=True)
for life, _ in enumerate(sys.stdin):
    child = os.fork()
    if not child:
        try:
            learn(life)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else -1, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged(
    file: Path, model: Model, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    said.touch()
    rng = np.random.default_rng(0)
    lives = 0
    with subprocess.Popen(
        [sys.executable, "-c", LEARN, file, said],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(KILLS):
            # Wait for up to six lines, the first of which says that it is open.
            lines = len(said.read_bytes().splitlines()) + int(rng.integers(0, 7))
            process.stdin.write("\n")
            process.stdin.flush()
            child = int(process.stdout.readline())
            while len(said.read_bytes().splitlines()) < lines:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.2))
            os.kill(child, signal.SIGKILL)
            assert int(process.stdout.readline()) == signal.SIGKILL
            with Learner.open(file, model) as learner:
                there = {entry.id: entry.sha256 for entry in learner.active}
                settings = learner.settings()
                there |= {one.id: str(one.value) for one in settings if one.undone is None}
                ids = {entry.id for entry in learner.entries()} | {one.id for one in settings}
                undone = ids - there.keys()
                check = learner.check_examples()
                assert check is None or check.changes == ()  # a kill is not taken for an update
            words = [line.split() for line in said.read_text().splitlines()]
            may_be_undone = {int(word[1]) for word in words if word[0] == "undoing"}
            for word in words:
                if word[0] in {"learned", "set"} and int(word[1]) not in may_be_undone:
                    assert there[int(word[1])] == word[2]
                if word[0] == "undone":
                    assert int(word[1]) in undone
            lives += 1
        process.stdin.close()
    assert lives == KILLS
    done = [word[0] for word in words]
    assert done.count("learned") + done.count("set") > KILLS / 2  # else they prove nothing
    assert min(map(done.count, ("learned", "set", "undone"))) > KILLS / 10
