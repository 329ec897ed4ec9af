"""The models of a service by name. A newer file replaces its model without losing a request."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from fsad_edge.errors import (
    ExamplesLostError,
    FsadEdgeError,
    InputError,
    MissingExtraError,
    ModelFileError,
)
from fsad_edge.learning.examples import name_changes
from fsad_edge.learning.learner import Learner
from fsad_edge.learning.regression import try_examples
from fsad_edge.options import Provider
from fsad_edge.runtime.backends.batch_sizes import USUAL_MOST
from fsad_edge.runtime.backends.tensorrt import NoGpuError, UnfitGpuError
from fsad_edge.runtime.files import read_bytes, sha256
from fsad_edge.runtime.model import Model
from fsad_edge.serve.metrics import Metrics
from fsad_edge.serve.model_files import (
    ModelFile,
    check_belongs,
    describe_fault,
    refuse_faults,
)
from fsad_edge.serve.schemas import ModelFault, ModelInfo, RejectionStatus
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
        learning_error: why what was taught does not count, or not all of it: it was taught to
            another file, cannot be read, or was taken away. None where all counts.
        many_rejected: clearly more was rejected than was asked for when this was last looked at.
    """

    def __init__(self, name: str, path: Path, load: Callable[[Path], Model]) -> None:
        self.name = name
        self.path = path
        self._load_file = load
        self._stamp, version = _stamp(path), _version(path)
        model = self._load(version)
        self.current = ServedModel(name, version, model, Learner.open(path, model))
        self.error: str | None = None
        self.learning_error = self.current.learner.damage
        self.many_rejected = False
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
        except Exception as refusal:  # engines raise errors of many types
            self.error = describe_fault(self.path, refusal)
        return self.current is not before or self.error != error

    def info(self) -> ModelInfo:
        """What the API tells of the model."""
        served = self.current
        model, metadata, threshold = served.model, served.model.metadata, served.learner.threshold
        rejections = served.rejections()
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
            bank_rotations=metadata.bank_rotations,
            bank_flip=metadata.bank_flip,
            located=metadata.locator is not None,
            turned_upright=metadata.locator is not None and metadata.locator.turned,
            threshold=model.threshold,
            file_threshold=metadata.threshold.value,
            false_alarm_rate=threshold.false_alarm_rate,
            rate_promised=threshold.rate_promised and not rejections.many,
            reliability=_many_words(rejections) if rejections.many else threshold.reliability,
            golden=len(metadata.golden),
            error=self.error or self.learning_error,
            learning_error=self.learning_error,
            learned=served.learned,
            rejected=served.rejected,
            zones=served.zones,
            zones_key=served.zones_key,
            drift=served.drift(),
            rejections=rejections,
        )

    def _load(self, version: str) -> Model:
        model = self._load_file(self.path)
        if _version(self.path) != version:
            raise ModelFileError(f"{self.path} changed while it was read: replace it by a rename.")
        return model

    def _swap(self, version: str) -> None:
        model = self._load(version)
        learner = Learner.open(self.path, model)
        # Where what the file before was taught stands beside the new one, a service that starts
        # takes the new one all the same; so does this one.
        _try_examples(self.path, self.current, model, refuse=learner.fault is None)
        self.learning_error = learner.damage
        before, self.current = self.current, ServedModel(self.name, version, model, learner)
        before.learner.close()


@dataclass(frozen=True)
class FaultyFile:
    """A model file of a folder that is not served.

    Attributes:
        file: the file.
        fault: why, as a sentence.
        stamp: how the file was when it was tried; None where it could not be reached.
        tried: when it was tried, in seconds of the monotonic clock.
        unfit: it is this machine that cannot run it; the file may be sound.
    """

    file: ModelFile
    fault: str
    stamp: FileStamp | None
    tried: float
    unfit: bool = False

    @classmethod
    def of(cls, file: ModelFile, stamp: FileStamp | None, error: Exception) -> FaultyFile:
        """A file that was tried just now, and the error of that."""
        unfit = isinstance(error, MissingExtraError | NoGpuError | UnfitGpuError)
        return cls(file, describe_fault(file.path, error), stamp, time.monotonic(), unfit)

    @property
    def changed(self) -> bool:
        """Whether the file is another one than the one that was tried."""
        return _stamp_or_none(self.file.path) != self.stamp

    @property
    def due(self) -> bool:
        """Whether it is worth another try, as of a refused file of a model in service."""
        if self.file.fault is not None:  # its name
            return False
        return self.changed or time.monotonic() > self.tried + RETRY_SECONDS


class ModelRegistry:
    """All models of a service, and a thread that watches their files.

    Args:
        files: the model files. A fault in one that was found in a folder leaves the others in
            service; the file is tried again later.
        provider: as ``Model.load`` takes it.
        threads: as ``Model.load`` takes it.
        metrics: the metrics of the service.
        strict: as ``Model.load`` takes it; it also refuses a fault in a file of a folder.
        max_batch: the most images in one run on a GPU, which is prepared for them before a model is
            in service; 0 is 8.

    Attributes:
        slots: the models in service by name, in the order of ``files``. Replaced as a whole.
        faulty: the files of folders that are not served, by name. Replaced as a whole.
        engines: the engines of folders in whose place their ONNX file is served, by name. Replaced
            as a whole.

    Raises:
        FsadEdgeError: a model cannot be loaded, or misses its golden scores; of the files in
            folders none can.
    """

    def __init__(
        self,
        files: Iterable[ModelFile],
        provider: Provider,
        threads: int,
        metrics: Metrics,
        strict: bool = False,
        max_batch: int = 0,
    ) -> None:
        self.slots: dict[str, ModelSlot] = {}
        self.faulty: dict[str, FaultyFile] = {}
        self.engines: dict[str, FaultyFile] = {}
        self._falls_back = provider is Provider.AUTO and not strict

        def load(path: Path) -> Model:
            return Model.load(
                path,
                provider,
                threads,
                strict=strict,
                share_with=self.loaded,
                max_batch=max_batch or USUAL_MOST,
            )

        self._load = load
        self._metrics = metrics
        files = list(files)
        # Engines first, so that ONNX files of the same graph run in them.
        for file in sorted(files, key=lambda file: file.path.suffix.lower() != ".engine"):
            self._take(file)
        self.slots = {file.name: self.slots[file.name] for file in files if file.name in self.slots}
        if self.faulty and (strict or not self.slots):
            self._close_learners()
            faults = {name: faulty.fault for name, faulty in self.faulty.items()}
            refuse_faults(faults, served=len(self.slots))
        for faulty in self.faulty.values():
            log.error("%s The other models are in service.", faulty.fault)
        for engine in self.engines.values():
            _tell_refused(engine)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="models", daemon=True)
        for slot in self.slots.values():
            self.update_metrics(slot.current)
            self._report_notice(slot)
        metrics.before_scrape(self._update_metrics)

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

    def faults(self) -> list[ModelFault]:
        """The files of folders that are not served, and why; no engines of other machines."""
        damaged = [(name, one) for name, one in self.engines.items() if not one.unfit]
        return [
            ModelFault(name, os.fsencode(one.file.path).decode("utf-8", "replace"), one.fault)
            for name, one in [*self.faulty.items(), *damaged]
        ]

    def engine_fault(self, name: str) -> str | None:
        """Why the ONNX file is served in place of an engine that is damaged; else None."""
        engine = self.engines.get(name)
        return None if engine is None or engine.unfit else engine.fault

    def start(self) -> None:
        """Start to watch the model files."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching and learning."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._close_learners()

    def _close_learners(self) -> None:
        for slot in self.slots.values():
            slot.current.learner.close()

    def _take(self, file: ModelFile) -> ModelSlot | None:
        """Take a file into service. A fault in a file of a folder goes into ``faulty``."""
        stamp = _stamp_or_none(file.path)
        try:
            slot = self._open(file)
        except Exception as error:  # engines raise errors of many types
            if not file.found:
                raise
            return self._take_onnx(FaultyFile.of(file, stamp, error))
        self._put(slot)
        return slot

    def _take_onnx(self, refused: FaultyFile) -> ModelSlot | None:
        """Take the ONNX file beside an engine that was refused, where there is one and it may."""
        file, fault = refused.file, refused.fault
        if file.onnx is not None and self._falls_back:
            slot = self._take(replace(file, path=file.onnx, onnx=None))
            if slot is not None:
                self.engines = {**self.engines, file.name: refused}
                return slot
            fault = f"{fault} {self.faulty[file.name].fault}"
        self.faulty = {**self.faulty, file.name: replace(refused, fault=fault)}
        return None

    def _open(self, file: ModelFile) -> ModelSlot:
        if file.fault is not None:
            raise InputError(file.fault)
        if file.onnx is not None:
            check_belongs(file.path, file.onnx)
        return ModelSlot(file.name, file.path, self._load)

    def _put(self, slot: ModelSlot) -> None:
        self.slots = {**self.slots, slot.name: slot}
        self.faulty = {name: one for name, one in self.faulty.items() if name != slot.name}
        self.engines = {name: one for name, one in self.engines.items() if name != slot.name}

    def _watch(self) -> None:
        for slot in self.slots.values():
            self._report_examples(slot)
        while not self._stop.wait(POLL_SECONDS):
            for slot in self.slots.values():
                before = slot.current
                if slot.refresh():
                    self._report(slot, before)
                self._refresh_learned(slot)
                self._tell_many_rejected(slot)
            for faulty in self.faulty.values():
                if faulty.due:
                    self._try_again(faulty)
            for engine in self.engines.values():
                if engine.changed:
                    self._try_engine(engine)

    def _try_again(self, faulty: FaultyFile) -> None:
        slot = self._take(faulty.file)
        if slot is not None:
            self._report_taken(slot)
        elif self.faulty[faulty.file.name].fault != faulty.fault:
            log.error("%s", self.faulty[faulty.file.name].fault)

    def _try_engine(self, refused: FaultyFile) -> None:
        """Try an engine again that changed; its ONNX file is in service until it loads."""
        file, stamp = refused.file, _stamp_or_none(refused.file.path)
        before = self.slots[file.name].current
        try:
            slot = self._open(file)
        except Exception as error:  # engines raise errors of many types
            again = FaultyFile.of(file, stamp, error)
            self.engines = {**self.engines, file.name: again}
            if again.fault != refused.fault:
                _tell_refused(again)
            return
        self._put(slot)
        before.learner.close()
        self._metrics.model_info.remove(slot.name, before.version, before.model.graph)
        self._report_taken(slot)

    def _report_taken(self, slot: ModelSlot) -> None:
        log.info("model %s: version %s is in service now.", slot.name, slot.current.version)
        self._metrics.reloads.labels(slot.name, "taken").inc()
        self.update_metrics(slot.current)
        self._report_notice(slot)

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
            for notice in slot.current.model.notices:
                log.warning("model %s: %s", slot.name, notice)
            self._report_notice(slot)
            self._report_examples(slot)
            if slot.current.learner.fault is None:
                self._report_left_out(slot, before)

    def _report_notice(self, slot: ModelSlot) -> None:
        if notice := slot.current.learner.notice:
            log.warning("model %s: %s", slot.name, notice)

    def _report_examples(self, slot: ModelSlot) -> None:
        """Tell of examples that an update has turned."""
        try:
            check = slot.current.learner.check_examples()
        except FsadEdgeError as error:
            log.error("model %s: the examples were not tried: %s", slot.name, error)
            return
        if check is not None and check.sentence is not None:
            log.warning("model %s: %s", slot.name, check.sentence)

    def _report_left_out(self, slot: ModelSlot, before: ServedModel) -> None:
        """Tell of what the file before was taught and that counts no more."""
        now, learner = slot.current, before.learner
        known = {entry.sha256 for entry in now.learner.active}
        known.update(now.model.metadata.known_images)
        if count := sum(entry.sha256 not in known for entry in learner.active):
            log.warning(
                "model %s: %d images that the file before was taught do not count with this one: "
                "teach them with  fsad-edge bank add %s %s .",
                slot.name, count, slot.path, learner.folder,
            )  # fmt: skip
        setting = learner.setting
        if setting is not None and not (
            now.learner.setting or now.model.metadata.threshold.set_by_hand
        ):
            log.warning(
                "model %s: the threshold %.4g that %s set for the file before does not count with "
                "this one: set it with  fsad-edge threshold %s .",
                slot.name, setting.value, setting.who, slot.path,
            )  # fmt: skip

    def _refresh_learned(self, slot: ModelSlot) -> None:
        """Apply what another process taught, and tell a fault once."""
        served, fault = slot.current, None
        try:
            if served.refresh_learned():
                log.info(
                    "model %s: taught here by now: %s; the threshold is %.4g.",
                    slot.name, served.learner.summary.words, served.model.threshold,
                )  # fmt: skip
                self.update_metrics(served)
        except FsadEdgeError as error:
            fault = str(error)
        if fault is not None and fault != slot.learning_error:
            log.error("model %s: %s What was learned before counts.", slot.name, fault)
        if fault is None:
            fault = " ".join(filter(None, [served.gone, served.learner.damage])) or None
            if fault is not None and fault != slot.learning_error:
                log.warning("model %s: %s", slot.name, fault)
            elif fault is None and slot.learning_error is not None:
                log.info("model %s: all that was taught counts now.", slot.name)
        slot.learning_error = fault

    def _tell_many_rejected(self, slot: ModelSlot) -> None:
        """Tell once that clearly more is rejected than was asked for, until that ends."""
        rejections = slot.current.rejections()
        if rejections.many and not slot.many_rejected:
            log.warning("model %s: %s", slot.name, _many_words(rejections))
        slot.many_rejected = rejections.many

    def _update_metrics(self) -> None:
        self._metrics.models_not_served.set(len(self.faults()))
        for name, slot in self.slots.items():
            drift = slot.current.drift()
            self._metrics.drift_evidence.labels(name).set(drift.evidence)
            self._metrics.drifting.labels(name).set(drift.drifted is not None)
            self._metrics.unlike_shots.labels(name).set(drift.unlike_shots)
            self._metrics.many_rejected.labels(name).set(slot.current.rejections().many)

    def update_metrics(self, served: ServedModel) -> None:
        """Set the metrics of a model that was loaded, taught or untaught."""
        self._metrics.learned.labels(served.name).set(served.learned)
        self._metrics.rejected.labels(served.name).set(served.rejected)
        self._metrics.model_info.labels(served.name, served.version, served.model.graph).set(1)
        self._metrics.threshold.labels(served.name).set(served.model.threshold)


def _tell_refused(engine: FaultyFile) -> None:
    """Say that an ONNX file is served in place of an engine, and why."""
    level = logging.WARNING if engine.unfit else logging.ERROR
    text, file = "model %s: %s %s is served instead of %s.", engine.file
    log.log(level, text, file.name, engine.fault, file.onnx, file.path)


def _many_words(rejections: RejectionStatus) -> str:
    """What is said instead of how far the shots' scores can be relied on."""
    return (
        f"{rejections.rejected} of the newest {rejections.images} images were rejected, clearly "
        "more than the share of good parts that was asked for. Where good parts are among them, "
        "the shots do not show how much good parts vary."
    )


def _try_examples(path: Path, before: ServedModel, model: Model, refuse: bool) -> None:
    """Try a new file on the examples of the one in service.

    Args:
        path: the file.
        before: the model in service.
        model: the new one.
        refuse: refuse it if it decides examples wrongly which the one in service decides rightly;
            else the log tells it.

    Raises:
        ExamplesLostError: it does; the sentence names them.
    """
    try:
        found = try_examples(before.learner, model)
    except FsadEdgeError as error:
        log.error("model %s: the examples were not tried on %s: %s", before.name, path, error)
        return
    words = (
        f"{len(found.lost)} of {found.count} examples wrongly that the model before decides "
        f"rightly ({name_changes(found.lost)})"
    )
    if found.lost and not refuse:
        log.warning("model %s: %s decides %s.", before.name, path, words)
    elif found.lost:
        raise ExamplesLostError(
            f"{path} would decide {words}: teach it the same with  fsad-edge bank add "
            f"{path} {before.learner.folder} . To take it all the same, "
            "undo these examples, or start the service again.",
            tuple(change.entry.id for change in found.lost),
        )


def _stamp(path: Path) -> FileStamp:
    try:
        found = path.stat()
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be read: {why}.") from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _stamp_or_none(path: Path) -> FileStamp | None:
    try:
        return _stamp(path)
    except InputError:
        return None


def _version(path: Path) -> str:
    return sha256(read_bytes(path, cure="give a file that  fsad-edge export  wrote"))
