"""A loaded model with what was taught next to its file: read, replayed and applied."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from fsad_edge.calibration.batches import batch_size
from fsad_edge.calibration.examples import Errors, Example, errors_at
from fsad_edge.calibration.prediction import Prediction
from fsad_edge.errors import FsadEdgeError, ModelFileError
from fsad_edge.learning.decided import ExamplesCheck, compare
from fsad_edge.learning.embedding import (
    novelty_of,
    prepare,
    rejected_of,
    score_images,
    telling_of,
)
from fsad_edge.learning.examples import ExampleState
from fsad_edge.learning.journal import Changes, Entry, Role, Setting
from fsad_edge.learning.novelty import Novelty
from fsad_edge.learning.refusals import DEFECT_RATIO
from fsad_edge.learning.shown_places import compares_places, shown_places
from fsad_edge.learning.store import LearningStore
from fsad_edge.learning.summary import TaughtSummary
from fsad_edge.learning.taught import GoodPatches, ShownPlaces, Taught
from fsad_edge.learning.threshold import expect
from fsad_edge.learning.weighed import counted_examples, weighed_again
from fsad_edge.learning.zones_in_effect import ZonesInEffect, zones_in_effect
from fsad_edge.options import ScoreKind
from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.bank import ReferenceModel
from fsad_edge.runtime.engine_file import is_engine, read_engine
from fsad_edge.runtime.files import read_bytes, sha256
from fsad_edge.runtime.metadata import Threshold
from fsad_edge.runtime.model import Model, Result, ScoringState
from fsad_edge.runtime.zones import ZoneEntry

T = TypeVar("T")

#: How often the images are read again where another process changes them at the same time.
READ_ATTEMPTS = 20


class TaughtModel:
    """What was taught next to one model file, applied to a loaded :class:`Model`.

    This reads; :class:`~fsad_edge.learning.learner.Learner` also changes.

    Args:
        path: the file that ``model`` was loaded from.
        model: gets the learned reference model and threshold whenever they change.

    Attributes:
        threshold: the model's threshold with what was taught.
        fault: why nothing of what was taught counts, as a sentence: the folder belongs to another
            model file, or nothing of it can be read. The model scores as its file says then, and
            cannot be taught. None where there is no such reason.
    """

    def __init__(self, path: Path, model: Model) -> None:
        self._path, self._model = path, model
        self.fault: str | None = None
        self._guard = threading.RLock()
        self.threshold = model.metadata.threshold
        self._store = LearningStore(path, content_sha256(path), model.metadata.contained)
        self._made: Taught | None = None
        self._fingerprints: dict[int, UInt8Array] = {}
        self._good: dict[tuple[str, str], GoodPatches] = {}  # of learned images, under zones
        self._shown: dict[str, ShownPlaces] = {}  # of learned images, by SHA-256
        self._results: dict[int, Result] = {}  # of examples, by the reference model as it is
        self._loaded = Changes()
        self._applied = False

    @property
    def folder(self) -> Path:
        """The folder on disk; it is made when the first image is learned."""
        return self._store.path

    @property
    def notice(self) -> str | None:
        """Sentences for the user, else None.

        They tell why nothing of what was taught counts, or what of it is damaged; of a line of the
        journal that was never finished; of images that a file of the same content has learned in
        another folder; and of folders beside the file that cannot be read.
        """
        with self._guard:
            return self.fault or self._store.notice

    @property
    def damage(self) -> str | None:
        """Sentences on what was acknowledged and does not count; None where all of it counts."""
        with self._guard:
            return self.fault or " ".join(self._store.damage) or None

    @property
    def lost(self) -> dict[int, str]:
        """Why an image does not count that was not undone, by its id."""
        with self._guard:
            return self._store.lost

    def entries(self) -> list[Entry]:
        """All images that were ever kept, oldest first, with those that were undone."""
        with self._guard:
            return list(self._store.entries.values())

    def settings(self) -> list[Setting]:
        """All thresholds that were ever set, oldest first, with those that were undone."""
        with self._guard:
            return list(self._store.changes.settings.values())

    def zones(self) -> list[ZoneEntry]:
        """All zones that were ever set here, oldest first, with those that were undone."""
        with self._guard:
            return list(self._store.changes.zones.values())

    @property
    def in_effect(self) -> ZonesInEffect:
        """The zones that count, and the file's thresholds under them."""
        with self._guard:
            return self._taught.zones

    @property
    def active(self) -> list[Entry]:
        """The images that are kept and not undone, oldest first."""
        with self._guard:
            return self._store.active

    @property
    def normals(self) -> list[Entry]:
        """The active images that were learned as normal, oldest first."""
        return [entry for entry in self.active if entry.role is Role.NORMAL]

    @property
    def setting(self) -> Setting | None:
        """The setting that the threshold comes from; None where nobody set it."""
        with self._guard:
            return self._store.setting if self._made is None else self._made.setting

    @property
    def learned_threshold(self) -> Threshold:
        """The threshold with what was learned, without what a person set."""
        with self._guard:
            return self._taught.learned_threshold

    @property
    def left_out(self) -> bool:
        """Whether the threshold's scores are of left-out images, and not of views of one shot."""
        with self._guard:
            return self._taught.left_out

    @property
    def score_count(self) -> int:
        """The number of active images whose scores count for the threshold."""
        with self._guard:
            return len(self._taught.bank.scores())

    def learned_scores(self) -> list[float]:
        """The scores of learned images that count for the threshold, each without its own rows."""
        with self._guard:
            return self._taught.bank.scores()

    @property
    def reference(self) -> ReferenceModel:
        """The file's reference model with what was taught."""
        with self._guard:
            return self._taught.reference()

    @property
    def state(self) -> ScoringState | None:
        """What to score with; None where nothing was taught that counts for scores."""
        with self._guard:
            return self._scoring_state(self._taught) if self.summary.counts else None

    @property
    def summary(self) -> TaughtSummary:
        """What was taught and counts."""
        with self._guard:
            store = self._store
            return TaughtSummary.of(store.active, self.setting, len(store.zones_without()))

    def examples(self) -> list[ExampleState]:
        """What the model says of each image that counts.

        Raises:
            ModelFileError: images go missing all the time.
        """
        with self._guard:
            return self._looking(lambda: self._states(self._taught, self._results))

    def expected(self, more: Sequence[float] = ()) -> Prediction | None:
        """What the scores that are known say of the next good part's; None where nothing is known.

        Args:
            more: scores of further good examples, which are only tried.

        Raises:
            ModelFileError: an image is missing or changed.
        """
        with self._guard:
            good, _ = self._looking(self._counted)
            scores = [*(one.score for one in good), *more]
            return expect(self._taught.learned_threshold, self._taught.left_out, scores)

    def errors(self, threshold: float | None = None) -> Errors:
        """What a threshold makes of the examples that say something of other parts.

        Args:
            threshold: the one in effect by default.

        Raises:
            ModelFileError: an image is missing or changed.
        """
        with self._guard:
            counted = self._looking(self._counted)
            return errors_at(threshold or self.threshold.value, *counted)

    def check_examples(self) -> ExamplesCheck | None:
        """Compare what is said of the examples with what was said after the last change.

        A new version of this package, of an engine or of a driver may turn one, and so may another
        processor.

        Returns:
            None where there is no example, or where what was said is not known.

        Raises:
            ModelFileError: an image is missing or changed.
        """
        with self._guard:
            then = self._store.read_decisions()
            if then is None or not self._store.active:
                return None
            return compare(then, self.examples(), self._model.provider)

    def image(self, entry: Entry) -> bytes:
        """The encoded image of an active entry.

        Raises:
            ModelFileError: it is missing, or not the image that was taught.
        """
        return self._store.images.read(entry)

    def image_path(self, entry: Entry) -> Path:
        """The file of an active image."""
        return self._store.images.file(entry)

    def refresh(self) -> bool:
        """Apply what other processes have changed since; whether there was something.

        This looks at one file, unless that has changed.

        Raises:
            InputError, ModelFileError: as :meth:`open` does; the model stays as it was.
        """
        with self._guard:
            if self.fault is None and not self._store.changed():
                return False
            if self.fault is not None and not self._store.changed_since_failure():
                return False
            before = self._loaded, self._store.lost, self.fault
            try:
                self._load()
            except FsadEdgeError as error:
                if self.fault is None:
                    raise
                self._fail(error)  # nothing counted before, either
            return (self._loaded, self._store.lost, self.fault) != before

    def _looking(self, look: Callable[[], T]) -> T:
        """What a look at the images gives; where one is gone, what was taught is read again.

        Another process may have undone it. Where it did not, the image does not count from then on.
        """
        for _ in range(READ_ATTEMPTS):
            try:
                return look()
            except ModelFileError:
                self._store.read_again()
                self._load()
        return look()

    def _open(self) -> None:
        """Apply what was taught, or say why nothing of it counts."""
        try:
            self._load()
        except FsadEdgeError as error:
            self._fail(error)

    def _fail(self, error: FsadEdgeError) -> None:
        self.fault = str(error)
        self._store.note_failure()

    def _load(self) -> None:
        for attempt in range(1, READ_ATTEMPTS + 1):
            self._store.read()
            try:
                taught = self._replay_sound() if self._store.changes != Changes() else None
                break
            except FsadEdgeError:  # another process may have undone the image in the meantime
                if attempt == READ_ATTEMPTS or not self._store.changed():
                    self._store.read_again()
                    raise
        self.fault = None
        self._made, self._results = taught, {}
        self._loaded = self._store.changes
        if self.summary.counts or self._applied:
            self._apply()

    @property
    def _taught(self) -> Taught:
        """What the model scores with; made when it is first needed: it copies the memory bank."""
        if self._made is None:
            self._made = Taught(self._model, self._zones())
        return self._made

    def _replay_sound(self) -> Taught:
        """Take all active changes again; an image that cannot be used any more is left out.

        Raises:
            FsadEdgeError: another process may have undone such an image.
        """
        while True:
            try:
                return self._replay()
            except _UnusableError as error:
                if self._store.changed():
                    raise error.reason from None
                self._store.leave_out(error.entry, str(error.reason))

    def _zones(self, without: int | None = None, more: Sequence[ZoneEntry] = ()) -> ZonesInEffect:
        """The zones that count, but for one, and with others that are tried."""
        return zones_in_effect(self._model, [*self._store.zones_without(without), *more])

    def _replay(self, without: int | None = None, more: Sequence[ZoneEntry] = ()) -> Taught:
        """Take all active changes again, in order, but for one, and with zones that are tried.

        Each image is judged by the threshold of this replay and not by the one of its day, which
        images that are undone since may have moved. All are seen under the zones that count now.
        """
        taught, seen = Taught(self._model, self._zones(without, more)), set[str]()
        fingerprints: dict[int, UInt8Array] = {}
        for entry in self._store.active:
            if entry.id == without:
                continue
            if entry.role is Role.REJECTED:
                with _naming_unusable(entry):
                    image = self._store.images.read(entry)
                    taught.reject(rejected_of(self._model, image, entry.box, taught.zones))
            if entry.role is not Role.NORMAL:
                continue
            with _naming_unusable(entry):
                novelty = self._novelty(entry, taught.zones)
            fingerprints[entry.id] = novelty.fingerprint
            defective = taught.bank.score(novelty) > DEFECT_RATIO * taught.learned_threshold.value
            counts = not defective and entry.sha256 not in seen
            rows = taught.bank.select_rows(novelty)
            good, places = self._good_patches(entry, taught.zones), self._shown_places(entry)
            taught.learn(novelty, rows, counts, good, places)
            seen.add(entry.sha256)
        self._fingerprints = fingerprints
        taught.setting = self._store.setting_without(without)
        if taught.setting is not None and self._zoned_since(taught):
            taught.setting = weighed_again(
                taught.setting,
                taught.learned_threshold,
                taught.left_out,
                self._states(taught, {}),
                self._model.metadata.in_banks,
            )
        return taught

    def _zoned_since(self, taught: Taught) -> bool:
        """Whether other zones count than when the threshold was set."""
        setting, zones = taught.setting, self._store.changes.zones.values()
        if setting is None:
            return False
        then = {
            one.id
            for one in zones
            if one.id < setting.id and (one.undone is None or one.undone > setting.when)
        }
        return then != {one.id for one in taught.zones.here}

    def _novelty(self, entry: Entry, zones: ZonesInEffect) -> Novelty:
        dimension = self._model.reference.bank.shape[1] + 1
        novelty = self._store.cached_novelty(entry, dimension, zones.key)
        if novelty is None:
            prepared = prepare(self._model, self._store.images.read(entry))
            novelty = novelty_of(self._model, prepared, zones)
            self._store.cache_novelty(entry, novelty, zones.key)
        return novelty

    def _good_patches(self, entry: Entry, zones: ZonesInEffect) -> GoodPatches:
        """The patches of a learned image that rejected rows are to leave alone."""

        @functools.cache
        def find() -> Float32Array:
            prepared = prepare(self._model, self._store.images.read(entry))
            return telling_of(self._model, prepared, zones)

        return self._good.setdefault((entry.sha256, zones.key), find)

    def _shown_places(self, entry: Entry) -> ShownPlaces | None:
        """What a learned image shows at each place; None where the model does not compare them."""
        if not compares_places(self._model):
            return None

        @functools.cache
        def find() -> Float32Array:
            return shown_places(self._model, prepare(self._model, self._store.images.read(entry)))

        return self._shown.setdefault(entry.sha256, find)

    def _states(self, taught: Taught, results: dict[int, Result]) -> list[ExampleState]:
        """What a model that was taught so says of the examples.

        Args:
            taught: what it was taught.
            results: those that are known; the others are added.
        """
        state, threshold = self._scoring_state(taught), taught.threshold.value
        missing = [entry for entry in self.active if entry.id not in results]
        metadata = self._model.metadata
        count = batch_size(metadata.height, metadata.width)
        for start in range(0, len(missing), count):
            some = missing[start : start + count]
            images = [self._store.images.read(entry) for entry in some]
            found = score_images(self._model, images, state)
            results.update({entry.id: one for entry, one in zip(some, found, strict=True)})
        return [ExampleState.of(entry, results[entry.id], threshold) for entry in self.active]

    def _counted(self) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        """The good and the bad examples that say something of other parts."""
        states = self._states(self._taught, self._results)
        return counted_examples(states, self._model.metadata.in_banks)

    def _scoring_state(self, taught: Taught) -> ScoringState:
        metadata, value = self._model.metadata, taught.threshold.value
        patch = metadata.score is ScoreKind.PATCH
        map_threshold = value if patch else metadata.map_threshold
        return ScoringState(value, map_threshold, taught.reference().as_inputs())

    def _apply(self) -> None:
        self.threshold, self._applied = self._taught.threshold, True
        self._loaded = self._store.changes
        self._model.set_state(self._scoring_state(self._taught))


class _UnusableError(ModelFileError):
    """The image of an entry cannot be used."""

    def __init__(self, entry: Entry, reason: FsadEdgeError) -> None:
        super().__init__(str(reason))
        self.entry, self.reason = entry, reason


@contextlib.contextmanager
def _naming_unusable(entry: Entry) -> Iterator[None]:
    try:
        yield
    except FsadEdgeError as error:
        raise _UnusableError(entry, error) from error


def content_sha256(model_path: Path) -> str:
    """SHA-256 of the model file that what was learned belongs to.

    For an engine this is its ONNX file, so that what was learned outlasts a new build.

    Raises:
        InputError: it cannot be read.
        ModelFileError: it is a damaged engine.
    """
    graph = read_bytes(model_path)
    if is_engine(graph):
        return read_engine(graph, str(model_path)).header.source_sha256
    return sha256(graph)
