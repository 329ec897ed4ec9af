"""The parts of a running service, and the record of each result."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fsad_edge import _version
from fsad_edge.options import Decision
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.cores import usable_cores
from fsad_edge.runtime.found_regions import region_document
from fsad_edge.serve import schemas
from fsad_edge.serve.desk import Desk
from fsad_edge.serve.earlier_results import WatchedImage, read_earlier
from fsad_edge.serve.fair_shares import OWN
from fsad_edge.serve.metrics import Metrics
from fsad_edge.serve.model_registry import ModelRegistry
from fsad_edge.serve.request_body import BodyReader
from fsad_edge.serve.result_counts import ResultCounts
from fsad_edge.serve.result_store import ResultStore, StoredImage
from fsad_edge.serve.results_file import ResultsFile
from fsad_edge.serve.schemas import (
    CameraStatus,
    ResultRecord,
    Source,
    WatchedFolder,
    WatchedResult,
    WatchStatus,
)
from fsad_edge.serve.scoring_queue import ScoredImage, ScoringQueue
from fsad_edge.serve.served_model import ServedModel
from fsad_edge.serve.sinks import Sink

log = logging.getLogger("fsad_edge.serve")

#: More requests than places of the queue let in.
MOST_REQUESTS = 1 << 20


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
        teaching: teaches models, one at a time.
        states: reads what models were taught, which may wait for a change that is being made.
        health: finds out whether the service is ready, whatever the other threads do.
        lists: makes lists and other documents, and finds images on the disk.
        reading: takes bodies apart.
        drawing: draws the images of results.
        twins: finds the twins of results.
        answering: draws the images that go with answers, whose requests the queue bounds.
        sinks: receivers of each result.
        sources: sources of images besides HTTP.
        overlays: the folder of the heat maps of each watched folder, by its path.
        earlier: results that are on disk and that this run of the service has not written, by the
            folder of their file.
        scales: millimetres that a pixel of a photograph shows, by the name of the model.
        started: when the service was made, UTC.
        draining: the service is ending: it is not ready, and only finishes what it has begun.
    """

    models: ModelRegistry
    queue: ScoringQueue
    results: ResultStore
    metrics: Metrics
    bodies: BodyReader
    teaching: Desk = field(default_factory=lambda: Desk("teach", 1, 4))
    states: Desk = field(default_factory=lambda: Desk("states", 1, 4))
    health: Desk = field(default_factory=lambda: Desk("health", 1, 8))
    lists: Desk = field(default_factory=lambda: Desk("lists", 1, 8))
    reading: Desk = field(default_factory=lambda: Desk("read", 1, 8))
    drawing: Desk = field(default_factory=lambda: Desk("draw", 1, 32))
    twins: Desk = field(default_factory=lambda: Desk("twin", 1, 4))
    answering: Desk = field(
        default_factory=lambda: Desk("answer", max(1, usable_cores() // 2), MOST_REQUESTS)
    )
    sinks: list[Sink] = field(default_factory=list)
    sources: list[ImageSource] = field(default_factory=list)
    overlays: dict[str, Path] = field(default_factory=dict)
    earlier: dict[Path, ResultCounts] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    started: str = field(default_factory=schemas.timestamp)
    draining: bool = False

    def score(
        self, served: ServedModel, source: bytes | UInt8Array, client: str = OWN
    ) -> Future[ScoredImage]:
        """Score an image for which the client has reserved a place in the queue."""
        return self.queue.submit(served, source, client)

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

        Takes what :meth:`keep` takes.
        """
        record = self.keep(scored, source, name, image, earlier, kind)
        self.publish(record)
        return record

    def keep(
        self,
        scored: ScoredImage,
        source: Source,
        name: str | None,
        image: bytes,
        earlier: dict[str, float] | None = None,
        kind: Callable[..., ResultRecord] = ResultRecord,
    ) -> ResultRecord:
        """Make the record of a result, keep and count it.

        Args:
            scored: the image's result.
            source: how the image came.
            name: the image's name, as its sender gave it.
            image: the encoded image, for the page.
            earlier: milliseconds by stage for stages before the queue; the total counts them.
            kind: makes the record.
        """
        scale = self.mm_per_px(scored.served)
        made = _make_record(scored, source, name, earlier, scale, kind)
        record = self.results.add(made, image, scored)
        self.metrics.images.labels(record.model, source, record.decision).inc()
        if not record.doubts:
            self.metrics.ratios.labels(record.model).observe(record.ratio)
        for doubt in record.doubts:
            self.metrics.not_judged.labels(record.model, doubt).inc()
        self.metrics.stages.labels("total").observe(record.timings["total"] / 1e3)
        for flag in record.flags:
            self.metrics.flags.labels(record.model, flag).inc()
        return record

    def mm_per_px(self, served: ServedModel) -> float | None:
        """Millimetres that a pixel of a model's photographs shows; None where it is not known."""
        return self.scales.get(served.name)

    def publish(self, record: ResultRecord) -> None:
        """Send a record to the sinks."""
        for sink in self.sinks:
            sink.enqueue(record)

    def restore(self, file: ResultsFile) -> None:
        """Keep and count the results that others than this process have written to a file.

        What cannot be read is told in the log, and left out.
        """
        folder = file.path.parent
        try:
            self.earlier[folder] = file.count_others()
            self.results.restore(read_earlier(folder))
        except OSError as error:
            log.warning("earlier results in %s cannot be read: %s.", folder, error.strerror)

    def image(self, number: int) -> StoredImage | WatchedImage | None:
        """The image of a result, in memory or in its watched folder; None where it is in neither.

        A watched image may be gone, as reading it tells.
        """
        kept, record = self.results.image(number), self.results.get(number)
        if kept is not None or not isinstance(record, WatchedResult):
            return kept
        overlays, slot = self.overlays.get(record.folder), self.models.slots.get(record.model)
        if overlays is None or slot is None:
            return None
        return WatchedImage(record, overlays, slot.current.model.metadata.scale)

    def _counts(self, refused: int) -> schemas.Counts:
        counts = Counter({str(one): count for one, count in self.results.counts.items()})
        for earlier in self.earlier.values():
            counts.update(earlier.counts)
        times = [self.started, *(one.since for one in self.earlier.values() if one.since)]
        return schemas.Counts(
            good=counts[Decision.GOOD],
            anomaly=counts[Decision.ANOMALY],
            not_judged=counts[Decision.NOT_JUDGED],
            refused=refused,
            since=min(times),
        )

    def status(self) -> schemas.ServiceStatus:
        """The state of the service."""
        samples = [sample for metric in self.metrics.refused.collect() for sample in metric.samples]
        refused = sum(sample.value for sample in samples if sample.name.endswith("_total"))
        sources = [source.status() for source in self.sources]
        watches = [status for status in sources if isinstance(status, WatchedFolder)]
        return schemas.ServiceStatus(
            version=_version.__version__,
            started=self.started,
            ready=not self.draining and not any(one.fault for one in watches),
            draining=self.draining,
            queue=schemas.QueueStatus(self.queue.length, self.queue.limit),
            counts=self._counts(int(refused)),
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
        self.queue.start()
        self.models.start()
        for sink in self.sinks:
            sink.start()
        for source in self.sources:
            source.start()

    def stop(self) -> None:
        """Stop the sources, then finish the images in the queue, then the sinks.

        What may take longest comes last: a change of what a model was taught that is being made.
        """
        self.draining = True
        for source in self.sources:
            source.stop()
        self.queue.stop()
        for sink in self.sinks:
            sink.stop()
        for desk in (
            self.health, self.lists, self.reading, self.drawing, self.twins, self.answering,
            self.teaching, self.states,
        ):  # fmt: skip
            desk.stop()
        self.models.stop()


def _make_record(
    scored: ScoredImage,
    source: Source,
    name: str | None,
    earlier: dict[str, float] | None,
    scale: float | None,
    kind: Callable[..., ResultRecord],
) -> ResultRecord:
    result, served = scored.result, scored.served
    # A p-value tells how likely a good part is; another thing is neither likely nor unlikely.
    p_value = None if result.doubts else served.p_value
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
        decision=result.decision,
        good=result.good,
        doubts=list(result.doubts),
        reasons=[reason.text for reason in result.reasons],
        image_score=result.image_score,
        p_value=None if p_value is None else p_value(result.score),
        flags=scored.flags,
        timings=timings,
        learned=served.learned,
        zones=served.zones,
        zones_key=served.zones_key,
        place_score=result.place_score,
        place_ratio=result.place_ratio,
        out_of_place=result.out_of_place,
        mm_per_px=scale,
        regions=[
            schemas.RegionRecord(**region_document(region, scale)) for region in result.regions
        ],
        more_regions=result.more_regions,
    )
