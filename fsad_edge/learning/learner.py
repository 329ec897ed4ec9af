"""Learning on a device: images that a person called good, applied to a loaded model."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from fsad_edge.calibration.calibrate import BATCH, bank_views
from fsad_edge.calibration.threshold import ENOUGH_SHOTS, threshold_from_scores
from fsad_edge.errors import FsadEdgeError, InputError, NotNormalError
from fsad_edge.learning.journal import Entry as Entry
from fsad_edge.learning.novelty import MemoryBank, Novelty, find_novelty, in_coreset_order
from fsad_edge.learning.places import store_path as store_path
from fsad_edge.learning.store import LearningStore
from fsad_edge.options import ScoreKind
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.bank import ReferenceModel, patch_distances
from fsad_edge.runtime.engine_file import is_engine, read_engine
from fsad_edge.runtime.files import read_bytes, sha256
from fsad_edge.runtime.images import FORMATS, check_content, load_resized
from fsad_edge.runtime.metadata import Threshold
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.photograph import PhotographCheck, fingerprint, same_photograph
from fsad_edge.runtime.provenance import utc_now

#: An image that scores above this many times the threshold is taken for a defect.
DEFECT_RATIO = 1.5

#: Learning keeps the threshold between these multiples of the file's own.
LEAST_RATIO, MOST_RATIO = 0.75, 1.5

#: The most images that are kept, and the most bytes of them.
MAX_IMAGES, MAX_BYTES = 200, 256 * 2**20

#: What stands for the name of an image that was taught without one, as over HTTP.
NO_NAME = "without a name"

#: How often the images are read again where another process changes them at the same time.
READ_ATTEMPTS = 5


class Learner:
    """What was learned next to one model file, applied to a loaded :class:`Model`.

    Use :meth:`open`. Several processes may read and write at the same time: each change takes a
    lock for as long as it lasts, and :meth:`refresh` applies what others changed. An object is safe
    to use from several threads, while others score.

    Attributes:
        threshold: the model's threshold with what was learned.

    Example:
        >>> image = Path(photograph).read_bytes()
        >>> with Model.load(part_file) as model, Learner.open(part_file, model) as learner:
        ...     entry = learner.add(image, who="anna", force=True)
        ...     learned = model.score(photograph)
        ...     undone = learner.undo(entry.id, who="otto")
        >>> learned.anomalous
        False
    """

    def __init__(self, model_path: Path, model: Model, write: bool) -> None:
        self._path, self._model, self._write = model_path, model, write
        self._guard = threading.RLock()
        self.threshold = model.metadata.threshold
        digest, shots = content_sha256(model_path), model.metadata.shots.sha256
        self._store = LearningStore(model_path, digest, shots)
        self._made_bank: MemoryBank | None = None
        self._fingerprints: dict[int, UInt8Array] = {}
        self._loaded: list[Entry] = []
        self._applied = self._wrote = False

    @classmethod
    def open(cls, model_path: str | os.PathLike[str], model: Model, write: bool = True) -> Learner:
        """Apply what was learned next to a model file.

        Args:
            model_path: the file that ``model`` was loaded from.
            model: gets the learned reference model and threshold, now and at every change.
            write: False refuses to learn and undo.

        Raises:
            InputError: the folder cannot be read, or two folders belong to the file.
            ModelFileError: the folder belongs to another model file, is newer or damaged.
        """
        self = cls(Path(model_path), model, write)
        self._load()
        return self

    @property
    def folder(self) -> Path:
        """The folder on disk; it is made when the first image is learned."""
        return self._store.path

    @property
    def notice(self) -> str | None:
        """Sentences for the user, else None.

        They tell of a torn line of the journal that was dropped, of images that a file of the same
        content has learned in another folder, and of folders beside the file that cannot be read.
        """
        with self._guard:
            return self._store.notice

    def entries(self) -> list[Entry]:
        """All images that were ever learned, oldest first, with those that were undone."""
        with self._guard:
            return list(self._store.entries.values())

    @property
    def active(self) -> list[Entry]:
        """The learned images that are not undone, oldest first."""
        with self._guard:
            return self._store.active

    @property
    def score_count(self) -> int:
        """The number of active images whose scores count for the threshold."""
        with self._guard:
            return len(self._bank.scores())

    @property
    def reference(self) -> ReferenceModel:
        """The file's reference model with what was learned."""
        with self._guard:
            return self._bank.reference()

    def image_path(self, entry: Entry) -> Path:
        """The file of an active image."""
        return self._store.image_path(entry)

    def add(self, image: bytes, who: str, force: bool = False, name: str | None = None) -> Entry:
        """Learn an image as normal; it is on disk and applied when this returns.

        Args:
            image: encoded, as :func:`load_resized` takes it.
            who: the person who calls it good.
            force: learn it whatever :class:`NotNormalError` would say.
            name: the name of the image, for people.

        Raises:
            ImageError: it cannot be decoded or shows nothing.
            NotNormalError: ``force`` is not set, and the image scores above ``DEFECT_RATIO`` times
                the threshold, is a bad photograph, or is learned or one of the shots already.
            InputError: a limit is reached, or it cannot be written; nothing is changed.
        """
        self._check_score_kind()
        with self._guard, self._changing():
            digest = sha256(image)
            if not force:
                self._check_unknown(digest)
            self._check_limits(len(image))
            prepared = self._prepare(image)
            novelty = self._find_novelty(prepared)
            score, threshold = self._bank.score(novelty), self.threshold.value
            if not force:
                self._check_normal(prepared, novelty, score)
            rows = self._bank.select_rows(novelty)
            self._check_rows(len(rows))
            number = max(self._store.entries, default=0) + 1
            defective = score > DEFECT_RATIO * threshold
            entry = Entry(
                id=number,
                when=utc_now(),
                who=who,
                sha256=digest,
                file=f"{number:04d}.{_suffix(image)}",
                score=score,
                threshold=threshold,
                rows=len(rows),
                forced=defective,
                name=name,
            )
            # An image that is learned twice says nothing new of how much good parts differ.
            counts = not defective and digest not in {one.sha256 for one in self.active}
            self._store.add(entry, image)
            self._bank.add(novelty, rows, counts)
            self._fingerprints[number] = novelty.fingerprint
            self._apply()
            self._store.cache_novelty(entry, novelty)
            return entry

    def undo(self, number: int | None = None, who: str = "") -> Entry:
        """Unlearn an image: the model is as if it had never been learned.

        The image is deleted. The journal keeps that it was learned and undone.

        Args:
            number: id of the image; None takes the last active one.
            who: the person who undoes it.

        Raises:
            InputError: there is no such active image, or the journal cannot be written.
        """
        with self._guard:
            self.refresh()
            self._check_undo(number)  # before a folder is made for nothing
            with self._changing():
                undone = self._store.undo(self._check_undo(number), who)
                self._replay()
                self._apply()
                return undone

    def refresh(self) -> bool:
        """Apply what other processes have changed since; whether there was something.

        This looks at one file, unless that has changed.

        Raises:
            InputError, ModelFileError: as :meth:`open` does; the model stays as it was.
        """
        with self._guard:
            if not self._store.changed():
                return False
            before = self._loaded
            self._load()
            return self._loaded != before

    def close(self) -> None:
        """Refuse to learn from now on; the model keeps what was learned."""
        with self._guard:
            self._write = False

    def __enter__(self) -> Learner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _load(self) -> None:
        for attempt in range(1, READ_ATTEMPTS + 1):
            self._store.read()
            try:
                self._replay()
                break
            except FsadEdgeError:  # another process may have undone the image in the meantime
                if attempt == READ_ATTEMPTS or not self._store.changed():
                    self._store.read_again()
                    raise
        self._loaded = self.entries()
        if self._store.active or self._applied:
            self._apply()

    @property
    def _bank(self) -> MemoryBank:
        """The memory bank with what was learned; made when it is first needed: it is a copy."""
        if self._made_bank is None:
            reference = in_coreset_order(self._model.reference)
            self._made_bank = MemoryBank(reference, self._model.metadata.map_threshold)
        return self._made_bank

    def _replay(self) -> None:
        """Learn the active images again, in order.

        Each is judged by the threshold of this replay and not by the one of its day, which images
        that are undone since may have moved.
        """
        novelties = {entry.id: self._novelty(entry) for entry in self._store.active}
        self._made_bank = None
        threshold, seen = self._model.metadata.threshold, set[str]()
        for entry in self._store.active:
            novelty = novelties[entry.id]
            defective = self._bank.score(novelty) > DEFECT_RATIO * threshold.value
            counts = not defective and entry.sha256 not in seen
            self._bank.add(novelty, self._bank.select_rows(novelty), counts)
            seen.add(entry.sha256)
            threshold = self._threshold()
        self._fingerprints = {number: one.fingerprint for number, one in novelties.items()}

    def _novelty(self, entry: Entry) -> Novelty:
        novelty = self._store.cached_novelty(entry, self._model.reference.bank.shape[1] + 1)
        if novelty is None:
            novelty = self._find_novelty(self._prepare(self._store.image(entry)))
            self._store.cache_novelty(entry, novelty)
        return novelty

    def _threshold(self) -> Threshold:
        metadata = self._model.metadata
        left_out = metadata.shots.count > 1
        return learned_threshold(metadata.threshold, left_out, self._bank.scores())

    def _apply(self) -> None:
        self.threshold, self._applied = self._threshold(), True
        self._loaded = self.entries()
        value = self.threshold.value
        self._model.set_reference(self._bank.reference(), value, value)

    def _prepare(self, image: bytes) -> UInt8Array:
        metadata = self._model.metadata
        prepared = load_resized(image, metadata.height, metadata.width, metadata.scale)
        check_content(prepared)
        return prepared

    def _find_novelty(self, prepared: UInt8Array) -> Novelty:
        metadata = self._model.metadata
        views = bank_views(prepared, metadata.bank_rotations, metadata.bank_flip)
        embedded = [
            self._model.embed(np.stack(views[start : start + BATCH]))
            for start in range(0, len(views), BATCH)
        ]
        patches = np.concatenate([batch["patches"] for batch in embedded])
        distances = patch_distances(patches, self._model.reference)
        return find_novelty(patches, distances, metadata.map_threshold, fingerprint(prepared))

    def _check_undo(self, number: int | None) -> int:
        """The id of the active image to undo."""
        active = [entry.id for entry in self.active]
        if not active:
            raise InputError(f"{self._path} has no learned image to undo.")
        if number is None:
            return max(active)
        if number not in active:
            raise InputError(
                f"there is no learned image {number} to undo: take one of "
                f"{', '.join(map(str, active))}."
            )
        return number

    def _check_unknown(self, digest: str) -> None:
        """Refuse an image that is learned already or one of the shots, by its content."""
        for entry in self.active:
            if entry.sha256 == digest:
                raise NotNormalError(
                    f"the image is learned already, as {_title(entry)}: force it to learn it twice."
                )
        if digest in self._model.metadata.shots.sha256:
            raise NotNormalError(
                "the image is one of the shots that the model was made from: force it to learn it "
                "all the same."
            )

    def _check_normal(self, prepared: UInt8Array, novelty: Novelty, score: float) -> None:
        """Refuse an image that is known already, scores like a defect or is no good photograph."""
        appearance, threshold = self._model.metadata.appearance, self.threshold.value
        if score <= threshold:  # above it a small place may differ, which a fingerprint hides
            self._check_new(novelty)
        faults = []
        if score > DEFECT_RATIO * threshold:
            times = f"{score / threshold:.1f} times the threshold"
            faults.append(f"the image scores {times}, as defects do")
        if flags := PhotographCheck(appearance).check(prepared):
            faults.append(f"the photograph is {' and '.join(flags)} compared with the shots")
        if faults:
            raise NotNormalError(f"{', and '.join(faults)}: force it if it is good all the same.")

    def _check_new(self, novelty: Novelty) -> None:
        """Refuse a photograph that is learned already or one of the shots, in another format."""
        for entry in self.active:
            if same_photograph(novelty.fingerprint, self._fingerprints[entry.id]):
                raise NotNormalError(
                    "the image is nearly the same photograph as one that is learned already, "
                    f"{_title(entry)}: force it if it shows another part."
                )
        for shot in self._model.metadata.appearance.fingerprints:
            if same_photograph(novelty.fingerprint, np.frombuffer(shot, np.uint8)):
                raise NotNormalError(
                    "the image is nearly the same photograph as one of the shots: force it if it "
                    "shows another part."
                )

    def _check_score_kind(self) -> None:
        if self._model.metadata.score is not ScoreKind.PATCH:
            raise InputError(
                f"{self._path} decides by the image score, which cannot learn on a device: run  "
                "fsad-edge finetune  with this image among the shots."
            )

    def _check_limits(self, size: int) -> None:
        count, held = len(self._store.active), self._store.image_bytes()
        if count >= MAX_IMAGES or held + size > MAX_BYTES:
            raise InputError(
                f"{count} images ({held / 2**20:.0f} MiB) are learned, and at most {MAX_IMAGES} "
                f"({MAX_BYTES // 2**20} MiB) can be: {self._make_room()}"
            )

    def _check_rows(self, count: int) -> None:
        most = self._bank.max_learned_rows
        if len(self._bank.learned_rows) + count > most:
            raise InputError(
                f"the memory bank has no room for {count} more rows of learned images ({most} at "
                f"most): {self._make_room()}"
            )

    def _make_room(self) -> str:
        return (
            "undo some, or run  fsad-edge finetune  with the shots and the images in "
            f"{self._store.images}."
        )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Let this process alone write during the block, from what others have written."""
        if not self._write:
            raise InputError(f"{self.folder} was opened for reading, or is closed.")
        self.refresh()  # finds the folder, if it was moved or made
        with self._store.lock():
            # The first time also removes what a killed process left, and fills the cache.
            if self._store.changed() or not self._wrote:
                self._load()
            self._wrote = True
            yield


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


def learned_threshold(file: Threshold, left_out: bool, scores: list[float]) -> Threshold:
    """The threshold after some images were learned.

    What is learned is mostly what was rejected: the highest of many scores, which would drive the
    rule far up. The threshold therefore rises no further than to the highest of them.

    Args:
        file: the file's own threshold.
        left_out: its scores are of shots, each compared with the others; those of a single shot are
            not.
        scores: scores of the learned images, each against a bank without its own rows.

    Returns:
        the threshold by the file's own rule, within ``LEAST_RATIO`` and ``MOST_RATIO`` times the
        file's value; the file's own threshold where there are too few scores for the rule.
    """
    pooled = [*file.scores, *scores] if left_out else scores
    if not scores or len(pooled) < 2:
        return file
    found = threshold_from_scores(pooled, file.false_alarm_rate, file.prior_std, "images")
    if not file.rate_promised and len(file.scores) >= ENOUGH_SHOTS and left_out:
        # An outlier among the shots; learning more images does not take it out.
        found = dataclasses.replace(found, rate_promised=False, reliability=file.reliability)
    most = min(max(file.value, *scores), MOST_RATIO * file.value)
    return dataclasses.replace(
        found,
        value=min(max(found.value, LEAST_RATIO * file.value), most),
        method=f"prediction bound of {len(pooled)} scores, {len(scores)} of them of images learned "
        "on the device; it rises no further than to the highest score of these images",
    )


def _title(entry: Entry) -> str:
    """What a person knows a learned image by."""
    return f"{entry.id} ({entry.name or NO_NAME}, by {entry.who})"


def _suffix(image: bytes) -> str:
    """A file name's ending for encoded bytes that can be decoded."""
    with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
        return (opened.format or "image").lower()
