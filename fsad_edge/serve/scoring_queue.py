"""From encoded images to scores: a bounded queue, and threads that decode and run the engine.

    room ──> decode (pool) ──> waiting ──> engine (one thread at a time, batches) ──> future

Whoever has an image asks for room first and gives it back when it has its answer, so that what is
in the service is bounded at every stage by one number. The thread that has decoded an image runs
the engine itself where nobody does, with all that waits: a thread of the engine's own would cost
each image a hand-over.
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from fsad_edge.errors import ImageError
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.images import FORMATS, load_image
from fsad_edge.runtime.model import Result
from fsad_edge.serve.metrics import Metrics
from fsad_edge.serve.models import ServedModel

#: Seconds after which a run of the engine is taken for one that will not end.
STALLED_SECONDS = 60.0

#: Scans of a progressive JPEG that are taken: cameras write about ten, and a small file can ask a
#: decoder for minutes with thousands.
MAX_SCANS = 100


class QueueFullError(Exception):
    """There is no room: nothing was taken in."""


@dataclass(frozen=True)
class Scored:
    """What one image got.

    Attributes:
        served: the model that scored it.
        result: of the runtime.
        width: of the image as it came, pixels.
        height: of the image as it came, pixels.
        timings: milliseconds by stage: ``decode``, ``resize`` (with the look at the photograph
            itself), ``queue``, ``infer``, ``total``.
        flags: what is wrong with it as a photograph.
    """

    served: ServedModel
    result: Result
    width: int
    height: int
    timings: dict[str, float]
    flags: list[str]


@dataclass
class Job:
    """An image on its way."""

    served: ServedModel
    source: bytes | UInt8Array | None  # gone once it is decoded
    future: Future[Scored] = field(default_factory=Future)
    start: float = field(default_factory=time.perf_counter)
    width: int = 0
    height: int = 0
    prepared: UInt8Array | None = None
    clock: tuple[float, float] = (0.0, 0.0)
    ready: float = 0.0
    flags: list[str] = field(default_factory=list)


class Scorer:
    """The threads and the queue.

    Args:
        limit: images in the service at most, wherever they are in it.
        max_batch: images in one run of the engine at most; those that wait are taken together,
            and none is waited for.
        decoders: threads that decode.
        max_pixels: of an image.
        metrics: of the service.
    """

    def __init__(
        self, limit: int, max_batch: int, decoders: int, max_pixels: int, metrics: Metrics
    ) -> None:
        self.limit = limit
        self._max_batch = max_batch
        self._max_pixels = max_pixels
        self._metrics = metrics
        metrics.queue_limit.set(limit)
        metrics.queue_length(lambda: self.length)
        self._stage = {
            name: metrics.stages.labels(name) for name in ("decode", "resize", "queue", "infer")
        }
        self.length = 0
        self._room = threading.Condition()
        self.pool = ThreadPoolExecutor(decoders + 1, "score")  # one of them runs the engine
        self._waiting: deque[Job] = deque()
        self._engine = threading.Lock()
        self._run_began: float | None = None

    @contextlib.contextmanager
    def room(self, count: int = 1, wait: bool = False) -> Iterator[None]:
        """Hold places for some images while the block lasts.

        Args:
            count: of images.
            wait: for room; else there must be room now.

        Raises:
            QueueFullError: there is none.
        """
        with self._room:
            if wait:
                self._room.wait_for(lambda: self.length + count <= self.limit)
            elif self.length + count > self.limit:
                raise QueueFullError
            self.length += count
        try:
            yield
        finally:
            with self._room:
                self.length -= count
                self._room.notify()

    @property
    def full(self) -> bool:
        """Whether there is no room for a single image."""
        return self.length >= self.limit

    @property
    def stalled(self) -> bool:
        """Whether the engine hangs: drivers do, and nothing but a new process helps."""
        began = self._run_began
        return began is not None and time.perf_counter() - began > STALLED_SECONDS

    def submit(self, served: ServedModel, source: bytes | UInt8Array) -> Future[Scored]:
        """Score an image there is room for.

        Args:
            served: the model.
            source: encoded bytes, or uint8 ``[H, W, 3]`` RGB.

        Returns:
            a future; cancel it, and what has not begun is not done. It raises ImageError where
            the image cannot be decoded.
        """
        job = Job(served, source)
        self.pool.submit(self._decode, job)
        return job.future

    def stop(self) -> None:
        """End the threads, once what was submitted is done."""
        self.pool.shutdown(wait=True)

    def _decode(self, job: Job) -> None:
        if job.future.cancelled():
            return
        try:
            begin = time.perf_counter()
            source, job.source = job.source, None
            assert source is not None
            if isinstance(source, bytes):
                job.width, job.height = check_header(source, self._max_pixels)
            else:
                job.height, job.width = source.shape[:2]
            image = job.served.model.decode(source)
            decoded = time.perf_counter()
            job.prepared = job.served.model.prepare(image)
            job.flags = job.served.check.check(job.prepared)
            job.ready = time.perf_counter()
            job.clock = (decoded - begin, job.ready - decoded)
        except BaseException as error:
            _fail(job, error)
            return
        self._waiting.append(job)
        del job  # a thread that goes on with others keeps no image
        self._drain()

    def _drain(self) -> None:
        """Score what waits, unless another thread is at it: then that one will."""
        while self._waiting and self._engine.acquire(blocking=False):
            # Looked at again after the release: who came in between could not have the engine.
            try:
                while self._waiting:
                    self._score(self._take())
            finally:
                self._engine.release()

    def _take(self) -> list[Job]:
        """The first that waits, and those behind it that the same model scores."""
        jobs = [self._waiting.popleft()]
        while (
            self._waiting
            and len(jobs) < self._max_batch
            and self._waiting[0].served is jobs[0].served
        ):
            jobs.append(self._waiting.popleft())
        return jobs

    def _score(self, jobs: list[Job]) -> None:
        jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        if not jobs:
            return
        served, begin = jobs[0].served, time.perf_counter()
        self._run_began = begin
        try:
            prepared = [job.prepared for job in jobs if job.prepared is not None]
            batch = prepared[0][None] if len(jobs) == 1 else np.stack(prepared)
            results = served.model.score_prepared(batch, [job.clock for job in jobs])
        except Exception as error:
            for job in jobs:
                job.future.set_exception(error)
            return
        finally:
            self._run_began = None
        end = time.perf_counter()
        self._metrics.batches.observe(len(jobs))
        for job, result in zip(jobs, results, strict=True):
            seconds = {
                "decode": job.clock[0],
                "resize": job.clock[1],
                "queue": (job.ready - job.start - sum(job.clock)) + (begin - job.ready),
                "infer": end - begin,
            }
            for stage, value in seconds.items():
                self._stage[stage].observe(value)
            seconds["total"] = end - job.start
            timings = {stage: round(value * 1e3, 3) for stage, value in seconds.items()}
            served.see(result.score)
            job.future.set_result(Scored(served, result, job.width, job.height, timings, job.flags))


def check_header(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Refuse an image that would take too much time or memory to decode, before it does.

    Returns:
        its width and height as stored, pixels.

    Raises:
        ImageError: no image, more pixels than ``max_pixels``, or a JPEG of too many scans.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
    except Exception:
        load_image(data)  # says what is wrong with it
        raise ImageError("the image cannot be decoded.") from None
    if width * height > max_pixels:
        raise ImageError(
            f"the image claims {width}x{height} pixels, more than the {max_pixels:,} taken here: "
            "make it smaller."
        )
    # Within a scan's data 0xFF is followed by 0x00 or a restart marker: what is counted is scans.
    if data[:2] == b"\xff\xd8" and data.count(b"\xff\xda") > MAX_SCANS:
        raise ImageError(f"the image has more than {MAX_SCANS} JPEG scans: save it anew.")
    return width, height


def _fail(job: Job, error: BaseException) -> None:
    if job.future.set_running_or_notify_cancel():
        job.future.set_exception(error)
