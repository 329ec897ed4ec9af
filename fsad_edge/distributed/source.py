"""What an archive is made of: a folder of images, or a table of them in Parquet."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fsad_edge.errors import InputError
from fsad_edge.runtime.images import IMAGE_SUFFIXES

#: Columns that may hold the image itself, encoded: as bytes, or as Hugging Face's
#: ``{bytes, path}``.
IMAGE_COLUMNS = ("image", "bytes")

#: Images read out of a table at a time.
STRETCH = 32

#: The columns that say where an image is: a path as the system has it, or of a table the file, the
#: row group and the row in it.
FILE, GROUP, ROW = "__file", "__group", "__row"


@dataclass(frozen=True)
class Source:
    """An archive.

    Attributes:
        place: absolute path of the folder or of the table.
        rows: a row an image: ``id`` or ``path`` or both, the first of which tells the rows apart;
            then where it is, ``FILE`` (binary) and, of images in tables, ``GROUP`` and ``ROW``.
        column: of the images, where they are in tables.
    """

    place: str
    rows: pa.Table
    column: str = ""

    @property
    def key(self) -> pa.Field:
        """Name and type of the column that tells the rows apart."""
        return self.rows.schema.field(0)

    def missing(self, done: pa.ChunkedArray) -> pa.Table:
        """The rows whose key is not among ``done``."""
        known = pc.is_in(self.rows.column(0), value_set=done.combine_chunks())
        return self.rows.filter(pc.invert(known))


def read_source(place: Path) -> Source:
    """List an archive; no image is read.

    Args:
        place: a folder of images, a Parquet file, or a folder of Parquet files.

    Raises:
        InputError: it holds neither, or a table in which rows cannot be told apart.
    """
    place = Path(os.path.abspath(place))
    if place.is_file():
        if place.suffix != ".parquet":
            raise InputError(f"{place} is not a folder of images, nor a .parquet file.")
        return _table([place], place)
    if not place.is_dir():
        raise InputError(f"{place} does not exist: give a folder of images or a .parquet file.")
    found = sorted(_files(str(place)))
    if found:
        names = [os.fsencode(path) for path in found]
        # A name need not be text: what is written then is readable, what is opened is the name.
        text = [path.encode("utf-8", "backslashreplace").decode() for path in found]
        return Source(str(place), pa.table({"path": text, FILE: names}))
    tables = sorted(path for path in place.glob("*.parquet") if path.is_file())
    if not tables:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"{place} holds no image (looked for {kinds}) and no .parquet file.")
    return _table(tables, place)


def _files(folder: str) -> Iterator[str]:
    """As ``find_images`` finds them, a name at a time: there may be millions."""
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield os.path.join(parent, name)


def _table(files: list[Path], place: Path) -> Source:
    try:
        schema = pq.read_schema(files[0])
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{files[0]} is not a Parquet file that can be read: {error}") from error
    column = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    known = [name for name in ("id", "path") if name in schema.names]
    if column is None and "path" not in known:
        raise InputError(
            f"{place} has the columns {', '.join(schema.names)}: it takes a column `path`, or "
            "`image` or `bytes` with the encoded images."
        )
    wanted = list(known)
    struct = column is not None and pa.types.is_struct(schema.field(column).type)
    if column is not None:
        kind = schema.field(column).type
        names = [field.name for field in kind] if struct else []
        if "bytes" in names:
            kind = kind.field("bytes").type
            if not known and "path" in names:
                wanted = [f"{column}.path"]
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise InputError(
                f"the column {column} of {place} holds {kind}: it takes the bytes of image files."
            )
    if not wanted:
        raise InputError(
            f"{place} has no column `id` or `path`, by which the rows could be told apart in the "
            "result: add one."
        )
    rows = _read(files, wanted)
    if not known:
        inner = pc.struct_field(rows[column], "path")
        rows = rows.set_column(rows.column_names.index(column), "path", inner)
    _check_key(rows, place)
    if column is not None:
        return Source(str(place), rows, column)
    kind = rows["path"].type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(f"the column path of {place} holds {kind}: it takes text.")
    base = os.fsencode(place if place.is_dir() else place.parent)
    paths = [os.path.join(base, os.fsencode(path or "")) for path in rows["path"].to_pylist()]
    return Source(str(place), pa.table({**{name: rows[name] for name in known}, FILE: paths}))


def _read(files: list[Path], columns: list[str]) -> pa.Table:
    """These columns of all rows, and where each row is."""
    tables: list[pa.Table] = []
    for file in files:
        try:
            opened = pq.ParquetFile(file)
            table = opened.read(columns=columns)
            sizes = [
                opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)
            ]
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{file} cannot be read: {error}") from error
        if tables and table.column_names != tables[0].column_names[:-3]:
            raise InputError(f"{file} has other columns than {files[0]}.")
        groups = np.repeat(np.arange(len(sizes)), sizes)
        places = np.concatenate([np.arange(size) for size in sizes] or [np.arange(0)])
        names = pa.array([os.fsencode(file)] * len(table))
        for name, column in ((FILE, names), (GROUP, groups), (ROW, places)):
            table = table.append_column(name, pa.array(column))
        tables.append(table)
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise InputError(f"the files have columns of different types: {error}") from error


def _check_key(rows: pa.Table, place: Path) -> None:
    """Refuse what would get one row for two images, or none."""
    key: Any = rows.column(0)
    name = rows.column_names[0]
    if not (pa.types.is_string(key.type) or pa.types.is_large_string(key.type)) and not (
        pa.types.is_integer(key.type)
    ):
        raise InputError(
            f"the column {name} of {place} holds {key.type}: it takes text or numbers."
        )
    if not len(key):
        raise InputError(f"{place} has no rows.")
    if key.null_count:
        raise InputError(
            f"the column {name} of {place} is empty in {key.null_count} rows: fill it."
        )
    counts = pc.value_counts(key)
    if len(counts) < len(key):
        twice = next(pair["values"] for pair in counts.to_pylist() if pair["counts"] > 1)
        raise InputError(f"the {name} {twice} stands in more than one row of {place}.")


def images_of(batch: pa.Table, column: str) -> Iterator[Path | bytes | None]:
    """Each row's image, in order: where it is, or its bytes out of a table, None where it has none.

    Args:
        batch: rows of a :class:`Source`.
        column: its ``column``.

    Raises:
        InputError: a table cannot be read any more.
    """
    if GROUP not in batch.column_names:
        yield from (Path(os.fsdecode(name)) for name in batch[FILE].to_pylist())
        return
    places = zip(*(batch[name].to_pylist() for name in (FILE, GROUP, ROW)), strict=True)
    for (file, group), rows in itertools.groupby(places, lambda place: place[:2]):
        try:
            yield from _column_rows(os.fsdecode(file), column, group, [row for *_, row in rows])
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{os.fsdecode(file)} cannot be read: {error}") from error


def _column_rows(file: str, column: str, group: int, rows: list[int]) -> Iterator[bytes | None]:
    """Cells of a row group, which may be larger than memory: read a stretch at a time."""
    # Else the whole row group is read before its first row.
    with pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as opened:
        start, wanted = 0, iter(rows)
        row = next(wanted)
        for stretch in opened.iter_batches(STRETCH, [group], [column]):
            while row < start + len(stretch):
                cell = stretch.column(0)[row - start].as_py()
                yield cell["bytes"] if isinstance(cell, dict) else cell
                row = next(wanted, -1)
                if row < 0:
                    return
            start += len(stretch)
