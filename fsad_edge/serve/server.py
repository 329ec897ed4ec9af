"""uvicorn, with what it leaves open: clients that send slowly, and a calm end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fsad_edge.errors import InputError
from fsad_edge.serve.service import Service
from fsad_edge.serve.supervisor import keep_alive, notify

log = logging.getLogger("fsad_edge.serve")

#: Bytes of a request's line and headers.
MAX_HEADER = 32 << 10

#: Connections at once; what comes above is closed unheard.
MAX_CONNECTIONS = 512

#: Connections that the system holds until they are accepted.
BACKLOG = 512

#: Seconds in which a request's headers must be whole, and a new connection must send one.
HEADER_SECONDS = 10.0

#: Seconds for which a stopping service still takes requests on connections that are open, telling
#: each client to close: one that has just sent a request then loses nothing.
GOODBYE_SECONDS = 0.5


class Connection(HttpToolsProtocol):
    """One connection, which a slow or greedy client does not keep.

    uvicorn has no limit on how long or how large a request's headers are, nor on what may trickle
    in after the answer was given.
    """

    body_seconds = 30.0  # set by `serve`

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._header_bytes = 0
        self._in_header = True
        self._deadline: asyncio.TimerHandle | None = None
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._expect_within(HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_within(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_header:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_header and self._header_bytes > MAX_HEADER:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_header, self._header_bytes = True, 0
        self._expect_within(HEADER_SECONDS)

    def on_headers_complete(self) -> None:
        self._in_header = False
        # A little more than the application's own limit, which answers with a 408.
        self._expect_within(self.body_seconds + 2)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._expect_within(None)
        super().on_message_complete()

    def _expect_within(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = (
            None if seconds is None else self.loop.call_later(seconds, self.transport.abort)
        )


class Server(uvicorn.Server):
    """Says that it is going before it goes."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        notify("READY=1")
        self._watchdog = asyncio.create_task(keep_alive(lambda: not self._service.scorer.stalled))

    def _leave(self) -> None:
        if self._service.draining:
            self.should_exit = self.force_exit = True  # asked twice
            return
        log.info("finishing what is in flight.")
        notify("STOPPING=1")
        self._service.draining = True
        asyncio.get_running_loop().call_later(GOODBYE_SECONDS, self._close)

    def _close(self) -> None:
        self.should_exit = True


def start_log() -> None:
    """Log to standard error, where systemd and Docker look."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Address:
    """Where to listen, and with which certificate.

    Attributes:
        host: name or address.
        port: 0 takes a free one.
        certificate: PEM file; None for plain HTTP.
        key: PEM file.
    """

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None

    @property
    def scheme(self) -> str:
        return "http" if self.certificate is None else "https"


def run(app: ASGIApp, service: Service, address: Address, body_seconds: float, drain: int) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        app: the guarded application.
        service: started here, and stopped.
        address: to listen on.
        body_seconds: in which a body must arrive.
        drain: seconds for what is in flight when it stops.

    Raises:
        InputError: the address cannot be had, or the certificate not be read.
    """
    _check_certificate(address)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
        listener.listen(BACKLOG)  # who comes before the loop runs, waits
    except OSError as error:
        listener.close()
        raise InputError(
            f"{address.host}:{address.port} cannot be listened on: {error.strerror or error}."
        ) from error
    Connection.body_seconds = body_seconds
    config = uvicorn.Config(
        app,
        http=Connection,
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        backlog=BACKLOG,
        timeout_graceful_shutdown=drain,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )
    port = listener.getsockname()[1]
    host = f"[{address.host}]" if ":" in address.host else address.host
    service.start()
    try:
        log.info("listening on %s://%s:%d", address.scheme, host, port)
        Server(config, service).run(sockets=[listener])
    finally:
        service.stop()
    log.info("stopped.")


def _check_certificate(address: Address) -> None:
    if address.certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(address.certificate, address.key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"the certificate {address.certificate} cannot be used: {error}."
        ) from error
