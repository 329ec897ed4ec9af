"""The parts of a running service, and what becomes of a score once it is there."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fsad_edge import _version
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.serve.metrics import Metrics
from fsad_edge.serve.models import Models, ServedModel, now
from fsad_edge.serve.results import Record, Results, make_record
from fsad_edge.serve.scoring_queue import Scored, Scorer

if TYPE_CHECKING:
    from fsad_edge.serve.camera import Camera
    from fsad_edge.serve.sinks import Sink
    from fsad_edge.serve.watch import Watch


@dataclass
class Service:
    """What the routes, the folder watch and the camera share.

    Attributes:
        draining: set once it shall end: no longer ready, what is in flight is finished.
    """

    models: Models
    scorer: Scorer
    results: Results
    metrics: Metrics
    sinks: list[Sink] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    camera: Camera | None = None
    started: str = field(default_factory=now)
    draining: bool = False

    def score(self, served: ServedModel, source: bytes | UInt8Array) -> Future[Scored]:
        """Score an image there is room for."""
        return self.scorer.submit(served, source)

    def file(
        self,
        scored: Scored,
        source: str,
        name: str | None,
        image: bytes | None,
        extra_timings: dict[str, float] | None = None,
        **members: Any,
    ) -> Record:
        """Count, keep and hand on one result.

        Args:
            scored: what the image got.
            source: ``http``, ``watch`` or ``camera``.
            name: of the image, as its sender called it.
            image: encoded, for whoever wants to look at it.
            extra_timings: stages before the scorer's, milliseconds; counted in the total.
            members: more members of the record.
        """
        record = make_record(scored, source, name)
        record.update(members)
        timings = record["timings"]
        if extra_timings:
            timings.update(extra_timings)
            timings["total"] = round(timings["total"] + sum(extra_timings.values()), 3)
        self.results.add(record, image, scored)
        model = record["model"]
        self.metrics.images.labels(model, source, record["decision"]).inc()
        self.metrics.ratios.labels(model).observe(record["ratio"])
        self.metrics.stages.labels("total").observe(timings["total"] / 1e3)
        for flag in record["flags"]:
            self.metrics.flags.labels(model, flag).inc()
        for sink in self.sinks:
            sink.put(record)
        return record

    def status(self) -> dict[str, Any]:
        """What ``/v1/status`` says."""
        refused = 0.0
        for metric in self.metrics.refused.collect():
            refused += sum(s.value for s in metric.samples if s.name.endswith("_total"))
        return {
            "version": _version.__version__,
            "started": self.started,
            "ready": not self.draining,
            "draining": self.draining,
            "queue": {"length": self.scorer.length, "limit": self.scorer.limit},
            "counts": {**self.results.counts, "refused": int(refused)},
            "latency_ms": self.results.latency(),
            "camera": None if self.camera is None else self.camera.status(),
            "watch": None
            if not self.watches
            else {
                key: sum(watch.status()[key] for watch in self.watches)
                for key in ("waiting", "scored", "errors")
            },
        }

    def start(self) -> None:
        """Start what runs beside the routes."""
        self.models.start()
        for sink in self.sinks:
            sink.start()
        for watch in self.watches:
            watch.start()
        if self.camera is not None:
            self.camera.start()

    def stop(self) -> None:
        """End it all: sources first, then what is in flight, then the sinks."""
        for watch in self.watches:
            watch.stop()
        if self.camera is not None:
            self.camera.stop()
        self.models.stop()
        self.scorer.stop()
        for sink in self.sinks:
            sink.stop()
