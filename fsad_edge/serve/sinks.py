"""Receivers of results besides the client: a file of JSON lines, a webhook, an MQTT broker.

A sink never delays scoring: results wait in a bounded queue, and dropped ones are counted.
"""

from __future__ import annotations

import abc
import contextlib
import http.client
import logging
import queue
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from fsad_edge.errors import InputError, MissingExtraError
from fsad_edge.serve.metrics import Metrics
from fsad_edge.serve.results_file import ResultsFile
from fsad_edge.serve.schemas import ResultRecord, Source, to_json

log = logging.getLogger("fsad_edge.serve")

#: Most results that wait for a slow receiver.
WAITING = 1000

#: Seconds between two attempts: the first pause doubles each time, up to the last.
FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0

#: Seconds in which a receiver must answer, and attempts for one result.
ANSWER_SECONDS, ATTEMPTS = 5.0, 6


class Sink(abc.ABC):
    """A receiver of results, with a thread that delivers them.

    Args:
        name: its name in the metrics.
        metrics: the metrics of the service.
        rate: most results per second; more are dropped, whatever their decision. 0 sets no limit.
        skip_good: leave out good results, without counting them as dropped.
    """

    def __init__(
        self, name: str, metrics: Metrics, rate: float = 0.0, skip_good: bool = False
    ) -> None:
        self.name = name
        self._sent = metrics.sent.labels(name)
        self._dropped = metrics.dropped
        self._skip_good = skip_good
        self._rate = rate
        self._tokens, self._refilled = max(rate, 1.0), time.monotonic()
        self._queue: queue.Queue[ResultRecord | None] = queue.Queue(WAITING)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abc.abstractmethod
    def deliver(self, record: ResultRecord) -> None:
        """Deliver one result. Raises OSError where another attempt may help, else ValueError."""

    def close(self) -> None:  # noqa: B027 (not every sink has something to close)
        """Close the connection or the file."""

    def start(self) -> None:
        """Start to deliver."""
        self._thread.start()

    def enqueue(self, record: ResultRecord) -> None:
        """Take a result, without waiting."""
        if self._skip_good and record.good:
            return
        if self._rate and not self._take_token():
            self._drop("rate")
            return
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._drop("queue")

    def stop(self, seconds: float = 2.0) -> None:
        """Deliver the results that wait, for some seconds at most."""
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

    def _attempt(self, record: ResultRecord) -> None:
        pause, fault = FIRST_PAUSE, ""
        for _ in range(ATTEMPTS):
            try:
                self.deliver(record)
                self._sent.inc()
                return
            except ValueError as error:
                log.error("%s: result %s was refused (%s).", self.name, record.id, error)
                self._drop("refused")
                return
            except (OSError, http.client.HTTPException) as error:
                if not fault:
                    log.warning("%s cannot be reached (%s); trying again.", self.name, error)
                fault = str(error)
            except Exception:  # its thread goes on with the next one
                log.exception("%s: result %s cannot be delivered.", self.name, record.id)
                self._drop("failed")
                return
            if self._stopping.wait(pause):
                break
            pause = min(2 * pause, LAST_PAUSE)
        log.error("%s: result %s was not delivered (%s).", self.name, record.id, fault)
        self._drop("unreachable")


class FileSink(Sink):
    """Results as lines of JSON. Watched folders write their own lines at once."""

    def __init__(self, file: ResultsFile, metrics: Metrics) -> None:
        super().__init__("file", metrics)
        self._file = file

    def enqueue(self, record: ResultRecord) -> None:
        if record.source is not Source.WATCH:
            super().enqueue(record)

    def deliver(self, record: ResultRecord) -> None:
        self._file.write(record)

    def close(self) -> None:
        self._file.close()


class Webhook(Sink):
    """Results as JSON documents, sent to an address by POST.

    Raises:
        InputError: the address is not one of http or https.
    """

    def __init__(
        self,
        url: str,
        metrics: Metrics,
        rate: float,
        skip_good: bool,
        token: str | None = None,
    ) -> None:
        super().__init__("webhook", metrics, rate, skip_good)
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).netloc:
            raise InputError(
                f"--webhook {url} is not an http or https address: give http://HOST/PATH."
            )
        self._url = url
        self._headers = {"Content-Type": "application/json", "User-Agent": "fsad-edge"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._opener = urllib.request.build_opener(_NoRedirect)

    def deliver(self, record: ResultRecord) -> None:
        request = urllib.request.Request(
            self._url, to_json(record).encode(), self._headers, method="POST"
        )
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS) as answer:
                answer.read(1)
        except urllib.error.HTTPError as error:
            with error:
                if error.code < 500 and error.code not in {408, 425, 429}:
                    raise ValueError(f"it answered {error.code}") from error
                raise


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: a receiver may not send results elsewhere."""

    def redirect_request(self, *arguments: Any, **options: Any) -> None:
        return None


class Mqtt(Sink):
    """Results as JSON documents, published to ``mqtt[s]://[USER:PASSWORD@]HOST[:PORT]/TOPIC``.

    Raises:
        InputError: the address has another form.
        MissingExtraError: paho-mqtt is not installed.
    """

    def __init__(self, url: str, metrics: Metrics, rate: float, skip_good: bool) -> None:
        super().__init__("mqtt", metrics, rate, skip_good)
        parts = urlsplit(url)
        self._topic = parts.path.lstrip("/")
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname or not self._topic:
            raise InputError(f"--mqtt {url} is not an MQTT address: give  mqtt://HOST:1883/TOPIC.")
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

    def deliver(self, record: ResultRecord) -> None:
        if not self._client.is_connected():
            raise ConnectionError("it is not connected")
        message = self._client.publish(self._topic, to_json(record), qos=1)
        try:
            message.wait_for_publish(ANSWER_SECONDS)
        except RuntimeError as error:
            raise ConnectionError(str(error)) from error
        if not message.is_published():
            raise TimeoutError("it did not answer")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
