"""A load client that does not hide latencies: requests follow a clock, not the answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: Most connections at once; a request that finds none free counts as lost.
CONNECTIONS = 256


@dataclass(frozen=True)
class Answer:
    """The answer to one request.

    Attributes:
        status: HTTP status; 0 where there was no answer.
        seconds: time since the request was due, not since it was sent.
    """

    status: int
    seconds: float


class Connection:
    """A kept-alive connection that repeats one request."""

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self._address = (host, port)
        self._request = request
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self) -> int:
        """Send the request. Returns the answer's status, or 0 where the connection broke."""
        try:
            if self._writer is None:
                self._reader, self._writer = await asyncio.open_connection(*self._address)
            assert self._reader is not None
            self._writer.write(self._request)
            head = await self._reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            place = lower.index(b"content-length:") + 15
            await self._reader.readexactly(int(lower[place : lower.index(b"\r\n", place)]))
            if b"connection: close" in lower:
                self.close()
            return int(head[9:12])
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return 0

    def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def post(host: str, port: int, image: bytes, path: str = "/v1/score") -> bytes:
    """The bytes of a request for the score of an image."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: image/jpeg\r\n"
        f"Content-Length: {len(image)}\r\n\r\n"
    )
    return head.encode() + image


def form(host: str, port: int, *images: bytes) -> bytes:
    """The bytes of a request for the scores of several images."""
    line = b"--an-image-ends-here"
    part = b"\r\nContent-Disposition: form-data; name=file\r\nContent-Type: image/jpeg\r\n\r\n"
    body = b"".join(line + part + image + b"\r\n" for image in images) + line + b"--\r\n"
    head = (
        f"POST /v1/score HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Content-Type: multipart/form-data; boundary={line[2:].decode()}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def closed_loop(
    connections: list[Connection], seconds: float, most: int | None = None
) -> list[Answer]:
    """Each connection sends its next request as soon as it has an answer.

    Args:
        connections: the connections.
        seconds: duration.
        most: number of answers after which to end early.
    """
    answers: list[Answer] = []
    end = time.perf_counter() + seconds

    async def run(connection: Connection) -> None:
        while time.perf_counter() < end and (most is None or len(answers) < most):
            begin = time.perf_counter()
            status = await connection.ask()
            answers.append(Answer(status, time.perf_counter() - begin))

    await asyncio.gather(*map(run, connections))
    return answers


async def open_loop(
    make: Callable[[], Connection], rate: float, seconds: float, seed: int
) -> list[Answer]:
    """Send requests at random times (a Poisson process), whether or not earlier ones were answered.

    Args:
        make: makes a connection.
        rate: requests per second.
        seconds: duration.
        seed: random seed.
    """
    gaps = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds))
    due = time.perf_counter() + 0.2 + np.cumsum(gaps)
    idle = [make() for _ in range(16)]
    used = len(idle)
    answers: list[Answer] = []

    async def one(moment: float, connection: Connection) -> None:
        status = await connection.ask()
        answers.append(Answer(status, time.perf_counter() - moment))
        idle.append(connection)

    tasks = []
    for moment in due.tolist():
        wait = moment - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        if not idle:
            if used >= CONNECTIONS:
                answers.append(Answer(0, 0.0))
                continue
            idle.append(make())
            used += 1
        tasks.append(asyncio.create_task(one(moment, idle.pop())))
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return answers
