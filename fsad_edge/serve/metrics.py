"""What Prometheus may ask."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

PREFIX = "fsad_edge"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
RATIOS = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2, 3, 5, 10)


class Metrics:
    """All counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self._refresh: Callable[[], None] = lambda: None
        # Else there is a second series beside each, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = self._counter("requests", "HTTP answers.", "route", "method", "status")
        self.images = self._counter("images", "Images scored.", "model", "source", "decision")
        self.flags = self._counter("flags", "Doubts about images.", "model", "flag")
        self.refused = self._counter("refused", "Images or requests not scored.", "reason")
        self.abandoned = self._counter("abandoned", "Requests whose client hung up.")
        self.stages = self._histogram("stage_seconds", "Time by stage.", SECONDS, "stage")
        self.ratios = self._histogram("score_ratio", "Score over threshold.", RATIOS, "model")
        self.batches = self._histogram("batch_images", "Images a run.", (1, 2, 4, 8, 16, 32))
        self.queue_limit = self._gauge("queue_limit", "Images that may wait or be scored.")
        self.model_info = self._gauge(
            "model_info",
            "1 for what serves; models of one graph share a session.",
            *("model", "version", "graph"),
        )
        self.threshold = self._gauge("model_threshold", "In force.", "model")
        self.learned = self._gauge("model_learned", "Normals learned here.", "model")
        self.reloads = self._counter("model_reloads", "Changed files.", "model", "outcome")
        self.drift_evidence = self._gauge("drift_evidence", "1 raises the alarm.", "model")
        self.drifting = self._gauge("drift", "1 where the alarm is on.", "model")
        self.unlike_shots = self._gauge(
            "drift_unlike_shots", "1 where the first scores are above the shots'.", "model"
        )
        self.frame_age = self._gauge("camera_frame_age_seconds", "Of the newest frame.")
        self.frames_dropped = self._counter("camera_frames_dropped", "Never scored.")
        self.frames_scored = self._counter("camera_frames_scored", "Scored.")
        self.camera_connected = self._gauge("camera_connected", "1 while it gives frames.")
        self.watched = self._counter("watched_files", "Files of watched folders.", "outcome")
        self.sent = self._counter("sink_sent", "Results handed on.", "sink")
        self.dropped = self._counter("sink_dropped", "Results not handed on.", "sink", "reason")

    def queue_length(self, length: Callable[[], float]) -> None:
        """Have the queue's length asked for at each scrape."""
        self._gauge("queue_length", "Images waiting or being scored.").set_function(length)

    def answered(self, route: str, method: str, status: int) -> None:
        """Count one HTTP answer."""
        self.requests.labels(route, method, str(status)).inc()

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Have something brought up to date before each scrape."""
        self._refresh = refresh

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        self._refresh()
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, labels, buckets=buckets, registry=self.registry)
