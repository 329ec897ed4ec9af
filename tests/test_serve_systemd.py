"""systemd is notified of the start, of a hanging engine and of the end."""

from __future__ import annotations

import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import Job
from tests.serving import Server, wait_until

#: The service with an engine that hangs as long as a file exists.
HANGING = """
import os, pathlib, time
from fsad_edge.serve import scoring_queue
from fsad_edge.cli.main import main
from fsad_edge.runtime.backends.onnxruntime import OnnxSession

scoring_queue.STALLED_SECONDS = 0.3
run, hang = OnnxSession.run, pathlib.Path(os.environ["HANG"])

def slow(*given):
    while hang.exists():
        time.sleep(0.05)
    return run(*given)

OnnxSession.run = slow
main()
"""


class Systemd:
    """The socket that systemd listens on."""

    def __init__(self, address: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))

    def next(self, seconds: float = 30) -> bytes | None:
        """The next notification; None after some seconds without one."""
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(100)
        except TimeoutError:
            return None

    def close(self) -> None:
        self._socket.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd runs on Linux only")
def test_systemd_is_notified_of_the_start_of_a_hanging_engine_and_of_the_end(
    job: Job, tmp_path: Path
) -> None:
    systemd, hang = Systemd(tmp_path / "notify"), tmp_path / "hang"
    server = Server(
        job.file,
        start=(sys.executable, "-c", HANGING),
        environment={
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "200000",
            "HANG": str(hang),
        },
    )
    try:
        assert systemd.next() == b"READY=1"
        assert systemd.next() == b"WATCHDOG=1"
        image = (job.shots / "0.png").read_bytes()
        with server.client() as client, ThreadPoolExecutor(1) as pool:
            hang.touch()
            answer = pool.submit(client.post, "/v1/score", content=image)
            wait_until(lambda: client.get("/healthz").status_code == 503)
            assert client.get("/v2/health/live").status_code == 400
            wait_until(lambda: systemd.next(1.0) is None)
            hang.unlink()
            assert answer.result().status_code == 200
            assert systemd.next() == b"WATCHDOG=1"
            assert client.get("/healthz").status_code == 200
        assert server.terminate() == 0
        end = time.monotonic() + 30
        while systemd.next() != b"STOPPING=1":
            assert time.monotonic() < end
    finally:
        hang.unlink(missing_ok=True)
        server.terminate()
        systemd.close()
