"""The raw rows: one JSON line for each run, written as soon as the run is done."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsad_edge.errors import InputError

Row = dict[str, Any]

#: The columns that identify a run. ``settings`` are a system's options or weights.
KEY = ("dataset", "system", "settings", "shots", "seed")


def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The run that a row belongs to."""
    return tuple(row[name] for name in KEY)


def read_rows(path: Path) -> list[Row]:
    """All rows of a file, in the order of writing. A later row of a run replaces the earlier one.

    A last line that was cut short is ignored.

    Raises:
        InputError: any other line is not a row.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    rows = {}
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break
        try:
            row = json.loads(line)
            rows[key(row)] = row
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"line {number} of {path} is not a row: remove it.") from error
    return list(rows.values())


def append_row(path: Path, row: Row) -> None:
    """Append a row as one line; an unfinished last line is removed first."""
    with path.open("ab+") as file:
        file.seek(0)
        whole = file.read().rpartition(b"\n")
        file.truncate(len(whole[0] + whole[1]))
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
