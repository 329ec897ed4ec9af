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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


class _Forward(BaseHTTPRequestHandler):
    """Passes requests on to a server, each under the Host of that server."""

    upstream, prefix, strip = "", "", False

    def do_GET(self) -> None:
        path = self.path
        if not path.startswith(self.prefix):
            self.send_error(404)
            return
        if self.strip:
            path = "/" + path.removeprefix(self.prefix).lstrip("/")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: text for name, text in self.headers.items() if name.lower() != "host"}
        method = self.command
        answer = httpx.request(method, self.upstream + path, content=body, headers=headers)
        self.send_response(answer.status_code)
        for name, text in answer.headers.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(answer.content)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *arguments: object) -> None: ...


@contextlib.contextmanager
def reverse_proxy(upstream: str, prefix: str, strip: bool) -> Iterator[str]:
    """The address below which a reverse proxy publishes a server, while the block lasts."""
    handler = type("Forward", (_Forward,), {"upstream": upstream, "prefix": prefix, "strip": strip})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}{prefix}"
    finally:
        proxy.shutdown()
        proxy.server_close()


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
