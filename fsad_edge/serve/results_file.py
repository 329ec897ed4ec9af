"""Results on disk, as lines of JSON."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fsad_edge.errors import InputError
from fsad_edge.serve.schemas import ResultRecord, WatchedError, to_json

#: Bytes of a results file before it is put aside, and how many of these are kept.
ROTATE_BYTES, ROTATED = 64 << 20, 20


class ResultsFile:
    """``results.jsonl`` in a folder: one line for each result, put aside when it is large.

    Args:
        folder: is made if it does not exist.
        rotate_bytes: size above which the file is put aside.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, rotate_bytes: int = ROTATE_BYTES) -> None:
        self.path = folder / "results.jsonl"
        self._rotate_bytes = rotate_bytes
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written ({error.strerror or error}): choose another folder "
                "with --results."
            ) from error

    def write(self, record: ResultRecord | WatchedError) -> None:
        """Append a line; the system has it when this returns. Raises OSError."""
        line = to_json(record).encode() + b"\n"
        with self._lock:
            if self._file.tell() + len(line) > self._rotate_bytes and self._file.tell():
                self._rotate()
            self._file.write(line)
            self._file.flush()

    def read(self) -> Iterator[dict[str, Any]]:
        """All lines of this file and of those put aside, oldest first, without damaged ones."""
        for path in [*reversed(self._aside()), self.path]:
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                for line in file:
                    with contextlib.suppress(ValueError):
                        yield json.loads(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _aside(self) -> list[Path]:
        return [self.path.with_name(f"results.{number}.jsonl") for number in range(1, ROTATED + 1)]

    def _open(self) -> IO[bytes]:
        file = self.path.open("ab+")
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a line that was cut short when the power failed
                file.write(b"\n")
        return file

    def _rotate(self) -> None:
        self._file.close()
        places = [self.path, *self._aside()]
        for newer, older in reversed(list(itertools.pairwise(places))):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        self._file = self._open()
