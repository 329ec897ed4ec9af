"""Accept connections: so many in all and for one client, with those that only wait closed first."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from fsad_edge.serve.client import client_of, is_loopback
from fsad_edge.serve.connection import HEADER_SECONDS, Connection, Stage
from fsad_edge.serve.metrics import Metrics

log = logging.getLogger("fsad_edge.serve")

#: Places beyond the most for this machine's own addresses: what checks the service's health.
LOOPBACK_PLACES = 16

#: Seconds for which a connection must have waited before it makes room for a new one. One that is
#: idle makes room at once.
PATIENCE = 1.0

#: Seconds between two lines in the log about the same limit.
REMIND_SECONDS = 60.0


@dataclass(eq=False)
class Place:
    """The place of an accepted connection.

    Attributes:
        client: whose it is.
        sock: the socket.
        since: when it was accepted, as the event loop's time.
        connection: the connection; None until its TLS handshake is done.
        handshake: the task that makes the connection, until it has.
        is_owned: whether the event loop owns the socket already.
    """

    client: str
    sock: socket.socket
    since: float
    connection: Connection | None = None
    handshake: asyncio.Task[None] | None = None
    is_owned: bool = False

    def rank(self, now: float, patience: float = PATIENCE) -> tuple[int, float] | None:
        """Which of several places is given away first, the least; None where this one stays."""
        stage, moved = Stage.HEADER, self.since
        if self.connection is not None:
            stage, moved = self.connection.stage, self.connection.moved
        if stage is Stage.WORK or (stage is not Stage.IDLE and now - moved < patience):
            return None
        return stage, moved

    def close(self) -> None:
        """Close the connection at once."""
        if self.connection is not None:
            self.connection.abort()
            return
        if self.handshake is not None:
            self.handshake.cancel()
        with contextlib.suppress(OSError):  # wakes whatever waits for the handshake
            self.sock.shutdown(socket.SHUT_RDWR)
        if not self.is_owned:
            self.sock.close()


@dataclass
class Door:
    """Accepts the connections of a server.

    Where a client has as many connections as it may, its new one takes the place of one that only
    waits: for a request, for a handshake or headers, or for its client to take an answer. Where all
    places are taken, a client with few connections takes one of a client with more.

    Args:
        most: most connections in all; this machine's own addresses have some more.
        most_per_client: most connections of one client.
        metrics: counts them.
    """

    most: int
    most_per_client: int
    metrics: Metrics
    _places: dict[str, set[Place]] = field(default_factory=lambda: defaultdict(set))
    _count: int = 0
    _told: dict[str, float] = field(default_factory=dict)

    async def accept(
        self,
        listener: socket.socket,
        make: Callable[[], Connection],
        context: ssl.SSLContext | None,
    ) -> None:
        """Accept connections until this is cancelled.

        Args:
            listener: a listening socket.
            make: makes a connection.
            context: of TLS; None serves plain HTTP.
        """
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                sock, address = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    self._tell("descriptors", f"no connection can be accepted: {error.strerror}.")
                    self._make_room(self._all_places(), "descriptors")
                await asyncio.sleep(0.05)  # others are of a client that has gone
                continue
            place = Place(client_of(str(address[0])), sock, loop.time())
            if not self._admit(place):
                sock.close()
                continue
            place.handshake = loop.create_task(self._connect(place, make, context))

    def close(self) -> None:
        """Close the connections whose handshakes are not done."""
        for place in self._all_places():
            if place.connection is None:
                self._free(place)
                place.close()

    async def _connect(
        self, place: Place, make: Callable[[], Connection], context: ssl.SSLContext | None
    ) -> None:
        loop = asyncio.get_running_loop()

        def made() -> Connection:
            connection = make()
            connection.gone = lambda: self._free(place)
            return connection

        place.is_owned = True
        seconds = None if context is None else HEADER_SECONDS
        try:
            _, connection = await loop.connect_accepted_socket(
                made, place.sock, ssl=context, ssl_handshake_timeout=seconds
            )
        except (OSError, asyncio.TimeoutError, asyncio.CancelledError):
            place.handshake = None
            place.close()
            self._free(place)
            return
        place.handshake, place.connection = None, connection
        if place not in self._places.get(place.client, ()):  # it has gone, or had to make room
            connection.abort()

    def _admit(self, place: Place) -> bool:
        """Whether a new connection gets a place."""
        own = self._places.get(place.client, set())
        if len(own) >= self.most_per_client and not self._make_room(own, "client"):
            self._refuse(
                "client",
                f"{place.client} has {len(own)} connections, the most of one client: further "
                "ones are closed (--client-connections).",
            )
            return False
        most = self.most + (LOOPBACK_PLACES if is_loopback(place.client) else 0)
        # Who has no connection does not wait for those of clients that have many.
        patience = PATIENCE if own else 0.0
        if self._count >= most and not self._make_room(self._greedy(len(own)), "all", patience):
            self._refuse(
                "all",
                f"{self._count} connections are open, the most: further ones are closed "
                "(--connections).",
            )
            return False
        self._places[place.client].add(place)
        self._count += 1
        self.metrics.connections.set(self._count)
        return True

    def _greedy(self, count: int) -> set[Place]:
        """The places that a client with some connections may take: idle ones, and those of a
        client with clearly more.
        """
        return {
            place
            for places in self._places.values()
            for place in places
            if len(places) > count + 1
            or (place.connection is not None and place.connection.stage is Stage.IDLE)
        }

    def _all_places(self) -> set[Place]:
        return {place for places in self._places.values() for place in places}

    def _make_room(self, places: set[Place], limit: str, patience: float = PATIENCE) -> bool:
        """Close the one of some connections that is missed least; whether one was closed.

        Idle ones come first, then those of the client with the most connections, then those that
        have waited longest for the least.
        """
        now = asyncio.get_running_loop().time()
        ranks = {place: rank for place in places if (rank := place.rank(now, patience)) is not None}
        if not ranks:
            return False

        def order(place: Place) -> tuple[bool, int, tuple[int, float]]:
            rank = ranks[place]
            return rank[0] != Stage.IDLE, -len(self._places[place.client]), rank

        place = min(ranks, key=order)
        self.metrics.connections_closed.labels(limit).inc()
        self._free(place)
        place.close()
        return True

    def _free(self, place: Place) -> None:
        places = self._places.get(place.client, set())
        if place in places:
            places.remove(place)
            self._count -= 1
            self.metrics.connections.set(self._count)
            if not places:
                del self._places[place.client]

    def _refuse(self, limit: str, sentence: str) -> None:
        self.metrics.connections_closed.labels(limit).inc()
        self._tell(limit, sentence)

    def _tell(self, limit: str, sentence: str) -> None:
        """Write a line to the log, unless there was one about the same limit just now."""
        now = time.monotonic()
        if now - self._told.get(limit, -REMIND_SECONDS) >= REMIND_SECONDS:
            self._told[limit] = now
            log.warning("%s", sentence)
