"""The learning store: what is written is read back, and damage is refused or repaired."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.learning.journal import Entry, Journal, Record, Undo
from fsad_edge.learning.places import store_path
from fsad_edge.learning.store import LearningStore
from fsad_edge.runtime.files import sha256

MODEL = sha256(b"the model file")
IMAGE = b"not looked into here"

texts = st.text(max_size=9)
numbers = st.floats(allow_nan=False, allow_infinity=False)
records = st.one_of(
    st.builds(
        Entry,
        when=texts,
        who=texts,
        sha256=st.just(MODEL),
        file=st.sampled_from(["0001.png", "ä b.jpeg"]),
        score=numbers,
        threshold=numbers,
        undone=st.none(),
        undone_by=st.none(),
        name=st.none() | texts,
    ).map(lambda entry: Record(added=entry)),
    st.builds(Undo, when=texts, who=texts).map(lambda undo: Record(undone=undo)),
)


def entry(number: int) -> Entry:
    digest = sha256(IMAGE)
    return Entry(number, "now", "anna", digest, f"{number:04d}.png", 0.5, 0.4, 3, forced=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model file next to which two images were learned, of which the first was undone."""
    store = LearningStore(tmp_path / "part.onnx", MODEL)
    with store.lock():
        for number in (1, 2):
            store.add(entry(number), IMAGE)
        store.undo(1, "otto")
    return tmp_path / "part.onnx"


def opened(path: Path, write: bool = False, model_sha256: str = MODEL) -> LearningStore:
    store = LearningStore(path, model_sha256)
    with store.lock() if write else contextlib.nullcontext():
        store.read()
    return store


@given(st.lists(records, min_size=1, max_size=6))
@settings(deadline=None, max_examples=30)
def test_a_journal_gives_back_what_it_was_given(written: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal")
        for record in written:
            journal.append(record)
        assert journal.read() == (written, False)
        assert journal.length == journal.path.stat().st_size


def test_the_next_process_reads_the_same_entries(path: Path) -> None:
    for write in (False, True):
        store = opened(path, write)
        first, second = store.entries.values()
        assert (first.id, first.undone_by) == (1, "otto")
        assert second == entry(2)
        assert store.active == [second]
        assert store.image(second) == IMAGE
        assert [file.name for file in store.images.iterdir()] == ["0002.png"]
        assert store.notice is None


def test_a_journal_cut_at_any_byte_keeps_its_whole_lines(path: Path) -> None:
    journal = store_path(path) / "journal.jsonl"
    data = journal.read_bytes()
    start = data.rindex(b"\n", 0, -1) + 1
    for length in range(start, len(data)):
        journal.write_bytes(data[:length])
        store = opened(path)
        assert [one.id for one in store.active] == [1, 2]  # the undo was never acknowledged
        assert (store.notice is not None) == (length > start)
    store = opened(path)
    with store.lock():
        store.read()
        store.undo(2, "anna")
    store = opened(path)
    assert [one.id for one in store.active] == [1]
    assert store.notice is None


def sealed(document: str) -> bytes:
    """A line of a journal whose check is right, whatever it says."""
    return f"{sha256(document.encode())[:16]} {document}\n".encode()


def with_other_file(line: bytes) -> bytes:
    return sealed(line[17:-1].decode().replace('"0001.png"', '"../secret.png"'))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda line: line[:40] + bytes([line[40] ^ 1]) + line[41:], "line 2 of .* is damaged: re"),
        (lambda _: sealed('{"schema": 99}'), "line 2 of .* was written by a newer fsad-edge"),
        (lambda _: sealed("{}"), "line 2 of .* is damaged .it names no schema"),
        (lambda _: sealed('{"schema": 1, "added": {"id": 1}}'), "damaged .added has no field"),
        (with_other_file, "damaged .added.file is '../secret.png' and not a file name"),
        (lambda _: sealed('{"schema": 1}'), "is damaged .it undoes 1, which it never added"),
    ],
)
def test_a_damaged_journal_is_refused_in_one_sentence(
    path: Path, damage: Callable[[bytes], bytes], sentence: str
) -> None:
    journal = store_path(path) / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + damage(lines[1]) + b"".join(lines[2:]))
    for write in (True, False):
        with pytest.raises(ModelFileError, match=sentence) as raised:
            opened(path, write)
        assert str(raised.value).endswith("start with nothing learned.")


def test_an_image_that_changed_or_is_missing_is_refused(path: Path) -> None:
    store = opened(path)
    (active,) = store.active
    file = store.image_path(active)
    file.write_bytes(b"another image")
    with pytest.raises(ModelFileError, match="is not the image that was learned"):
        store.image(active)
    file.unlink()
    with pytest.raises(ModelFileError, match="cannot be read"):
        store.image(active)


def test_the_store_of_another_model_file_is_refused(path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"learned with another model file.*bank add"):
        opened(path, model_sha256=sha256(b"another file"))


def test_one_process_writes_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsad_edge.learning.store.LOCK_SECONDS", 0.1)
    store = opened(path)
    with store.lock():
        with pytest.raises(InputError, match=r"another process is changing .* within 0.1 s"):
            opened(path, write=True)
        assert opened(path).active == store.active  # reading needs no lock
    opened(path, write=True)


def test_a_record_that_could_not_be_read_back_is_refused_at_the_door(path: Path) -> None:
    store = opened(path)
    before = (store_path(path) / "journal.jsonl").read_bytes()
    nobody: Any = None
    for broken in (replace(entry(3), who=nobody), replace(entry(3), score=float("nan"))):
        with pytest.raises(InputError, match="cannot be kept in a journal: added"):
            store.add(broken, IMAGE)
    assert (store_path(path) / "journal.jsonl").read_bytes() == before
    assert [file.name for file in store.images.iterdir()] == ["0002.png"]
