"""List the images of an archive: a folder of images, or a Parquet table of them."""

from __future__ import annotations

import dataclasses
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
from fsad_edge.runtime.folders import Skipped, no_image, walk

#: Columns that may identify an image, the preferred one first.
KEY_COLUMNS = ("id", "path")

#: Columns that may hold the encoded image: as bytes, or as Hugging Face's ``{bytes, path}``.
IMAGE_COLUMNS = ("image", "bytes")

#: Number of images that are read out of a table at a time.
READ_ROWS = 32

#: Columns that locate an image: the file's path as the system has it and, for an image in a table,
#: its row group and its row in that group.
FILE, GROUP, ROW = "__file", "__group", "__row"


@dataclass(frozen=True)
class Source:
    """The images of an archive.

    Attributes:
        path: absolute path of the folder or the table.
        rows: a row for each image: ``id``, ``path`` or both, the first of which identifies the
            image; then ``FILE`` (binary) and, for images in tables, ``GROUP`` and ``ROW``.
        column: name of the column with the images, if they are in tables.
        skipped: entries of a folder of images that are not among them.
    """

    path: str
    rows: pa.Table
    column: str = ""
    skipped: tuple[Skipped, ...] = ()

    @property
    def key(self) -> pa.Field:
        """Name and type of the column that identifies an image."""
        return self.rows.schema.field(0)

    def without(self, keys: pa.ChunkedArray) -> Source:
        """The images whose key is not in ``keys``."""
        known = pc.is_in(self.rows.column(0), value_set=keys.combine_chunks())
        return dataclasses.replace(self, rows=self.rows.filter(pc.invert(known)))


def read_source(path: Path) -> Source:
    """List the images of an archive. No image is read.

    Args:
        path: a folder of images, a Parquet file, or a folder of Parquet files.

    Raises:
        InputError: it holds neither images nor Parquet files, or the rows of a table cannot be
            told apart.
    """
    path = Path(os.path.abspath(path))
    if os.path.isfile(path):
        if path.suffix != ".parquet":
            raise InputError(f"{path} is neither a folder of images nor a .parquet file.")
        return _list_tables([path], path)
    found: list[str] = []
    skipped: list[Skipped] = []
    for entry in walk(path):
        if isinstance(entry, Skipped):
            skipped.append(entry)
        else:
            found.append(str(entry))
    if found:
        found.sort()
        names = [os.fsencode(name) for name in found]
        # A file name need not be valid text: ``path`` is for readers, ``FILE`` opens the file.
        text = [name.encode("utf-8", "backslashreplace").decode() for name in found]
        return Source(str(path), pa.table({"path": text, FILE: names}), skipped=tuple(skipped))
    tables = sorted(table for table in path.glob("*.parquet") if table.is_file())
    if not tables:
        raise no_image(path, skipped, " and no .parquet file")
    return _list_tables(tables, path)


def _list_tables(files: list[Path], path: Path) -> Source:
    try:
        schema = pq.read_schema(files[0])
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{files[0]} is not a Parquet file that can be read: {error}") from error
    image = next((name for name in IMAGE_COLUMNS if name in schema.names), "")
    keys = _key_columns(schema, image, path)
    rows = _read_columns(files, keys)
    if keys == [f"{image}.path"]:  # Parquet gives the inner column inside of its struct
        inner = pc.struct_field(rows[image], "path")
        rows = rows.set_column(rows.column_names.index(image), "path", inner)
    _check_keys(rows, path)
    if image:
        return Source(str(path), rows, image)
    kind = rows["path"].type
    if not _is_text(kind):
        raise InputError(f"the column path of {path} holds {kind}: it must hold text.")
    base = os.fsencode(path if path.is_dir() else path.parent)
    names = [os.path.join(base, os.fsencode(name or "")) for name in rows["path"].to_pylist()]
    return Source(str(path), pa.table({**{key: rows[key] for key in keys}, FILE: names}))


def _key_columns(schema: pa.Schema, image: str, path: Path) -> list[str]:
    """The columns to read for ``id`` and ``path``; the images' column is checked on the way."""
    keys = [name for name in KEY_COLUMNS if name in schema.names]
    if image:
        kind = schema.field(image).type
        fields = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}
        encoded = fields.get("bytes", kind)
        if not (pa.types.is_binary(encoded) or pa.types.is_large_binary(encoded)):
            raise InputError(
                f"the column {image} of {path} holds {encoded}: it must hold the bytes of image "
                "files."
            )
        if not keys and "path" in fields:
            return [f"{image}.path"]
    elif "path" not in keys:
        raise InputError(
            f"{path} has the columns {', '.join(schema.names)}: it needs a column `path`, or "
            "`image` or `bytes` with the encoded images."
        )
    if not keys:
        raise InputError(
            f"{path} has no column `id` or `path` that identifies the rows in the result: add one."
        )
    return keys


def _read_columns(files: list[Path], columns: list[str]) -> pa.Table:
    """These columns of all rows, with the location of each row."""
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
        rows = np.concatenate([np.arange(size) for size in sizes] or [np.arange(0)])
        names = pa.array([os.fsencode(file)] * len(table))
        for name, column in ((FILE, names), (GROUP, groups), (ROW, rows)):
            table = table.append_column(name, pa.array(column))
        tables.append(table)
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise InputError(f"the files have columns of different types: {error}") from error


def _check_keys(rows: pa.Table, path: Path) -> None:
    """Refuse keys that are missing, or the same for two images."""
    name, keys = rows.column_names[0], rows.column(0)
    if not (_is_text(keys.type) or pa.types.is_integer(keys.type)):
        raise InputError(
            f"the column {name} of {path} holds {keys.type}: it must hold text or whole numbers."
        )
    if not len(keys):
        raise InputError(f"{path} has no rows.")
    if keys.null_count:
        raise InputError(
            f"the column {name} of {path} is empty in {keys.null_count} rows: fill it."
        )
    counts = pc.value_counts(keys)
    if len(counts) < len(keys):
        twice = next(pair["values"] for pair in counts.to_pylist() if pair["counts"] > 1)
        raise InputError(f"the {name} {twice} is in more than one row of {path}.")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def images_of(rows: pa.Table, column: str) -> Iterator[Path | bytes | None]:
    """The image of each row, in order: its path, or its bytes from a table; None for an empty cell.

    Args:
        rows: rows of a :class:`Source`.
        column: the source's ``column``.

    Raises:
        InputError: a table can no longer be read.
    """
    if GROUP not in rows.column_names:
        yield from (Path(os.fsdecode(name)) for name in rows[FILE].to_pylist())
        return
    locations = zip(*(rows[name].to_pylist() for name in (FILE, GROUP, ROW)), strict=True)
    for (file, group), cells in itertools.groupby(locations, lambda location: location[:2]):
        try:
            yield from _read_cells(os.fsdecode(file), column, group, [row for *_, row in cells])
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{os.fsdecode(file)} cannot be read: {error}") from error


def _read_cells(file: str, column: str, group: int, rows: list[int]) -> Iterator[Any]:
    """Cells of a row group, which may be larger than memory: ``READ_ROWS`` are read at a time."""
    # With pre-buffering, the whole row group would be read before its first row.
    with pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as opened:
        start, wanted = 0, iter(rows)
        row = next(wanted)
        for stretch in opened.iter_batches(READ_ROWS, [group], [column]):
            while row < start + len(stretch):
                cell = stretch.column(0)[row - start].as_py()
                yield cell["bytes"] if isinstance(cell, dict) else cell
                row = next(wanted, -1)
                if row < 0:
                    return
            start += len(stretch)
