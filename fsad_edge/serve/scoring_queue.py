"""From encoded images to scores: a bounded queue, and threads that decode and run the engine.

    reserve ──> decode (pool) ──> waiting ──> engine (one thread at a time, batches) ──> future

A caller reserves a place for each image and frees it when it has its answer, so that one number
limits the images of all stages together. The thread that has decoded an image also runs the engine
for all images that wait, unless another thread does: handing each image to a thread of the engine
would take longer. A thread lets go of the engine before it makes the results of its run, and calls
another one where images wait already. So the engine goes on meanwhile, and so does decoding.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.model import Result
from fsad_edge.serve.fair_shares import OWN, FairQueue, FairShares
from fsad_edge.serve.image_preparation import PreparedImage, check_size, prepare_image
from fsad_edge.serve.metrics import Metrics
from fsad_edge.serve.preparing_processes import PreparingProcesses
from fsad_edge.serve.served_model import ServedModel

#: Seconds after which a run of the engine counts as one that will not end.
STALLED_SECONDS = 60.0


class QueueFullError(Exception):
    """The queue has no free place; nothing was done."""


@dataclass(frozen=True)
class ScoredImage:
    """An image's result and how it came about.

    Attributes:
        served: the model that scored it.
        result: the model's result.
        width: width of the image as it is seen, pixels.
        height: height of the image as it is seen, pixels.
        timings: milliseconds by stage: ``decode``, ``resize`` (with the check of the photograph),
            ``queue``, ``infer``, ``total``.
        flags: what is wrong with the photograph itself.
    """

    served: ServedModel
    result: Result
    width: int
    height: int
    timings: dict[str, float]
    flags: list[str]


@dataclass
class ScoringJob:
    """An image on its way through the stages.

    Attributes:
        source: the image; None once it is decoded.
        client: whose it is.
        start: when it was submitted; like all times here, of ``time.perf_counter``.
        image: the image, ready for the engine.
        ready: when it was prepared.
    """

    served: ServedModel
    source: bytes | UInt8Array | None
    client: str = OWN
    future: Future[ScoredImage] = field(default_factory=Future)
    start: float = field(default_factory=time.perf_counter)
    image: PreparedImage | None = None
    ready: float = 0.0

    def forget(self, future: Future[ScoredImage]) -> None:
        """Drop the image, which a job that was cancelled would keep until a thread takes it."""
        self.source = None


@dataclass(frozen=True)
class Run:
    """What a run of the engine gave: the time of its begin and of its end, and the results."""

    jobs: list[ScoringJob]
    images: list[PreparedImage]
    results: list[Result]
    begin: float
    end: float


class ScoringQueue:
    """The bounded queue of images and the threads that score them.

    Args:
        limit: most images of one client in the service, whatever their stage; those of several
            clients together are at most twice as many, as of :class:`FairShares`.
        max_batch: most images in one run of the engine. Images that wait are scored together, and
            a run never waits for more.
        decoders: most images of one client that are decoded at once. There is one thread more, so
            that another client's image does not wait until large ones are decoded.
        processes: most processes that prepare images, each for one of the threads. A thread that
            finds none free does it itself. 0 leaves all to the threads.
        overlap: run the engine while the results of the run before are made. It needs an engine
            that leaves the cores alone: on the CPU both would only take them from one another.
        max_pixels: most pixels of an image.
        metrics: the metrics of the service.

    Attributes:
        length: images in the service now.
        pool: the threads; routes decode and draw in them too.
    """

    def __init__(
        self,
        limit: int,
        max_batch: int,
        decoders: int,
        processes: int,
        overlap: bool,
        max_pixels: int,
        metrics: Metrics,
    ) -> None:
        self.limit = limit
        self._max_batch = max_batch
        self._max_pixels = max_pixels
        self._metrics = metrics
        metrics.queue_limit.set(limit)
        metrics.watch_queue_length(lambda: self.length)
        self._stage = {
            name: metrics.stages.labels(name) for name in ("decode", "resize", "queue", "infer")
        }
        self._shares = FairShares(limit)
        self._submitted = FairQueue[ScoringJob]()
        self._decoders = decoders
        self._decoding = Counter[str]()
        self._changed = threading.Condition()
        self.pool = ThreadPoolExecutor(decoders + 1, "score")  # one of them runs the engine
        self._processes = PreparingProcesses(processes)
        # One of two threads can run the engine while the other makes results.
        self._relay = ThreadPoolExecutor(2, "engine") if overlap else None
        self._waiting = FairQueue[ScoringJob]()
        self._engine = threading.Lock()
        self._run_began: float | None = None

    @contextlib.contextmanager
    def reserve(self, count: int = 1, wait: bool = False, client: str = OWN) -> Iterator[None]:
        """Hold places for images while the block lasts.

        Args:
            count: number of places.
            client: whose images they are.
            wait: wait until they are free, instead of raising.

        Raises:
            QueueFullError: the places are not free.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._shares.has(client, count))
            if not self._shares.take(client, count):
                raise QueueFullError
        try:
            yield
        finally:
            with self._changed:
                self._shares.give(client, count)
                self._changed.notify_all()

    @property
    def length(self) -> int:
        """The images in the service."""
        return self._shares.count

    def is_full(self, client: str) -> bool:
        """Whether no place is free for a client."""
        return not self._shares.has(client)

    @property
    def stalled(self) -> bool:
        """Whether the engine hangs, as drivers can; only a new process helps then."""
        began = self._run_began
        return began is not None and time.perf_counter() - began > STALLED_SECONDS

    def submit(
        self, served: ServedModel, source: bytes | UInt8Array, client: str = OWN
    ) -> Future[ScoredImage]:
        """Score an image for which a place is reserved. The clients take turns.

        Args:
            served: the model.
            source: encoded bytes, or uint8 ``[H, W, 3]`` RGB.
            client: whose image it is.

        Returns:
            a future, which raises ImageError where the image cannot be decoded. Cancelling it
            leaves out the stages that have not begun.
        """
        job = ScoringJob(served, source, client)
        job.future.add_done_callback(job.forget)
        self._submitted.put(client, job)
        self.pool.submit(self._decode_next)
        return job.future

    def check_size(self, data: bytes) -> tuple[int, int]:
        """Refuse an image of more pixels than the service takes, by its header.

        Returns:
            the stored width and height in pixels.

        Raises:
            ImageError: it has more pixels, or the bytes are no image.
        """
        return check_size(data, self._max_pixels)

    def start(self) -> None:
        """Start the processes that prepare images; until then, threads do it."""
        self._processes.start()

    def stop(self) -> None:
        """Finish the submitted images and end the threads."""
        self.pool.shutdown(wait=True)
        if self._relay is not None:
            self._relay.shutdown(wait=True)
        self._processes.stop()

    def _decode_next(self) -> None:
        # What a client has above its number of threads is decoded by the thread that ends next.
        while (job := self._submitted.take(self._begin)) is not None:
            client = job.client
            self._decode(job)
            del job  # so that a thread that scores others does not keep the image
            with self._changed:
                self._decoding -= Counter([client])  # which drops a client that has none left
            self._drain()

    def _begin(self, client: str) -> bool:
        """Let a client's image be decoded, if it may have another thread."""
        with self._changed:
            if self._decoding[client] >= self._decoders:
                return False
            self._decoding[client] += 1
            return True

    def _decode(self, job: ScoringJob) -> None:
        source, job.source = job.source, None
        if source is None:  # it was cancelled
            return
        served, limit = job.served, self._max_pixels
        try:
            if isinstance(source, bytes):
                job.image = self._processes.prepare(served.pickled_recipe, source, limit)
            job.image = job.image or prepare_image(served.recipe, source, limit)
            job.ready = time.perf_counter()
        except BaseException as error:
            _fail(job, error)
            return
        self._waiting.put(job.client, job)

    def _drain(self) -> None:
        """Score the images that wait, unless another thread does so already."""
        while self._waiting and self._engine.acquire(blocking=False):
            # The loop checks again after the release: an image that arrived in between found the
            # engine taken.
            try:
                run = self._run(self._take())
            finally:
                self._engine.release()
            if self._waiting and self._relay is not None:
                with contextlib.suppress(RuntimeError):  # the service stops: this thread goes on
                    self._relay.submit(self._drain)
            if run is not None:
                self._finish(run)

    def _take(self) -> list[ScoringJob]:
        """The first image that waits, and those behind it for the same model."""
        jobs: list[ScoringJob] = []
        while (
            len(jobs) < self._max_batch
            and (job := self._waiting.peek()) is not None
            and (not jobs or job.served is jobs[0].served)
        ):
            # Only the thread that runs the engine takes images, and new ones come behind.
            taken = self._waiting.take()
            assert taken is not None
            jobs.append(taken)
        return jobs

    def _run(self, jobs: list[ScoringJob]) -> Run | None:
        """Run the engine once; None where nothing came out, and whoever waits was told why."""
        jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        if not jobs:
            return None
        begin = time.perf_counter()
        self._run_began = begin
        try:
            images = [job.image for job in jobs if job.image is not None]
            prepared = [image.prepared for image in images]
            pixels = [one.pixels for one in prepared]
            results = jobs[0].served.model.score_prepared(
                pixels[0][None] if len(jobs) == 1 else np.stack(pixels),
                [image.seconds for image in images],
                sizes=[one.size for one in prepared],
                places=[one.located for one in prepared],
                full_sizes=[one.full_size for one in prepared],
                looks=[image.look for image in images],
            )
        except Exception as error:
            for job in jobs:
                job.future.set_exception(error)
            return None
        finally:
            self._run_began = None
        return Run(jobs, images, results, begin, time.perf_counter())

    def _finish(self, run: Run) -> None:
        """Count the results of a run, and give them to those who wait."""
        self._metrics.batches.observe(len(run.jobs))
        for job, image, result in zip(run.jobs, run.images, run.results, strict=True):
            served = job.served
            seconds = {
                "decode": image.seconds[0],
                "resize": image.seconds[1],
                "queue": (job.ready - job.start - sum(image.seconds)) + (run.begin - job.ready),
                "infer": run.end - run.begin,
            }
            for stage, value in seconds.items():
                self._stage[stage].observe(value)
            seconds["total"] = run.end - job.start
            timings = {stage: round(value * 1e3, 3) for stage, value in seconds.items()}
            if not result.doubts:
                served.observe(result.score, result.anomalous)
            job.future.set_result(ScoredImage(served, result, *result.size, timings, image.flags))


def _fail(job: ScoringJob, error: BaseException) -> None:
    if job.future.set_running_or_notify_cancel():
        job.future.set_exception(error)
