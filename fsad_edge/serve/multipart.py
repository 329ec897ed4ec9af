"""Split a multipart form (RFC 7578) in one pass, with bounds on its parts and their headers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fsad_edge.serve.problems import ProblemError

#: Most bytes of the headers of a part, and most of their lines.
MAX_HEADERS, MAX_LINES = 16 << 10, 32

#: The name of a header (RFC 9110).
_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True)
class Part:
    """A part of a form: its headers by their names in lower case, and its data."""

    headers: dict[bytes, bytes]
    data: bytes


def split_parts(body: bytes, boundary: bytes) -> Iterator[Part]:
    """The parts of a multipart body, one by one.

    The time grows with the length of the body alone, whatever its boundary and its parts are.

    Raises:
        ProblemError: the body is malformed, ends early, or a part has too many headers (400).
    """
    line = b"--" + boundary
    if body.startswith(line):
        end = len(line)
    elif body.startswith(b"\r\n" + line):
        end = len(line) + 2
    else:
        raise _malformed("it does not begin with its boundary")
    while True:
        start, is_last = _after_boundary(body, end)
        if is_last:
            return
        headers, start = _read_headers(body, start)
        stop = body.find(b"\r\n" + line, start - 2)  # the empty line may also end the data
        if stop < 0:
            raise ProblemError(400, "the multipart body ends early.")
        end = stop + 2 + len(line)
        yield Part(headers, body[start : max(start, stop)])


def _after_boundary(body: bytes, start: int) -> tuple[int, bool]:
    """Where a part begins after its boundary, and whether the boundary was the last one."""
    if body.startswith(b"--", start):
        return start, True
    place = start
    while place < start + 100 and body[place : place + 1] in {b" ", b"\t"}:
        place += 1
    if body.startswith(b"\r\n", place):
        return place + 2, False
    if len(body) < place + 2:
        raise ProblemError(400, "the multipart body ends early.")
    raise _malformed("its boundary is followed by other characters")


def _read_headers(body: bytes, start: int) -> tuple[dict[bytes, bytes], int]:
    """The headers of a part, and where its data begins."""
    if body.startswith(b"\r\n", start):
        return {}, start + 2
    stop = body.find(b"\r\n\r\n", start, start + MAX_HEADERS)
    if stop < 0:
        if len(body) <= start + MAX_HEADERS:
            raise ProblemError(400, "the multipart body ends early.")
        raise _malformed(f"a part has more than {MAX_HEADERS >> 10} kB of headers")
    lines = body[start:stop].split(b"\r\n")
    if len(lines) > MAX_LINES:
        raise _malformed(f"a part has more than {MAX_LINES} headers")
    headers: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name):
            raise _malformed("a part has a header without a name")
        headers[name.lower()] = value.strip()
    return headers, stop + 4


def _malformed(what: str) -> ProblemError:
    return ProblemError(400, f"the multipart body is malformed ({what}).")
