"""Learning on the device: what it does to scores, and what a killed process leaves behind."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

import fsad_edge.learning.learner as learning
from fsad_edge import Model, Threshold
from fsad_edge.calibration.threshold import threshold_from_scores
from fsad_edge.errors import ImageError, InputError, ModelFileError, NotNormalError
from fsad_edge.learning.journal import append, read_journal
from fsad_edge.learning.learner import (
    GROSS,
    HIGHEST,
    LOWEST,
    Learner,
    learned_threshold,
    store_path,
)
from fsad_edge.learning.novelty import (
    LEVEL,
    ROTATED_LEVEL,
    Memory,
    Novelty,
    in_order,
    nearest,
)
from fsad_edge.runtime import Result
from fsad_edge.runtime.bank import (
    NEIGHBOURS,
    RARITY_WEIGHT,
    UNUSED,
    WORST_PATCHES,
    fit_reference,
)
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.onnx_file import read_initializers, replace
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


def state(learned: Learner) -> tuple[bytes, float]:
    """All that scores depend on."""
    arrays = learned.reference.as_inputs().values()
    return b"".join(array.tobytes() for array in arrays), learned.threshold.value


def test_a_learned_image_scores_below_the_threshold(file: Path, model: Model) -> None:
    images = [bent(seed) for seed in range(3)]
    before = [model.score(encoded(image)) for image in images]
    assert any(result.anomalous for result in before)
    with Learner.open(file, model) as learned:
        for image in images:
            learned.add(encoded(image), "anna", force=True)
        for image, earlier in zip(images, before, strict=True):
            noise = np.random.default_rng(0).normal(0, 2, (*image.size, 3))
            noisy = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
            for copy in (encoded(image), encoded(image, "JPEG", quality=90), encoded(noisy)):
                now = model.score(copy)
                assert not now.anomalous
                assert now.score < earlier.score
            assert model.score(encoded(image)).score <= LEVEL * model.metadata.map_threshold * 1.02
    model.check_golden()  # against the file's own normal parts


def test_undo_leaves_nothing_behind(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learned:
        states = [state(learned)]
        for seed in range(4):
            learned.add(encoded(bent(seed)), "anna", force=True)
            states.append(state(learned))
        assert len(set(states)) == 5
        for number in (4, 3, 2, 1):
            assert state(learned) == states[number]
            undone = learned.undo(who="otto")
            assert (undone.id, undone.undone_by) == (number, "otto")
            assert not learned.image_path(undone).exists()
        assert state(learned) == states[0]
        assert model.threshold == model.metadata.threshold.value
        with pytest.raises(InputError, match="nothing that was learned"):
            learned.undo()


def test_undo_of_an_earlier_one_is_as_if_it_never_was(
    file: Path, model: Model, tmp_path: Path
) -> None:
    images = [encoded(bent(seed)) for seed in range(4)]
    with Learner.open(file, model) as learned:
        for image in images:
            learned.add(image, "anna", force=True)
        learned.undo(2, "anna")
        with pytest.raises(InputError, match=r"no learned image 2 is in force.* 1, 3, 4"):
            learned.undo(2)
        got = state(learned)
    other = Path(shutil.copy(file, tmp_path / "other.onnx"))
    with Learner.open(other, model) as learned:
        for index in (0, 2, 3):
            learned.add(images[index], "anna", force=True)
        assert state(learned) == got


def test_the_next_process_finds_the_same(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learned:
        for seed in range(3):
            learned.add(encoded(bent(seed)), "anna", force=True)
        learned.undo(1, "otto")
        expected, entries = state(learned), learned.entries()
    images = store_path(file) / "images"
    kept = sorted(images.glob("*.npz"))
    assert len(kept) == 2
    (images / "0009.png").write_bytes(b"of a killed process")
    kept[0].unlink()
    kept[1].write_bytes(kept[1].read_bytes()[:-40])
    with Learner.open(file, model, write=False) as reader:
        assert (state(reader), reader.entries()) == (expected, entries)
        assert reader.notice is None
    with Learner.open(file, model) as learned:
        assert (state(learned), learned.entries()) == (expected, entries)
        assert sorted(path.name for path in images.iterdir()) == [
            *("0002.npz", "0002.png", "0003.npz", "0003.png")
        ]
        first = learned.add(encoded(bent(9)), "anna", force=True)
        assert first.id == 4  # no id is used twice


def test_a_lost_answer_may_be_asked_for_again(file: Path, model: Model) -> None:
    image = encoded(bent(0))
    with Learner.open(file, model) as learned:
        entry = learned.add(image, "anna", force=True)
        before = state(learned)
        assert learned.add(image, "otto", force=True) == entry
        assert state(learned) == before
        assert entry.sha256 == sha256(image)
        assert learned.image_path(entry).read_bytes() == image


def test_a_gross_defect_is_refused_and_never_moves_the_threshold(file: Path, model: Model) -> None:
    image = encoded(photograph(np.random.default_rng(5), defect=True))
    ratio = model.score(image).ratio
    assert ratio > GROSS
    with Learner.open(file, model) as learned:
        with pytest.raises(NotNormalError, match=rf"scores {ratio:.1f} times the threshold"):
            learned.add(image, "anna")
        assert not learned.entries()
        entry = learned.add(image, "anna", force=True)
        assert entry.forced
        assert learned.threshold.value == model.threshold == model.metadata.threshold.value
        assert not model.score(image).anomalous


@given(
    st.lists(st.floats(0.01, 10), min_size=1, max_size=10),
    st.lists(st.floats(0, 1e3), max_size=20),
    st.booleans(),
)
def test_learning_moves_the_threshold_by_its_rule_within_bounds(
    shots: list[float], scores: list[float], left_out: bool
) -> None:
    file = Threshold(2.0, 0.01, "method", shots, "reliability")
    found = learned_threshold(file, left_out, scores)
    assert LOWEST * 2 <= found.value <= HIGHEST * 2
    pooled = shots + scores if left_out else scores
    if scores and len(pooled) > 1:
        rule = threshold_from_scores(pooled, 0.01, file.prior_std).value
        most = max(2, min(max(scores), HIGHEST * 2))
        assert found.value == pytest.approx(min(max(rule, LOWEST * 2), most))
    else:
        assert found == file


def test_confirmed_good_images_narrow_the_threshold(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learned:
        for seed in range(20, 32):
            learned.add(encoded(photograph(np.random.default_rng(seed))), "anna", force=True)
        assert "12 of them of images learned" in learned.threshold.method
        assert model.threshold == learned.threshold.value


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
    if not len(shots):
        return
    file = in_order(fit_reference(shots, shots[:, :-1], bank_size))
    capacity = len(file.bank)
    memory, threshold = Memory(file, 0.1), 0.1
    for upright, rotated in images:
        novelty = Novelty(upright, rotated, np.zeros(WORST_PATCHES, np.float32))
        rows = memory.needed(novelty)
        fits = len(memory.learned) + len(rows) <= memory.most
        room_before = capacity - len(memory.learned) - len(rows) >= file.rows
        memory.add(novelty, rows)
        if fits and room_before:  # no row of the file had to go
            near = nearest(np.concatenate([upright, rotated]), memory.bank)
            distance = 1 - near.mean(axis=1)
            assert (distance[: len(upright)] <= LEVEL * threshold + 1e-5).all()
            assert (distance <= ROTATED_LEVEL * threshold + 1e-5).all()
        assert len(memory.learned) <= memory.most
    reference = memory.reference()
    assert reference.bank.shape == file.bank.shape
    assert reference.rows == min(file.rows + len(memory.learned), capacity)
    used = reference.bank_bias > UNUSED / 2
    kept = reference.bank[used][: reference.rows - len(memory.learned)]
    known = {row.tobytes() for row in file.bank}
    assert all(row.tobytes() in known for row in kept)
    assert len(memory.scores()) == len(images)


def test_what_stands_for_most_outlasts_a_full_memory() -> None:
    rng = np.random.default_rng(0)
    ground = np.eye(6) + rng.normal(0, 1e-3, (200, 6, 6))
    rows = np.concatenate([ground.reshape(-1, 6), rng.normal(size=(300, 6))])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    shots = np.concatenate([rows, np.zeros((len(rows), 1))], axis=1).astype(np.float32)
    file = in_order(fit_reference(shots, shots[:, :-1], 240))
    often = {row.tobytes() for row in file.patches[: 6 * NEIGHBOURS]}
    assert len(often) == 6
    memory = Memory(file, 0.1)
    while len(memory.learned) < memory.most:
        new = rng.normal(size=(memory.most - len(memory.learned), 6))
        new /= np.linalg.norm(new, axis=1, keepdims=True)
        upright = np.concatenate([new, np.zeros((len(new), 1))], axis=1).astype(np.float32)
        novelty = Novelty(upright, upright[:0], np.zeros(WORST_PATCHES, np.float32))
        memory.add(novelty, upright)
    kept = [row.tobytes() for row in memory.reference().patches]
    assert len(kept) - len(memory.learned) < file.rows
    assert all(kept.count(row) == NEIGHBOURS for row in often)


def test_one_patch_goes_in_as_often_as_neighbours_are_asked() -> None:
    rows = np.eye(8, 9, dtype=np.float32)  # at no rarity
    shots = rows[:4].repeat(3, axis=0)
    memory = Memory(fit_reference(shots, shots[:, :-1], 40), 0.1)
    alone = rows[[7]]
    rows = memory.needed(Novelty(alone, alone[:0], np.zeros(3, np.float32)))
    assert len(rows) == NEIGHBOURS


def test_limits(file: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with Learner.open(file, model) as learned:
        learned.add(encoded(bent(0)), "anna", force=True)
        before = state(learned)
        for name, value in (("MOST_IMAGES", 1), ("MOST_BYTES", 1000)):
            with monkeypatch.context() as patch:
                patch.setattr(learning, name, value)
                with pytest.raises(InputError, match="are learned, and at most"):
                    learned.add(encoded(bent(1)), "anna", force=True)
        with monkeypatch.context() as patch:
            patch.setattr(learned._memory, "most", len(learned._memory.learned))
            with pytest.raises(InputError, match="has no room for"):
                learned.add(encoded(bent(1)), "anna", force=True)
        with pytest.raises(ImageError):
            learned.add(b"no image", "anna")
        assert state(learned) == before
        assert len(learned.entries()) == 1


def test_a_file_from_before_patches_had_a_rarity_learns_by_their_cosine(file: Path) -> None:
    graph = onnx.load(file).graph
    # Its distance was the cosine's alone, its bank without rarity, its patches a value shorter.
    (weight,) = (
        tensor
        for tensor in graph.initializer
        if tensor.dims in ([], [1]) and numpy_helper.to_array(tensor) == np.float32(RARITY_WEIGHT)
    )
    weight.CopyFrom(numpy_helper.from_array(np.zeros(weight.dims, np.float32), weight.name))
    (maker,) = (node for node in graph.node if "patches" in node.output)
    maker.output[list(maker.output).index("patches")] = "whole"
    for name, value in (("starts", 0), ("ends", -1), ("axes", 2)):
        graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    slicing = onnx.helper.make_node("Slice", ["whole", "starts", "ends", "axes"], ["patches"])
    graph.node.append(slicing)
    (output,) = (value for value in graph.output if value.name == "patches")
    output.type.tensor_type.shape.dim[2].dim_value -= 1
    whole = onnx.load(file)
    whole.graph.CopyFrom(graph)
    bank = read_initializers(file.read_bytes(), ["bank", "bank_bias"])
    used = bank["bank_bias"] > UNUSED / 2
    bias = np.where(used, -0.5 * np.square(bank["bank"]).sum(axis=1), UNUSED).astype(np.float32)
    data = replace(whole.SerializeToString(), {"bank_bias": bias}, {})
    file.write_bytes(data)
    image = encoded(bent(0))
    with (
        Model.from_bytes(data, str(file), "cpu") as model,
        Learner.open(file, model) as learned,
    ):
        before = model.score(image)
        learned.add(image, "anna", force=True)
        assert model.score(image).score < 0.8 * before.score
        learned.undo()
        assert model.score(image).score == pytest.approx(before.score, rel=1e-5)


def test_only_one_process_may_write(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learned:
        learned.add(encoded(bent(0)), "anna", force=True)
        with pytest.raises(InputError, match="in use by another process"):
            Learner.open(file, model)
        with Learner.open(file, model, write=False) as reader:
            assert len(reader.active) == 1
            with pytest.raises(InputError, match="opened for reading"):
                reader.add(encoded(bent(1)), "otto")
    Learner.open(file, model).close()


def test_another_model_file_is_refused(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learned:
        learned.add(encoded(bent(0)), "anna", force=True)
    file.write_bytes(replace(file.read_bytes(), {}, {"note": "the same model, another file"}))
    with Model.load(file, "cpu") as other:
        for write in (True, False):
            with pytest.raises(ModelFileError, match=r"learned with another model file.*bank add"):
                Learner.open(file, other, write)
    file.unlink()


def test_a_torn_last_line_was_never_promised(file: Path, model: Model) -> None:
    with Learner.open(file, model) as learned:
        learned.add(encoded(bent(0)), "anna", force=True)
        before, expected = state(learned), learned.entries()
        journal = store_path(file) / "journal.jsonl"
        whole = journal.read_bytes()
        learned.add(encoded(bent(1)), "anna", force=True)
    longer = journal.read_bytes()
    for length in range(len(whole), len(longer)):
        journal.write_bytes(longer[:length])
        lines, good, torn = read_journal(journal)
        assert (len(lines), good, torn) == (2, len(whole), length > len(whole))
    with Learner.open(file, model) as learned:
        assert learned.notice is not None
        assert (state(learned), learned.entries()) == (before, expected)
        learned.add(encoded(bent(2)), "anna", force=True)
        expected = learned.entries()
    with Learner.open(file, model) as learned:
        assert learned.notice is None
        assert learned.entries() == expected
    data = bytearray(journal.read_bytes())
    data[len(whole) - 20] ^= 1
    journal.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"line 2 of .* is damaged"):
        Learner.open(file, model)


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.floats()), max_size=6)
)
@settings(deadline=None, max_examples=30)
def test_a_journal_gives_back_what_it_was_given(entries: list[dict[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, length = Path(folder) / "journal", 0
        for entry in entries:
            length = append(path, length, entry)
        if entries:
            lines, whole, torn = read_journal(path)
            assert json.dumps(lines) == json.dumps(entries)
            assert (whole, torn) == (path.stat().st_size, False)


def test_a_full_disk_loses_nothing(
    file: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Learner.open(file, model) as learned:
        learned.add(encoded(bent(0)), "anna", force=True)
        before, entries = state(learned), learned.entries()
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
                    learned.add(encoded(bent(1)), "anna", force=True)
            assert (state(learned), learned.entries()) == (before, entries)
        learned.add(encoded(bent(1)), "anna", force=True)
        expected = state(learned)
    with Learner.open(file, model) as learned:
        assert state(learned) == expected


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
        with Learner.open(file, model) as learned:
            adding = [
                threading.Thread(target=learned.add, args=(encoded(bent(seed)), "anna", True))
                for seed in range(6)
            ]
            for one in adding:
                one.start()
            for one in adding:
                one.join()
            assert [entry.id for entry in learned.active] == list(range(1, 7))
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
from tests.test_learned import bent, encoded

file, said = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
images = [encoded(bent(seed)) for seed in range(120)]
model = Model.load(file, "cpu", threads=1)

def learn(life):
    random.seed(life)
    with Learner.open(file, model) as learned:
        os.write(said, b"open\\n")
        while True:
            active = [entry.id for entry in learned.active]
            if len(active) > 8 or active and random.random() < 0.25:
                number = random.choice(active)
                os.write(said, f"undoing {number}\\n".encode())
                learned.undo(number, "otto")
                os.write(said, f"undone {number}\\n".encode())
            else:
                entry = learned.add(random.choice(images), "anna", force=True)
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
            with Learner.open(file, model) as learned:
                active = {entry.id: entry.sha256 for entry in learned.active}
                undone = {entry.id for entry in learned.entries()} - active.keys()
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
