"""The scores of an archive: a folder of Parquet files, whole or not there, no row twice.

_archive.json           what made it: model, source, which run writes now
part-<hash>.parquet     rows of some images, written by the worker that scored them
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fsad_edge.errors import InputError
from fsad_edge.runtime.files import sha256, write_bytes

MANIFEST = "_archive.json"  # Parquet readers pass by what begins so
SCHEMA = 1

#: Workers that may die on one batch.
ATTEMPTS = 5

#: Columns after those that say which image it is.
RESULT = pa.schema(
    [
        ("score", pa.float64()),
        ("threshold", pa.float64()),
        ("ratio", pa.float64()),
        ("decision", pa.string()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class Counts:
    """Images by what was decided of them."""

    good: int = 0
    anomalies: int = 0
    errors: int = 0

    @property
    def images(self) -> int:
        return self.good + self.anomalies + self.errors

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.good + other.good, self.anomalies + other.anomalies, self.errors + other.errors
        )


@dataclass(frozen=True)
class Archive:
    """One run's hold on an output folder; workers get a copy.

    A part's name follows from its rows, so that a batch which is scored again, its worker having
    died, replaces the file it had written. A run that starts takes the folder over: workers of an
    earlier one that live on, as they may on a cluster, find another run's name and write no more.
    """

    folder: Path
    run: str

    @classmethod
    def open(cls, folder: Path, model: dict[str, str], source: str) -> Archive:
        """Take an output folder over, new or with what earlier runs wrote.

        Args:
            folder: it is made where it does not exist, but not its parents.
            model: ``name`` and ``sha256`` of the model.
            source: the archive that is scored.

        Raises:
            InputError: the folder holds something else, or another model's or archive's scores.
        """
        folder = folder.absolute()
        try:
            folder.mkdir(exist_ok=True)
            inside = any(folder.iterdir())
        except OSError as error:
            raise InputError(f"{folder} cannot be made: {error.strerror or error}.") from error
        if inside:
            _check_same(folder, model, source)
        run = uuid.uuid4().hex
        document = {"schema": SCHEMA, "model": model, "source": source, "run": run}
        write_bytes(folder / MANIFEST, (json.dumps(document, indent=1) + "\n").encode())
        for torn in folder.glob(".part-*"):  # of workers that were killed
            torn.unlink(missing_ok=True)
        return cls(folder, run)

    def forget_errors(self) -> None:
        """Take the rows of unreadable images out, to score them anew."""
        for path in self._parts():
            table = _read(path)
            kept = table.filter(pc.is_null(table["error"]))
            if not kept.num_rows:
                path.unlink()
            elif kept.num_rows < table.num_rows:
                write_bytes(path, _parquet(kept))

    def done(self, key: pa.Field) -> tuple[pa.ChunkedArray, Counts]:
        """The keys of the images that have a row, and what was decided of them.

        Args:
            key: name and type of the column that tells the rows apart.
        """
        keys, counts = [], Counts()
        for path in self._parts():
            table = _read(path)
            if key.name not in table.column_names or table[key.name].type != key.type:
                raise InputError(
                    f"{path} has no column {key.name} of {key.type}: name another --output."
                )
            keys.append(table[key.name])
            counts += counts_of(table)
        chunks = [chunk for column in keys for chunk in column.chunks]
        return pa.chunked_array(chunks, key.type), counts

    def begin(self, keys: pa.Table) -> Path:
        """Where the rows of these images go, in this attempt.

        Ray gives the batch of a worker that died to the next one, without end: an image on which
        they die would be scored for ever.

        Args:
            keys: what tells the images apart, in the first column.

        Raises:
            InputError: workers died on this batch ``ATTEMPTS`` times.
        """
        names = keys.column(0).to_pylist()
        path = self.folder / f"part-{sha256(repr(names).encode())[:24]}.parquet"
        tries = _tries(path)
        attempts = int(tries.read_text()) if tries.exists() else 0
        if attempts == ATTEMPTS:
            raise InputError(
                f"workers died {attempts} times on the {len(names)} images from {names[0]} to "
                f"{names[-1]}: take the one out that they die on, or ask for fewer --workers if "
                "memory is short, and run the same command again."
            )
        write_bytes(tries, str(attempts + 1).encode())
        return path

    def write(self, path: Path, table: pa.Table) -> None:
        """Write scored rows to where :meth:`begin` said.

        Raises:
            InputError: another run has taken the folder over, or it cannot be written.
        """
        data = _parquet(table)
        if _manifest(self.folder).get("run") != self.run:
            raise InputError(f"another run writes into {self.folder} now: this one stopped.")
        write_bytes(path, data)
        _tries(path).unlink(missing_ok=True)

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.parquet"))


def _tries(path: Path) -> Path:
    return path.with_name(f".{path.name}.tries")


def counts_of(table: pa.Table) -> Counts:
    """What was decided of the rows of a part."""
    decisions = table["decision"].to_pylist()
    return Counts(*(decisions.count(name) for name in ("good", "anomaly", "error")))


def _check_same(folder: Path, model: dict[str, str], source: str) -> None:
    document = _manifest(folder)
    if not document:
        raise InputError(
            f"{folder} is not empty and holds no scores of an archive: name another --output."
        )
    if document.get("schema") != SCHEMA:
        raise InputError(f"{folder} was written by another version: name another --output.")
    if document["model"]["sha256"] != model["sha256"]:
        raise InputError(
            f"{folder} holds scores of another model ({document['model']['name']}, or what it had "
            "learned then): name another --output."
        )
    if document["source"] != source:
        raise InputError(f"{folder} holds scores of {document['source']}: name another --output.")


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        document = json.loads((folder / MANIFEST).read_text())
        return document if isinstance(document, dict) and "model" in document else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / MANIFEST} cannot be read ({error}).") from error


def _read(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is damaged ({error}): delete it, and its images are scored again."
        ) from error


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())
