"""Run the service with uvicorn, with limits on slow clients and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Generator
from typing import Any, cast

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fsad_edge.errors import FsadEdgeError, InputError
from fsad_edge.runtime.files import read_bytes
from fsad_edge.serve.options import TOKEN_VARIABLE, ListenOptions
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.security import GuardedApp
from fsad_edge.serve.service import Service
from fsad_edge.serve.systemd import keep_alive, notify

log = logging.getLogger("fsad_edge.serve")

#: Most bytes of a request's line and headers.
MAX_HEADER = 32 << 10

#: Most connections at once; further ones are closed.
MAX_CONNECTIONS = 512

#: Most connections that the system holds until they are accepted.
BACKLOG = 512

#: Bytes of the largest certificate or key.
LARGEST_PEM = 1 << 20

#: Seconds in which the headers of a request must be complete, and a new connection must send one.
HEADER_SECONDS = 10.0

#: Most bytes of a refused body that are read and dropped, so that its client gets the answer.
MAX_DROPPED = 1 << 30

#: Seconds for which a stopping service still takes requests on open connections and tells each
#: client to close: a client that has just sent a request then loses nothing.
GOODBYE_SECONDS = 0.5


class Transport:
    """The transport of a connection, with another way to close it."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self.close = close
        self.closed = False

    def is_closing(self) -> bool:
        return self.closed or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    """A connection that slow or greedy clients cannot keep.

    uvicorn limits neither the time nor the size of a request's headers, nor a body that still
    arrives after the answer. It also closes a connection while a body arrives, which makes the
    system reset it: a client that sends all before it reads then loses the answer. And it takes
    the body of a request that offers another protocol for that protocol.
    """

    body_seconds = 30.0  # set by `run_server`

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._socket = transport
        self._wrapped = Transport(transport, self._close)
        super().connection_made(cast("asyncio.Transport", self._wrapped))
        self._header_bytes = self._dropped_bytes = 0
        self._in_header, self._in_body = True, False
        self._deadline: asyncio.TimerHandle | None = None
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._expect_within(HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_within(None)
        self._in_body = False
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._in_header:
            self._header_bytes += len(data)
        if self._wrapped.closed:
            self._dropped_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("the request is not valid HTTP/1.1.")
        if (self._in_header and self._header_bytes > MAX_HEADER) or (
            self._dropped_bytes > MAX_DROPPED
        ):
            self._socket.abort()

    def send_400_response(self, msg: str) -> None:
        if not self._wrapped.closed:
            answer = ProblemError(400, msg, {"Connection": "close"}).response()
            lines = [b"HTTP/1.1 400 Bad Request", *map(b": ".join, answer.raw_headers), b"", b""]
            self._socket.write(b"\r\n".join(lines) + bytes(answer.body))
        self._socket.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_header, self._header_bytes = True, 0
        self._expect_within(HEADER_SECONDS)

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            raise httptools.HttpParserError("this is no proxy")
        if self.parser.should_upgrade():
            return  # `_parse` reads the header again
        self._in_header, self._in_body = False, True
        # A little more than the application's own limit, which answers 408.
        self._expect_within(self.body_seconds + 2)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._wrapped.closed:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_body = False
        self._expect_within(None)
        super().on_message_complete()
        if self._wrapped.closed:
            self._socket.close()

    def _parse(self, data: bytes) -> None:
        """Parse data; an offer to change the protocol is ignored, as RFC 9110 allows.

        The parser takes what follows such a header for the other protocol, so it gets the header
        again, without the offer.
        """
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                version = self.parser.get_http_version().encode()
                lines = [
                    b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version),
                    *(b"%b: %b" % pair for pair in self.headers if pair[0] != b"upgrade"),
                    b"\r\n",
                ]
                data = b"\r\n".join(lines) + data[offer.args[0] :]

    def _close(self) -> None:
        """Close the connection; first read and drop what is still to come of a body."""
        if not self._in_body or self._wrapped.is_closing():
            self._socket.close()
            return
        self._wrapped.closed = True
        with contextlib.suppress(OSError):  # the client may have gone
            if self._socket.can_write_eof():
                self._socket.write_eof()
        self.flow.resume_reading()
        self._expect_within(self.body_seconds + 2)

    def _expect_within(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = (
            None if seconds is None else self.loop.call_later(seconds, self._socket.abort)
        )


class Server(uvicorn.Server):
    """Tells clients that it stops before it stops."""

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
        if self.started:
            notify("READY=1")
            self._watchdog = asyncio.create_task(
                keep_alive(lambda: not self._service.queue.stalled)
            )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn leaves this out then
            await self.lifespan.shutdown()

    def _leave(self) -> None:
        if self._service.draining:
            self.should_exit = self.force_exit = True  # the second signal
            return
        log.info("finishing the running requests.")
        notify("STOPPING=1")
        self._service.draining = True
        asyncio.get_running_loop().call_later(GOODBYE_SECONDS, self._close)

    def _close(self) -> None:
        self.should_exit = True


def run_server(
    app: GuardedApp, listen: ListenOptions, listener: socket.socket | None = None
) -> None:
    """Serve an application until SIGTERM or Ctrl-C.

    Args:
        app: the application of :func:`fsad_edge.serve.create_app`.
        listen: where to listen, with which certificate, and how long to drain.
        listener: what :func:`take_address` gave; by default the address is taken now.

    Raises:
        InputError: the address is taken or can be reached from other machines without a token, or
            the certificate cannot be read.
    """
    if not (listen.is_loopback or app.has_token):
        raise InputError(
            f"--host {listen.host} can be reached from other machines: give a token with "
            f"--token-file or {TOKEN_VARIABLE}, or listen on 127.0.0.1."
        )
    _check_certificate(listen)
    listener = listener or take_address(listen)
    with _naming_address(listen, listener):
        listener.listen(BACKLOG)  # connections wait here until the event loop runs
    Connection.body_seconds = app.service.bodies.seconds
    config = uvicorn.Config(
        app,
        http=Connection,
        lifespan="on",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        backlog=BACKLOG,
        timeout_graceful_shutdown=listen.drain,
        ssl_certfile=listen.tls_cert,
        ssl_keyfile=listen.tls_key,
    )
    scheme = "http" if listen.tls_cert is None else "https"
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    log.info("listening on %s://%s:%d", scheme, host, listener.getsockname()[1])
    server = Server(config, app.service)
    server.run(sockets=[listener])
    if not server.started:
        raise FsadEdgeError("the service could not start: the log above tells why.")
    log.info("stopped.")


def take_address(listen: ListenOptions) -> socket.socket:
    """Bind the address, on which nothing is accepted yet.

    Done before anything else, it finds a service that runs there before files are touched.

    Raises:
        InputError: it is taken, or is none of this machine.
    """
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with _naming_address(listen, listener):
        listener.bind((listen.host, listen.port))
    return listener


@contextlib.contextmanager
def _naming_address(listen: ListenOptions, listener: socket.socket) -> Generator[None, None, None]:
    """Turn an error of a socket into one that tells of the address."""
    try:
        yield
    except OSError as error:
        listener.close()
        raise InputError(
            f"{listen.host}:{listen.port} cannot be listened on ({error.strerror or error}): "
            "choose another --port or --host."
        ) from error


def _check_certificate(listen: ListenOptions) -> None:
    if listen.tls_cert is None or listen.tls_key is None:
        return
    for file in (listen.tls_cert, listen.tls_key):  # a pipe would be waited for
        read_bytes(file, cure="give PEM files of a certificate and its key", most=LARGEST_PEM)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(listen.tls_cert, listen.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"the certificate {listen.tls_cert} cannot be used ({error}): give PEM files of a "
            "certificate and its key."
        ) from error
