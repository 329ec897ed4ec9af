"""Run the service with uvicorn, with limits on slow clients and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import resource
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Generator

import uvicorn

from fsad_edge.errors import FsadEdgeError, InputError
from fsad_edge.runtime.files import read_bytes
from fsad_edge.serve.connection import Connection
from fsad_edge.serve.door import Door
from fsad_edge.serve.options import TOKEN_VARIABLE, ListenOptions
from fsad_edge.serve.security import GuardedApp
from fsad_edge.serve.service import Service
from fsad_edge.serve.systemd import keep_alive, notify

log = logging.getLogger("fsad_edge.serve")

#: Most connections that the system holds until they are accepted.
BACKLOG = 512

#: Bytes of the largest certificate or key.
LARGEST_PEM = 1 << 20

#: Seconds for which a thread that computes in Python keeps the others waiting.
SWITCH_SECONDS = 0.001

#: Descriptors besides those of connections: files, models, the camera.
OTHER_DESCRIPTORS = 128

#: Seconds for which a stopping service still takes requests on open connections and tells each
#: client to close: a client that has just sent a request then loses nothing.
GOODBYE_SECONDS = 0.5


class Server(uvicorn.Server):
    """Accepts connections through a door, and tells clients that it stops before it stops.

    Args:
        config: uvicorn's.
        service: what is served.
        listen: for how long running requests may go on at the end, and how many connections there
            may be.
        listener: the listening socket.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        listen: ListenOptions,
        listener: socket.socket,
    ) -> None:
        super().__init__(config)
        self._service, self._drain, self._listener = service, listen.drain, listener
        most = _usable_connections(listen.connections)
        self._door = Door(most, min(most, listen.client_connections), service.metrics)
        self._ends = math.inf  # when all must have ended, as the loop's time
        self._leaving = threading.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave)
        loop.add_signal_handler(signal.SIGHUP, _ignore_hangup)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])  # the door accepts instead of uvicorn
        if self.started:
            # At the end no thread may be had: the memory may be used up.
            last = (self._leaving, self._drain)
            threading.Thread(target=_end_within, args=last, name="end", daemon=True).start()
            # A thread that computes lets the event loop go on after this time.
            sys.setswitchinterval(SWITCH_SECONDS)
            # What lives as long as the service is not looked at in each collection of garbage,
            # which would take 50 ms and more.
            gc.collect()
            gc.freeze()
            self._accepting = asyncio.create_task(
                self._door.accept(self._listener, self._make_connection, self.config.ssl)
            )
            notify("READY=1")
            self._watchdog = asyncio.create_task(
                keep_alive(lambda: not self._service.queue.stalled)
            )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running requests end, then close what is left, then stop the service."""
        self._accepting.cancel()
        self._listener.close()
        self._door.close()
        loop, state = asyncio.get_running_loop(), self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        # Some of the time is for what comes after the requests.
        end = self._ends - min(5.0, self._drain / 4)
        while (state.connections or state.tasks) and loop.time() < end and not self.force_exit:
            await asyncio.sleep(0.05)
        if state.connections or state.tasks:
            log.warning("%d connections are closed unfinished.", len(state.connections))
        for connection in list(state.connections):
            assert isinstance(connection, Connection)
            connection.abort()
        await asyncio.sleep(0.05)
        for task in state.tasks:
            task.cancel()
        await self.lifespan.shutdown()

    def _make_connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)

    def _leave(self) -> None:
        if self._service.draining:
            self.should_exit = self.force_exit = True  # the second signal
            return
        log.info("finishing the running requests.")
        notify("STOPPING=1")
        self._service.draining = True
        loop = asyncio.get_running_loop()
        self._ends = loop.time() + self._drain
        self._leaving.set()
        loop.call_later(min(GOODBYE_SECONDS, self._drain / 4), self._close)

    def _close(self) -> None:
        self.should_exit = True


def _ignore_hangup() -> None:
    log.info("SIGHUP is ignored: changed model files are loaded without it.")


def _usable_connections(wanted: int) -> int:
    """How many connections the system has descriptors for; it is asked for more where it can."""
    needed = wanted + OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    with contextlib.suppress(OSError, ValueError):
        most = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return wanted
    usable = max(soft - OTHER_DESCRIPTORS, soft // 2)
    log.warning(
        "at most %d connections and not %d: the system allows %d open files (ulimit -n).",
        usable, wanted, soft,
    )  # fmt: skip
    return usable


def _end_within(leaving: threading.Event, seconds: float) -> None:
    """End the process some seconds after it began to leave, whatever a thread still does.

    Only what is on disk was acknowledged, and all that writes outlasts a sudden end.
    """
    leaving.wait()
    time.sleep(seconds)
    log.warning("what still ran after %g s is given up.", seconds)
    logging.shutdown()
    os._exit(0)


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
        listener.listen(BACKLOG)  # connections wait here until the door opens
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
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
        ssl_certfile=listen.tls_cert,
        ssl_keyfile=listen.tls_key,
    )
    scheme = "http" if listen.tls_cert is None else "https"
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    log.info("listening on %s://%s:%d", scheme, host, listener.getsockname()[1])
    server = Server(config, app.service, listen, listener)
    server.run()
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
