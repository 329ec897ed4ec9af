"""The service under load and attack: floods, slow clients, hot swaps, SIGTERM, strangers."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import Cli, Job, photograph
from tests.serving import Server, assert_problem, encoded, serving, wait_until

JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture
def model_file(job: Job, tmp_path: Path) -> Path:
    return Path(shutil.copy(job.file, tmp_path / "part.onnx"))


@pytest.fixture(scope="module")
def large() -> bytes:
    """An image that takes long to decode."""
    picture = photograph(np.random.default_rng(5)).resize((2400, 2400))
    return encoded(picture, "PNG", compress_level=1)


@pytest.fixture(scope="module")
def good() -> bytes:
    return encoded(photograph(np.random.default_rng(5)))


def flood(url: str, image: bytes, clients: int, each: int) -> list[tuple[int, float, str]]:
    """The status, the seconds and the Retry-After header of each answer."""

    async def one(client: httpx.AsyncClient) -> list[tuple[int, float, str]]:
        found = []
        for _ in range(each):
            begin = time.monotonic()
            answer = await client.post("/v1/score", content=image, headers=JPEG)
            seconds = time.monotonic() - begin
            found.append((answer.status_code, seconds, answer.headers.get("retry-after", "")))
        return found

    async def all_of_them() -> list[tuple[int, float, str]]:
        limits = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            found = await asyncio.gather(*(one(client) for _ in range(clients)))
        return [answer for part in found for answer in part]

    return asyncio.run(all_of_them())


def test_a_flood_is_refused_not_queued(model_file: Path, large: bytes) -> None:
    with serving(model_file, "--queue", "3") as server:
        answers = flood(server.url, large, clients=16, each=6)
        counts = Counter(status for status, _, _ in answers)
        assert set(counts) == {200, 429}
        assert counts[200] >= 3
        assert counts[429] >= 10
        assert all(wait == "1" for status, _, wait in answers if status == 429)
        with server.client() as client:
            status = client.get("/v1/status").json()
            assert status["queue"]["length"] == 0
            assert status["counts"]["refused"] == counts[429]
            assert client.post("/v1/score", content=large, headers=JPEG).status_code == 200


def test_slow_clients_do_not_delay_others(model_file: Path, good: bytes) -> None:
    with serving(model_file, "--timeout", "0.5", "--queue", "2") as server:
        head = "POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
        slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
        for place, connection in enumerate(slow):
            connection.settimeout(10)
            whole = head + f"Content-Length: {len(good)}\r\n\r\n"
            connection.sendall(whole.encode() if place % 2 else whole[:50].encode())
        with server.client() as client:
            begin = time.monotonic()
            for _ in range(5):
                assert client.post("/v1/score", content=good, headers=JPEG).status_code == 200
            assert time.monotonic() - begin < 3
        answer = slow[1].recv(4096).decode()
        assert answer.startswith("HTTP/1.1 408")
        assert "application/problem+json" in answer
        for connection in slow:
            connection.close()


def test_endless_headers_close_the_connection(model_file: Path) -> None:
    with serving(model_file) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.settimeout(10)
            connection.sendall(b"GET /healthz HTTP/1.1\r\n")
            with pytest.raises(OSError, match=r"reset|pipe|Broken"):
                connection.sendall((b"X: " + b"a" * 1000 + b"\r\n") * 10_000)
        with server.client() as client:
            assert client.get("/healthz").status_code == 200


def test_a_disconnected_client_frees_its_place(model_file: Path, large: bytes) -> None:
    with serving(model_file, "--queue", "4") as server, server.client() as client:
        head = f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(large)}\r\n\r\n"
        for _ in range(12):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(head.encode() + large)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head.encode() + large[: len(large) // 2])
        wait_until(lambda: client.get("/v1/status").json()["queue"]["length"] == 0)
        assert "fsad_edge_abandoned_total 0.0" not in client.get("/metrics").text
        assert client.post("/v1/score", content=large, headers=JPEG).status_code == 200


def test_models_are_swapped_under_load(
    job: Job, model_file: Path, good: bytes, cli: Cli, tmp_path: Path
) -> None:
    other = tmp_path / "other.onnx"
    made = cli("export", job.part, "-o", other)
    assert made.code == 0, made.err
    with serving(model_file) as server:
        stop = threading.Event()
        answers: list[tuple[int, str]] = []

        def ask() -> None:
            with server.client() as client:
                while not stop.is_set():
                    answer = client.post("/v1/score", content=good, headers=JPEG)
                    version = answer.json()["results"][0]["version"] if answer.is_success else ""
                    answers.append((answer.status_code, version))

        askers = [threading.Thread(target=ask) for _ in range(3)]
        for asker in askers:
            asker.start()
        with server.client() as client:

            def model() -> dict[str, Any]:
                found: dict[str, Any] = client.get("/v1/models/part").json()
                return found

            def swap(source: Path) -> str:
                before = model()["version"]
                shutil.copy(source, tmp_path / "new")
                (tmp_path / "new").replace(model_file)
                wait_until(lambda: model()["version"] != before)
                return str(model()["version"])

            versions = {model()["version"], swap(other), swap(job.file)}
            assert len(versions) == 2
            # A broken file leaves the old one in service, and the error tells why.
            served = model()["version"]
            model_file.write_bytes(other.read_bytes()[:-1000])
            wait_until(lambda: model()["error"] is not None)
            assert model()["version"] == served
            ready = client.get("/readyz")
            assert ready.status_code == 200
            assert "part.onnx" in ready.json()["models"]["part"]["error"]
            assert 'outcome="refused"' in client.get("/metrics").text
            assert "stays in service" in server.log
            model_file.unlink()
            time.sleep(1.5)
            assert model()["version"] == served
            swap(other)
            assert model()["error"] is None
            time.sleep(0.3)
        stop.set()
        for asker in askers:
            asker.join()
        assert {status for status, _ in answers} == {200}
        assert {version for _, version in answers} == versions
        assert len(answers) > 20


def test_sigterm_finishes_running_requests(model_file: Path, large: bytes) -> None:
    server = Server(model_file, "--queue", "8")
    answers: list[httpx.Response] = []

    def ask() -> None:
        with server.client() as client:
            answers.append(client.post("/v1/score", content=large, headers=JPEG))

    with server.client() as keeper:
        assert keeper.get("/readyz").status_code == 200
        askers = [threading.Thread(target=ask) for _ in range(6)]
        for asker in askers:
            asker.start()
        wait_until(lambda: keeper.get("/v1/status").json()["queue"]["length"] >= 4)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "finishing" in server.log)
        late = keeper.get("/readyz")
        document = assert_problem(late, 503)
        assert document["ready"] is False
        assert late.headers["connection"] == "close"
        for asker in askers:
            asker.join()
    assert [answer.status_code for answer in answers] == [200] * 6
    assert server.terminate() == 0
    assert "stopped." in server.log


def test_memory_does_not_grow(model_file: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (400, 400, 3), dtype=np.uint8)
    image = encoded(Image.fromarray(noise), "PNG")  # half a megabyte
    with serving(model_file, "--keep-mb", "8") as server, server.client() as client:

        def resident() -> int:
            text = Path(f"/proc/{server.process.pid}/statm").read_text()
            return int(text.split()[1]) * 4096

        for _ in range(100):
            client.post("/v1/score", content=image, headers=JPEG)
        before = resident()
        for _ in range(300):  # 150 MB of images
            client.post("/v1/score", content=image, headers=JPEG)
        assert resident() - before < 25e6


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef0123\n")
    return path


def test_the_token_guards_all_but_health(model_file: Path, token_file: Path, good: bytes) -> None:
    with serving(model_file, "--host", "0.0.0.0", "--token-file", token_file) as server:
        url = f"http://127.0.0.1:{server.port}"
        with httpx.Client(base_url=url, timeout=30) as client:
            assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").json() == {"ready": True}
            for path in ("/v1/models", "/v1/recent", "/metrics", "/openapi.json", "/v1/status"):
                answer = client.get(path)
                assert_problem(answer, 401)
                assert answer.headers["www-authenticate"] == "Bearer"
            assert_problem(client.post("/v1/score", content=good, headers=JPEG), 401)
            for wrong in ("Bearer", "Bearer x", "Basic 0123456789abcdef0123", "Bearer \xe4"):
                headers = {b"Authorization": wrong.encode("latin-1")}
                assert_problem(client.get("/v1/models", headers=headers), 401)
            client.headers["Authorization"] = "Bearer 0123456789abcdef0123"
            assert client.get("/v1/models").status_code == 200
            assert "part" in client.get("/readyz").json()["models"]
            assert client.post("/v1/score", content=good, headers=JPEG).status_code == 200
        assert "0123456789abcdef" not in server.log


def test_pages_of_other_sites_are_refused(model_file: Path, good: bytes) -> None:
    with serving(model_file) as server, server.client() as client:
        rebound = client.get("/v1/models", headers={"Host": f"evil.example:{server.port}"})
        assert_problem(rebound, 421)
        assert client.get("/v1/models", headers={"Host": "localhost"}).status_code == 200
        for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            answer = client.post("/v1/score", content=good, headers={**JPEG, **headers})
            assert_problem(answer, 403)
            assert "access-control-allow-origin" not in answer.headers
        own = {**JPEG, "Origin": server.url, "Sec-Fetch-Site": "same-origin"}
        answer = client.post("/v1/score", content=good, headers=own)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers


def test_errors_at_the_start_are_one_sentence(
    cli: Cli, model_file: Path, token_file: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short"
    short.write_text("abc")
    torn = tmp_path / "torn.onnx"
    torn.write_bytes(model_file.read_bytes()[:5000])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, words in (
            (["--host", "0.0.0.0"], "give a token"),
            (["--token-file", short], "at least 16"),
            (["--token-file", tmp_path / "no"], "cannot be read"),
            (["--tls-cert", short], "belong together"),
            (["--tls-cert", short, "--tls-key", short], "cannot be used"),
            ([torn], "torn.onnx is damaged"),
            ([model_file], "is given twice"),
            (["a/b=" + str(model_file)], "cannot name"),
            (["--watch", tmp_path / "no"], "not a folder"),
            (["--webhook", "ftp://x"], "not an http"),
            (["--port", port], "cannot be listened on"),
        ):
            outcome = cli("serve", model_file, *arguments)
            assert outcome.code == 2
            assert words in outcome.err, outcome.err
            assert outcome.err.strip().splitlines()[-1].startswith("error: ")


def test_tls(model_file: Path, tmp_path: Path) -> None:
    import ssl
    import subprocess

    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "1", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate,
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    with serving(model_file, "--tls-cert", certificate, "--tls-key", key) as server:
        assert server.url.startswith("https://")
        context = ssl.create_default_context(cafile=certificate)
        with server.client(verify=context) as client:
            assert client.get("/healthz").status_code == 200


def test_the_openapi_document_names_the_routes(model_file: Path) -> None:
    with serving(model_file) as server, server.client() as client:
        document = client.get("/openapi.json").json()
        assert {"/v1/score", "/v1/models/{name}/normals", "/readyz"} <= document["paths"].keys()
        assert json.dumps(document).count('"examples"') >= 2
