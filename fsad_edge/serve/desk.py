"""Threads for what takes time besides scoring: bounded in number, in what waits, and by client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from fsad_edge.serve.fair_shares import FairQueue, FairShares
from fsad_edge.serve.problems import ProblemError

Done = TypeVar("Done")


@dataclass(frozen=True)
class Job:
    """What a thread is to do.

    Attributes:
        work: makes the result.
        future: gets it.
        key: of what is made once for all that wait for it; None where it is for one alone.
    """

    work: Callable[[], Any]
    future: Future[Any]
    key: object


class Desk:
    """Does work in threads, while the event loop goes on. The clients take turns.

    Args:
        name: of the threads.
        threads: their number.
        limit: most jobs of a lone client that wait or are done, as of :class:`FairShares`.
    """

    def __init__(self, name: str, threads: int, limit: int) -> None:
        self._pool = ThreadPoolExecutor(threads, name)
        self._shares = FairShares(limit)
        self._queue = FairQueue[Job]()
        self._waiting: dict[object, Future[Any]] = {}

    def check(self, client: str) -> None:
        """Refuse a client that has too many jobs here (ProblemError, 429)."""
        if not self._shares.has(client):
            raise ProblemError(
                429,
                "too many requests of this kind are waiting already: try again, or send fewer.",
                {"Retry-After": "1"},
            )

    async def run(self, client: str, work: Callable[[], Done], key: object = None) -> Done:
        """Do work in a thread.

        Args:
            client: for whom.
            work: what is to be done; what it raises is raised.
            key: of work that is done once for all who ask while it waits; None does it for this
                one alone.

        Returns:
            what ``work`` returns. It has begun after this was called, so that it is never older
            than the question.

        Raises:
            ProblemError: the client has too many jobs here (429).
        """
        future = self._waiting.get(key) if key is not None else None
        if future is None:
            self.check(client)
            self._shares.take(client)
            future = Future[Any]()
            if key is not None:
                self._waiting[key] = future

            def end(done: asyncio.Future[Any]) -> None:
                self._shares.give(client)
                if not done.cancelled():
                    done.exception()  # whoever asked is told of it, unless they have gone

            asyncio.wrap_future(future).add_done_callback(end)
            self._queue.put(client, Job(work, future, key))
            self._pool.submit(self._next)
        # A client that goes leaves the work to the others who wait for it.
        found: Done = await asyncio.shield(asyncio.wrap_future(future))
        return found

    def stop(self) -> None:
        """Leave out what has not begun, and wait for what has."""
        while (job := self._queue.take()) is not None:
            job.future.cancel()
        self._pool.shutdown(wait=True)

    def _next(self) -> None:
        job = self._queue.take()
        if job is None:  # the service stops
            return
        self._waiting.pop(job.key, None)
        if not job.future.set_running_or_notify_cancel():
            return
        try:
            job.future.set_result(job.work())
        except BaseException as error:
            job.future.set_exception(error)
