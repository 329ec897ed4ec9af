"""Standard output and standard error where nobody reads them, the disk is full or they are closed.

Results that cannot be written are an error. Messages that cannot be written change nothing, because
the exit code says the same.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from fsad_edge.errors import FsadEdgeError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: Exit code where the reader has seen enough, such as ``head``: what a shell says of SIGPIPE.
READER_LEFT = 141


class _Stream(io.RawIOBase):
    """A standard stream whose failures are decided here; it never closes its descriptor."""

    def __init__(self, raw: io.RawIOBase, results: bool) -> None:
        self._raw, self._results, self._failed = raw, results, False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def write(self, data: ReadableBuffer, /) -> int:
        if not self._failed:
            try:
                while (written := self._raw.write(data)) is None:  # a full pipe that does not block
                    select.select([], [self._raw], [])
            except OSError as error:
                self._failed = True  # whatever is still buffered is lost, too
                if self._results:
                    _end(error)
            else:
                return written
        return memoryview(data).nbytes


def _end(error: OSError) -> None:
    """End the command, whatever library is printing: no handler of OSError may see this.

    Typer and Rich exit with 1 where a pipe is broken, and 1 means that an anomaly was found.
    """
    if isinstance(error, BrokenPipeError):
        raise SystemExit(READER_LEFT) from None
    reason = "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)
    raise FsadEdgeError(
        f"standard output cannot be written ({reason}): the results are not complete."
    ) from None


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Decide in the block what a standard stream that cannot be written means."""
    _reserve_descriptors()
    before = sys.stdout, sys.stderr
    # A caller that captures the streams keeps its own.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _guarded(sys.stdout, 1, results=True)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _guarded(sys.stderr, 2, results=False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _reserve_descriptors() -> None:
    """Keep a closed stream's number from the next file that is opened, such as a model."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # Nothing can be written to it, as to the closed one.
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)


def _guarded(stream: TextIO | None, number: int, results: bool) -> TextIO:
    raw: io.RawIOBase
    if stream is None:  # it was closed when Python started
        raw, encoding, lines = io.FileIO(number, "w", closefd=False), "utf-8", True
    else:
        stream.flush()
        buffer: Any = stream.buffer
        raw = getattr(buffer, "raw", buffer)  # with PYTHONUNBUFFERED there is no other
        encoding, lines = stream.encoding, stream.isatty() or not results
    return io.TextIOWrapper(
        io.BufferedWriter(_Stream(raw, results)),
        encoding=encoding,
        errors="backslashreplace",  # file names can hold any bytes
        line_buffering=lines,
    )
