"""The learning store: what was acknowledged is read back, or it is said what is not."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.learning.journal import Entry, Record, Setting, Undo, changes_of
from fsad_edge.learning.journal_file import Journal, JournalContent
from fsad_edge.learning.novelty import Novelty
from fsad_edge.learning.places import store_path
from fsad_edge.learning.store import LearningStore
from fsad_edge.runtime.documents import to_document
from fsad_edge.runtime.files import sha256
from tests.commands import all_files

MODEL, OTHER = sha256(b"the model file"), sha256(b"another model file")

texts = st.text(max_size=9)
numbers = st.floats(allow_nan=False, allow_infinity=False)
records = st.one_of(
    st.builds(
        Entry,
        id=st.integers(1, 99),
        when=texts,
        who=texts,
        sha256=st.just(MODEL),
        file=st.sampled_from(["0001.png", "ä b.jpeg"]),
        score=numbers,
        threshold=st.floats(0.1, 9),
        rows=st.integers(0, 9),
        undone=st.none(),
        undone_by=st.none(),
        name=st.none() | texts,
    ).map(lambda entry: Record(added=entry)),
    st.builds(Undo, id=st.integers(1, 99), when=texts, who=texts).map(
        lambda undo: Record(undone=undo)
    ),
)


def image(number: int) -> bytes:
    return b"image %d, not looked into here" % number


def entry(number: int) -> Entry:
    digest = sha256(image(number))
    return Entry(number, "now", "anna", digest, f"{number:04d}.png", 0.5, 0.4, 3, forced=False)


def setting(number: int, value: float = 0.3) -> Setting:
    return Setting(number, "now", "otto", value, None, "as a value", "by hand")


def fill(path: Path, model: str = MODEL) -> LearningStore:
    """Teach a model file images 1, 2 and 4, and threshold 3; image 1 is undone."""
    store = LearningStore(path, model)
    with store.lock():
        store.read()
        for number in (1, 2):
            store.add(entry(number), image(number))
        store.set(setting(3))
        store.undo(1, "otto")
        store.add(entry(4), image(4))
    return store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model file that was taught."""
    fill(tmp_path / "part.onnx")
    return tmp_path / "part.onnx"


def opened(path: Path, write: bool = False, model_sha256: str = MODEL) -> LearningStore:
    store = LearningStore(path, model_sha256)
    with store.lock() if write else contextlib.nullcontext():
        store.read()
    return store


def in_force(store: LearningStore) -> tuple[list[int], float | None]:
    """The images that count and the threshold."""
    active = [one.id for one in store.active]
    return active, None if store.setting is None else store.setting.value


def journal_of(path: Path) -> Path:
    return store_path(path) / "journal.jsonl"


def sealed(document: Any) -> bytes:
    """A line of a journal whose check is right, whatever it says."""
    text = document if isinstance(document, str) else json.dumps(document)
    return f"{sha256(text.encode())[:16]} {text}\n".encode()


def older(path: Path, *lines: bytes, model: str = MODEL) -> Path:
    """Write a journal as earlier versions did, with the images of its lines."""
    folder = store_path(path)
    (folder / "images").mkdir(parents=True)
    for number in (1, 2, 4):
        (folder / f"images/{number:04d}.png").write_bytes(image(number))
    first = sealed({"schema": 2, "model": model, "added": None, "set": None, "undone": None})
    journal_of(path).write_bytes(first + b"".join(lines))
    return path


def older_line(record: Record) -> bytes:
    document = to_document(record)
    names = ("model", "added", "set", "undone")
    return sealed({"schema": 2, **{name: document[name] for name in names}})


OLDER = [
    older_line(Record(added=entry(1))),
    older_line(Record(added=entry(2))),
    older_line(Record(set=setting(3))),
    older_line(Record(undone=Undo(1, "now", "otto"))),
    older_line(Record(added=entry(4))),
]


@given(st.lists(records, min_size=1, max_size=6))
@settings(deadline=None, max_examples=30)
def test_a_journal_gives_back_what_it_was_given(written: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal, content = Journal(Path(folder) / "journal"), JournalContent()
        for record in written:
            content = journal.append(content, record, MODEL)
        assert journal.read() == content
        assert (content.faults, content.remarks, content.unfinished) == ((), (), False)
        assert content.model == journal.owner() == MODEL
        assert changes_of(content.records) == changes_of(written)


def test_the_next_process_reads_the_same_entries(path: Path) -> None:
    for write in (False, True):
        store = opened(path, write)
        assert [(one.id, one.undone_by) for one in store.entries.values()] == [
            (1, "otto"), (2, None), (4, None),
        ]  # fmt: skip
        assert in_force(store) == ([2, 4], 0.3)
        assert [store.images.read(one) for one in store.active] == [image(2), image(4)]
        assert sorted(file.name for file in store.images.path.iterdir()) == ["0002.png", "0004.png"]
        assert store.notice is None


def test_a_journal_cut_at_any_byte_keeps_its_whole_lines_and_says_what_is_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    journal = journal_of(path)
    data = journal.read_bytes()
    start = data.rindex(b"\n", 0, -1) + 1
    for length in [start, start + 1, *range(start + 2, len(data) - 3, 40), len(data) - 2]:
        journal.write_bytes(data[:length])
        store = opened(path)
        assert in_force(store) == ([2], 0.3)
        assert "does not hold the change that was acknowledged last" in (store.notice or "")
        assert ("never finished" in (store.notice or "")) == (length > start)
    # Where nobody was told that the last line counts, it is a line that was never finished.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another state"))
    store = opened(path)
    assert store.damage == []
    with store.lock():
        store.read()
        assert store.add(entry(store.next_id), image(4)).file.startswith("0004-")
    store = opened(path)
    assert in_force(store) == ([2, 4], 0.3)
    assert store.notice is None


def test_each_flipped_bit_of_a_journal_is_told_and_changes_nothing(path: Path) -> None:
    """Each bit of the line feeds and some of all others; 250 positions."""
    journal = journal_of(path)
    data, before = journal.read_bytes(), all_files(store_path(path))
    feeds = [place * 8 + bit for place, one in enumerate(data) if one == 10 for bit in range(8)]
    chosen = np.random.default_rng(0).choice(len(data) * 8, 250 - len(feeds), replace=False)
    for position in [*feeds, *map(int, chosen)]:
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        journal.write_bytes(changed)
        store = opened(path)
        assert in_force(store) == ([2, 4], 0.3)
        notice = store.notice or ""
        assert "have a wrong bit" in notice or "wrong bit, and was read as it was" in notice
    journal.write_bytes(data)
    assert all_files(store_path(path)) == before


@pytest.mark.parametrize(
    ("number", "expected"),
    [(1, ([2, 4], 0.3)), (2, ([2, 4], 0.3)), (3, ([4], 0.3)), (4, ([2, 4], None)),
     (5, ([2, 4], 0.3)), (6, ([2], 0.3))],
)  # fmt: skip
@pytest.mark.parametrize("how", ["damaged", "missing", "of another folder"])
def test_a_line_that_is_lost_costs_itself_alone_and_is_told(
    path: Path, number: int, expected: tuple[list[int], float], how: str, tmp_path: Path
) -> None:
    journal = journal_of(path)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 6
    if how == "damaged":
        lines[number - 1] = lines[number - 1][:30] + b"......" + lines[number - 1][36:]
    elif how == "of another folder":
        fill(tmp_path / "other/part.onnx")
        others = journal_of(tmp_path / "other/part.onnx").read_bytes().splitlines(keepends=True)
        lines[number - 1] = others[number - 1]
    else:
        del lines[number - 1]
    journal.write_bytes(b"".join(lines))
    files = all_files(store_path(path))
    store = opened(path)
    assert in_force(store) == expected
    said = " ".join(store.damage)
    # What was taken away at the end is known from the note of what was acknowledged.
    at_end = how == "missing" and number == 6
    assert ("acknowledged last" if at_end else str(number)) in said
    assert str(journal) in said
    assert "restore it from a copy" in said
    assert all_files(store_path(path)) == files
    with store.lock():  # it can be taught all the same, and nothing is forgotten by that
        store.read()
        new = store.next_id
        store.add(replace(entry(new), sha256=sha256(image(99))), image(99))
    store = opened(path)
    assert in_force(store) == ([*expected[0], new], expected[1])
    assert store.damage or at_end
    kept = all_files(store_path(path))
    assert all(kept[name] == data for name, data in files.items() if name.endswith("png"))


def test_the_image_of_a_line_that_is_lost_is_not_deleted(path: Path) -> None:
    """It may be the same image as one that was undone before."""
    store = opened(path)
    with store.lock():
        store.read()
        store.add(replace(entry(5), sha256=sha256(image(1))), image(1))
        (store.path / ".journal.jsonl.half").touch()  # of a process that was ended
    lines = journal_of(path).read_bytes().splitlines(keepends=True)
    journal_of(path).write_bytes(b"".join(lines[:-1]) + lines[-1][:50] + b"...\n")
    store = opened(path, write=True)
    assert (store.path / "images/0005.png").read_bytes() == image(1)
    assert in_force(store) == ([2, 4], 0.3)
    assert not (store.path / ".journal.jsonl.half").exists()
    journal_of(path).write_bytes(b"".join(lines))
    assert in_force(opened(path, write=True)) == ([2, 4, 5], 0.3)


def test_lines_that_were_exchanged_are_read_in_their_own_order(path: Path) -> None:
    journal = journal_of(path)
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[1], lines[4] = lines[4], lines[1]
    journal.write_bytes(b"".join(lines))
    store = opened(path)
    assert in_force(store) == ([2, 4], 0.3)
    assert "were exchanged" in (store.notice or "")


def test_an_image_that_is_damaged_missing_or_another_one_costs_itself_alone(path: Path) -> None:
    folder = store_path(path) / "images"
    two, four = folder / "0002.png", folder / "0004.png"
    for damage in (
        lambda: two.write_bytes(image(2)[:-1] + b"!"),
        lambda: two.write_bytes(four.read_bytes()),
        lambda: two.write_bytes(b""),
        lambda: two.unlink(),
    ):
        damage()
        for write in (False, True):
            store = opened(path, write)
            assert in_force(store) == ([4], 0.3)
            [said] = store.damage
            assert said.startswith("image 2 (without a name, by anna) does not count")
            assert str(two) in said
            assert f"bank undo {path} 2" in said
    two.write_bytes(image(2))
    assert store.changed()  # it is noticed that it is back
    store.read()
    assert in_force(store) == ([2, 4], 0.3)
    two.write_bytes(b"damaged")
    with store.lock():
        store.read()
        store.undo(2, "otto")
    assert (store.damage, two.exists()) == ([], False)


def test_images_and_journals_that_were_exchanged_between_folders_are_found(
    path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other/part.onnx"
    store = LearningStore(other, OTHER)
    with store.lock():
        store.read()
        store.add(replace(entry(2), sha256=sha256(image(9))), image(9))
    mine, theirs = journal_of(path), journal_of(other)
    before = all_files(tmp_path)
    for one in ("images/0002.png", "journal.jsonl"):
        files = mine.parent / one, theirs.parent / one
        swapped = files[1].read_bytes(), files[0].read_bytes()
        for file, data in zip(files, swapped, strict=True):
            file.write_bytes(data)
        if one == "journal.jsonl":
            with pytest.raises(ModelFileError, match="learned with another model file"):
                opened(path)
            with pytest.raises(ModelFileError, match="learned with another model file"):
                opened(other, True, OTHER)
        else:
            assert in_force(opened(path)) == ([4], 0.3)
            assert in_force(opened(other, True, OTHER)) == ([], None)
        for file, data in zip(files, reversed(swapped), strict=True):
            file.write_bytes(data)
    assert all_files(tmp_path).items() >= before.items()


def test_a_folder_that_was_restored_from_an_older_copy_is_told(path: Path, tmp_path: Path) -> None:
    folder = store_path(path)
    shutil.copytree(folder, tmp_path / "backup")
    store = opened(path)
    with store.lock():
        store.read()
        store.add(entry(5), image(5))
    shutil.rmtree(folder)
    (tmp_path / "backup").rename(folder)
    store = opened(path)
    assert in_force(store) == ([2, 4], 0.3)
    assert "line 7; it has 6): an older copy was restored" in " ".join(store.damage)
    shutil.rmtree(folder / "images")
    journal_of(path).unlink()
    (folder / "images").mkdir()
    (folder / "images/0002.png").write_bytes(image(2))
    os.utime(folder / "images/0002.png", (0, 0))
    store = opened(path, write=True)
    assert "holds 1 images, and its journal is missing" in " ".join(store.damage)
    assert (folder / "images/0002.png").read_bytes() == image(2)


@pytest.mark.parametrize("how", ["restored", "made anew", "moved away"])
def test_a_folder_that_is_replaced_while_it_is_written_is_not_written_to(
    path: Path, tmp_path: Path, how: str
) -> None:
    """The next append went to a remembered length, and NUL bytes came before it."""
    folder, away = store_path(path), tmp_path / "away"
    shutil.copytree(folder, tmp_path / "backup")
    store = opened(path)
    with store.lock():
        store.read()
        store.set(setting(5, 0.4))
        folder.rename(away)
        if how == "restored":
            (tmp_path / "backup").rename(folder)
        elif how == "made anew":
            (folder / "images").mkdir(parents=True)
        with pytest.raises(InputError, match=r"nothing was confirmed|cannot be written"):
            store.add(entry(6), image(6))
    found = opened(path)
    assert b"\0" not in (journal_of(path).read_bytes() if journal_of(path).exists() else b"")
    assert in_force(found) == (([2, 4], 0.3) if how == "restored" else ([], None))
    shutil.rmtree(folder, ignore_errors=True)
    away.rename(folder)
    assert in_force(opened(path)) == ([2, 4], 0.4)


def test_a_journal_that_was_restored_in_place_is_read_again_before_it_is_written(
    path: Path,
) -> None:
    journal = journal_of(path)
    older_copy = journal.read_bytes()
    store = opened(path)
    with store.lock():
        store.read()
        store.set(setting(5, 0.4))
        journal.write_bytes(older_copy)
        with pytest.raises(InputError, match="replaced or changed by something else"):
            store.set(setting(6, 0.5))
        assert store.changed()
        store.read()
        store.set(setting(5, 0.6))
    assert in_force(opened(path)) == ([2, 4], 0.6)


def test_a_journal_of_an_earlier_version_is_read_and_taken_over_once(tmp_path: Path) -> None:
    path = older(tmp_path / "part.onnx", *OLDER)
    journal, before = journal_of(path), journal_of(path).read_bytes()
    store = opened(path)
    assert (in_force(store), store.notice) == (([2, 4], 0.3), None)
    assert journal.read_bytes() == before
    for number in (5, 6):
        store = opened(path)
        with store.lock():
            store.read()
            store.set(setting(number, number / 10))
    store = opened(path)
    assert (in_force(store), store.notice) == (([2, 4], 0.6), None)
    assert store.entries[1].undone_by == "otto"
    assert (journal.parent / "journal-before.jsonl").read_bytes() == before
    assert [one.name for one in journal.parent.glob("journal*")].count("journal.jsonl") == 1
    # An earlier version refuses what it cannot understand, in its own words.
    assert json.loads(journal.read_bytes().splitlines()[0][17:])["schema"] == 3


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (OLDER[2][:40] + b"....." + OLDER[2][45:], "line 4 of .* is damaged"),
        (sealed("{}"), "line 4 of .* is damaged .it names no schema"),
        (sealed('{"schema": 1, "added": {"id": 1}}'), r"damaged .added has no field"),
        *(
            (older_line(Record(set=setting(3))).replace(b"0.3", value), "")
            for value in (b"NaN", b"Infinity", b"true", b"-1.0")
        ),
    ],
)
def test_an_older_line_that_cannot_be_used_costs_itself_alone(
    tmp_path: Path, broken: bytes, sentence: str
) -> None:
    if not sentence:  # a line of an earlier version whose check is right
        broken, sentence = sealed(broken[17:-1].decode()), r"line 4 .* damaged .set.value is"
    path = older(tmp_path / "part.onnx", *OLDER[:2], broken, *OLDER[3:])
    store = opened(path)
    assert in_force(store) == ([2, 4], None)
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(*store.damage)
    with store.lock():
        store.read()
        store.set(setting(store.next_id, 0.5))
    store = opened(path)
    assert in_force(store) == ([2, 4], 0.5)
    assert "numbered 4 are missing" in " ".join(store.damage)  # the older file still holds it


def test_a_newer_journal_and_one_without_a_whole_line_are_refused(path: Path) -> None:
    for data, sentence in (
        (sealed({"schema": 99}), r"written by a newer fsad-edge .schema 99"),
        (b"no line of a journal\n" * 3, "no line of .* can be read: restore it from a copy"),
        (bytes(600) + b"\n", "no line of .* can be read: restore it from a copy"),
    ):
        journal_of(path).write_bytes(data)
        for write in (False, True):
            with pytest.raises(ModelFileError, match=sentence):
                opened(path, write)
        assert journal_of(path).read_bytes() == data


def test_the_store_of_another_model_file_is_refused(path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"learned with another model file.*bank add"):
        opened(path, model_sha256=OTHER)


def test_a_cache_that_is_damaged_or_of_another_image_is_left_out(path: Path) -> None:
    patches = np.zeros((2, 5), np.float32)
    fingerprint = np.zeros(64, np.uint8)
    ones, known = np.ones(4, np.float32), np.zeros(3, np.float32)
    novelty = Novelty(patches, patches, known, fingerprint, ones, ones[: len(patches)], known)
    store = opened(path)
    with store.lock():
        store.read()
        for one in store.active:
            store.cache_novelty(one, novelty)
    two, four = store.active
    cache = store.images.cache(two)
    data = cache.read_bytes()
    assert store.cached_novelty(two, 5) is not None
    assert store.cached_novelty(two, 6) is None
    for position in np.random.default_rng(0).integers(0, len(data) * 8, 300):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        cache.write_bytes(changed)
        assert store.cached_novelty(two, 5) is None
    cache.write_bytes(store.images.cache(four).read_bytes())
    assert store.cached_novelty(two, 5) is None
    for junk in (b"", b"PK\x03\x04", data[:-1], data + b"\n"):
        cache.write_bytes(junk)
        assert store.cached_novelty(two, 5) is None


def test_ten_writers_all_get_their_turn(path: Path) -> None:
    """Each takes the lock again at once, as a process does that teaches a whole folder."""
    start, turns = threading.Barrier(10), 4

    def write(who: str) -> None:
        store = LearningStore(path, MODEL)
        start.wait()
        for _ in range(turns):
            with store.lock():
                store.read()
                number = store.next_id
                store.add(replace(entry(number), who=who), image(number))

    writers = [threading.Thread(target=write, args=(f"writer {one}",)) for one in range(10)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    store = opened(path)
    people = [one.who for one in store.active]
    assert [people.count(f"writer {one}") for one in range(10)] == [turns] * 10
    assert store.notice is None


def test_one_process_writes_at_a_time_and_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsad_edge.learning.store.LOCK_SECONDS", 0.1)
    store = opened(path)
    with store.lock():
        with pytest.raises(
            InputError, match=r"process \d+ \(.*\), since 2.*, is changing .* within 0.1 s"
        ):
            opened(path, write=True)
        assert opened(path).active == store.active  # reading needs no lock
    opened(path, write=True)


def test_an_undo_beside_readers_is_never_taken_for_damage(path: Path) -> None:
    """A reader that finds an image gone looks at the journal again before it says so."""
    stop, said = threading.Event(), list[object]()

    def read() -> None:
        while not stop.is_set():
            try:
                if notice := opened(path).notice:
                    said.append(notice)
            except Exception as error:
                said.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for one in readers:
        one.start()
    try:
        for _ in range(15):
            store = LearningStore(path, MODEL)
            with store.lock():
                store.read()
                number = store.add(entry(store.next_id), image(store.next_id)).id
                store.undo(number, "otto")
    finally:
        stop.set()
        for one in readers:
            one.join()
    assert said == []


def test_a_record_that_could_not_be_read_back_is_refused_at_the_door(path: Path) -> None:
    store = opened(path)
    before = all_files(store_path(path))
    nobody: Any = None
    for broken in (
        replace(entry(5), who=nobody),
        replace(entry(5), score=float("nan")),
        replace(entry(5), score=True),
        replace(entry(5), threshold=float("inf")),
        replace(entry(5), file="../secret.png"),
    ):
        with pytest.raises(InputError, match="cannot be kept in a journal: added"), store.lock():
            store.add(broken, image(5))
    after = all_files(store_path(path))
    assert {name: data for name, data in after.items() if name not in {"lock", "turn"}} == {
        name: data for name, data in before.items() if name not in {"lock", "turn"}
    }
