"""Models by name, each swapped for a newer file without a request lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fsad_edge.calibration.p_value import PValue
from fsad_edge.errors import FsadEdgeError, InputError, ModelFileError
from fsad_edge.learning.learner import Entry, Learner
from fsad_edge.monitoring.photograph import PhotographCheck
from fsad_edge.monitoring.score_drift import ScoreDrift
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.model import Model
from fsad_edge.serve.metrics import Metrics

log = logging.getLogger("fsad_edge.serve")

#: Seconds between two looks at the model files.
POLL_SECONDS = 1.0

#: Seconds after which a file that was refused is tried again.
RETRY_SECONDS = 15.0

#: What tells a changed file from an unchanged one before it is read.
Stamp = tuple[int, int, int]


def now() -> str:
    """UTC time, ISO 8601 with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class ServedModel:
    """A model file that passed its golden images, in service until another one takes its place.

    Attributes:
        name: by which requests call it.
        version: SHA-256 of the file.
        model: ready to score.
        normals: what was learned beside the file, in force.
        p_value: of a score, where the threshold has a distribution behind it.
        learned: how many normals are in force.
        check: tells what is wrong with an image as a photograph.
        loaded: UTC time, ISO 8601.
    """

    def __init__(self, name: str, version: str, model: Model, learner: Learner) -> None:
        self.name = name
        self.version = version
        self.model = model
        self.learner = learner
        self.loaded = now()
        self.check = PhotographCheck(model.metadata.appearance)
        behind = model.metadata.threshold
        # A single shot's scores are of its own views, and say nothing of other parts.
        shots = behind.scores if model.metadata.shots.count > 1 else []
        self._drift = ScoreDrift(shots, prior_std=behind.prior_std)
        self._drift_lock = threading.Lock()
        self._read_normals()

    def learn(self, image: bytes, who: str, force: bool) -> Entry:
        """Take an image for normal. Raises as :meth:`Learner.add` does."""
        entry = self.learner.add(image, who, force)
        self._read_normals()
        self.reset_drift()
        return entry

    def unlearn(self, number: int, who: str) -> Entry:
        """Undo that. Raises as :meth:`Learner.undo` does."""
        entry = self.learner.undo(number, who)
        self._read_normals()
        self.reset_drift()
        return entry

    def see(self, score: float) -> None:
        """Take a score into account for the drift."""
        with self._drift_lock:
            self._drift.update(score)

    def drift(self) -> dict[str, Any]:
        """Whether the scores are still distributed as they were, as the API says it."""
        with self._drift_lock:
            return {
                "images": self._drift.images,
                "drifted": self._drift.drifted,
                "evidence": self._drift.evidence,
                "unlike_shots": self._drift.unlike_shots(),
                "ratio_to_shots": self._drift.ratio_to_shots,
            }

    def reset_drift(self) -> None:
        """Take what comes next for what is normal."""
        with self._drift_lock:
            self._drift.reset()

    def _read_normals(self) -> None:
        self.p_value = PValue.behind(self.learner.threshold)
        self.learned = len(self.learner.active)


class Slot:
    """A name, the file behind it, and what serves under it.

    Args:
        name: see there.
        path: of the file.
        provider: as ``Model.load`` takes it.
        threads: likewise.
        strict: likewise.
        loaded: gives the models that are in service, whose session this one may share.

    Attributes:
        current: what serves; replaced as a whole, so that whoever holds one keeps a whole one.
        error: why the newest file was not taken; None where it was.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        provider: str,
        threads: int,
        strict: bool,
        loaded: Callable[[], list[Model]],
    ) -> None:
        self.name = name
        self.path = path
        self._provider = provider
        self._threads = threads
        self._strict = strict
        self._loaded = loaded
        self._stamp, version = _stamp(path), _version(path)
        model = self._load(version)
        self.current = ServedModel(name, version, model, Learner.open(path, model))
        self.error: str | None = None
        self._tried = time.monotonic()

    def refresh(self) -> bool:
        """Take a changed file into service, if it is a good one; whether there is news.

        Never raises: what is wrong with the file is in ``error``, and what served serves on.
        """
        before, error = self.current, self.error
        try:
            stamp = _stamp(self.path)
            # What was refused may be taken later: its reason can lie beside the file.
            again = error is not None and time.monotonic() > self._tried + RETRY_SECONDS
            if stamp == self._stamp and not again:
                return False
            self._stamp, self._tried = stamp, time.monotonic()
            version = _version(self.path)
            if version != self.current.version:
                self._swap(version)
            self.error = None
        except FsadEdgeError as refusal:
            self.error = str(refusal)
        except Exception as refusal:  # an engine can fail in ways of its own
            self.error = f"{self.path} cannot be loaded ({type(refusal).__name__}: {refusal})."
        return self.current is not before or self.error != error

    def _load(self, version: str) -> Model:
        model = Model.load(
            self.path,
            self._provider,
            self._threads,
            strict=self._strict,
            share_with=self._loaded(),
        )
        if _version(self.path) != version:
            raise ModelFileError(f"{self.path} changed while it was read.")
        return model

    def _swap(self, version: str) -> None:
        model = self._load(version)
        # Looked at first without the lock, which the old one holds: normals learned with the old
        # file are not lost by a new one, which is refused then.
        Learner.open(self.path, model, write=False).close()
        self.current.learner.close()
        learner = Learner.open(self.path, model)
        self.current = ServedModel(self.name, version, model, learner)


class Models:
    """All models of a service.

    Args:
        files: by name.
        provider: as ``Model.load`` takes it.
        threads: as ``Model.load`` takes it.
        metrics: of the service.
        strict: as ``Model.load`` takes it.

    Raises:
        FsadEdgeError: one of them cannot be loaded, or misses its golden scores.
    """

    def __init__(
        self,
        files: dict[str, Path],
        provider: str,
        threads: int,
        metrics: Metrics,
        strict: bool = False,
    ) -> None:
        self.slots: dict[str, Slot] = {}
        # Engines first, so that ONNX files of their graph, in whatever order, run in them.
        for name in sorted(files, key=lambda name: files[name].suffix != ".engine"):
            self.slots[name] = Slot(
                name, files[name], provider, threads, strict, lambda: self.loaded
            )
        self.slots = {name: self.slots[name] for name in files}
        self._metrics = metrics
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="models", daemon=True)
        for slot in self.slots.values():
            self.show(slot.current)
        metrics.before_scrape(self._show_drift)

    def __getitem__(self, name: str) -> ServedModel:
        """What serves under a name now. Raises KeyError."""
        return self.slots[name].current

    @property
    def loaded(self) -> list[Model]:
        """What is in service; those of one graph share a session."""
        return [slot.current.model for slot in self.slots.values()]

    @property
    def only(self) -> ServedModel | None:
        """The one there is; None where there are several."""
        return next(iter(self.slots.values())).current if len(self.slots) == 1 else None

    def start(self) -> None:
        """Begin to look for changed files."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for slot in self.slots.values():
            slot.current.learner.close()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            for slot in self.slots.values():
                before = slot.current
                if slot.refresh():
                    self._report(slot, before)

    def _report(self, slot: Slot, before: ServedModel) -> None:
        if slot.error is not None:
            log.error("model %s: %s Version %s serves on.", slot.name, slot.error, before.version)
            self._metrics.reloads.labels(slot.name, "refused").inc()
        elif slot.current is not before:
            log.info("model %s: version %s serves now.", slot.name, slot.current.version)
            self._metrics.reloads.labels(slot.name, "taken").inc()
            self._metrics.model_info.remove(slot.name, before.version, before.model.graph)
            self.show(slot.current)

    def _show_drift(self) -> None:
        for name, slot in self.slots.items():
            drift = slot.current.drift()
            self._metrics.drift_evidence.labels(name).set(drift["evidence"])
            self._metrics.drifting.labels(name).set(drift["drifted"] is not None)
            self._metrics.unlike_shots.labels(name).set(drift["unlike_shots"])

    def show(self, served: ServedModel) -> None:
        """Bring the metrics up to what is in force."""
        self._metrics.learned.labels(served.name).set(served.learned)
        self._metrics.model_info.labels(served.name, served.version, served.model.graph).set(1)
        self._metrics.threshold.labels(served.name).set(served.model.threshold)


def describe(slot: Slot) -> dict[str, Any]:
    """What the API says of a model."""
    served, metadata = slot.current, slot.current.model.metadata
    return {
        "name": served.name,
        "version": served.version,
        "loaded": served.loaded,
        "title": metadata.name,
        "created": metadata.created,
        "width": metadata.width,
        "height": metadata.height,
        "provider": served.model.provider,
        "precision": metadata.precision,
        "graph": served.model.graph,
        "shots": metadata.shots.count,
        "bank_rows": metadata.bank_rows,
        "threshold": served.model.threshold,
        "file_threshold": metadata.threshold.value,
        "false_alarm_rate": metadata.threshold.false_alarm_rate,
        "reliability": metadata.threshold.reliability,
        "golden": len(metadata.golden),
        "error": slot.error,
        "learned": served.learned,
        "drift": served.drift(),
    }


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _version(path: Path) -> str:
    try:
        return sha256(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): give a file that  fsad-edge "
            "export  wrote."
        ) from error
