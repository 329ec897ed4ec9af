"""Watched folders: nothing waits for ever, is scored twice, or is left out in silence."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from fsad_edge.errors import InputError
from fsad_edge.options import Decision
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.own_pictures import marked
from fsad_edge.serve import ServeOptions, create_app, folder_watch, watch_index
from fsad_edge.serve.folder_watch import FolderWatch
from fsad_edge.serve.result_lines import read_results
from fsad_edge.serve.results_file import ResultsFile
from fsad_edge.serve.schemas import EXAMPLE_RESULT, Source, WatchedResult
from fsad_edge.serve.waiting_files import WatchTimes
from fsad_edge.serve.watch_history import WatchHistory, find_places
from fsad_edge.serve.watch_index import FileVersion
from tests.conftest import Job, photograph
from tests.serving import Server, encoded, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leases and links as in Linux")

#: Times so short that a test need not wait, and a ``stalled`` that is out of the way.
QUICK = WatchTimes(
    poll=0.02, settled=0.06, open=0.5, undecodable=0.3, give_up=1.0, coarse=0.3, retry=0.05
)


@pytest.fixture(scope="module")
def photographs() -> list[bytes]:
    """Photographs of one size in bytes."""
    rng = np.random.default_rng(5)
    return [encoded(photograph(rng), "BMP") for _ in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@contextlib.contextmanager
def watching(
    job: Job, *folders: Path, results: Path | None = None, times: WatchTimes = QUICK
) -> Iterator[TestClient]:
    """A client of a service that watches folders, in this process."""
    app = create_app(f"part={job.file}")
    for place in find_places(list(folders), results):
        history = WatchHistory(place, ResultsFile(place.results))
        watch = FolderWatch(place.folder, history, "part", app.service, times)
        app.service.sources.append(watch)
    with TestClient(app, base_url="http://localhost") as client:
        yield client


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(read_results(folder / "fsad-edge"))


def names(folder: Path) -> list[str]:
    return [row["name"] for row in rows(folder)]


def state(client: TestClient) -> dict[str, Any]:
    """The state of the only watched folder."""
    found: dict[str, Any] = client.get("/v1/status").json()["watch"]["folders"][0]
    return found


@pytest.mark.parametrize("cause", ["writer", "share"])
def test_an_image_that_nobody_closes_is_scored_once_it_no_longer_changes(
    job: Job,
    folder: Path,
    photographs: list[bytes],
    cause: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if cause == "share":  # what NFS and CIFS answer
        ask = fcntl.fcntl

        def refuse(handle: Any, command: int, argument: int = 0) -> int:
            if command == fcntl.F_SETLEASE:
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            return ask(handle, command, argument)

        monkeypatch.setattr(fcntl, "fcntl", refuse)
    (folder / "whole.bmp").write_bytes(photographs[0])
    (folder / "torn.bmp").write_bytes(photographs[1][:2000])
    times = WatchTimes(**{**vars(QUICK), "open": 1.5, "give_up": 2.0, "remind": 0.0})
    with (
        (folder / "whole.bmp").open("r+b" if cause == "writer" else "rb"),
        (folder / "torn.bmp").open("r+b" if cause == "writer" else "rb"),
        watching(job, folder, times=times) as client,
    ):
        wait_until(lambda: state(client)["waiting_for"] == {"open": 2})
        metrics, seen = client.get("/metrics").text, state(client)
        assert seen["waiting"] == 2
        assert seen["waiting_since"] >= client.get("/v1/status").json()["started"]
        wait_until(lambda: len(rows(folder)) == 2)
        assert client.get("/readyz").status_code == 200
    assert f'fsad_edge_watch_waiting{{folder="{folder}",reason="open"}} 2.0' in metrics
    assert f'fsad_edge_watch_oldest_seconds{{folder="{folder}"}} 0.' in metrics
    assert any("images wait" in line and "(open)" in line for line in caplog.messages)
    found = {row["name"]: row for row in rows(folder)}
    assert found["whole.bmp"]["score"] > 0
    assert found["torn.bmp"]["decision"] == "error"


@pytest.mark.parametrize("way", ["in place", "renamed", "coarse clock"])
def test_an_image_of_the_same_name_size_and_time_is_a_new_one(
    job: Job, folder: Path, photographs: list[bytes], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "coarse clock":  # FAT: steps of 2 s, and neither inode nor time of change
        of = FileVersion.of

        def coarse(name: str, found: os.stat_result) -> FileVersion:
            return of(name, found)._replace(changed="2000000000 1")

        monkeypatch.setattr(FileVersion, "of", coarse)
    file, when = folder / "part.bmp", 1_764_000_000_000_000_000

    def shoot(image: bytes) -> None:
        place = folder / "part.tmp" if way == "renamed" else file
        place.write_bytes(image)
        os.utime(place, ns=(when, when))
        place.replace(file)

    shoot(photographs[0])
    with watching(job, folder) as client:
        wait_until(lambda: len(rows(folder)) == 1)
        shoot(photographs[1])
        wait_until(lambda: len(rows(folder)) == 2)
        # The same content is no new image, whatever else of the file changes.
        wait_until(lambda: state(client)["comparing"] == state(client)["waiting"] == 0)
        shoot(photographs[1])
        file.chmod(0o600)
        (folder / "next.bmp").write_bytes(photographs[2])
        wait_until(lambda: "next.bmp" in names(folder))
        wait_until(lambda: state(client)["comparing"] == state(client)["waiting"] == 0)
    with watching(job, folder) as client:
        (folder / "last.bmp").write_bytes(photographs[2])
        wait_until(lambda: "last.bmp" in names(folder))
        wait_until(lambda: state(client)["comparing"] == 0)
    assert names(folder) == ["part.bmp", "part.bmp", "next.bmp", "last.bmp"]
    assert len({row["score"] for row in rows(folder)[:2]}) == 2


def test_watched_folders_have_a_results_file_each(
    job: Job, tmp_path: Path, photographs: list[bytes]
) -> None:
    one, other, within = tmp_path / "a/in", tmp_path / "b/in", tmp_path / "a/in/deep"
    for place, image in zip((one, other, within), photographs, strict=True):
        place.mkdir(parents=True)
        (place / "part.bmp").write_bytes(image)
    out = tmp_path / "out"

    def found() -> dict[Path, list[str]]:
        files = sorted(tmp_path.rglob("results.jsonl"))
        lines = {file: list(read_results(file.parent)) for file in files}
        return {file: sorted(row["folder"] for row in lines[file]) for file in files if lines[file]}

    with watching(job, one, other, within):
        wait_until(lambda: len(found()) == 3)
    assert found() == {place / "fsad-edge/results.jsonl": [str(place)] for place in
                       (one, within, other)}  # fmt: skip
    for place in (one, other, within):
        shutil.rmtree(place / "fsad-edge")

    # A folder is known whether it is watched alone or with others, whatever their order.
    with watching(job, one, results=out):
        wait_until(lambda: found() == {out / "results.jsonl": [str(one)]})
    with watching(job, other, within, one, results=out):
        wait_until(lambda: len(found()) == 3)
    (one / "next.bmp").write_bytes(photographs[1])
    with watching(job, one, other, results=out):
        wait_until(lambda: len(found()) == 4)
    with watching(job, one, results=out) as client:
        (one / "last.bmp").write_bytes(photographs[1])
        wait_until(lambda: len(found()[out / "results.jsonl"]) == 2)
        assert state(client)["scored"] == 1
    assert Counter(folder for file in found().values() for folder in file) == {
        str(one): 3, str(other): 1, str(within): 1,
    }  # fmt: skip
    (tmp_path / "link").symlink_to(one)
    with pytest.raises(InputError, match="is the same folder as"):
        create_app(job.file, ServeOptions(watch=(str(one), str(tmp_path / "link"))))


def test_a_killed_service_goes_on_where_it_was(
    job: Job, folder: Path, photographs: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fsad_edge.serve")
    index = folder / "fsad-edge/watch.sqlite"
    for number in range(2):
        (folder / f"{number}.bmp").write_bytes(photographs[number])
        server = Server(job.file, "--watch", folder)
        wait_until(lambda number=number: f"{number}.bmp" in names(folder))  # type: ignore[misc]
        server.process.send_signal(signal.SIGKILL)
        server.terminate()
    for damage in (index.unlink, lambda: index.write_bytes(b"a power failure" * 1000)):
        damage()
        before = len(names(folder))
        (folder / f"{before}.bmp").write_bytes(photographs[2])
        with watching(job, folder):
            wait_until(lambda before=before: len(names(folder)) > before)  # type: ignore[misc]
        assert f"{before} images in it have a result, 1 have none yet" in caplog.text
    assert names(folder) == ["0.bmp", "1.bmp", "2.bmp", "3.bmp"]


def watched_result(folder: Path, number: int) -> WatchedResult:
    given = {
        **EXAMPLE_RESULT, "source": Source.WATCH, "decision": Decision.GOOD,
        "name": f"{number}.bmp", "folder": str(folder), "size": 1, "mtime_ns": number,
        "sha256": "0", "overlay": None,
    }  # fmt: skip
    return WatchedResult(**given)


def test_a_start_reads_only_results_that_are_new_and_few_names_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_index, "KEPT_GONE", 50)
    place = find_places([folder], None)[0]
    results = ResultsFile(place.results, rotate_bytes=75_000)
    history = WatchHistory(place, results)

    def read() -> int:
        """Open the history; returns how many results were read for it."""
        asked = 0

        def go_on() -> bool:
            nonlocal asked
            asked += 1
            return True

        assert history.open(go_on)
        return asked

    for number in range(500):
        results.write(watched_result(folder, number))
    assert 0 < read() < 300  # of older files, only what is there counts
    history.close()
    for number in range(500, 700):  # the file is put aside in between
        results.write(watched_result(folder, number))
    assert read() == 200
    assert history.index.has_many
    history.index.prune(["3.bmp", "400.bmp"])
    assert not history.index.has_many
    known = history.index.look_up([f"{number}.bmp" for number in range(700)][-450:])
    assert known.keys() == {"400.bmp", *(f"{number}.bmp" for number in range(650, 700))}
    history.close()
    assert read() == 0
    history.close_results()


def test_what_is_no_image_is_counted_by_reason(
    job: Job, folder: Path, photographs: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fsad_edge.serve")
    (folder / "sub").mkdir()
    (folder / "sub/part.bmp").write_bytes(photographs[0])
    (folder / "part.heic").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    (folder / "more.txt").write_text("no image either")
    (folder / ".hidden.bmp").write_bytes(photographs[0])
    (folder / "Thumbs.db").write_bytes(b"")
    Image.new("RGB", (64, 64)).save(folder / "drawn.png", **marked("PNG"))
    (folder / "torn.bmp").write_bytes(photographs[0][:3000])
    os.symlink("/proc/self/mem", folder / "unreadable.bmp")  # reading it is an error, even for root
    os.mkfifo(folder / "pipe.txt")
    (folder / "nowhere.txt").symlink_to("gone")
    expected = {
        "subfolder is not read": 1, "kind is not read": 1, "not an image": 2, "hidden": 1,
        "thumbnails or system files": 1, "not a regular file": 1, "link leads nowhere": 1,
        "made by fsad-edge": 1,
    }  # fmt: skip
    odd = os.fsdecode(b"odd \xff.bmp")
    with watching(job, folder) as client:
        wait_until(lambda: state(client)["waiting_for"].get("unreadable"))
        (folder / odd).write_bytes(photographs[0])
        wait_until(lambda: odd in names(folder))
        wait_until(lambda: state(client)["waiting"] == 0)
        assert state(client)["skipped"] == expected
        status = client.get("/v1/status").json()["watch"]
        metrics = client.get("/metrics").text
        assert client.get("/readyz").status_code == 200
    assert (status["scored"], status["errors"], status["skipped"]) == (1, 2, 9)
    assert 'reason="not an image"} 2.0' in metrics
    found = {row["name"]: row for row in rows(folder)}
    assert found.keys() == {odd, "torn.bmp", "unreadable.bmp"}
    assert "cannot be read" in found["unreadable.bmp"]["error"]
    assert Counter("left out" in line for line in caplog.messages)[True] == len(expected)
    caplog.clear()
    with watching(job, folder) as client:  # known from the index
        wait_until(lambda: state(client)["skipped"] == expected)
        wait_until(lambda: state(client)["waiting"] == 0)  # one is tried again, without a word
        assert state(client)["errors"] == 0
    assert len(rows(folder)) == 3


def test_the_fault_of_a_folder_names_the_file_that_is_being_worked_on(
    job: Job, folder: Path, photographs: list[bytes]
) -> None:
    times = WatchTimes(**{**vars(QUICK), "stalled": 0.3, "undecodable": 30.0})
    with watching(job, folder, times=times) as client:
        (folder / "torn.bmp").write_bytes(photographs[1][:20])  # it waits for its rest
        wait_until(lambda: state(client)["waiting_for"].get("undecodable"))
        with GATE.working(), GATE.admit(GATE.memory, "what else is decoded"):
            (folder / "busy.bmp").write_bytes(photographs[0])
            wait_until(lambda: "since busy.bmp is being worked on" in str(state(client)["fault"]))
            assert state(client)["waiting_longest"] == "torn.bmp"
            answer = client.get("/readyz")
            assert answer.status_code == 503
            assert "move busy.bmp away" in answer.json()["detail"]
        wait_until(lambda: names(folder) == ["busy.bmp"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_folder_without_progress_is_not_ready(
    job: Job, folder: Path, photographs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault() -> str:
        assert state(client)["fault"]
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert client.get("/v2/health/ready").status_code == 400
        return str(answer.json()["detail"])

    times = WatchTimes(**{**vars(QUICK), "stalled": 0.3})
    with watching(job, folder, times=times) as client:
        assert client.get("/readyz").status_code == 200
        away = folder.rename(folder.with_name("away"))
        wait_until(lambda: state(client)["fault"])
        assert "No such file" in fault()
        assert client.get("/v1/status").json()["ready"] is False
        assert f'watch_fault{{folder="{folder}"}} 1.0' in client.get("/metrics").text
        away.rename(folder)
        wait_until(lambda: client.get("/readyz").status_code == 200)

        # The engine is busy with others, or hangs.
        with client.app.service.queue.reserve(8):  # type: ignore[attr-defined]
            (folder / "one.bmp").write_bytes(photographs[0])
            wait_until(lambda: state(client)["fault"])
            assert "one.bmp waits since" in fault()
        wait_until(lambda: names(folder) == ["one.bmp"])
        assert client.get("/readyz").status_code == 200

        # The disk is full: the result is written later, and once.
        with monkeypatch.context() as patch:

            def full(file: ResultsFile, start: int, line: bytes) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr(ResultsFile, "_append", full)
            (folder / "two.bmp").write_bytes(photographs[1])
            wait_until(lambda: state(client)["fault"])
            assert "results.jsonl cannot be written: No space left" in fault()
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert names(folder) == ["one.bmp", "two.bmp"]
        assert 'fsad_edge_images_total{decision="good",model="part",source="watch"} 2.0' in (
            client.get("/metrics").text
        )

        # Its thread has ended.
        def end(path: Path) -> str:
            raise SystemExit

        monkeypatch.setattr(folder_watch, "mount_point", end)
        wait_until(lambda: state(client)["fault"])
        assert "is not watched any more" in fault()


def test_a_folder_whose_disk_is_gone_is_not_empty(
    job: Job,
    folder: Path,
    tmp_path: Path,
    photographs: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mounted, out = {"/", str(folder)}, tmp_path / "out"
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) in mounted)
    (folder / "one.bmp").write_bytes(photographs[0])
    for _ in range(2):  # while the service runs, and at its start
        with watching(job, folder, results=out) as client:
            if mounted != {"/"}:
                wait_until(lambda: list(read_results(out)))
                mounted.remove(str(folder))
                (folder / "one.bmp").rename(tmp_path / "one.bmp")
            wait_until(lambda: state(client)["fault"])
            assert "is not mounted now" in str(client.get("/readyz").json()["detail"])
    (tmp_path / "one.bmp").rename(folder / "one.bmp")
    mounted.add(str(folder))
    with watching(job, folder, results=out) as client:
        (folder / "two.bmp").write_bytes(photographs[1])
        wait_until(lambda: len(list(read_results(out))) == 2)
    assert [row["name"] for row in read_results(out)] == ["one.bmp", "two.bmp"]


def test_a_second_service_takes_over_when_the_first_ends(
    job: Job, folder: Path, photographs: list[bytes]
) -> None:
    with watching(job, folder) as second:
        with watching(job, folder) as first:
            pass
        wait_until(lambda: state(second)["state"] == "watching")
    with watching(job, folder) as first:
        wait_until(lambda: state(first)["state"] == "watching")
        with watching(job, folder) as second:
            (folder / "one.bmp").write_bytes(photographs[0])
            wait_until(lambda: state(second)["state"] == "standby")
            assert second.get("/readyz").status_code == 200
            wait_until(lambda: names(folder) == ["one.bmp"])
            first.app.service.stop()  # type: ignore[attr-defined]
            wait_until(lambda: state(second)["state"] == "watching")
            (folder / "two.bmp").write_bytes(photographs[1])
            wait_until(lambda: len(rows(folder)) == 2)
            assert state(second)["scored"] == 1
    assert names(folder) == ["one.bmp", "two.bmp"]


def test_a_line_that_does_not_fit_on_the_disk_leaves_no_part_of_it(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path)
    file.write(watched_result(tmp_path, 1))
    before = file.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
        with pytest.raises(OSError, match="No space left"):
            file.write(watched_result(tmp_path, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.path.read_bytes() == before
    file.write(watched_result(tmp_path, 3))
    file.path.unlink()  # and a deleted file is made again
    file.write(watched_result(tmp_path, 4))
    file.close()
    assert [json.loads(line)["name"] for line in file.path.read_text().splitlines()] == ["4.bmp"]
