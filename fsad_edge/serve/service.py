"""The parts of a running service, and the record of each result."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from fsad_edge import _version
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.serve import schemas
from fsad_edge.serve.metrics import Metrics
from fsad_edge.serve.model_registry import ModelRegistry
from fsad_edge.serve.request_body import BodyReader
from fsad_edge.serve.result_store import ResultStore
from fsad_edge.serve.schemas import (
    CameraStatus,
    Decision,
    ResultRecord,
    Source,
    WatchedFolder,
    WatchStatus,
)
from fsad_edge.serve.scoring_queue import ScoredImage, ScoringQueue
from fsad_edge.serve.served_model import ServedModel
from fsad_edge.serve.sinks import Sink


class ImageSource(Protocol):
    """A source of images besides HTTP: a watched folder or a camera."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def status(self) -> CameraStatus | WatchedFolder: ...


@dataclass
class Service:
    """What the routes, the watched folders and the camera share.

    Attributes:
        models: the models.
        queue: scores images.
        results: the newest results.
        metrics: the metrics.
        bodies: reads the bodies of requests.
        sinks: receivers of each result.
        sources: sources of images besides HTTP.
        started: when the service was made, UTC.
        draining: the service is ending: it is not ready, and only finishes what it has begun.
    """

    models: ModelRegistry
    queue: ScoringQueue
    results: ResultStore
    metrics: Metrics
    bodies: BodyReader
    sinks: list[Sink] = field(default_factory=list)
    sources: list[ImageSource] = field(default_factory=list)
    started: str = field(default_factory=schemas.timestamp)
    draining: bool = False

    def score(self, served: ServedModel, source: bytes | UInt8Array) -> Future[ScoredImage]:
        """Score an image for which a place in the queue is reserved."""
        return self.queue.submit(served, source)

    def record(
        self,
        scored: ScoredImage,
        source: Source,
        name: str | None,
        image: bytes,
        earlier: dict[str, float] | None = None,
        kind: Callable[..., ResultRecord] = ResultRecord,
    ) -> ResultRecord:
        """Make the record of a result, keep and count it, and send it to the sinks.

        Args:
            scored: the image's result.
            source: how the image came.
            name: the image's name, as its sender gave it.
            image: the encoded image, for the page.
            earlier: milliseconds by stage for stages before the queue; the total counts them.
            kind: makes the record.
        """
        record = self.results.add(_make_record(scored, source, name, earlier, kind), image, scored)
        self.metrics.images.labels(record.model, source, record.decision).inc()
        self.metrics.ratios.labels(record.model).observe(record.ratio)
        self.metrics.stages.labels("total").observe(record.timings["total"] / 1e3)
        for flag in record.flags:
            self.metrics.flags.labels(record.model, flag).inc()
        for sink in self.sinks:
            sink.enqueue(record)
        return record

    def status(self) -> schemas.ServiceStatus:
        """The state of the service."""
        samples = [sample for metric in self.metrics.refused.collect() for sample in metric.samples]
        refused = sum(sample.value for sample in samples if sample.name.endswith("_total"))
        counts = self.results.counts
        sources = [source.status() for source in self.sources]
        watches = [status for status in sources if isinstance(status, WatchedFolder)]
        return schemas.ServiceStatus(
            version=_version.__version__,
            started=self.started,
            ready=not self.draining and not any(one.fault for one in watches),
            draining=self.draining,
            queue=schemas.QueueStatus(self.queue.length, self.queue.limit),
            counts=schemas.Counts(counts[Decision.GOOD], counts[Decision.ANOMALY], int(refused)),
            latency_ms=self.results.latency(),
            camera=next((one for one in sources if isinstance(one, CameraStatus)), None),
            watch=WatchStatus.of(watches) if watches else None,
        )

    def watch_fault(self) -> str | None:
        """Why a watched folder makes no progress; None where all do."""
        sources = (source.status() for source in self.sources)
        faults = (one.fault for one in sources if isinstance(one, WatchedFolder))
        return next(filter(None, faults), None)

    def start(self) -> None:
        """Start the threads besides the routes."""
        self.models.start()
        for sink in self.sinks:
            sink.start()
        for source in self.sources:
            source.start()

    def stop(self) -> None:
        """Stop the sources, then finish the images in the queue, then the sinks."""
        self.draining = True
        for source in self.sources:
            source.stop()
        self.models.stop()
        self.queue.stop()
        for sink in self.sinks:
            sink.stop()


def _make_record(
    scored: ScoredImage,
    source: Source,
    name: str | None,
    earlier: dict[str, float] | None,
    kind: Callable[..., ResultRecord],
) -> ResultRecord:
    result, served = scored.result, scored.served
    timings = dict(scored.timings)
    if earlier:
        timings.update(earlier)
        timings["total"] = round(timings["total"] + sum(earlier.values()), 3)
    return kind(
        id=0,  # this and the time are set when the record is kept
        time="",
        model=served.name,
        version=served.version,
        source=source,
        name=name,
        width=scored.width,
        height=scored.height,
        score=result.score,
        threshold=result.threshold,
        ratio=result.ratio,
        decision=Decision.ANOMALY if result.anomalous else Decision.GOOD,
        p_value=None if served.p_value is None else served.p_value(result.score),
        flags=scored.flags,
        timings=timings,
        learned=served.learned,
    )
