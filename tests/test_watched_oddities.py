"""Watched folders: one odd file, a full disk or a damaged file of the service stops nothing."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from fsad_edge import Model
from fsad_edge.runtime.files import sha256
from fsad_edge.serve import ServeOptions, create_app
from fsad_edge.serve.result_counts import counts_path
from fsad_edge.serve.result_lines import read_results
from fsad_edge.serve.waiting_files import WatchTimes
from tests.conftest import Job, photograph
from tests.serving import Server, encoded, wait_until
from tests.test_watched_folders import QUICK, names, rows, state, watching

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leases and links as in Linux")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture(scope="module")
def good(job: Job) -> bytes:
    return encoded(Image.open(min(job.shots.iterdir())), quality=98)


@pytest.fixture(scope="module")
def bad(job: Job) -> bytes:
    rng = np.random.default_rng(8)
    with Model.load(job.file) as model:
        while True:
            image = encoded(photograph(rng, defect=True), quality=95)
            if model.score(image).anomalous:
                return image


def shoot(folder: Path, name: str, image: bytes) -> None:
    (folder / ".shot").write_bytes(image)
    (folder / ".shot").rename(folder / name)


def odd_entries(folder: Path) -> dict[str, str]:
    """Make an entry of each odd kind, named like an image; what the error of each one says."""
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "nowhere.png").symlink_to("x" * 250)
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "mem.png").symlink_to("/proc/self/mem")  # reading it is an error, even for root
    (folder / "cpu.png").symlink_to("/proc/cpuinfo")  # it has more bytes than it says
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "sock.png"))
    (folder / "folder.png").mkdir()
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no image")
    with (folder / "huge.png").open("wb") as file:
        file.truncate(3 << 30)
    with (folder / "holes.png").open("wb") as file:
        file.truncate(1 << 20)
    special = "no regular file"
    return {
        "loop.png": "leads to itself", "nowhere.png": "leads nowhere", "zero.png": special,
        "mem.png": "Input/output error", "cpu.png": "still being written", "pipe.png": special,
        "sock.png": special, "folder.png": "is a folder", "empty.png": "is empty",
        "text.png": "but text", "huge.png": "more than the limit of 33,554,432",
        "holes.png": "not an image",
    }  # fmt: skip


@contextlib.contextmanager
def restless(folder: Path, image: bytes) -> Iterator[None]:
    """A file that grows, and one that is made and deleted, all the time while the block lasts."""
    ends = threading.Event()

    def grow() -> None:
        with (folder / "grows.png").open("wb") as file:
            while not ends.wait(0.03):
                file.write(bytes(100))
                file.flush()

    def flicker() -> None:
        while not ends.wait(0.005):
            (folder / "flickers.png").write_bytes(image)
            (folder / "flickers.png").unlink()

    threads = [threading.Thread(target=one) for one in (grow, flicker)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ends.set()
        for thread in threads:
            thread.join()


def test_each_odd_entry_is_one_error_and_the_others_go_on(
    job: Job, folder: Path, good: bytes, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    expected = odd_entries(folder)
    long = os.fsdecode(b"\xe9" * 251 + b".png")
    feed = f"a\n2026 ERROR {'forged'} \x1b[31m.png"
    with restless(folder, good), watching(job, folder) as client:
        for name, image in (("one.jpg", good), (long, bad), (feed, bad)):
            shoot(folder, name, image)
        wait_until(lambda: state(client)["errors"] == len(expected) + 1, 30)
        shoot(folder, "last.jpg", good)
        wait_until(lambda: state(client)["scored"] == 4)
        assert client.get("/readyz").status_code == 200
        assert client.get("/metrics").status_code == 200
        # None of them is told again, whatever changes but its content.
        (folder / "folder.png/inside").touch()
        (folder / "text.png").chmod(0o600)
        os.utime(folder / "empty.png")
        time.sleep(1.5)
        assert state(client)["errors"] == len(expected) + 1
        # What can be read at last is scored.
        shutil.copy(folder / "one.jpg", folder / ("x" * 250))
        wait_until(lambda: state(client)["scored"] == 5)
    expected["grows.png"] = "still being written"
    errors = [row for row in rows(folder) if row["decision"] == "error"]
    assert Counter(row["name"] for row in errors) == dict.fromkeys(expected, 1)
    for row in errors:
        assert expected[row["name"]] in row["error"], row
    scored = {row["name"]: row for row in rows(folder) if row["decision"] != "error"}
    assert scored.keys() == {"one.jpg", long, feed, "last.jpg", "nowhere.png"}
    overlays = folder / "fsad-edge/overlays"
    assert all((overlays / scored[name]["overlay"]).is_file() for name in (long, feed))
    assert all(line.isprintable() for line in caplog.messages)

    # A start knows them all, with its index or from the results.
    for is_lost in (False, True):
        before = len(rows(folder))
        if is_lost:
            (folder / "fsad-edge/watch.sqlite").unlink()
        (folder / "grows.png").unlink(missing_ok=True)
        with watching(job, folder) as client:
            shoot(folder, f"next{before}.jpg", good)
            wait_until(lambda: state(client)["scored"] == 1)
            time.sleep(1.5)
            assert state(client)["errors"] == 0
        assert len(rows(folder)) == before + 1


def test_a_file_above_the_limit_is_not_read_until_the_limit_allows_it(
    job: Job, folder: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "large.bmp")
    expected = ["error"]
    for limit in (1, 1, 32):
        if limit == 32:
            expected.append("not_judged")
        app = create_app(job.file, ServeOptions(max_mb=limit, watch=(str(folder),)))
        with TestClient(app, base_url="http://localhost") as client:
            wait_until(lambda: len(rows(folder)) == len(expected))
            wait_until(lambda: state(client)["state"] == "watching")
            wait_until(lambda: state(client)["waiting"] == 0)
        assert [row["decision"] for row in rows(folder)] == expected


def test_a_writer_that_opens_a_file_while_it_is_looked_at_does_not_end_the_service(
    job: Job, folder: Path, good: bytes
) -> None:
    program = """
import sys
while True:
    for name in sys.argv[1:]:
        try:
            open(name, "r+b").close()
        except OSError:
            pass
"""
    for number in range(30):
        (folder / f"{number}.jpg").write_bytes(good)
    files = sorted(map(str, folder.iterdir()))
    with subprocess.Popen([sys.executable, "-c", program, *files]) as writer:
        try:
            with watching(job, folder) as client:
                wait_until(lambda: state(client)["scored"] == 30, 40)
        finally:
            writer.kill()
    assert len(names(folder)) == 30


class Receiver(BaseHTTPRequestHandler):
    """A webhook's receiver; ``names`` are those of the images of which it was told."""

    names: list[str]

    def do_POST(self) -> None:
        self.names.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["name"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[str]]]:
    told: list[str] = []
    handler = type("Told", (Receiver,), {"names": told})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", told
        server.shutdown()


def test_a_full_disk_loses_no_result_and_doubles_none(
    job: Job, folder: Path, good: bytes, bad: bytes, receiver: tuple[str, list[str]]
) -> None:
    address, told = receiver
    options = ("--watch", folder, "--webhook", address, "--publish-rate", "0")
    server = Server(job.file, *options)
    client = server.client()
    # A limit on the size of any file stands for the full disk: no right is needed to set it.
    hard = resource.RLIM_INFINITY

    def allow(size: int) -> None:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, hard))

    def found() -> dict[str, Any]:
        answer: dict[str, Any] = client.get("/v1/status").json()["watch"]["folders"][0]
        return answer

    shoot(folder, "0.jpg", good)
    wait_until(lambda: told == ["0.jpg"])
    # A heat map cannot be written, and its result can.
    (folder / "fsad-edge/overlays").touch()
    shoot(folder, "1.jpg", bad)
    wait_until(lambda: told == ["0.jpg", "1.jpg"])
    assert (found()["heat_maps_lost"], found()["fault"]) == (1, None)
    assert f'fsad_edge_watch_heat_maps_lost{{folder="{folder}"}} 1.0' in client.get("/metrics").text
    # Nothing finds room any more.
    allow(1)
    for number in (2, 3):
        shoot(folder, f"{number}.jpg", bad)
    wait_until(lambda: found()["fault"])
    time.sleep(3)  # it tries again every 2 s
    assert "cannot be written" in client.get("/readyz").json()["detail"]
    assert found()["scored"] == 2
    assert client.get("/v1/status").json()["counts"]["anomaly"] == 2  # of which one is unwritten
    (folder / "fsad-edge/overlays").unlink()
    client.close()
    assert server.terminate() == 0
    assert told == names(folder) == ["0.jpg", "1.jpg"]

    server = Server(job.file, *options)
    try:
        wait_until(lambda: len(told) == 4)
        assert [bool(row["overlay"]) for row in rows(folder)] == [False, False, True, True]
        assert sorted(names(folder)) == sorted(told) == [f"{number}.jpg" for number in range(4)]
    finally:
        assert server.terminate() == 0


def test_a_kill_at_any_moment_leaves_one_line_for_each_image(
    job: Job, folder: Path, good: bytes, bad: bytes
) -> None:
    rng = random.Random(3)
    for number in range(150):
        (folder / f"{number}.jpg").write_bytes((good, bad)[number % 2])
    for _ in range(3):
        server = Server(job.file, "--watch", folder)
        before = len(names(folder))
        wait_until(lambda before=before: len(names(folder)) > before)  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.3))
        server.process.send_signal(signal.SIGKILL)
        server.terminate()
    with watching(job, folder) as client:
        wait_until(lambda: len(names(folder)) >= 150, 60)
        wait_until(lambda: state(client)["waiting"] == 0)
    assert sorted(names(folder)) == sorted(f"{number}.jpg" for number in range(150))


@pytest.mark.parametrize("damaged", ["watch.sqlite", "results.jsonl", "results.counts.json"])
def test_damaged_files_of_the_service_stop_nothing(
    job: Job, folder: Path, good: bytes, damaged: str
) -> None:
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(good)
    with watching(job, folder):
        wait_until(lambda: len(names(folder)) == 5)
    if damaged == "results.counts.json":
        with watching(job, folder) as client:  # counts what is there
            wait_until(lambda: counts_path(folder / "fsad-edge").exists())
    file = folder / "fsad-edge" / damaged
    whole, rng = file.read_bytes(), random.Random(1)
    for turn in range(6):
        data = bytearray(whole if damaged != "results.jsonl" else file.read_bytes())
        place = rng.randrange(len(data))
        if turn % 3 == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif turn % 3 == 1:
            data[place : place + 700] = bytes(len(data[place : place + 700]))
        else:
            del data[place:]
        file.write_bytes(data)
        name = f"next{turn}.jpg"
        (folder / name).write_bytes(good)
        with watching(job, folder) as client:
            wait_until(lambda name=name: name in names(folder))  # type: ignore[misc]
            wait_until(lambda: state(client)["comparing"] == state(client)["waiting"] == 0)
            # No image is scored again that has its line.
            wait_until(lambda: {*names(folder)} >= {one.name for one in folder.glob("*.jpg")})
            assert state(client)["scored"] == 1 or damaged == "results.jsonl"
            assert client.get("/readyz").status_code == 200


def test_lines_that_are_no_results_are_left_out(
    job: Job, folder: Path, good: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "fsad-edge").mkdir()
    (folder / "one.jpg").write_bytes(good)
    found = (folder / "one.jpg").stat()
    line: dict[str, Any] = {
        "folder": str(folder), "name": "one.jpg", "size": found.st_size,
        "mtime_ns": found.st_mtime_ns, "sha256": sha256(good), "decision": "good",
    }  # fmt: skip
    damaged = [
        {**line, "name": 1}, {**line, "name": ["one.jpg"]}, {**line, "name": "\ud800"},
        {**line, "size": "1"}, {**line, "mtime_ns": 1e400}, {**line, "sha256": {}}, [], 1,
        {**line, "folder": None},
    ]  # fmt: skip
    lines = [*map(json.dumps, damaged), "[" * 100_000, "\0" * 70_000 + json.dumps(line)]
    (folder / "fsad-edge/results.jsonl").write_text("\n".join(lines) + "\n")
    os.mkfifo(folder / "fsad-edge/results.1.jsonl")
    (folder / "fsad-edge/results.2.jsonl").mkdir()
    with watching(job, folder) as client:
        (folder / "two.jpg").write_bytes(good)
        wait_until(lambda: state(client)["scored"] == 1)  # the other one has its line
        wait_until(lambda: state(client)["waiting"] == 0)
    assert [row["name"] for row in read_results(folder / "fsad-edge") if "score" in row] == [
        "two.jpg"
    ]
    assert "results.1.jsonl cannot be read (not a regular file)" in caplog.text
    assert "damaged lines of the results" in caplog.text


def test_what_is_new_in_a_large_folder_is_found_at_once_and_what_is_overwritten_soon(
    job: Job, folder: Path, good: bytes, bad: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsad_edge.serve.watched_files.LOOKED_AT_AGAIN", 10)
    for number in range(60):
        (folder / f"{number}.jpg").write_bytes(good)
        (folder / f"{number}.txt").write_text("no image")
    with watching(job, folder, times=WatchTimes(**{**vars(QUICK), "coarse": 0.05})) as client:
        wait_until(lambda: state(client)["scored"] == 60, 30)
        wait_until(lambda: state(client)["waiting"] == state(client)["comparing"] == 0)
        shoot(folder, "new.jpg", good)
        wait_until(lambda: "new.jpg" in names(folder))
        shoot(folder, "7.jpg", bad)  # another inode
        (folder / "8.jpg").write_bytes(bad)  # the same one
        (folder / "9.txt").write_bytes(b"\xff\xd8\xff")
        (folder / "10.jpg").unlink()
        wait_until(lambda: Counter(names(folder))["7.jpg"] == Counter(names(folder))["8.jpg"] == 2)
        skipped = {"not an image": 59, "image under another suffix": 1}
        wait_until(lambda: state(client)["skipped"] == skipped)
    assert Counter(Counter(names(folder)).values()) == {1: 59, 2: 2}


def test_a_folder_that_cannot_be_read_for_a_while_is_said_and_goes_on(
    job: Job, tmp_path: Path, good: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / os.fsdecode(b"in \xff\n")  # not even its name is text
    folder.mkdir()
    with watching(job, folder) as client:
        shoot(folder, "one.jpg", good)
        wait_until(lambda: names(folder) == ["one.jpg"])
        away = folder.rename(folder.with_name("away"))
        folder.write_text("a file in its place")
        wait_until(lambda: "Not a directory" in str(state(client)["fault"]))
        assert client.get("/readyz").status_code == 503
        folder.unlink()
        shoot(away, "two.jpg", good)
        away.rename(folder)
        wait_until(lambda: names(folder) == ["one.jpg", "two.jpg"])
        wait_until(lambda: client.get("/readyz").status_code == 200)
    assert all(line.isprintable() for line in caplog.messages)


def test_an_index_of_an_earlier_version_is_taken_over(
    job: Job, folder: Path, good: bytes, bad: bytes
) -> None:
    for name, image in (("one.jpg", good), ("two.jpg", bad)):
        (folder / name).write_bytes(image)
    with watching(job, folder):
        wait_until(lambda: len(names(folder)) == 2)
    index = sqlite3.connect(folder / "fsad-edge/watch.sqlite")
    columns = "number, name, written, changed, sha256, own"
    index.executescript(
        f"DROP TABLE checks; CREATE TABLE earlier AS SELECT {columns} FROM seen; DROP TABLE seen;"
        "CREATE TABLE seen (number INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, written TEXT "
        "NOT NULL, changed TEXT NOT NULL, sha256 TEXT NOT NULL, own INTEGER NOT NULL);"
        f"INSERT INTO seen SELECT {columns} FROM earlier; DROP TABLE earlier;"
    )
    index.close()
    with watching(job, folder) as client:
        (folder / "three.jpg").write_bytes(good)
        wait_until(lambda: state(client)["scored"] == 1)
        wait_until(lambda: state(client)["waiting"] == state(client)["comparing"] == 0)
    assert sorted(names(folder)) == ["one.jpg", "three.jpg", "two.jpg"]
