"""What was acknowledged is there after a kill, a full disk or damage, or it is said what is not."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fsad_edge import Model
from fsad_edge.errors import FsadEdgeError, InputError
from fsad_edge.learning.journal import Record
from fsad_edge.learning.journal_file import Journal
from fsad_edge.learning.learner import Learner, store_path
from fsad_edge.runtime.files import sha256
from tests.conftest import Cli, Job
from tests.serving import serving, wait_until
from tests.test_learner import bent, defect, encoded
from tests.test_store import older_line, sealed

#: Bits that are flipped, one at a time, in the files of a store; half of them in the journal.
FLIPS = 60


@pytest.fixture
def file(job: Job, tmp_path: Path) -> Path:
    return Path(shutil.copy(job.file, tmp_path / "part.onnx"))


@pytest.fixture
def model(file: Path) -> Iterator[Model]:
    with Model.load(file, "cpu", threads=1) as loaded:
        yield loaded


def taught(file: Path, model: Model) -> Learner:
    """Teach a model two good images, a bad one and a threshold."""
    learner = Learner.open(file, model)
    learner.add(encoded(bent(0)), "anna", force=True, name="a.png")
    learner.reject(defect(61), "otto", force=True)
    learner.set_threshold("anna", ratio=1.1, force=True)
    learner.add(encoded(bent(1)), "anna", force=True)
    return learner


def in_force(learner: Learner) -> tuple[list[int], float]:
    return [entry.id for entry in learner.active], learner.threshold.value


def test_each_flipped_bit_of_a_store_changes_nothing_or_is_told(file: Path, model: Model) -> None:
    expected = in_force(taught(file, model))
    assert expected[0] == [1, 2, 4]
    files = [path for path in sorted(store_path(file).rglob("*")) if path.is_file()]
    rng = np.random.default_rng(3)
    for place in range(FLIPS):
        path = store_path(file) / "journal.jsonl" if place % 2 else files[place % len(files)]
        data = path.read_bytes()
        if not data:
            continue  # a lock
        changed, position = bytearray(data), int(rng.integers(len(data) * 8))
        changed[position // 8] ^= 1 << position % 8
        path.write_bytes(changed)
        before = {one: one.read_bytes() for one in files}
        with Learner.open(file, model) as learner:
            if path.suffix == ".png":
                number = int(path.stem[:4])
                assert in_force(learner)[0] == [one for one in expected[0] if one != number]
                assert path.name in (learner.damage or "")
            else:
                assert in_force(learner) == expected
                assert learner.damage is None
            assert ("wrong bit" in (learner.notice or "")) == (path.suffix == ".jsonl")
        assert {one: one.read_bytes() for one in files} == before
        path.write_bytes(data)
    with Learner.open(file, model) as learner:
        assert (in_force(learner), learner.notice) == (expected, None)


@pytest.mark.parametrize("left", [None, b"", bytes(500)])
def test_a_journal_that_lost_all_its_lines_is_told_and_the_folder_is_not_taught(
    file: Path, model: Model, left: bytes | None
) -> None:
    taught(file, model).close()
    journal = store_path(file) / "journal.jsonl"
    data = journal.read_bytes()
    if left is None:
        journal.unlink()
    else:
        journal.write_bytes(left)
    with Learner.open(file, model) as learner:
        assert learner.active == []
        assert re.search(
            r"was taught, and its journal\.jsonl is (missing|empty)", learner.damage or ""
        )
        with pytest.raises(
            InputError, match=r"cannot be taught.* restore it from a copy, or rename"
        ):
            learner.add(encoded(bent(2)), "anna", force=True)
    journal.write_bytes(data)
    with Learner.open(file, model) as learner:
        assert [entry.id for entry in learner.active] == [1, 2, 4]
    store_path(file).rename(file.with_name("aside"))
    with Learner.open(file, model) as learner:  # a new folder of the same name
        assert learner.damage is None
        assert learner.add(encoded(bent(2)), "anna", force=True).id == 1


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the size of files")
def test_a_full_disk_acknowledges_nothing_that_is_not_there(file: Path, model: Model) -> None:
    """The limit on a file's size stops each write at another byte, as a full disk does."""
    taught(file, model)
    journal = store_path(file) / "journal.jsonl"
    size = journal.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Each limit lets another part of the line through; images are larger, and are stopped, too.
    acknowledged, refused = list[int](), list[str]()
    for more in (0, 1, 17, 200, 300, 100_000):
        with Learner.open(file, model) as learner:
            expected = in_force(learner)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + more, before[1]))
            try:
                acknowledged.append(learner.set_threshold("otto", ratio=1.01, force=True).id)
                expected = in_force(learner)
            except InputError as error:
                refused.append(str(error))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
        size = journal.stat().st_size
        with Learner.open(file, model) as learner:
            assert (in_force(learner), learner.notice) == (expected, None)
            assert {*acknowledged} <= {one.id for one in learner.settings()}
    assert acknowledged
    assert refused
    assert all("cannot be written" in one for one in refused)


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the size of files")
@pytest.mark.parametrize("there", [None, "new.learned"])
def test_an_export_that_fails_leaves_none_of_the_photographs(
    cli: Cli, file: Path, model: Model, there: str | None
) -> None:
    learner = taught(file, model)
    largest = max(len(learner.image(entry)) for entry in learner.active)
    if there is not None:  # somebody's own
        (file.parent / there).mkdir()
        (file.parent / there / "notes.txt").write_text("mine")
    output, before = file.with_name("new.onnx"), {*file.parent.rglob("*")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (largest - 1, file.stat().st_size // 2):  # an image finds no room, or the file
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            done = cli("bank", "export", file, "-o", output)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert done.code == 2
        assert "cannot be written: File too large" in done.err
        assert {one.name for one in {*file.parent.rglob("*")} - before} <= {"lock", "turn"}
    done = cli("bank", "export", file, "-o", output, "--json")
    assert done.json["examples"] == str(store_path(output))
    assert len([*store_path(output).glob("images/*")]) == 3


TAKE_OVER = """
import sys
from pathlib import Path
from fsad_edge.learning.journal import Setting
from fsad_edge.learning.store import LearningStore

store = LearningStore(Path(sys.argv[1]), sys.argv[2])
print("ready", flush=True)
with store.lock():
    store.read()
    store.set(Setting(store.next_id, "now", "otto", 0.7, None, "as a value", "by hand"))
    print("set", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_kill_9_while_an_older_journal_is_taken_over_loses_nothing(
    file: Path, model: Model
) -> None:
    expected = in_force(taught(file, model))
    journal = store_path(file) / "journal.jsonl"
    records = [one for one in Journal(journal).read().records if one != Record()][1:]
    digest = sha256(file.read_bytes())
    older = sealed({"schema": 2, "model": digest}) + b"".join(map(older_line, records))
    rng, done = random.Random(0), set[bool]()
    for _ in range(8):
        for path in store_path(file).glob("journal*"):
            path.unlink()
        journal.write_bytes(older)
        with subprocess.Popen(
            [sys.executable, "-c", TAKE_OVER, file, digest], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0, 0.03))
            process.send_signal(signal.SIGKILL)
            acknowledged = process.stdout.read() == b"set\n"
        with Learner.open(file, model) as learner:
            assert learner.damage is None
            assert in_force(learner)[0] == expected[0]
            assert in_force(learner)[1] == expected[1] or learner.threshold.value == 0.7
            assert not acknowledged or learner.threshold.value == 0.7
        done.add(acknowledged)
        assert older in {path.read_bytes() for path in store_path(file).glob("journal*")}
    assert done  # how many were in time depends on the machine


def test_a_folder_that_is_restored_below_a_running_service_is_read_again(
    file: Path, tmp_path: Path
) -> None:
    path = "/v1/models/part/normals?who=anna&force=true"
    threshold = "/v1/models/part/threshold?who=anna&force=true&ratio=1.01"
    folder = store_path(file)
    with serving(file) as server, server.client() as client:
        assert client.post(path, content=encoded(bent(0))).status_code == 201
        shutil.copytree(folder, tmp_path / "backup")
        for turn in range(4):
            assert client.put(threshold).status_code == 200
            assert client.post(path, content=encoded(bent(turn + 1))).status_code == 201
            # Restored or made anew, with the next request at once.
            shutil.rmtree(folder)
            if turn % 2:
                folder.mkdir()
            else:
                shutil.copytree(tmp_path / "backup", folder)
            answer = client.put(threshold)
            assert answer.status_code == 200, answer.text
            number = answer.json()["set_id"]
            lines = (folder / "journal.jsonl").read_bytes().splitlines()
            assert json.loads(lines[-1][17:])["set"]["id"] == number
            assert not any(b"\0" in line for line in lines)
            wait_until(lambda: "are gone" in str(client.get("/v1/models/part").json()), 6)
    assert "are gone from there" in server.log


def test_commands_beside_an_undo_never_say_that_something_is_damaged(
    cli: Cli, file: Path, model: Model, tmp_path: Path
) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(encoded(bent(0)))
    with Learner.open(file, model) as learner:
        learner.add(encoded(bent(1)), "anna", force=True)
    script = (
        "import sys\nfrom pathlib import Path\nfrom fsad_edge import Model\n"
        "from fsad_edge.learning.learner import Learner\n"
        "file, image = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()\n"
        "with Model.load(file, 'cpu', threads=1) as model, Learner.open(file, model) as one:\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        one.undo(one.add(image, 'anna', force=True).id, 'otto', force=True)\n"
        "        one.undo(one.reject(image, 'anna', force=True).id, 'otto', force=True)\n"
    )
    said, ends = list[str](), time.monotonic() + 4
    with subprocess.Popen(
        [sys.executable, "-c", script, file, image], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while time.monotonic() < ends:
            try:
                with Learner.open(file, model, write=False) as reader:
                    said += filter(None, [reader.notice])
                    assert {one.entry.id for one in reader.examples()} >= {1}
            except FsadEdgeError as error:
                said.append(str(error))
        process.kill()
    assert said == []
