"""Clients that take connections and do not use them, that never read, and that send ahead."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.conftest import Job, photograph
from tests.serving import Server, encoded, serving, wait_until

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
#: An answer of more than 100 kB.
LARGE = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
FEW = ("--connections", "12", "--client-connections", "6")
#: Connections that this machine's own addresses have beyond the most.
LOOPBACK = 16


@pytest.fixture
def model_file(job: Job, tmp_path: Path) -> Path:
    return Path(shutil.copy(job.file, tmp_path / "part.onnx"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    paths = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "1", "-subj", "/CN=localhost", "-out", paths[0], "-keyout", paths[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return paths


@contextlib.contextmanager
def holding(server: Server, sources: list[str], data: bytes) -> Iterator[list[socket.socket]]:
    """A connection from each address, on which some bytes are sent and nothing is read."""
    held = []
    for source in sources:
        with contextlib.suppress(OSError):
            sock = socket.create_connection(("127.0.0.1", server.port), 20, (source, 0))
            sock.setblocking(False)
            held.append(sock)
            sock.send(data)
    yield held
    for sock in held:
        sock.close()


def is_open(sock: socket.socket) -> bool:
    """Whether the service has not closed a connection."""
    try:
        while data := sock.recv(65536):
            del data
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def answers(server: Server, source: str, context: ssl.SSLContext | None = None) -> bool:
    """Whether the service answers a new connection from an address."""
    try:
        sock = socket.create_connection(("127.0.0.1", server.port), 20, (source, 0))
        with context.wrap_socket(sock) if context else sock as connection:
            connection.sendall(HEALTH)
            return connection.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


def addresses(clients: int, each: int) -> list[str]:
    return [f"127.0.0.{2 + client}" for _ in range(each) for client in range(clients)]


@pytest.mark.parametrize("data", [b"", b"GET / HT", LARGE * 20], ids=["silent", "slow", "unread"])
def test_clients_that_hold_connections_do_not_keep_others_out(
    model_file: Path, data: bytes
) -> None:
    with serving(model_file, *FEW) as server:
        with holding(server, ["127.0.0.2"] * 20, data) as held:
            assert answers(server, "127.0.0.1")
            wait_until(lambda: sum(map(is_open, held)) <= 6)
            # It is not locked out itself: one that has waited for a second makes room.
            wait_until(lambda: answers(server, "127.0.0.2"))
        assert "127.0.0.2 has 6 connections, the most of one client" in server.log
        with holding(server, addresses(8, 6), data) as held:
            wait_until(lambda: answers(server, "127.0.0.1"))
            wait_until(lambda: answers(server, "127.0.0.99"))
            assert sum(map(is_open, held)) <= 12 + LOOPBACK
        with server.client() as client:
            metrics = client.get("/metrics").text
    assert 'fsad_edge_connections_closed_total{limit="all"}' in metrics
    assert 'fsad_edge_connections_closed_total{limit="client"}' in metrics


def test_an_idle_connection_makes_room_at_once(model_file: Path) -> None:
    with serving(model_file, *FEW) as server:
        kept = [httpx.Client(base_url=server.url) for _ in range(12)]
        for client in kept:
            assert client.get("/healthz").status_code == 200
        for client in kept:
            with contextlib.suppress(httpx.HTTPError):
                client.close()
    assert "the most" not in server.log


def test_handshakes_that_never_come_are_counted(
    model_file: Path, certificate: tuple[Path, Path]
) -> None:
    context = ssl.create_default_context(cafile=certificate[0])
    context.check_hostname = False
    tls = ("--tls-cert", certificate[0], "--tls-key", certificate[1])
    with serving(model_file, *FEW, *tls) as server:
        with holding(server, ["127.0.0.2"] * 20, b"\x16\x03\x01") as held:
            assert answers(server, "127.0.0.1", context)
            wait_until(lambda: sum(map(is_open, held)) <= 6)
            wait_until(lambda: answers(server, "127.0.0.2", context))
        with holding(server, addresses(8, 6), b"") as held:
            wait_until(lambda: answers(server, "127.0.0.99", context))
        with holding(server, ["127.0.0.2"] * 3, b"no TLS at all\r\n\r\n" * 9) as held:
            wait_until(lambda: not any(map(is_open, held)))


#: ``fsad-edge`` with little time for clients to take their answers.
HASTY = (
    "import fsad_edge.serve.connection as connection; connection.ANSWER_SECONDS = 0.3; "
    "connection.ANSWER_RATE = 1 << 24; import runpy; "
    "runpy.run_module('fsad_edge.cli', run_name='__main__')"
)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_client_that_never_reads_is_cut(
    model_file: Path, certificate: tuple[Path, Path], secure: bool
) -> None:
    tls = ("--tls-cert", certificate[0], "--tls-key", certificate[1]) if secure else ()
    server = Server(model_file, *tls, start=(sys.executable, "-c", HASTY))
    context = ssl.create_default_context(cafile=certificate[0])
    context.check_hostname = False
    plain = socket.create_connection(("127.0.0.1", server.port), 20)
    with context.wrap_socket(plain) if secure else plain as connection:
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            while connection.send(LARGE * 100):
                pass

        def is_cut() -> bool:
            try:
                connection.send(LARGE)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return False
            except OSError:
                return True
            return False

        wait_until(is_cut)
    assert server.terminate() == 0


def test_requests_that_are_sent_ahead_are_answered_in_order(model_file: Path) -> None:
    paths = ["/healthz", "/nothing", "/v1/recent", "/v1/score"] * 10
    lines = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n" for path in paths]
    lines.append("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    with (
        serving(model_file) as server,
        socket.create_connection(("127.0.0.1", server.port), 20) as connection,
    ):
        connection.sendall("".join(lines).encode())
        received = b""
        while data := connection.recv(1 << 20):
            received += data
    found = [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]
    assert found == [200, 404, 200, 405] * 10 + [200]


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\na\r\n" * 20_000,
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n: \r\n\r\n" + bytes(100_000),
    ],
    ids=["tiny chunks", "many fields", "malformed"],
)
def test_what_costs_more_than_it_carries_is_refused(model_file: Path, sent: bytes) -> None:
    with serving(model_file) as server:
        with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
            connection.sendall(sent)
            received = b""
            while data := connection.recv(65536):
                received += data
        assert received.startswith(b"HTTP/1.1 400"), received
        assert answers(server, "127.0.0.1")


@pytest.mark.parametrize("garbage", [b"zz\r\n", b"G\x00ET /\r\n\r\n", b"\xff" * 2000])
def test_a_request_before_garbage_is_answered_as_what_was_done(
    model_file: Path, garbage: bytes
) -> None:
    request = b"%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    with serving(model_file) as server:
        with server.client() as client:
            [name] = [one["name"] for one in client.get("/v1/models").json()["models"]]
        change = b"PUT /v1/models/%s/threshold?value=0.77&who=anna&force=true" % name.encode()
        for line, status in (
            (change, b"200"),
            (b"GET /nothing", b"404"),
            (b"GET /healthz", b"200"),
        ):
            with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
                connection.sendall(request % line + garbage)
                received = b""
                while data := connection.recv(65536):
                    received += data
            assert received.startswith(b"HTTP/1.1 " + status), received
            assert received.count(b"HTTP/1.1 ") == 1
        chunked = b"Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        bad = b"POST /v1/score HTTP/1.1\r\n" + chunked
        for sent in (garbage, bad, bad.replace(b"/v1/score", b"/nothing")):
            with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
                connection.sendall(sent)
                assert connection.recv(65536).startswith((b"HTTP/1.1 400", b"HTTP/1.1 404"))
        with server.client() as client:
            assert client.get("/v1/models").json()["models"][0]["threshold"] == 0.77
    assert "Traceback" not in server.log
    assert "Exception" not in server.log


def test_requests_without_a_pause_wait_and_scores_do_not(model_file: Path) -> None:
    image = encoded(photograph(np.random.default_rng(5)))
    with serving(model_file) as server, server.client() as client:
        begin = time.monotonic()
        for _ in range(400):
            assert client.get("/healthz").status_code == 200
        # 200 at once, and the others at 100 a second.
        assert time.monotonic() - begin > 1.5
        for _ in range(10):
            answer = client.post("/v1/score", content=image)
            assert answer.status_code == 200


def test_sigterm_under_attack_ends_in_time_and_keeps_what_was_answered(
    model_file: Path, tmp_path: Path
) -> None:
    results, image = tmp_path / "results", encoded(photograph(np.random.default_rng(5)))
    server = Server(model_file, "--drain", "4", "--results", results)
    half = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc"
    with (
        holding(server, addresses(3, 10), LARGE * 50),
        holding(server, addresses(3, 3), half),
        holding(server, addresses(3, 3), b"GET"),
        server.client() as client,
    ):
        known = []
        for _ in range(5):
            answer = client.post("/v1/score", content=image)
            assert answer.status_code == 200
            known.append(answer.json()["results"][0]["id"])
        begin = time.monotonic()
        assert server.terminate() == 0, server.log
        assert time.monotonic() - begin < 20
    assert "stopped." in server.log
    assert "Traceback" not in server.log
    lines = (results / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == known


def test_sighup_leaves_the_service_running(model_file: Path) -> None:
    with serving(model_file) as server:
        for _ in range(3):
            server.process.send_signal(signal.SIGHUP)
            assert answers(server, "127.0.0.1")
        wait_until(lambda: "SIGHUP is ignored" in server.log)
