"""What a device learns: images that a person called good, kept beside the model file.

part.learned/
  journal.jsonl     what was learned and undone, by whom and when; bound to the file's SHA-256
  images/ID.SUFFIX  the images as they were given; with the journal they are all there is to know
  images/ID.npz     their novel patches; made again from the image where this is not there
  lock              held by the process that may write

An image is on disk before its line in the journal is, and the line before anyone is told: a process
can be killed at any moment, and what it leaves half done is cleared away by the next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import io
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from fsad_edge.calibration.calibrate import BATCH, bank_views
from fsad_edge.calibration.journal import FolderLock, append, read_journal, sync_folder
from fsad_edge.calibration.novelty import Memory, Novelty, find_novelty, in_order
from fsad_edge.calibration.threshold import threshold_from_scores
from fsad_edge.errors import InputError, ModelFileError, NotNormalError
from fsad_edge.runtime.bank import Normals
from fsad_edge.runtime.files import sha256, write_bytes
from fsad_edge.runtime.images import FORMATS, load_resized
from fsad_edge.runtime.metadata import Threshold
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.onnx_file import read_initializers

JOURNAL, IMAGES, LOCK = "journal.jsonl", "images", "lock"

#: Of the journal; a newer one is refused.
FORMAT = 1

#: An image is taken for a defect where it scores above this many times the threshold.
GROSS = 1.5

#: Learning moves the threshold between these multiples of the file's own, no further.
LOWEST, HIGHEST = 0.75, 1.5

#: Limits on what is kept.
MOST_IMAGES, MOST_BYTES = 200, 256 * 2**20


@dataclass(frozen=True)
class Entry:
    """One learned image.

    Attributes:
        id: counts up from 1; none is used twice.
        when: UTC, ISO 8601.
        who: that called it good.
        sha256: of the encoded image.
        file: its name below ``images/``.
        score: what it scored before it was learned.
        threshold: the boundary in force then.
        rows: memory bank rows that it added.
        forced: it scored like a gross defect and was learned all the same; its score does not
            count for the threshold.
        undone: when it was undone, UTC; None where it is in force.
        undone_by: by whom.
    """

    id: int
    when: str
    who: str
    sha256: str
    file: str
    score: float
    threshold: float
    rows: int
    forced: bool
    undone: str | None = None
    undone_by: str | None = None


def learned_folder(model_path: Path) -> Path:
    """Where what a model file learns is kept: ``part.learned`` beside ``part.onnx``."""
    return model_path.with_suffix(".learned")


class LearnedNormals:
    """What was learned beside one model file, in force on a loaded :class:`Model`.

    Use :meth:`open`; :meth:`close`, or a ``with`` block, lets other processes write. Safe to use
    from several threads, while others score.

    Attributes:
        folder: where it is kept; not there until something is learned.
        notice: a sentence for the user where a torn line was dropped, else None.
        threshold: in force, with the scores behind it.
    """

    def __init__(self, model_path: Path, model: Model, write: bool) -> None:
        self.folder, self._path = learned_folder(model_path), model_path
        self._journal, self._images = self.folder / JOURNAL, self.folder / IMAGES
        self._model, self._write = model, write
        self._guard = threading.RLock()
        self._lock: FolderLock | None = None
        self.notice: str | None = None
        self.threshold = model.metadata.threshold
        try:
            graph = model_path.read_bytes()
        except OSError as error:
            raise InputError(f"{model_path} cannot be read: {error.strerror or error}.") from error
        self._sha256 = sha256(graph)
        arrays = read_initializers(graph)
        try:
            names = [field.name for field in dataclasses.fields(Normals)]
            normals = Normals(**{name: arrays[name] for name in names})
        except KeyError as error:
            raise ModelFileError(f"{model_path} holds no {error}: export it again.") from error
        full = normals.rows == len(normals.bank)
        self._file = normals if full else in_order(normals)  # a full one was thinned at export
        self._length = 0
        self._entries: dict[int, Entry] = {}
        self._memory = self._new_memory()

    @classmethod
    def open(cls, model_path: str | Path, model: Model, write: bool = True) -> LearnedNormals:
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
                    self._lock = FolderLock(self.folder / LOCK)
                self._load()
            except BaseException:
                self.close()
                raise
        return self

    def entries(self) -> list[Entry]:
        """All that was ever learned, oldest first, undone ones too."""
        with self._guard:
            return list(self._entries.values())

    @property
    def active(self) -> list[Entry]:
        """What is in force, oldest first."""
        return [entry for entry in self.entries() if entry.undone is None]

    @property
    def normals(self) -> Normals:
        """The normal parts in force."""
        with self._guard:
            return self._memory.normals()

    def image_path(self, entry: Entry) -> Path:
        """Where a learned image is kept."""
        return self._images / entry.file

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
                    f"the shots and the images in {self._images}."
                )
            number = max(self._entries, default=0) + 1
            file = f"{number:04d}.{_suffix(image)}"
            entry = Entry(number, _now(), who, digest, file, score, threshold, len(rows), gross)
            self._make_folders()
            write_bytes(self._images / file, image)
            sync_folder(self._images)
            self._append({"kind": "add", **_stored(entry)})
            self._entries[number] = entry
            self._memory.add(novelty, rows, counts=not gross)
            self._apply()
            self._keep_novelty(entry, novelty)
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
            when = _now()
            self._append({"kind": "undo", "id": number, "when": when, "who": who})
            undone = dataclasses.replace(active[number], undone=when, undone_by=who)
            self._entries[number] = undone
            self._clear()
            self._replay()
            self._apply()
            return undone

    def close(self) -> None:
        """Let other processes write; the model keeps what is in force."""
        with self._guard:
            self._write = False
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def __enter__(self) -> LearnedNormals:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _load(self) -> None:
        if not self._journal.exists():
            return
        lines, self._length, torn = read_journal(self._journal)
        if torn:
            self.notice = (
                f"the last line of {self._journal} was never finished and is left out: whoever "
                "wrote it was not told that it was done."
            )
        if not lines:
            return
        try:
            self._check_header(lines[0])
            for line in lines[1:]:
                self._read(line)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"{self._journal} is damaged ({error!r}).") from error
        if self._write:
            self._clear()
        self._replay()
        if self.active:
            self._apply()

    def _check_header(self, header: dict[str, Any]) -> None:
        if int(header["format"]) > FORMAT:
            raise ModelFileError(
                f"{self._journal} was written by a newer fsad-edge: update fsad-edge here."
            )
        if header["model"] != self._sha256:
            raise ModelFileError(
                f"{self.folder} was learned with another model file than {self._path}: rename the "
                f"folder, and teach its images to this file with  fsad-edge bank add {self._path} "
                f"FOLDER/{IMAGES} ."
            )

    def _read(self, line: dict[str, Any]) -> None:
        if line["kind"] == "add":
            entry = Entry(**{name: line[name] for name in _STORED})
            if Path(entry.file).name != entry.file:
                raise ValueError(f"no file name: {entry.file}")
            self._entries[entry.id] = entry
        else:
            self._entries[line["id"]] = dataclasses.replace(
                self._entries[line["id"]], undone=line["when"], undone_by=line["who"]
            )

    def _replay(self) -> None:
        """Learn what is in force anew, in order."""
        self._memory = self._new_memory()
        for entry in self.active:
            novelty = self._kept_novelty(entry)
            if novelty is None:
                novelty = self._novelty(self._image(entry))
                if self._write:
                    self._keep_novelty(entry, novelty)
            self._memory.add(novelty, self._memory.needed(novelty), counts=not entry.forced)

    def _new_memory(self) -> Memory:
        return Memory(self._file, self._model.metadata.map_threshold)

    def _apply(self) -> None:
        self.threshold = learned_threshold(
            self._model.metadata.threshold,
            self._model.metadata.shots["count"] > 1,
            self._memory.scores(),
        )
        value = self.threshold.value
        self._model.set_normals(self._memory.normals(), value, value)

    def _novelty(self, image: bytes) -> Novelty:
        metadata = self._model.metadata
        upright = load_resized(image, metadata.height, metadata.width)
        views = bank_views(upright, metadata.bank_turns, metadata.bank_flip)
        found = [
            self._model.embed(np.stack(views[start : start + BATCH]))
            for start in range(0, len(views), BATCH)
        ]
        patches = np.concatenate([batch["patches"] for batch in found])
        maps = np.concatenate([batch["anomaly_map"] for batch in found])
        return find_novelty(patches, maps.reshape(len(maps), -1), metadata.map_threshold)

    def _keep_novelty(self, entry: Entry, novelty: Novelty) -> None:
        """Keep the patches, to be quick at the next start; not to disk at once, nor if it fails."""
        buffer = io.BytesIO()
        np.savez(buffer, **vars(novelty))
        path = self._images / f"{entry.id:04d}.npz"
        temporary = path.with_suffix(".new")
        with contextlib.suppress(OSError):
            temporary.write_bytes(buffer.getvalue())
            temporary.replace(path)

    def _kept_novelty(self, entry: Entry) -> Novelty | None:
        """What :meth:`_keep_novelty` kept; None where it is not there, not whole or of another."""
        try:
            data = (self._images / f"{entry.id:04d}.npz").read_bytes()
            with np.load(io.BytesIO(data), allow_pickle=False) as kept:
                novelty = Novelty(*(kept[field.name] for field in dataclasses.fields(Novelty)))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        depth = self._file.bank.shape[1]
        fits = novelty.upright.shape[1:] == novelty.turned.shape[1:] == (depth,)
        return novelty if fits and novelty.known.ndim == 1 else None

    def _image(self, entry: Entry) -> bytes:
        try:
            image = self.image_path(entry).read_bytes()
        except OSError as error:
            raise ModelFileError(
                f"{self.image_path(entry)} cannot be read ({error.strerror or error}): put it "
                f"back, or move {self.folder} away to begin anew."
            ) from error
        if sha256(image) != entry.sha256:
            raise ModelFileError(
                f"{self.image_path(entry)} is not the image that was learned: put that back, or "
                f"move {self.folder} away to begin anew."
            )
        return image

    def _check_room(self, size: int) -> None:
        metadata = self._model.metadata
        if metadata.score != "patch":
            raise InputError(
                f"{self._path} decides by the image score, which learns nothing on a device: "
                "run  fsad-edge finetune  with this image among the shots."
            )
        active = self.active
        held = 0
        for entry in active:
            with contextlib.suppress(OSError):
                held += self.image_path(entry).stat().st_size
        if len(active) >= MOST_IMAGES or held + size > MOST_BYTES:
            raise InputError(
                f"{len(active)} images ({held / 2**20:.0f} MiB) are learned, and at most "
                f"{MOST_IMAGES} ({MOST_BYTES // 2**20} MiB) can be: undo some, or run  fsad-edge "
                f"finetune  with the shots and the images in {self._images}."
            )

    def _begin(self) -> None:
        """Make sure that this process, and no other, writes."""
        if not self._write:
            raise InputError(f"{self.folder} was opened for reading, or is closed.")
        if self._lock is None:
            self._make_folders()
            self._lock = FolderLock(self.folder / LOCK)
            try:
                self._load()  # another process may have learned in the meantime
            except BaseException:
                self._lock.release()
                self._lock = None
                raise

    def _make_folders(self) -> None:
        try:
            self._images.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.folder} cannot be written: {error.strerror or error}."
            ) from error

    def _append(self, line: dict[str, Any]) -> None:
        if not self._length:
            header = {"kind": "model", "format": FORMAT, "model": self._sha256}
            self._length = append(self._journal, 0, header)
            sync_folder(self.folder)
            sync_folder(self.folder.parent)
        self._length = append(self._journal, self._length, line)

    def _clear(self) -> None:
        """Delete images that no line in force names: undone ones, or a killed process's."""
        kept = {entry.file for entry in self.active}
        kept |= {f"{entry.id:04d}.npz" for entry in self.active}
        for path in self._images.glob("*"):
            if path.name not in kept:
                with contextlib.suppress(OSError):
                    path.unlink()


def learned_threshold(file: Threshold, left_out: bool, scores: list[float]) -> Threshold:
    """The threshold after some images were learned.

    Args:
        file: the file's own.
        left_out: its scores are of shots against the others; those of a single shot are not.
        scores: of the learned images, each against a bank without its own rows.

    What is learned is mostly what was rejected, the highest of many scores, and would drive the rule
    far up: so that the threshold rises no further than to the highest of them.

    Returns:
        by the file's own rule, within ``LOWEST`` and ``HIGHEST`` times the file's value; the
        file's own where there are too few scores for the rule.
    """
    pooled = [*file.scores, *scores] if left_out else scores
    if not scores or len(pooled) < 2:
        return file
    found = threshold_from_scores(pooled, file.false_alarm_rate)
    most = min(max(file.value, *scores), HIGHEST * file.value)
    return dataclasses.replace(
        found,
        value=min(max(found.value, LOWEST * file.value), most),
        method=f"prediction bound of {len(pooled)} scores, {len(scores)} of them of images learned "
        "on the device; it rises no further than to the highest of those",
        promise=found.promise.replace(" shots", " images"),
    )


_STORED = [
    field.name for field in dataclasses.fields(Entry) if field.name not in {"undone", "undone_by"}
]


def _stored(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in _STORED}


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _suffix(image: bytes) -> str:
    """A file name's ending for encoded bytes that can be decoded."""
    with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
        return (opened.format or "image").lower()
