"""Watched folders, cameras, and the receivers of results."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsad_edge import Model
from fsad_edge.options import Decision
from fsad_edge.serve.metrics import Metrics
from fsad_edge.serve.result_lines import read_results
from fsad_edge.serve.results_file import ResultsFile
from fsad_edge.serve.schemas import EXAMPLE_RESULT, ResultRecord, Source
from fsad_edge.serve.sinks import Mqtt, Webhook
from tests.conftest import Job, photograph
from tests.serving import Server, encoded, serving, wait_until

JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture
def model_file(job: Job, tmp_path: Path) -> Path:
    return Path(shutil.copy(job.file, tmp_path / "part.onnx"))


@pytest.fixture(scope="module")
def good() -> bytes:
    return encoded(photograph(np.random.default_rng(5)), quality=95)


@pytest.fixture(scope="module")
def anomaly(job: Job) -> bytes:
    """An image that the model rejects."""
    image = encoded(photograph(np.random.default_rng(6), defect=True), quality=95)
    with Model.load(job.file) as model:
        assert model.score(image).anomalous
    return image


def record(number: int) -> ResultRecord:
    kinds = {"id": number, "source": Source.HTTP, "decision": Decision.GOOD}
    return ResultRecord(**{**EXAMPLE_RESULT, **kinds})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_new_images_in_a_folder_are_scored_once(
    model_file: Path, tmp_path: Path, good: bytes, anomaly: bytes
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "old.jpg").write_bytes(good)  # was there before
    results = folder / "fsad-edge/results.jsonl"

    def names() -> list[str]:
        return sorted(line["name"] for line in lines(results))

    with serving(model_file, "--watch", folder) as server:
        wait_until(lambda: names() == ["old.jpg"])
        (folder / ".part.jpg").write_bytes(good)
        (folder / "~tmp.jpg").write_bytes(good)
        (folder / "notes.txt").write_text("no image")
        (folder / "reject.jpg").write_bytes(anomaly)
        (folder / "renamed.tmp").write_bytes(good)
        (folder / "renamed.tmp").rename(folder / "renamed.jpg")
        with (folder / "slow.jpg").open("wb") as slow:
            slow.write(good[:1000])
            slow.flush()
            wait_until(lambda: names() == ["old.jpg", "reject.jpg", "renamed.jpg"])
            with server.client() as client:
                wait_until(lambda: client.get("/v1/status").json()["watch"]["scored"] == 3)
                assert client.get("/v1/status").json()["watch"]["waiting"] == 1
            slow.write(good[1000:])
        wait_until(lambda: "slow.jpg" in names())
        (folder / "torn.jpg").write_bytes(good[:1000])
        wait_until(lambda: "torn.jpg" in names())
    found = {line["name"]: line for line in lines(results)}
    assert found["reject.jpg"]["decision"] == "anomaly"
    overlay = results.parent / "overlays" / found["reject.jpg"]["overlay"]
    with Image.open(overlay) as picture:
        assert picture.size == (96, 96)
    assert found["slow.jpg"]["score"] == found["old.jpg"]["score"]
    assert found["torn.jpg"]["decision"] == "error"
    assert len(list(overlay.parent.iterdir())) == 1

    # After a kill it continues where it was; a rewritten file is another image.
    again = Server(model_file, "--watch", folder)
    (folder / "next.jpg").write_bytes(good)
    wait_until(lambda: "next.jpg" in names())
    again.process.send_signal(signal.SIGKILL)
    again.terminate()
    with results.open("ab") as file:
        file.write(b'{"name": "cut sh')  # the power failed
    with serving(model_file, "--watch", folder):
        (folder / "old.jpg").write_bytes(anomaly)
        wait_until(lambda: results.read_text().count('"old.jpg"') == 2)
    whole = [line for line in results.read_text().splitlines() if line.endswith("}")]
    assert sorted(json.loads(line)["name"] for line in whole) == [
        "next.jpg", "old.jpg", "old.jpg", "reject.jpg", "renamed.jpg", "slow.jpg", "torn.jpg",
    ]  # fmt: skip


def test_large_results_files_are_put_aside(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path, rotate_bytes=1500)
    for number in range(20):
        file.write(record(number))
    file.close()
    assert [line["id"] for line in read_results(tmp_path)] == list(range(20))
    assert all(path.stat().st_size <= 1500 for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) > 3


class Receiver(HTTPServer):
    """Receives webhooks; answers with the next of ``answers``, then with 200."""

    def __init__(self, answers: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.got: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/hook"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status == 200:
            self.server.got.append(json.loads(body))
            self.server.headers.append(dict(self.headers))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver([503])
    yield server
    server.shutdown()
    server.server_close()


def test_all_that_is_not_good_reaches_a_webhook_that_fails_once(
    careful_file: Path, receiver: Receiver, job: Job, foreign: Path, tmp_path: Path
) -> None:
    options = ("--webhook", receiver.url, "--publish", "not-good", "--results", tmp_path / "out")
    token = {"FSAD_EDGE_WEBHOOK_TOKEN": "secret"}
    good = job.shots / "0.png"
    with serving(careful_file, *options, environment=token) as server, server.client() as client:
        sent = [
            client.post("/v1/score", content=image, headers=JPEG).json()["results"][0]
            for image in map(Path.read_bytes, (good, job.scratched / "0.png", good, foreign))
        ]
        wait_until(lambda: len(receiver.got) == 2)
    assert [one["decision"] for one in sent] == ["good", "anomaly", "good", "not_judged"]
    assert [one["good"] for one in sent] == [True, False, True, False]
    assert receiver.got == [sent[1], sent[3]]
    assert receiver.headers[0]["Authorization"] == "Bearer secret"
    assert lines(tmp_path / "out/results.jsonl") == sent


def test_a_webhook_drops_results_above_its_rate_and_refused_ones(receiver: Receiver) -> None:
    receiver.answers = [400]
    metrics = Metrics()
    hook = Webhook(receiver.url, metrics, rate=5, skip_good=False)
    hook.start()
    for number in range(50):
        hook.enqueue(record(number))
    hook.stop()
    text = metrics.text().decode()
    sent, over = len(receiver.got), 50 - len(receiver.got) - 1
    assert 4 <= sent <= 6
    assert f'fsad_edge_sink_dropped_total{{reason="rate",sink="webhook"}} {over}.0' in text
    assert 'fsad_edge_sink_dropped_total{reason="refused",sink="webhook"} 1.0' in text


def test_a_webhook_without_a_receiver_delays_nothing(model_file: Path, good: bytes) -> None:
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with serving(model_file, "--webhook", url) as server, server.client() as client:
            for _ in range(30):
                assert client.post("/v1/score", content=good, headers=JPEG).status_code == 200
            assert 'reason="rate",sink="webhook"' in client.get("/metrics").text


def test_the_newest_frames_of_a_camera_are_scored(model_file: Path, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    video = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 200, (640, 480))
    rng = np.random.default_rng(0)
    for _ in range(200):
        writer.write(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8))
    writer.release()
    with (
        serving(model_file, "--camera", video, "--queue", "1") as server,
        server.client() as client,
    ):
        wait_until(lambda: len(client.get("/v1/recent").json()["results"]) >= 10)
        results = client.get("/v1/recent").json()["results"]
        assert {result["source"] for result in results} == {"camera"}
        assert {(result["width"], result["height"]) for result in results} == {(640, 480)}
        status = client.get("/v1/status").json()
        assert status["queue"]["length"] <= 1
        assert "fsad_edge_camera_frames_scored_total" in client.get("/metrics").text
        # While another image is scored, frames are dropped, not kept.
        image = encoded(Image.new("RGB", (3000, 3000)), "PNG", compress_level=1)

        def dropped() -> bool:
            client.post("/v1/score", content=image, headers=JPEG)
            return bool(client.get("/v1/status").json()["camera"]["frames_dropped"] > 0)

        wait_until(dropped)
        picture = client.get(f"/v1/results/{results[0]['id']}/image?side=320")
        assert picture.status_code == 200


def test_frames_that_show_nothing_are_not_judged(model_file: Path, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    video = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 50, (320, 240))
    for _ in range(50):
        writer.write(np.zeros((240, 320, 3), np.uint8))
    writer.release()
    with serving(model_file, "--camera", video) as server, server.client() as client:
        wait_until(lambda: client.get("/v1/recent").json()["results"])
        results = client.get("/v1/recent").json()["results"]
    assert {result["decision"] for result in results} == {"not_judged"}
    assert all("black" in result["doubts"] for result in results)


def test_results_reach_a_broker_that_starts_late(tmp_path: Path) -> None:
    client = pytest.importorskip("paho.mqtt.client")
    broker = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/opt/homebrew/sbin")
    if broker is None:
        pytest.skip("mosquitto is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    metrics, got = Metrics(), []
    sink = Mqtt(f"mqtt://127.0.0.1:{port}/line/1", metrics, rate=0, skip_good=False)
    sink.start()
    for number in range(5):
        sink.enqueue(record(number))
    started = subprocess.Popen([broker, "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        listener = client.Client(client.CallbackAPIVersion.VERSION2)
        listener.on_message = lambda *given: got.append(json.loads(given[2].payload)["id"])
        listener.on_connect = lambda *given: listener.subscribe("line/#", 1)

        def connected() -> bool:
            try:
                listener.connect("127.0.0.1", port)
            except ConnectionRefusedError:
                return False
            return True

        wait_until(connected)
        listener.loop_start()
        wait_until(lambda: got == list(range(5)))
        listener.disconnect()
        listener.loop_stop()
        sink.stop()
    finally:
        started.terminate()
        started.wait(10)
    assert 'fsad_edge_sink_sent_total{sink="mqtt"} 5.0' in metrics.text().decode()
