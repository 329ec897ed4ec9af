"""Learning on a device: images that a person called good, applied to a loaded model."""

from __future__ import annotations

import dataclasses
import io
import os
import threading
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from fsad_edge.calibration.calibrate import BATCH, bank_views
from fsad_edge.calibration.threshold import threshold_from_scores
from fsad_edge.errors import InputError, NotNormalError
from fsad_edge.learning.journal import Entry as Entry
from fsad_edge.learning.novelty import MemoryBank, Novelty, find_novelty, in_coreset_order
from fsad_edge.learning.store import LearningStore
from fsad_edge.learning.store import store_path as store_path
from fsad_edge.options import ScoreKind
from fsad_edge.runtime.bank import ReferenceModel
from fsad_edge.runtime.engine_file import is_engine, read_engine
from fsad_edge.runtime.files import read_bytes, sha256
from fsad_edge.runtime.images import FORMATS, load_resized
from fsad_edge.runtime.metadata import Threshold
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.provenance import utc_now

#: An image that scores above this many times the threshold is taken for a defect.
DEFECT_RATIO = 1.5

#: Learning keeps the threshold between these multiples of the file's own.
LEAST_RATIO, MOST_RATIO = 0.75, 1.5

#: The most images that are kept, and the most bytes of them.
MAX_IMAGES, MAX_BYTES = 200, 256 * 2**20


class Learner:
    """What was learned next to one model file, applied to a loaded :class:`Model`.

    Use :meth:`open`. :meth:`close`, or a ``with`` block, lets other processes write. An object is
    safe to use from several threads, while others score.

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
        graph = read_bytes(model_path)
        if is_engine(graph):  # the ONNX file's, so that what was learned outlasts a new build
            digest = read_engine(graph, str(model_path)).header.source_sha256
        else:
            digest = sha256(graph)
        self._store = LearningStore(model_path, digest)
        self._made_bank: MemoryBank | None = None

    @classmethod
    def open(cls, model_path: str | os.PathLike[str], model: Model, write: bool = True) -> Learner:
        """Apply what was learned next to a model file.

        Args:
            model_path: the file that ``model`` was loaded from.
            model: gets the learned reference model and threshold, now and at every change.
            write: False reads only, and needs no lock.

        Raises:
            InputError: another process may write, or the folder cannot be read or written.
            ModelFileError: the folder belongs to another model file, is newer or damaged.
        """
        self = cls(Path(model_path), model, write)
        if self.folder.exists():
            try:
                if write:
                    self._store.lock()
                self._load()
            except BaseException:
                self.close()
                raise
        return self

    @property
    def folder(self) -> Path:
        """The folder on disk; it is made when the first image is learned."""
        return self._store.path

    @property
    def notice(self) -> str | None:
        """A sentence for the user where a torn line of the journal was dropped, else None."""
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

    def add(self, image: bytes, who: str, force: bool = False) -> Entry:
        """Learn an image as normal; it is on disk and applied when this returns.

        An image that is active already is not learned again: its entry is returned.

        Args:
            image: encoded, as :func:`load_resized` takes it.
            who: the person who calls it good.
            force: learn it even if it scores like a defect.

        Raises:
            ImageError: it cannot be decoded.
            NotNormalError: it scores above ``DEFECT_RATIO`` times the threshold and ``force`` is
                not set.
            InputError: a limit is reached, or it cannot be written; nothing is changed.
        """
        with self._guard:
            self._begin()
            digest = sha256(image)
            for entry in self.active:
                if entry.sha256 == digest:
                    return entry
            self._check_limits(len(image))
            novelty = self._find_novelty(image)
            score, threshold = self._bank.score(novelty), self.threshold.value
            defective = score > DEFECT_RATIO * threshold
            if defective and not force:
                raise NotNormalError(
                    f"the image scores {score / threshold:.1f} times the threshold, as defects do: "
                    "force it if it is good all the same."
                )
            rows = self._bank.select_rows(novelty)
            self._check_rows(len(rows))
            number = max(self._store.entries, default=0) + 1
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
            )
            self._store.add(entry, image)
            self._bank.add(novelty, rows, counts=not defective)
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
            active = [entry.id for entry in self.active]
            if not active:
                raise InputError(f"{self._path} has no learned image to undo.")
            if number is None:
                number = max(active)
            if number not in active:
                raise InputError(
                    f"there is no learned image {number} to undo: take one of "
                    f"{', '.join(map(str, active))}."
                )
            self._begin()
            undone = self._store.undo(number, who)
            self._replay()
            self._apply()
            return undone

    def close(self) -> None:
        """Let other processes write; the model keeps what was learned."""
        with self._guard:
            self._write = False
            self._store.release()

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
        self._store.read()
        self._replay()
        if self._store.active:
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
        self._made_bank = None
        threshold = self._model.metadata.threshold
        for entry in self._store.active:
            novelty = self._store.cached_novelty(entry, self._model.reference.bank.shape[1] + 1)
            if novelty is None:
                novelty = self._find_novelty(self._store.image(entry))
                self._store.cache_novelty(entry, novelty)
            defective = self._bank.score(novelty) > DEFECT_RATIO * threshold.value
            self._bank.add(novelty, self._bank.select_rows(novelty), counts=not defective)
            threshold = self._threshold()

    def _threshold(self) -> Threshold:
        metadata = self._model.metadata
        left_out = metadata.shots.count > 1
        return learned_threshold(metadata.threshold, left_out, self._bank.scores())

    def _apply(self) -> None:
        self.threshold = self._threshold()
        value = self.threshold.value
        self._model.set_reference(self._bank.reference(), value, value)

    def _find_novelty(self, image: bytes) -> Novelty:
        metadata = self._model.metadata
        upright = load_resized(image, metadata.height, metadata.width)
        views = bank_views(upright, metadata.bank_rotations, metadata.bank_flip)
        embedded = [
            self._model.embed(np.stack(views[start : start + BATCH]))
            for start in range(0, len(views), BATCH)
        ]
        patches = np.concatenate([batch["patches"] for batch in embedded])
        maps = np.concatenate([batch["anomaly_map"] for batch in embedded])
        return find_novelty(patches, maps.reshape(len(maps), -1), metadata.map_threshold)

    def _check_limits(self, size: int) -> None:
        if self._model.metadata.score is not ScoreKind.PATCH:
            raise InputError(
                f"{self._path} decides by the image score, which cannot learn on a device: run  "
                "fsad-edge finetune  with this image among the shots."
            )
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

    def _begin(self) -> None:
        """Make sure that this process, and no other, writes."""
        if not self._write:
            raise InputError(f"{self.folder} was opened for reading, or is closed.")
        if not self._store.locked:
            self._store.lock()
            try:
                self._load()  # another process may have learned in the meantime
            except BaseException:
                self._store.release()
                raise


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
    most = min(max(file.value, *scores), MOST_RATIO * file.value)
    return dataclasses.replace(
        found,
        value=min(max(found.value, LEAST_RATIO * file.value), most),
        method=f"prediction bound of {len(pooled)} scores, {len(scores)} of them of images learned "
        "on the device; it rises no further than to the highest score of these images",
    )


def _suffix(image: bytes) -> str:
    """A file name's ending for encoded bytes that can be decoded."""
    with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
        return (opened.format or "image").lower()
