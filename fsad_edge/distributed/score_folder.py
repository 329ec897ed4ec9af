"""The folder of an archive's scores: complete Parquet files, and no image in two rows.

_archive.json            the model, the archive and the run that writes at present
chunk-<hash>.parquet     the rows of some images, written by the worker that scored them
"""

from __future__ import annotations

import dataclasses
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fsad_edge.errors import InputError
from fsad_edge.options import Decision
from fsad_edge.runtime.documents import read_document, write_document
from fsad_edge.runtime.files import read_bytes, sha256, write_bytes, writing
from fsad_edge.runtime.temporary_files import clear_left

MANIFEST = "_archive.json"  # readers of Parquet folders skip names that begin with an underscore

#: A chunk is given up once this many workers have died on it.
MAX_ATTEMPTS = 5

_NUMBERS = pa.list_(pa.float64())

#: A region; its members are those of :func:`~fsad_edge.runtime.found_regions.region_document`.
REGION_TYPE = pa.struct(
    [
        ("number", pa.int64()),
        ("box", _NUMBERS),
        ("area", pa.float64()),
        ("centroid", _NUMBERS),
        ("polygon", pa.list_(_NUMBERS)),
        ("peak", pa.float64()),
        ("mean", pa.float64()),
        ("ratio", pa.float64()),
        ("area_mm2", pa.float64()),
        ("box_mm", _NUMBERS),
        ("centroid_mm", _NUMBERS),
    ]
)

#: The columns after those that identify the image.
RESULT_SCHEMA = pa.schema(
    [
        ("score", pa.float64()),
        ("threshold", pa.float64()),
        ("ratio", pa.float64()),
        ("decision", pa.string()),
        ("good", pa.bool_()),
        ("doubts", pa.list_(pa.string())),
        ("reasons", pa.list_(pa.string())),
        ("image_score", pa.float64()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("regions", pa.list_(REGION_TYPE)),
        ("more_regions", pa.int64()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class ScoreManifest:
    """What a folder of scores says of itself.

    Attributes:
        model: name of the model file.
        model_sha256: SHA-256 of everything in the model that the scores depend on.
        archive: absolute path of the archive.
        run: random name of the run that may write into the folder.
        mm_per_px: millimetres that a pixel of the photographs shows; None where it is not known.
    """

    model: str
    model_sha256: str
    archive: str
    run: str = ""
    mm_per_px: float | None = None


@dataclass(frozen=True)
class DecisionCounts:
    """Numbers of images by decision; ``errors`` are those that cannot be read."""

    good: int = 0
    anomalies: int = 0
    not_judged: int = 0
    errors: int = 0

    @classmethod
    def of(cls, table: pa.Table) -> DecisionCounts:
        """The decisions in the rows of a chunk."""
        counts = Counter(table["decision"].to_pylist())
        return cls(
            good=counts[Decision.GOOD],
            anomalies=counts[Decision.ANOMALY],
            not_judged=counts[Decision.NOT_JUDGED],
            errors=counts[Decision.ERROR],
        )

    @property
    def images(self) -> int:
        """The number of all images."""
        return sum(vars(self).values())

    def __add__(self, other: DecisionCounts) -> DecisionCounts:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return DecisionCounts(*(ours + theirs for ours, theirs in pairs))


@dataclass(frozen=True)
class ScoreFolder:
    """An output folder in the hands of one run; each worker gets a copy of this object.

    The name of a chunk is computed from its images. If a worker dies and its images are scored
    again, the new file therefore replaces the old one. A new run takes the folder over: workers of
    an earlier run, which can live on for a moment on a cluster, read another run's name in the
    manifest and write nothing more.

    Attributes:
        folder: absolute path.
        run: name of the run.
    """

    folder: Path
    run: str

    @classmethod
    def open(cls, folder: Path, manifest: ScoreManifest) -> ScoreFolder:
        """Take over an output folder, which is empty, new or holds scores of earlier runs.

        Args:
            folder: created if it does not exist, but its parent must exist.
            manifest: the model and the archive; the name of the run is filled in here.

        Raises:
            InputError: the folder holds other files, or scores of another model or archive.
            ModelFileError: the folder's manifest is damaged, or of another version.
        """
        folder = folder.absolute()
        with writing(folder):
            folder.mkdir(exist_ok=True)
            clear_left(folder)
            empty = not any(folder.iterdir())
        if not empty:
            _check_same(folder, manifest)
        run = uuid.uuid4().hex
        document = write_document(dataclasses.replace(manifest, run=run), indent=1)
        write_bytes(folder / MANIFEST, f"{document}\n".encode())
        for unfinished in folder.glob(".chunk-*"):  # left by workers that were killed
            unfinished.unlink(missing_ok=True)
        return cls(folder, run)

    def forget_errors(self) -> None:
        """Delete the rows of images that could not be read, so that they are scored again."""
        for path in self._chunks():
            table = _read(path)
            kept = table.filter(pc.is_null(table["error"]))
            if not kept.num_rows:
                path.unlink()
            elif kept.num_rows < table.num_rows:
                write_bytes(path, _to_parquet(kept))

    def read_keys(self, key: pa.Field) -> tuple[pa.ChunkedArray, DecisionCounts]:
        """The keys of the images that have a row, and the numbers of decisions.

        Args:
            key: name and type of the column that identifies an image.

        Raises:
            InputError: a chunk is damaged or has no such column.
        """
        keys, counts = [], DecisionCounts()
        for path in self._chunks():
            table = _read(path)
            if key.name not in table.column_names or table[key.name].type != key.type:
                raise InputError(
                    f"{path} has no column {key.name} of {key.type}: name another --output."
                )
            keys += table[key.name].chunks
            counts += DecisionCounts.of(table)
        return pa.chunked_array(keys, key.type), counts

    def start_chunk(self, keys: pa.Table) -> Path:
        """Count an attempt at scoring these images, and name the file for their rows.

        Ray passes the images of a worker that died to the next worker, without a limit. Without
        the count, an image on which workers die would be scored forever.

        Args:
            keys: a row for each image; the first column identifies it.

        Raises:
            InputError: ``MAX_ATTEMPTS`` workers have died on these images.
        """
        names = keys.column(0).to_pylist()
        path = self.folder / f"chunk-{sha256(repr(names).encode())[:24]}.parquet"
        counter = _attempts_file(path)
        attempts = int(read_bytes(counter)) if counter.exists() else 0
        if attempts == MAX_ATTEMPTS:
            raise InputError(
                f"workers died {attempts} times on the {len(names)} images from {names[0]} to "
                f"{names[-1]}: remove the image that they die on, or use fewer --workers if "
                "memory is short, and run the same command again."
            )
        write_bytes(counter, str(attempts + 1).encode())
        return path

    def write_chunk(self, path: Path, table: pa.Table) -> None:
        """Write scored rows to the file that :meth:`start_chunk` named.

        Raises:
            InputError: another run has taken over the folder, or the file cannot be written.
        """
        data = _to_parquet(table)
        if _read_manifest(self.folder).run != self.run:
            raise InputError(f"another run writes into {self.folder} now: this run stopped.")
        write_bytes(path, data)
        _attempts_file(path).unlink(missing_ok=True)

    def _chunks(self) -> list[Path]:
        return sorted(self.folder.glob("chunk-*.parquet"))


def _attempts_file(chunk: Path) -> Path:
    return chunk.with_name(f".{chunk.name}.attempts")


def _check_same(folder: Path, expected: ScoreManifest) -> None:
    if not (folder / MANIFEST).exists():
        raise InputError(
            f"{folder} is not empty and holds no scores of an archive: name another --output."
        )
    manifest = _read_manifest(folder)
    if manifest.model_sha256 != expected.model_sha256:
        raise InputError(
            f"{folder} holds scores of another model ({manifest.model}, or what it had learned "
            "then): name another --output."
        )
    if manifest.archive != expected.archive:
        raise InputError(f"{folder} holds scores of {manifest.archive}: name another --output.")
    if manifest.mm_per_px != expected.mm_per_px:
        before = manifest.mm_per_px
        cure = "leave it out" if before is None else f"give --mm-per-px {before:g}"
        raise InputError(
            f"{folder} holds scores with another --mm-per-px: {cure}, or name another --output."
        )


def _read_manifest(folder: Path) -> ScoreManifest:
    path = folder / MANIFEST
    return read_document(ScoreManifest, read_bytes(path), str(path), "name another --output")


def _read(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is damaged ({error}): delete it, and its images are scored again."
        ) from error


def _to_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())
