"""A server process for the tests of the service."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
from PIL import Image


class Server:
    """``fsad-edge serve`` on a free port; ``log`` is its standard error so far."""

    def __init__(
        self,
        *arguments: str | Path,
        environment: dict[str, str] | None = None,
        start: Sequence[str] = (sys.executable, "-m", "fsad_edge.cli"),
    ) -> None:
        self.process = subprocess.Popen(
            [*start, "serve", *map(str, arguments), "--port", "0"],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        )
        self.log = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_until(lambda: self._listening() or self.process.poll() is not None, 60)
        found = self._listening()
        assert found, self.log
        self.url = found[1]

    def _listening(self) -> re.Match[str] | None:
        return re.search(r"listening on (\S+)", self.log)

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.log += line

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, **options)  # type: ignore[arg-type]

    def terminate(self) -> int:
        """Send SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self._reader.join(5)
        assert self.process.stderr
        self.process.stderr.close()
        return code


@contextlib.contextmanager
def serving(*arguments: str | Path, **options: dict[str, str]) -> Iterator[Server]:
    """A server while the block lasts; it must end without an error."""
    server = Server(*arguments, **options)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        code = server.terminate()
    assert code == 0, server.log
    assert "Traceback" not in server.log, server.log


def wait_until(done: Callable[[], object], seconds: float = 15) -> None:
    """Wait until a condition is true, and fail after some seconds."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(0.02)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The bytes of an image's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def assert_problem(answer: httpx.Response, status: int) -> dict[str, object]:
    """Check that an answer is a problem document; returns the document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, object] = answer.json()
    assert {"type", "title", "status", "detail"} <= document.keys()
    assert document["status"] == status
    return document
