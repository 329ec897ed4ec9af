"""Read a request's body within limits and split multipart forms, all in memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from fsad_edge.serve.problems import ProblemError

#: With these headers the connection ends, and the rest of the body is not read.
CLOSE = {"Connection": "close"}

#: Characters of a client's name for an image that are kept.
NAME_LENGTH = 200


class ClientGoneError(Exception):
    """The client has closed the connection and will read no answer."""


@dataclass(frozen=True)
class Upload:
    """An encoded image, and the name that the client gave it."""

    data: bytes
    name: str | None = None


class BodyReader:
    """Reads bodies within limits on the size and the time of one, and on the size of all at once.

    Args:
        limit: most bytes of one body.
        seconds: time within which it must arrive.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self._free_bytes = max(8 * limit, 64 << 20)  # for all bodies that are being read

    async def read(self, request: Request) -> bytes:
        """Read a body.

        Raises:
            ProblemError: it is too large (413) or too slow (408), or all bodies together are too
                large (429).
            ClientGoneError: the client closed the connection.
        """
        claimed = request.headers.get("content-length", "0")
        if not claimed.isdigit() or int(claimed) > self.limit:
            raise self._too_large()
        chunks: list[bytes] = []
        try:
            await asyncio.wait_for(self._collect(request, chunks), self.seconds)
        except asyncio.TimeoutError:
            raise ProblemError(
                408, f"the body did not arrive within {self.seconds:g} seconds.", CLOSE
            ) from None
        finally:
            self._free_bytes += sum(map(len, chunks))
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _collect(self, request: Request, chunks: list[bytes]) -> None:
        size, more = 0, True
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            more = message.get("more_body", False)
            chunk = message.get("body", b"")
            if not chunk:
                continue
            chunks.append(chunk)
            size += len(chunk)
            self._free_bytes -= len(chunk)
            if size > self.limit:
                raise self._too_large()
            if self._free_bytes < 0:
                raise ProblemError(
                    429,
                    "too many large bodies arrive at once: try again.",
                    {"Retry-After": "1", **CLOSE},
                )

    def _too_large(self) -> ProblemError:
        return ProblemError(413, f"the body is larger than {self.limit >> 20} MB.", CLOSE)


def check_media_type(request: Request) -> bytes | None:
    """The boundary of a multipart body; None where the whole body is an image.

    Raises:
        ProblemError: the body is neither (415), or multipart without a boundary (400).
    """
    given = request.headers.get("content-type", "application/octet-stream")
    kind, options = parse_options_header(given)
    kind = kind.lower()
    if kind == b"multipart/form-data":
        boundary = options.get(b"boundary", b"")
        if not 1 <= len(boundary) <= 70:
            raise ProblemError(
                400, "the Content-Type of the multipart body names no boundary.", CLOSE
            )
        return boundary
    if kind.startswith(b"image/") or kind == b"application/octet-stream":
        return None
    raise ProblemError(
        415,
        "send an image (image/*, application/octet-stream) or multipart/form-data.",
        {"Accept": "image/*, application/octet-stream, multipart/form-data", **CLOSE},
    )


def split_multipart(body: bytes, boundary: bytes) -> list[Upload]:
    """The files of a multipart body; every part counts as a file.

    Raises:
        ProblemError: the body is malformed or ends early (400).
    """
    uploads: list[Upload] = []
    headers: dict[bytes, bytes] = {}
    data = bytearray()
    field, value = bytearray(), bytearray()
    ended = False

    def begin() -> None:
        headers.clear()
        data.clear()

    def header_end() -> None:
        headers[bytes(field).lower()] = bytes(value)
        field.clear()
        value.clear()

    def part_end() -> None:
        _, options = parse_options_header(headers.get(b"content-disposition"))
        name = options.get(b"filename")
        text = None if name is None else name.decode("utf-8", "replace")[:NAME_LENGTH]
        uploads.append(Upload(bytes(data), text))

    def end() -> None:
        nonlocal ended
        ended = True

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_part_data": lambda chunk, start, stop: data.extend(chunk[start:stop]),
            "on_part_end": part_end,
            "on_header_field": lambda chunk, start, stop: field.extend(chunk[start:stop]),
            "on_header_value": lambda chunk, start, stop: value.extend(chunk[start:stop]),
            "on_header_end": header_end,
            "on_end": end,
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise ProblemError(400, f"the multipart body is malformed ({error}).") from error
    if not ended:
        raise ProblemError(400, "the multipart body ends early.")
    if not uploads:
        raise ProblemError(400, "the multipart body holds no file.")
    return uploads
