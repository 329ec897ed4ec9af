"""The metrics of the service for Prometheus."""

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
    """All metrics of one service, in their own registry."""

    def __init__(self) -> None:
        self._refresh: Callable[[], None] = lambda: None
        # Otherwise each counter has a second series with the time of its creation.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = self._counter("requests", "HTTP answers.", "route", "method", "status")
        self.images = self._counter("images", "Images scored.", "model", "source", "decision")
        self.not_judged = self._counter(
            "not_judged", "Images not judged; one counts for each of its doubts.", "model", "doubt"
        )
        self.flags = self._counter("flags", "Photographs with a fault.", "model", "flag")
        self.refused = self._counter("refused", "Images or requests not scored.", "reason")
        self.abandoned = self._counter("abandoned", "Requests whose client closed the connection.")
        self.connections = self._gauge("connections", "Open connections.")
        self.connections_closed = self._counter(
            "connections_closed", "Connections closed because a limit was reached.", "limit"
        )
        self.stages = self._histogram("stage_seconds", "Time by stage.", SECONDS, "stage")
        self.ratios = self._histogram(
            "score_ratio", "Score over threshold of judged images.", RATIOS, "model"
        )
        self.batches = self._histogram(
            "batch_images", "Images in one run of the engine.", (1, 2, 4, 8, 16, 32)
        )
        self.queue_limit = self._gauge("queue_limit", "Images that may wait or be scored.")
        self.model_info = self._gauge(
            "model_info",
            "1 for each model in service; models of one graph share a session.",
            *("model", "version", "graph"),
        )
        self.threshold = self._gauge("model_threshold", "The threshold that decides.", "model")
        self.learned = self._gauge(
            "model_learned", "Images learned on this device that count.", "model"
        )
        self.rejected = self._gauge(
            "model_rejected", "Images called bad on this device that count.", "model"
        )
        self.reloads = self._counter("model_reloads", "Changed model files.", "model", "outcome")
        self.models_not_served = self._gauge(
            "models_not_served", "Model files of folders with a fault."
        )
        self.drift_evidence = self._gauge(
            "drift_evidence", "Evidence of drift; 1 raises the alarm.", "model"
        )
        self.drifting = self._gauge("drift", "1 while the drift alarm is on.", "model")
        self.unlike_shots = self._gauge(
            "drift_unlike_shots", "1 where the first scores are above those of the shots.", "model"
        )
        self.many_rejected = self._gauge(
            "many_rejected",
            "1 where clearly more is rejected than the share of good parts that was asked for.",
            "model",
        )
        self._add_sources()
        self.sent = self._counter("sink_sent", "Results delivered.", "sink")
        self.dropped = self._counter("sink_dropped", "Results not delivered.", "sink", "reason")

    def _add_sources(self) -> None:
        """The metrics of the camera and of watched folders."""
        self.frame_age = self._gauge("camera_frame_age_seconds", "Age of the newest frame.")
        self.frames_dropped = self._counter("camera_frames_dropped", "Frames that were not scored.")
        self.frames_scored = self._counter("camera_frames_scored", "Frames that were scored.")
        self.frames_failed = self._counter(
            "camera_frames_failed", "Frames whose scoring ended with an error."
        )
        self.camera_connected = self._gauge(
            "camera_connected", "1 while the camera delivers frames."
        )
        self.watched = self._counter("watched_files", "Files of watched folders.", "outcome")
        self.watch_waiting = self._gauge(
            "watch_waiting", "Images that have no result yet.", "folder", "reason"
        )
        self.watch_oldest = self._gauge(
            "watch_oldest_seconds", "Time for which the oldest of them has waited.", "folder"
        )
        self.watch_skipped = self._gauge(
            "watch_skipped", "Entries that are not images.", "folder", "reason"
        )
        self.watch_fault = self._gauge(
            "watch_fault", "1 while a watched folder makes no progress.", "folder"
        )
        self.heat_maps_lost = self._gauge(
            "watch_heat_maps_lost", "Heat maps that could not be written.", "folder"
        )

    def watch_queue_length(self, length: Callable[[], float]) -> None:
        """Read the queue's length at each scrape."""
        self._gauge("queue_length", "Images waiting or being scored.").set_function(length)

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Call a function before each scrape."""
        self._refresh = refresh

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
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
