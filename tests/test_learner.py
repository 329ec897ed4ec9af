"""Learning on the device: what it does to scores, and what a killed process leaves behind."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import fsad_edge.learning.learner as learner_module
from fsad_edge import Model, Threshold
from fsad_edge.calibration.threshold import threshold_from_scores
from fsad_edge.errors import ImageError, InputError, ModelFileError, NotNormalError
from fsad_edge.learning.journal import Entry, Journal, Record, Undo
from fsad_edge.learning.learner import (
    DEFECT_RATIO,
    LEAST_RATIO,
    MOST_RATIO,
    Learner,
    learned_threshold,
    store_path,
)
from fsad_edge.learning.novelty import (
    NOVEL,
    NOVEL_ROTATED,
    MemoryBank,
    Novelty,
    in_coreset_order,
    nearest,
)
from fsad_edge.runtime import Result
from fsad_edge.runtime.bank import (
    NEIGHBOURS,
    UNUSED,
    WORST_PATCHES,
    fit_reference,
)
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.onnx_file import replace
from tests.conftest import Job, photograph

Float32 = NDArray[np.float32]

#: Times that a process is killed while it learns.
KILLS = 50


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
    """A good part that looks otherwise than the shots: a groove beside the hole."""
    image = photograph(np.random.default_rng(seed))
    image.paste((96, 99, 106), (8, 78, 88, 86))
    return image


def state(learner: Learner) -> tuple[bytes, float]:
    """All that scores depend on."""
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
    model.check_golden()  # against the file's own normal parts


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
            assert not learner.image_path(undone).exists()
        assert state(learner) == states[0]
        assert model.threshold == model.metadata.threshold.value
        with pytest.raises(InputError, match="no learned image to undo"):
            learner.undo()


def test_undo_of_an_earlier_one_is_as_if_it_never_was(
    file: Path, model: Model, tmp_path: Path
) -> None:
    images = [encoded(bent(seed)) for seed in range(4)]
    with Learner.open(file, model) as learner:
        for image in images:
            learner.add(image, "anna", force=True)
        learner.undo(2, "anna")
        with pytest.raises(InputError, match=r"no learned image 2 to undo.* 1, 3, 4"):
            learner.undo(2)
        got = state(learner)
    other = Path(shutil.copy(file, tmp_path / "other.onnx"))
    with Learner.open(other, model) as learner:
        for index in (0, 2, 3):
            learner.add(images[index], "anna", force=True)
        assert state(learner) == got


def test_the_next_process_finds_the_same(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learner:
        for seed in range(3):
            learner.add(encoded(bent(seed)), "anna", force=True)
        learner.undo(1, "otto")
        expected, entries = state(learner), learner.entries()
    images = store_path(file) / "images"
    kept = sorted(images.glob("*.npz"))
    assert len(kept) == 2
    (images / "0009.png").write_bytes(b"of a killed process")
    kept[0].unlink()
    kept[1].write_bytes(kept[1].read_bytes()[:-40])
    with Learner.open(file, model, write=False) as reader:
        assert (state(reader), reader.entries()) == (expected, entries)
        assert reader.notice is None
    with Learner.open(file, model) as learner:
        assert (state(learner), learner.entries()) == (expected, entries)
        assert sorted(path.name for path in images.iterdir()) == [
            *("0002.npz", "0002.png", "0003.npz", "0003.png")
        ]
        first = learner.add(encoded(bent(9)), "anna", force=True)
        assert first.id == 4  # no id is used twice


def test_a_lost_answer_may_be_asked_for_again(file: Path, model: Model) -> None:
    image = encoded(bent(0))
    with Learner.open(file, model) as learner:
        entry = learner.add(image, "anna", force=True)
        before = state(learner)
        assert learner.add(image, "otto", force=True) == entry
        assert state(learner) == before
        assert entry.sha256 == sha256(image)
        assert learner.image_path(entry).read_bytes() == image


def test_a_gross_defect_is_refused_and_never_moves_the_threshold(file: Path, model: Model) -> None:
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
    file = Threshold(2.0, 0.01, "method", shots, "reliability", 0.2)
    found = learned_threshold(file, left_out, scores)
    assert LEAST_RATIO * 2 <= found.value <= MOST_RATIO * 2
    pooled = shots + scores if left_out else scores
    if scores and len(pooled) > 1:
        rule = threshold_from_scores(pooled, 0.01, file.prior_std).value
        most = max(2, min(max(scores), MOST_RATIO * 2))
        assert found.value == pytest.approx(min(max(rule, LEAST_RATIO * 2), most))
    else:
        assert found == file


def test_confirmed_good_images_narrow_the_threshold(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learner:
        for seed in range(20, 32):
            learner.add(encoded(photograph(np.random.default_rng(seed))), "anna", force=True)
        assert "12 of them of images learned" in learner.threshold.method
        assert model.threshold == learner.threshold.value


@st.composite
def patches(draw: st.DrawFn, most: int) -> Float32:
    """Unit rows with a rarity beside them, as the graph gives them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, most))
    rows = rng.normal(size=(count, 8)) + draw(st.sampled_from([0.0, 2.0]))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.concatenate([rows, rng.random((count, 1))], axis=1).astype(np.float32)


@given(st.integers(6, 60), patches(80), st.lists(st.tuples(patches(8), patches(16))))
@settings(deadline=None, max_examples=60)
def test_a_memory_covers_what_it_learns_and_keeps_its_size(
    bank_size: int, shots: Float32, images: list[tuple[Float32, Float32]]
) -> None:
    assume(len(shots) > 0)
    file = in_coreset_order(fit_reference(shots, shots[:, :-1], bank_size))
    capacity = len(file.bank)
    bank, threshold = MemoryBank(file, 0.1), 0.1
    for upright, rotated in images:
        novelty = Novelty(upright, rotated, np.zeros(WORST_PATCHES, np.float32))
        rows = bank.select_rows(novelty)
        fits = len(bank.learned_rows) + len(rows) <= bank.max_learned_rows
        room_before = capacity - len(bank.learned_rows) - len(rows) >= file.rows
        bank.add(novelty, rows)
        if fits and room_before:  # no row of the file had to go
            near = nearest(np.concatenate([upright, rotated]), bank.rows)
            distance = 1 - near.mean(axis=1)
            assert (distance[: len(upright)] <= NOVEL * threshold + 1e-5).all()
            assert (distance <= NOVEL_ROTATED * threshold + 1e-5).all()
        assert len(bank.learned_rows) <= bank.max_learned_rows
    reference = bank.reference()
    assert reference.bank.shape == file.bank.shape
    assert reference.rows == min(file.rows + len(bank.learned_rows), capacity)
    used = reference.bank_bias > UNUSED / 2
    kept = reference.bank[used][: reference.rows - len(bank.learned_rows)]
    known = {row.tobytes() for row in file.bank}
    assert all(row.tobytes() in known for row in kept)
    assert len(bank.scores()) == len(images)


def test_what_stands_for_most_outlasts_a_full_memory() -> None:
    rng = np.random.default_rng(0)
    ground = np.eye(6) + rng.normal(0, 1e-3, (200, 6, 6))
    rows = np.concatenate([ground.reshape(-1, 6), rng.normal(size=(300, 6))])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    shots = np.concatenate([rows, np.zeros((len(rows), 1))], axis=1).astype(np.float32)
    file = in_coreset_order(fit_reference(shots, shots[:, :-1], 240))
    often = {row.tobytes() for row in file.patches[: 6 * NEIGHBOURS]}
    assert len(often) == 6
    bank = MemoryBank(file, 0.1)
    while len(bank.learned_rows) < bank.max_learned_rows:
        new = rng.normal(size=(bank.max_learned_rows - len(bank.learned_rows), 6))
        new /= np.linalg.norm(new, axis=1, keepdims=True)
        upright = np.concatenate([new, np.zeros((len(new), 1))], axis=1).astype(np.float32)
        novelty = Novelty(upright, upright[:0], np.zeros(WORST_PATCHES, np.float32))
        bank.add(novelty, upright)
    kept = [row.tobytes() for row in bank.reference().patches]
    assert len(kept) - len(bank.learned_rows) < file.rows
    assert all(kept.count(row) == NEIGHBOURS for row in often)


def test_one_patch_goes_in_as_often_as_neighbours_are_asked() -> None:
    rows = np.eye(8, 9, dtype=np.float32)  # at no rarity
    shots = rows[:4].repeat(3, axis=0)
    bank = MemoryBank(fit_reference(shots, shots[:, :-1], 40), 0.1)
    alone = rows[[7]]
    rows = bank.select_rows(Novelty(alone, alone[:0], np.zeros(3, np.float32)))
    assert len(rows) == NEIGHBOURS


def test_limits(file: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with Learner.open(file, model) as learner:
        learner.add(encoded(bent(0)), "anna", force=True)
        before = state(learner)
        for name, value in (("MAX_IMAGES", 1), ("MAX_BYTES", 1000)):
            with monkeypatch.context() as patch:
                patch.setattr(learner_module, name, value)
                with pytest.raises(InputError, match="are learned, and at most"):
                    learner.add(encoded(bent(1)), "anna", force=True)
        with monkeypatch.context() as patch:
            patch.setattr(learner._bank, "max_learned_rows", len(learner._bank.learned_rows))
            with pytest.raises(InputError, match="has no room for"):
                learner.add(encoded(bent(1)), "anna", force=True)
        with pytest.raises(ImageError):
            learner.add(b"no image", "anna")
        assert state(learner) == before
        assert len(learner.entries()) == 1


def test_only_one_process_may_write(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learner:
        learner.add(encoded(bent(0)), "anna", force=True)
        with pytest.raises(InputError, match="in use by another process"):
            Learner.open(file, model)
        with Learner.open(file, model, write=False) as reader:
            assert len(reader.active) == 1
            with pytest.raises(InputError, match="opened for reading"):
                reader.add(encoded(bent(1)), "otto")
    Learner.open(file, model).close()


def test_another_model_file_is_refused(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learner:
        learner.add(encoded(bent(0)), "anna", force=True)
    file.write_bytes(replace(file.read_bytes(), {}, {"note": "the same model, another file"}))
    with Model.load(file, "cpu") as other:
        for write in (True, False):
            with pytest.raises(ModelFileError, match=r"learned with another model file.*bank add"):
                Learner.open(file, other, write)
    file.unlink()


def test_a_torn_last_line_was_never_acknowledged(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learner:
        learner.add(encoded(bent(0)), "anna", force=True)
        before, expected = state(learner), learner.entries()
        path = store_path(file) / "journal.jsonl"
        whole = path.read_bytes()
        learner.add(encoded(bent(1)), "anna", force=True)
    longer = path.read_bytes()
    for length in range(len(whole), len(longer)):
        path.write_bytes(longer[:length])
        journal = Journal(path)
        records, torn = journal.read()
        assert (len(records), torn) == (2, length > len(whole))
        assert journal.length == len(whole)
    with Learner.open(file, model) as learner:
        assert learner.notice is not None
        assert (state(learner), learner.entries()) == (before, expected)
        learner.add(encoded(bent(2)), "anna", force=True)
        expected = learner.entries()
    with Learner.open(file, model) as learner:
        assert learner.notice is None
        assert learner.entries() == expected


def sealed(document: str) -> bytes:
    """A line of a journal whose check is right, whatever it says."""
    return f"{sha256(document.encode())[:16]} {document}\n".encode()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda line: line[:40] + bytes([line[40] ^ 1]) + line[41:], "line 2 of .* is damaged: re"),
        (lambda _: sealed('{"schema": 2}'), "line 2 of .* was written by a newer fsad-edge"),
        (lambda _: sealed("{}"), "line 2 of .* is damaged .it names no schema"),
        (lambda _: sealed('{"schema": 1, "added": {"id": 1}}'), "damaged .added has no field"),
        (
            lambda line: sealed(line[17:-1].decode().replace('"0001.png"', '"../secret.png"')),
            "damaged .added.file is '../secret.png' and not a file name",
        ),
        (
            lambda _: sealed('{"schema": 1, "undone": {"id": 7, "when": "", "who": ""}}'),
            "is damaged .it undoes 7, which it never added",
        ),
    ],
)
def test_a_damaged_journal_is_refused_in_one_sentence(
    file: Path, model: Model, damage: Callable[[bytes], bytes], sentence: str
) -> None:
    with Learner.open(file, model) as learner:
        for seed in range(2):
            learner.add(encoded(bent(seed)), "anna", force=True)
    path = store_path(file) / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + damage(lines[1]) + lines[2])
    for write in (True, False):
        with pytest.raises(ModelFileError, match=sentence) as raised:
            Learner.open(file, model, write)
        assert str(raised.value).endswith("start with nothing learned.")


texts = st.text(max_size=9)
records = st.one_of(
    st.builds(
        Entry,
        sha256=st.just("0" * 64),
        file=st.sampled_from(["0001.png", "ä b.jpeg"]),
        when=texts,
        who=texts,
        score=st.floats(allow_nan=False, allow_infinity=False),
        threshold=st.floats(allow_nan=False, allow_infinity=False),
        undone=st.none(),
        undone_by=st.none(),
    ).map(lambda entry: Record(added=entry)),
    st.builds(Undo, when=texts, who=texts).map(lambda undo: Record(undone=undo)),
)


@given(st.lists(records, min_size=1, max_size=6))
@settings(deadline=None, max_examples=30)
def test_a_journal_gives_back_what_it_was_given(written: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal")
        for record in written:
            journal.append(record)
        assert journal.read() == (written, False)
        assert journal.length == journal.path.stat().st_size


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


# Forks a process that learns, each time it is told to; a fork starts in no time.
LEARN = """
import os, random, sys, traceback
from pathlib import Path
from fsad_edge import Model
from fsad_edge.learning.learner import Learner
from fsad_edge.errors import InputError
from tests.test_learner import bent, encoded

file, said = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
images = [encoded(bent(seed)) for seed in range(120)]
model = Model.load(file, "cpu", threads=1)

def learn(life):
    random.seed(life)
    with Learner.open(file, model) as learner:
        os.write(said, b"open\\n")
        while True:
            active = [entry.id for entry in learner.active]
            if len(active) > 8 or active and random.random() < 0.25:
                number = random.choice(active)
                os.write(said, f"undoing {number}\\n".encode())
                learner.undo(number, "otto")
                os.write(said, f"undone {number}\\n".encode())
            else:
                entry = learner.add(random.choice(images), "anna", force=True)
                os.write(said, f"learned {entry.id} {entry.sha256}\\n".encode())

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
            # Opened, and then up to three more things said; or while it still opens.
            lines = len(said.read_bytes().splitlines()) + int(rng.integers(0, 5))
            process.stdin.write("\n")
            process.stdin.flush()
            child = int(process.stdout.readline())
            while len(said.read_bytes().splitlines()) < lines:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.06))
            os.kill(child, signal.SIGKILL)
            assert int(process.stdout.readline()) == signal.SIGKILL
            with Learner.open(file, model) as learner:
                active = {entry.id: entry.sha256 for entry in learner.active}
                undone = {entry.id for entry in learner.entries()} - active.keys()
            words = [line.split() for line in said.read_text().splitlines()]
            may_be_undone = {int(word[1]) for word in words if word[0] == "undoing"}
            for word in words:
                if word[0] == "learned" and int(word[1]) not in may_be_undone:
                    assert active[int(word[1])] == word[2]
                if word[0] == "undone":
                    assert int(word[1]) in undone
            lives += 1
        process.stdin.close()
    assert lives == KILLS
    learned_count = sum(word[0] == "learned" for word in words)
    assert learned_count > KILLS / 2  # or the kills came too early to prove anything
    print(f"{KILLS} kills, {learned_count} images learned, {len(active)} in force")
