"""One HTTP connection: bounded in time, in what it sends ahead, and in what it leaves unread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fsad_edge.serve.client import client_of
from fsad_edge.serve.pace import Pace
from fsad_edge.serve.problems import ProblemError

log = logging.getLogger("fsad_edge.serve")

#: Most bytes of a request's line and headers, and most header fields.
MAX_HEADER, MAX_FIELDS = 32 << 10, 100

#: Seconds in which the headers of a request must be complete, and a new connection must send one.
HEADER_SECONDS = 10.0

#: Most bytes of a refused body that are read and dropped, so that its client gets the answer.
MAX_DROPPED = 1 << 30

#: Seconds for which the rest of a request that is no HTTP is dropped.
LINGER_SECONDS = 2.0

#: Seconds in which a client must take an answer, and the bytes a second that give it more time.
ANSWER_SECONDS, ANSWER_RATE = 10.0, 64 << 10

#: Seconds in which a client must take what it was sent when the service ends.
LAST_SECONDS = 2.0

#: So many requests that are sent ahead in a row are worked on at once; then each waits for some
#: seconds after the answer before it, so that floods of them leave time for other clients.
FREE_AHEAD, AHEAD_SECONDS = 16, 0.05

#: Bytes that are parsed at once: few where they may hold many small requests.
SLICE, BODY_SLICE = 1 << 10, 16 << 10

#: Seconds of one turn of the event loop that a connection may parse for.
TURN_SECONDS = 0.002

#: A chunked body may have so many chunks of any size; with more, they hold so many bytes each on
#: average. One byte in each chunk would cost a hundred times the work of a plain body.
MAX_CHUNKS, CHUNK_BYTES = 4096, 64


#: What a client is told whose request cannot be read.
INVALID = "the request is not valid HTTP/1.1."


class Stage(IntEnum):
    """What a connection waits for. One of a lower stage makes room for a new one first."""

    IDLE = 0  # for the next request
    HEADER = 1  # for a TLS handshake or the headers of a request
    ANSWER = 2  # for its client to take an answer
    BODY = 3  # for the body of a request
    WORK = 4  # for the service


class Transport:
    """The transport of a connection, with another way to close it."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self.close = close
        self.closed = False

    def is_closing(self) -> bool:
        return self.closed or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send bytes; nothing once no answer follows, or the connection was cut."""
        if not self.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Flow(FlowControl):
    """Pauses reading while the application wants that, or while what was read is not parsed yet."""

    held = unwanted = False

    def pause_reading(self) -> None:
        self.unwanted = True
        self._apply()

    def resume_reading(self) -> None:
        self.unwanted = False
        self._apply()

    def hold(self, held: bool) -> None:
        self.held = held
        self._apply()

    def _apply(self) -> None:
        if self.held or self.unwanted:
            super().pause_reading()
        else:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """A connection that slow or greedy clients cannot keep.

    uvicorn limits neither the time nor the size of a request's headers, nor a body that still
    arrives after the answer, nor the time in which an answer is taken. It parses all that has
    arrived at once, which may be thousands of requests. It also closes a connection while a body
    arrives, which makes the system reset it: a client that sends all before it reads then loses the
    answer. And it takes the body of a request that offers another protocol for that protocol.

    Attributes:
        moved: when something last happened on it, as the event loop's time.
        gone: is called once it is closed.
    """

    body_seconds = 30.0  # set by `run_server`
    pace = Pace()  # of all connections
    gone: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._socket = transport
        self._wrapped = Transport(transport, self._close)
        super().connection_made(cast("asyncio.Transport", self._wrapped))
        self.flow = self._flow = Flow(cast("asyncio.Transport", self._wrapped))
        self._rest = memoryview(b"")  # what was received and is not parsed
        self._header_bytes = self._dropped_bytes = self._body_bytes = self._chunks = 0
        self._in_header, self._in_body, self._is_broken = True, False, False
        self._paced = False  # the next request waits
        self._ahead = 0  # requests without a pause that were sent before the answer to another
        self._deadline: asyncio.TimerHandle | None = None
        self._answer_deadline: asyncio.TimerHandle | None = None
        self.moved = self.loop.time()
        self._expect_within(HEADER_SECONDS)
        transport.set_write_buffer_limits(high=1, low=0)  # `pause_writing` tells of any unread byte

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_within(None)
        self._expect_taken_within(None)
        self._in_body, self._rest = False, memoryview(b"")
        super().connection_lost(exc)
        if self.gone is not None:
            self.gone()

    @property
    def stage(self) -> Stage:
        """What it waits for."""
        if self.flow.write_paused or self._socket.is_closing():
            return Stage.ANSWER
        if self.cycle is not None and not self.cycle.response_complete:
            return Stage.BODY if self._in_body else Stage.WORK
        if self._wrapped.closed:
            return Stage.ANSWER
        return Stage.HEADER if self._in_header else Stage.IDLE

    def abort(self) -> None:
        """Close it at once; what its client has not taken is lost."""
        self._socket.abort()

    def shutdown(self) -> None:
        """Close it after the request that is worked on."""
        super().shutdown()
        if self.flow.write_paused or self._socket.is_closing():
            self._expect_taken_within(LAST_SECONDS)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self.moved = self.loop.time()
        if self._wrapped.closed:
            self._dropped_bytes += len(data)
        if self._is_broken:
            if self._dropped_bytes > MAX_DROPPED:
                self.abort()
        elif self._rest:
            self._rest = memoryview(b"".join((self._rest, data)))
        else:
            self._rest = memoryview(data)
            self._parse_some()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.moved = self.loop.time()
        self._expect_taken_within(
            ANSWER_SECONDS + self._socket.get_write_buffer_size() / ANSWER_RATE
        )

    def resume_writing(self) -> None:
        super().resume_writing()
        self.moved = self.loop.time()
        if not self._socket.is_closing():
            self._expect_taken_within(None)

    def send_400_response(self, msg: str) -> None:
        if not self._wrapped.closed:
            answer = ProblemError(400, msg, {"Connection": "close"}).response()
            lines = [b"HTTP/1.1 400 Bad Request", *map(b": ".join, answer.raw_headers), b"", b""]
            self._socket.write(b"\r\n".join(lines) + bytes(answer.body))
        # What still arrives is dropped for a moment: closed at once, the system would reset the
        # connection, and the client would lose the answer.
        self._is_broken = True
        self._drop_rest(LINGER_SECONDS)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_header, self._header_bytes = True, 0
        self._body_bytes = self._chunks = 0
        self._expect_within(HEADER_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MAX_FIELDS:
            raise httptools.HttpParserError("too many header fields")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            raise httptools.HttpParserError("this is no proxy")
        if self.parser.should_upgrade():
            return  # `_parse` reads the header again
        self._in_header, self._in_body = False, True
        # A little more than the application's own limit, which answers 408.
        self._expect_within(self.body_seconds + 2)
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks > MAX_CHUNKS and self._body_bytes < CHUNK_BYTES * self._chunks:
            raise httptools.HttpParserError("too many tiny chunks")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if not self._wrapped.closed:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_body = False
        self._expect_within(None)
        super().on_message_complete()
        if self._wrapped.closed:
            self._close_socket()

    def on_response_complete(self) -> None:
        self.moved = self.loop.time()
        self._ahead = self._ahead + 1 if self.pipeline else 0
        wait = self._wait()
        if self.pipeline and wait:
            self.server_state.total_requests += 1
            self.loop.call_later(wait, self._start_next)
            return
        super().on_response_complete()
        if wait:
            self._paced = True
            self.loop.call_later(wait, self._go_on)
        elif self._rest:
            self.loop.call_soon(self._parse_some)

    def _wait(self) -> float:
        """Seconds for which the next request on this connection waits."""
        if self._wrapped.is_closing():
            return 0.0
        wait = 0.0 if self._ahead <= FREE_AHEAD else AHEAD_SECONDS
        if self.cycle is None or self.cycle.scope["method"] == "POST" or self.client is None:
            return wait
        return max(wait, self.pace.wait(client_of(self.client[0]), self.moved))

    def _go_on(self) -> None:
        """Take the next request, after a wait."""
        self._paced = False
        if not self._wrapped.is_closing():
            self._parse_some()

    def _start_next(self) -> None:
        """Work on the request that was sent ahead."""
        if self.pipeline and not self._wrapped.is_closing():
            self._start_asgi_task(*self.pipeline.pop())
            self.loop.call_soon(self._parse_some)

    def _parse_some(self) -> None:
        """Parse what was received, for one turn of the loop, and not while a request waits.

        So a connection holds two requests at most: the one that is worked on and the next.
        """
        end = time.perf_counter() + TURN_SECONDS
        while self._rest and not self._is_full and time.perf_counter() < end:
            size = BODY_SLICE if self._in_body else SLICE
            piece, self._rest = self._rest[:size], self._rest[size:]
            self._unset_keepalive_if_required()
            if not self._parse_checked(piece):
                self._rest = memoryview(b"")
        if self._socket.is_closing() or self._is_broken:
            self._flow.hold(False)
            return
        self._flow.hold(bool(self._rest))
        if self._rest and not self._is_full:
            self.loop.call_soon(self._parse_some)
        elif (
            self.stage is Stage.IDLE
            and self._deadline is None
            and self.timeout_keep_alive_task is None
        ):
            self._expect_within(HEADER_SECONDS)  # empty lines do not keep a connection

    @property
    def _is_full(self) -> bool:
        return (bool(self.pipeline) or self._paced) and not self._wrapped.closed

    def _parse_checked(self, piece: memoryview) -> bool:
        """Parse a piece; whether the connection goes on."""
        if self.parser is None or self._socket.is_closing():
            return False
        if self._in_header:
            self._header_bytes += len(piece)
        try:
            self._parse(piece)
        except httptools.HttpParserError:
            self._end_with_error()
            return False
        if (self._in_header and self._header_bytes > MAX_HEADER) or (
            self._dropped_bytes > MAX_DROPPED
        ):
            self.abort()
        return not self._socket.is_closing()

    def _end_with_error(self) -> None:
        """Answer what is no HTTP with 400, unless a whole request came before it.

        That one is worked on and may change something: its client gets its answer, as the last.
        """
        cycle = self.pipeline[0][0] if self.pipeline else self.cycle
        if cycle is None or cycle.response_complete or self._wrapped.closed:
            self.send_400_response(INVALID)
        elif self._in_body:
            self.send_400_response(INVALID)
            cycle.disconnected = True
            cycle.message_event.set()
        else:
            cycle.keep_alive = False
            self._is_broken = True
            self._expect_within(None)

    def _parse(self, data: bytes | memoryview) -> None:
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
                data = b"\r\n".join(lines) + bytes(data[offer.args[0] :])

    def _close(self) -> None:
        """Close the connection; first read and drop what is still to come of a body."""
        if self._wrapped.is_closing() or not (self._in_body or self._is_broken):
            self._close_socket()
        else:
            self._drop_rest(self.body_seconds + 2 if self._in_body else LINGER_SECONDS)

    def _drop_rest(self, seconds: float) -> None:
        """Read and drop for some seconds, and answer nothing more."""
        self._wrapped.closed = True
        with contextlib.suppress(OSError, RuntimeError):  # the client may have gone
            if self._socket.can_write_eof():
                self._socket.write_eof()
        self.flow.resume_reading()
        self._expect_within(seconds)

    def _close_socket(self) -> None:
        """Close it once its client has taken the answer, or takes too long for that."""
        if not self._socket.is_closing():
            size = self._socket.get_write_buffer_size()
            self._socket.close()
            self._expect_taken_within(ANSWER_SECONDS + size / ANSWER_RATE)

    def _expect_within(self, seconds: float | None) -> None:
        """Abort unless the client sends what it must in some seconds; None waits for nothing."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = (
            None if seconds is None else self.loop.call_later(seconds, self._end, seconds)
        )

    def _end(self, seconds: float) -> None:
        self._deadline = None
        if self._rest and not self._socket.is_closing():  # it is the service that takes its time
            self._expect_within(seconds)
        else:
            self.abort()

    def _expect_taken_within(self, seconds: float | None) -> None:
        """Abort unless the client takes what it is sent within some seconds."""
        if self._answer_deadline is not None:
            self._answer_deadline.cancel()
        self._answer_deadline = (
            None if seconds is None else self.loop.call_later(seconds, self.abort)
        )
