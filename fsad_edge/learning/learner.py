"""What a device learns: images that a person called good, in force on a loaded model."""

from __future__ import annotations

import dataclasses
import io
import threading
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from fsad_edge.calibration.calibrate import BATCH, bank_views
from fsad_edge.calibration.threshold import threshold_from_scores
from fsad_edge.errors import InputError, NotNormalError
from fsad_edge.learning.novelty import Memory, Novelty, find_novelty, in_order
from fsad_edge.learning.store import Entry as Entry
from fsad_edge.learning.store import LearningStore
from fsad_edge.learning.store import store_path as store_path
from fsad_edge.runtime.bank import ReferenceModel
from fsad_edge.runtime.engine_file import is_engine, read_engine
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.images import FORMATS, load_resized
from fsad_edge.runtime.metadata import Threshold
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.provenance import utc_now

#: An image is taken for a defect where it scores above this many times the threshold.
GROSS = 1.5

#: Learning moves the threshold between these multiples of the file's own, no further.
LOWEST, HIGHEST = 0.75, 1.5

#: Limits on what is kept.
MOST_IMAGES, MOST_BYTES = 200, 256 * 2**20


class Learner:
    """What was learned beside one model file, in force on a loaded :class:`Model`.

    Use :meth:`open`; :meth:`close`, or a ``with`` block, lets other processes write. Safe to use
    from several threads, while others score.

    Attributes:
        threshold: in force, with the scores behind it.
    """

    def __init__(self, model_path: Path, model: Model, write: bool) -> None:
        self._path, self._model, self._write = model_path, model, write
        self._guard = threading.RLock()
        self.threshold = model.metadata.threshold
        try:
            graph = model_path.read_bytes()
        except OSError as error:
            raise InputError(f"{model_path} cannot be read: {error.strerror or error}.") from error
        if is_engine(graph):  # the ONNX file's, so that what is learned outlives a rebuild
            digest = read_engine(graph, str(model_path)).header.source_sha256
        else:
            digest = sha256(graph)
        self._kept = LearningStore(model_path, digest)
        self._made: Memory | None = None

    @classmethod
    def open(cls, model_path: str | Path, model: Model, write: bool = True) -> Learner:
        """Put in force what was learned beside a model file.

        Args:
            model_path: the file that ``model`` was loaded from.
            model: gets the learned normals and threshold, now and at every change.
            write: False reads only, and needs no lock.

        Raises:
            InputError: another process may write, or the folder cannot be read or written.
            ModelFileError: the folder belongs to another model file, is newer or damaged.
        """
        self = cls(Path(model_path), model, write)
        if self.folder.exists():
            try:
                if write:
                    self._kept.lock()
                self._load()
            except BaseException:
                self.close()
                raise
        return self

    @property
    def folder(self) -> Path:
        """Where it is kept; not there until something is learned."""
        return self._kept.path

    @property
    def notice(self) -> str | None:
        """A sentence for the user where a torn line was dropped, else None."""
        return self._kept.notice

    def entries(self) -> list[Entry]:
        """All that was ever learned, oldest first, undone ones too."""
        with self._guard:
            return list(self._kept.entries.values())

    @property
    def active(self) -> list[Entry]:
        """What is in force, oldest first."""
        with self._guard:
            return self._kept.active

    @property
    def counted(self) -> int:
        """Images in force whose scores count for the threshold."""
        with self._guard:
            return len(self._memory.scores())

    @property
    def reference(self) -> ReferenceModel:
        """The normal parts in force."""
        with self._guard:
            return self._memory.reference()

    def image_path(self, entry: Entry) -> Path:
        """Where a learned image is kept."""
        return self._kept.image_path(entry)

    def add(self, image: bytes, who: str, force: bool = False) -> Entry:
        """Learn an image as normal; it is on disk and in force when this returns.

        An image that is in force already is not learned twice: its entry is given again.

        Args:
            image: encoded, as :func:`load_resized` takes it.
            who: says that it is good.
            force: learn it even if it scores like a gross defect.

        Raises:
            ImageError: it cannot be decoded.
            NotNormalError: it scores above ``GROSS`` times the threshold and ``force`` is not set.
            InputError: a limit is reached, or it cannot be written; nothing is changed.
        """
        with self._guard:
            self._begin()
            digest = sha256(image)
            for entry in self.active:
                if entry.sha256 == digest:
                    return entry
            self._check_room(len(image))
            novelty = self._novelty(image)
            score, threshold = self._memory.score(novelty), self.threshold.value
            gross = score > GROSS * threshold
            if gross and not force:
                raise NotNormalError(
                    f"the image scores {score / threshold:.1f} times the threshold, as defects do: "
                    "force it where it is good all the same."
                )
            rows = self._memory.needed(novelty)
            if len(self._memory.learned) + len(rows) > self._memory.most:
                raise InputError(
                    f"the memory bank has no room for {len(rows)} more rows of learned images "
                    f"({self._memory.most} at most): undo some, or run  fsad-edge finetune  with "
                    f"the shots and the images in {self._kept.images}."
                )
            number = max(self._kept.entries, default=0) + 1
            file = f"{number:04d}.{_suffix(image)}"
            entry = Entry(number, utc_now(), who, digest, file, score, threshold, len(rows), gross)
            self._kept.add(entry, image)
            self._memory.add(novelty, rows, counts=not gross)
            self._apply()
            self._kept.keep_novelty(entry, novelty)
            return entry

    def undo(self, number: int | None = None, who: str = "") -> Entry:
        """Unlearn an image, the last one in force unless told: all is as if it never was.

        Its image is deleted, its lines in the journal stay.

        Raises:
            InputError: there is no such entry in force, or it cannot be written.
        """
        with self._guard:
            active = {entry.id: entry for entry in self.active}
            if not active:
                raise InputError(f"nothing that was learned beside {self._path} is in force.")
            if number is None:
                number = max(active)
            if number not in active:
                raise InputError(
                    f"no learned image {number} is in force: it is one of "
                    f"{', '.join(map(str, active))}."
                )
            self._begin()
            undone = self._kept.undo(number, who)
            self._replay()
            self._apply()
            return undone

    def close(self) -> None:
        """Let other processes write; the model keeps what is in force."""
        with self._guard:
            self._write = False
            self._kept.release()

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
        self._kept.read()
        self._replay()
        if self._kept.active:
            self._apply()

    @property
    def _memory(self) -> Memory:
        """With what is in force; not made before it is asked for, for it holds the bank again."""
        if self._made is None:
            file = in_order(self._model.reference)
            self._made = Memory(file, self._model.metadata.map_threshold)
        return self._made

    def _replay(self) -> None:
        """Learn what is in force anew, in order.

        What is gross is so by the threshold as it then is, and not as it was when the image was
        learned: images that are undone since may have moved it.
        """
        self._made = None
        threshold = self._model.metadata.threshold
        for entry in self._kept.active:
            novelty = self._kept.kept_novelty(entry, self._model.reference.bank.shape[1] + 1)
            if novelty is None:
                novelty = self._novelty(self._kept.image(entry))
                self._kept.keep_novelty(entry, novelty)
            gross = self._memory.score(novelty) > GROSS * threshold.value
            self._memory.add(novelty, self._memory.needed(novelty), counts=not gross)
            threshold = self._threshold()

    def _threshold(self) -> Threshold:
        metadata = self._model.metadata
        left_out = metadata.shots.count > 1
        return learned_threshold(metadata.threshold, left_out, self._memory.scores())

    def _apply(self) -> None:
        self.threshold = self._threshold()
        value = self.threshold.value
        self._model.set_reference(self._memory.reference(), value, value)

    def _novelty(self, image: bytes) -> Novelty:
        metadata = self._model.metadata
        upright = load_resized(image, metadata.height, metadata.width)
        views = bank_views(upright, metadata.bank_rotations, metadata.bank_flip)
        found = [
            self._model.embed(np.stack(views[start : start + BATCH]))
            for start in range(0, len(views), BATCH)
        ]
        patches = np.concatenate([batch["patches"] for batch in found])
        maps = np.concatenate([batch["anomaly_map"] for batch in found])
        return find_novelty(patches, maps.reshape(len(maps), -1), metadata.map_threshold)

    def _check_room(self, size: int) -> None:
        metadata = self._model.metadata
        if metadata.score != "patch":
            raise InputError(
                f"{self._path} decides by the image score, which learns nothing on a device: "
                "run  fsad-edge finetune  with this image among the shots."
            )
        active, held = self._kept.active, self._kept.bytes_held()
        if len(active) >= MOST_IMAGES or held + size > MOST_BYTES:
            raise InputError(
                f"{len(active)} images ({held / 2**20:.0f} MiB) are learned, and at most "
                f"{MOST_IMAGES} ({MOST_BYTES // 2**20} MiB) can be: undo some, or run  fsad-edge "
                f"finetune  with the shots and the images in {self._kept.images}."
            )

    def _begin(self) -> None:
        """Make sure that this process, and no other, writes."""
        if not self._write:
            raise InputError(f"{self.folder} was opened for reading, or is closed.")
        if not self._kept.locked:
            self._kept.lock()
            try:
                self._load()  # another process may have learned in the meantime
            except BaseException:
                self._kept.release()
                raise


def learned_threshold(file: Threshold, left_out: bool, scores: list[float]) -> Threshold:
    """The threshold after some images were learned.

    Args:
        file: the file's own.
        left_out: its scores are of shots against the others; those of a single shot are not.
        scores: of the learned images, each against a bank without its own rows.

    What is learned is mostly what was rejected, the highest of many scores, and would drive the
    rule far up: so the threshold rises no further than to the highest of them.

    Returns:
        by the file's own rule, within ``LOWEST`` and ``HIGHEST`` times the file's value; the
        file's own where there are too few scores for the rule.
    """
    pooled = [*file.scores, *scores] if left_out else scores
    if not scores or len(pooled) < 2:
        return file
    found = threshold_from_scores(pooled, file.false_alarm_rate, file.prior_std)
    most = min(max(file.value, *scores), HIGHEST * file.value)
    return dataclasses.replace(
        found,
        value=min(max(found.value, LOWEST * file.value), most),
        method=f"prediction bound of {len(pooled)} scores, {len(scores)} of them of images learned "
        "on the device; it rises no further than to the highest of those",
        reliability=found.reliability.replace(" shots", " images"),
    )


def _suffix(image: bytes) -> str:
    """A file name's ending for encoded bytes that can be decoded."""
    with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
        return (opened.format or "image").lower()
