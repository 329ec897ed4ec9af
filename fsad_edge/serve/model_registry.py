"""The models of a service by name. A newer file replaces its model without losing a request."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fsad_edge.errors import FsadEdgeError, InputError, ModelFileError
from fsad_edge.learning.learner import Learner
from fsad_edge.options import Provider
from fsad_edge.runtime.files import read_bytes, sha256
from fsad_edge.runtime.model import Model
from fsad_edge.serve.metrics import Metrics
from fsad_edge.serve.schemas import ModelInfo
from fsad_edge.serve.served_model import ServedModel

log = logging.getLogger("fsad_edge.serve")

#: Seconds between two checks for changed model files.
POLL_SECONDS = 1.0

#: Seconds after which a refused file is tried again.
RETRY_SECONDS = 15.0

#: Modification time, size and inode, by which a changed file is told before it is read.
FileStamp = tuple[int, int, int]


class ModelSlot:
    """A name, its model file and the model that is in service under it.

    Args:
        name: the name by which requests call the model.
        path: the model file.
        load: loads a model from a file.

    Attributes:
        current: the model in service. It is replaced as a whole, so that a request ends with the
            model that it began with.
        error: why the newest file was not taken; None where it was.
        learning_error: why what another process taught was not taken; None where it was.
    """

    def __init__(self, name: str, path: Path, load: Callable[[Path], Model]) -> None:
        self.name = name
        self.path = path
        self._load_file = load
        self._stamp, version = _stamp(path), _version(path)
        model = self._load(version)
        self.current = ServedModel(name, version, model, Learner.open(path, model))
        self.error: str | None = None
        self.learning_error: str | None = None
        self._tried = time.monotonic()

    def refresh(self) -> bool:
        """Load a changed file, if it passes its checks.

        This never raises: the fault of a file is in ``error``, and the model before it stays.

        Returns:
            whether the model or the error changed.
        """
        before, error = self.current, self.error
        try:
            stamp = _stamp(self.path)
            # A refused file may be taken later, since the reason can be another file.
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
        except Exception as refusal:  # engines raise errors of many types
            self.error = f"{self.path} cannot be loaded ({type(refusal).__name__}: {refusal})."
        return self.current is not before or self.error != error

    def info(self) -> ModelInfo:
        """What the API tells of the model."""
        served = self.current
        model, metadata = served.model, served.model.metadata
        return ModelInfo(
            name=served.name,
            version=served.version,
            loaded=served.loaded,
            title=metadata.name,
            created=metadata.created,
            width=metadata.width,
            height=metadata.height,
            provider=model.provider,
            precision=metadata.precision,
            graph=model.graph,
            shots=metadata.shots.count,
            bank_rows=metadata.bank_rows,
            threshold=model.threshold,
            file_threshold=metadata.threshold.value,
            false_alarm_rate=metadata.threshold.false_alarm_rate,
            reliability=metadata.threshold.reliability,
            golden=len(metadata.golden),
            error=self.error or self.learning_error,
            learned=served.learned,
            drift=served.drift(),
        )

    def _load(self, version: str) -> Model:
        model = self._load_file(self.path)
        if _version(self.path) != version:
            raise ModelFileError(f"{self.path} changed while it was read: replace it by a rename.")
        return model

    def _swap(self, version: str) -> None:
        model = self._load(version)
        # This refuses a new file while the folder holds images that the old one learned.
        learner = Learner.open(self.path, model)
        before, self.current = self.current, ServedModel(self.name, version, model, learner)
        before.learner.close()


class ModelRegistry:
    """All models of a service, and a thread that watches their files.

    Args:
        files: the model files by name.
        provider: as ``Model.load`` takes it.
        threads: as ``Model.load`` takes it.
        metrics: the metrics of the service.
        strict: as ``Model.load`` takes it.

    Attributes:
        slots: the models in service by name, in the order of ``files``.

    Raises:
        FsadEdgeError: a model cannot be loaded, or misses its golden scores.
    """

    def __init__(
        self,
        files: dict[str, Path],
        provider: Provider,
        threads: int,
        metrics: Metrics,
        strict: bool = False,
    ) -> None:
        self.slots: dict[str, ModelSlot] = {}

        def load(path: Path) -> Model:
            return Model.load(path, provider, threads, strict=strict, share_with=self.loaded)

        # Engines first, so that ONNX files of the same graph run in them.
        for name in sorted(files, key=lambda name: files[name].suffix != ".engine"):
            self.slots[name] = ModelSlot(name, files[name], load)
        self.slots = {name: self.slots[name] for name in files}
        self._metrics = metrics
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="models", daemon=True)
        for slot in self.slots.values():
            self.update_metrics(slot.current)
            self._report_notice(slot)
        metrics.before_scrape(self._update_drift_metrics)

    def __getitem__(self, name: str) -> ServedModel:
        """The model in service under a name. Raises KeyError."""
        return self.slots[name].current

    @property
    def loaded(self) -> list[Model]:
        """The models in service; those of one graph share a session."""
        return [slot.current.model for slot in self.slots.values()]

    @property
    def only(self) -> ServedModel | None:
        """The only model; None where there are several."""
        return next(iter(self.slots.values())).current if len(self.slots) == 1 else None

    def start(self) -> None:
        """Start to watch the model files."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching and learning."""
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
                self._refresh_learned(slot)

    def _report(self, slot: ModelSlot, before: ServedModel) -> None:
        if slot.error is not None:
            log.error(
                "model %s: %s Version %s stays in service.", slot.name, slot.error, before.version
            )
            self._metrics.reloads.labels(slot.name, "refused").inc()
        elif slot.current is not before:
            log.info("model %s: version %s is in service now.", slot.name, slot.current.version)
            self._metrics.reloads.labels(slot.name, "taken").inc()
            self._metrics.model_info.remove(slot.name, before.version, before.model.graph)
            self.update_metrics(slot.current)
            self._report_notice(slot)
            self._report_left_out(slot, before)

    def _report_notice(self, slot: ModelSlot) -> None:
        if notice := slot.current.learner.notice:
            log.warning("model %s: %s", slot.name, notice)

    def _report_left_out(self, slot: ModelSlot, before: ServedModel) -> None:
        """Tell of images that the file before had learned and that count no more."""
        now, learner = slot.current, before.learner
        known = {entry.sha256 for entry in now.learner.active}
        known.update(now.model.metadata.shots.sha256)
        if count := sum(entry.sha256 not in known for entry in learner.active):
            log.warning(
                "model %s: %d images that the file before had learned do not count with this one: "
                "teach them with  fsad-edge bank add %s %s/images .",
                slot.name, count, slot.path, learner.folder,
            )  # fmt: skip

    def _refresh_learned(self, slot: ModelSlot) -> None:
        """Apply what another process taught, and tell a fault once."""
        served, fault = slot.current, None
        try:
            if served.refresh_learned():
                log.info("model %s: %d learned images count now.", slot.name, served.learned)
                self.update_metrics(served)
        except FsadEdgeError as error:
            fault = str(error)
        if fault is not None and fault != slot.learning_error:
            log.error("model %s: %s What was learned before counts.", slot.name, fault)
        slot.learning_error = fault

    def _update_drift_metrics(self) -> None:
        for name, slot in self.slots.items():
            drift = slot.current.drift()
            self._metrics.drift_evidence.labels(name).set(drift.evidence)
            self._metrics.drifting.labels(name).set(drift.drifted is not None)
            self._metrics.unlike_shots.labels(name).set(drift.unlike_shots)

    def update_metrics(self, served: ServedModel) -> None:
        """Set the metrics of a model that was loaded, taught or untaught."""
        self._metrics.learned.labels(served.name).set(served.learned)
        self._metrics.model_info.labels(served.name, served.version, served.model.graph).set(1)
        self._metrics.threshold.labels(served.name).set(served.model.threshold)


def _stamp(path: Path) -> FileStamp:
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _version(path: Path) -> str:
    return sha256(read_bytes(path, cure="give a file that  fsad-edge export  wrote"))
