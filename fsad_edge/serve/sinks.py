"""Where results go besides their answer: files of JSON lines, a webhook, an MQTT broker.

A sink never holds the scoring up: results wait in a bounded queue and are counted where they are
dropped.
"""

from __future__ import annotations

import abc
import contextlib
import http.client
import itertools
import json
import logging
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from fsad_edge.errors import InputError, MissingExtraError
from fsad_edge.serve.metrics import Metrics
from fsad_edge.serve.results import Record

log = logging.getLogger("fsad_edge.serve")

#: Results that wait for a slow receiver.
WAITING = 1000

#: Bytes of a results file before it is put aside, and how many are kept aside.
ROTATE_BYTES, ROTATED = 64 << 20, 20

#: Seconds between attempts: doubled each time, up to the last.
FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0

#: Seconds after which a receiver that does not answer is given up, and attempts for one result.
ANSWER_SECONDS, ATTEMPTS = 5.0, 6


class ResultsFile:
    """``results.jsonl`` in a folder: a line a result, put aside when it is large.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, rotate_bytes: int = ROTATE_BYTES) -> None:
        self.path = folder / "results.jsonl"
        self._rotate_bytes = rotate_bytes
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written: {error.strerror or error}."
            ) from error

    def write(self, record: Record) -> None:
        """Add a line; it is with the system when this returns. Raises OSError."""
        line = json.dumps(record).encode() + b"\n"
        with self._lock:
            if self._file.tell() + len(line) > self._rotate_bytes and self._file.tell():
                self._rotate()
            self._file.write(line)
            self._file.flush()

    def read(self) -> Iterator[Record]:
        """All lines of it and of those put aside, oldest first; damaged ones are left out."""
        for path in [*reversed(self._aside()), self.path]:
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                for line in file:
                    with contextlib.suppress(ValueError):
                        yield json.loads(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _aside(self) -> list[Path]:
        return [self.path.with_name(f"results.{number}.jsonl") for number in range(1, ROTATED + 1)]

    def _open(self) -> IO[bytes]:
        file = self.path.open("ab+")
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a line cut short when the power failed
                file.write(b"\n")
        return file

    def _rotate(self) -> None:
        self._file.close()
        places = [self.path, *self._aside()]
        for newer, older in reversed(list(itertools.pairwise(places))):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        self._file = self._open()


class Sink(abc.ABC):
    """A receiver of results, with a thread that hands them over.

    Args:
        name: in the metrics.
        metrics: of the service.
        rate: results a second at most; above it they are dropped, good ones and anomalies alike.
        anomalies_only: drop good ones unsaid.
    """

    def __init__(
        self, name: str, metrics: Metrics, rate: float = 0.0, anomalies_only: bool = False
    ) -> None:
        self.name = name
        self._sent = metrics.sent.labels(name)
        self._dropped = metrics.dropped
        self._anomalies_only = anomalies_only
        self._rate = rate
        self._tokens, self._refilled = max(rate, 1.0), time.monotonic()
        self._queue: queue.Queue[Record | None] = queue.Queue(WAITING)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abc.abstractmethod
    def deliver(self, record: Record) -> None:
        """Hand over one result. Raises OSError where another attempt may help, else ValueError."""

    def close(self) -> None:  # noqa: B027 (most have nothing to close)
        """Let go of what it holds."""

    def start(self) -> None:
        """Begin to hand over."""
        self._thread.start()

    def put(self, record: Record) -> None:
        """Take a result; never waits."""
        if self._anomalies_only and record["decision"] != "anomaly":
            return
        if self._rate and not self._take_token():
            self._drop("rate")
            return
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._drop("queue")

    def stop(self, seconds: float = 2.0) -> None:
        """Hand over what waits, for some seconds at most."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=seconds)
        self._thread.join(seconds)
        self._stopping.set()
        self._thread.join(ANSWER_SECONDS)
        self.close()

    def _take_token(self) -> bool:
        with self._lock:
            now = time.monotonic()
            burst = max(self._rate, 1.0)
            self._tokens = min(burst, self._tokens + (now - self._refilled) * self._rate)
            self._refilled = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def _drop(self, reason: str) -> None:
        self._dropped.labels(self.name, reason).inc()

    def _run(self) -> None:
        while not self._stopping.is_set():
            record = self._queue.get()
            if record is None:
                return
            self._attempt(record)

    def _attempt(self, record: Record) -> None:
        pause = FIRST_PAUSE
        for attempt in range(ATTEMPTS):
            try:
                self.deliver(record)
                self._sent.inc()
                return
            except ValueError as error:
                log.error("%s: result %s is refused (%s).", self.name, record["id"], error)
                self._drop("refused")
                return
            except (OSError, http.client.HTTPException) as error:
                if attempt == 0:
                    log.warning("%s cannot be reached (%s); trying again.", self.name, error)
            if self._stopping.wait(pause):
                break
            pause = min(2 * pause, LAST_PAUSE)
        self._drop("unreachable")


class FileSink(Sink):
    """Results as JSON lines; those of watched folders are there already, written at once."""

    def __init__(self, file: ResultsFile, metrics: Metrics) -> None:
        super().__init__("file", metrics)
        self._file = file

    def put(self, record: Record) -> None:
        if record["source"] != "watch":
            super().put(record)

    def deliver(self, record: Record) -> None:
        self._file.write(record)

    def close(self) -> None:
        self._file.close()


class Webhook(Sink):
    """Results as JSON documents, POSTed to an address.

    Raises:
        InputError: it is no http(s) address.
    """

    def __init__(
        self,
        url: str,
        metrics: Metrics,
        rate: float,
        anomalies_only: bool,
        token: str | None = None,
    ) -> None:
        super().__init__("webhook", metrics, rate, anomalies_only)
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).netloc:
            raise InputError(f"--webhook {url} is not an http or https address.")
        self._url = url
        self._headers = {"Content-Type": "application/json", "User-Agent": "fsad-edge"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._opener = urllib.request.build_opener(_NoRedirect)

    def deliver(self, record: Record) -> None:
        request = urllib.request.Request(
            self._url, json.dumps(record).encode(), self._headers, method="POST"
        )
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS) as answer:
                answer.read(1)
        except urllib.error.HTTPError as error:
            with error:
                if error.code < 500 and error.code not in {408, 425, 429}:
                    raise ValueError(f"it answers {error.code}") from error
                raise


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A receiver may not send results elsewhere."""

    def redirect_request(self, *arguments: Any, **options: Any) -> None:
        return None


class Mqtt(Sink):
    """Results as JSON documents, published to ``mqtt[s]://[USER:PASSWORD@]HOST[:PORT]/TOPIC``.

    Raises:
        InputError: it is no such address.
        MissingExtraError: paho-mqtt is not installed.
    """

    def __init__(self, url: str, metrics: Metrics, rate: float, anomalies_only: bool) -> None:
        super().__init__("mqtt", metrics, rate, anomalies_only)
        parts = urlsplit(url)
        self._topic = parts.path.lstrip("/")
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname or not self._topic:
            raise InputError(f"--mqtt {url} is not of the form  mqtt://HOST:1883/TOPIC.")
        try:
            from paho.mqtt import client
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError:
            raise MissingExtraError("paho-mqtt", "mqtt") from None
        self._client = client.Client(CallbackAPIVersion.VERSION2)
        self._client.max_queued_messages_set(WAITING)
        secure = parts.scheme == "mqtts"
        if secure:
            self._client.tls_set()
        if parts.username:
            self._client.username_pw_set(parts.username, parts.password)
        self._client.reconnect_delay_set(1, int(LAST_PAUSE))
        self._client.connect_async(parts.hostname, parts.port or (8883 if secure else 1883))

    def start(self) -> None:
        self._client.loop_start()
        super().start()

    def deliver(self, record: Record) -> None:
        if not self._client.is_connected():
            raise ConnectionError("not connected")
        message = self._client.publish(self._topic, json.dumps(record), qos=1)
        try:
            message.wait_for_publish(ANSWER_SECONDS)
        except RuntimeError as error:
            raise ConnectionError(str(error)) from error
        if not message.is_published():
            raise TimeoutError("no answer")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
