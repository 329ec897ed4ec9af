"""Read a request's body within limits and split multipart forms, all in memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from fsad_edge.serve.disposition import read_disposition
from fsad_edge.serve.fair_shares import FairShares
from fsad_edge.serve.multipart import Part, split_parts
from fsad_edge.serve.problems import ProblemError

#: With these headers the connection ends, and the rest of the body is not read.
CLOSE = {"Connection": "close"}

#: The field of a form for images. Files in other fields are taken too.
FIELD = "file"

#: How the types of a body or a part that holds an image begin.
IMAGE_TYPES = (b"image/", b"application/octet-stream")


class ClientGoneError(Exception):
    """The client has closed the connection and will read no answer."""


@dataclass(frozen=True)
class Upload:
    """An encoded image, the name that the client gave it, and the form's field that held it."""

    data: bytes
    name: str | None = None
    field: str | None = None

    def __str__(self) -> str:
        name = "an image" if self.name is None else f"'{self.name}'"
        return name if self.field is None else f"{name} in the field '{self.field}'"


@dataclass
class Holder:
    """A request and the bytes of its body, which it holds until its answer is made.

    Attributes:
        client: who sent it.
        size: the bytes that it holds.
    """

    client: str
    size: int = 0

    @classmethod
    def of(cls, request: Request) -> Holder:
        """What the guard of the service has noted for a request."""
        found: Holder = request.scope["holder"]
        return found


class BodyReader:
    """Reads bodies within limits on the size and the time of one, and on the size of all at once.

    A body counts until its request is answered, also while it waits to be scored or learned. The
    clients share the room.

    Args:
        limit: most bytes of one body.
        seconds: time within which it must arrive.
        memory: most bytes of all bodies together.
    """

    def __init__(self, limit: int, seconds: float, memory: int) -> None:
        self.limit = limit
        self.seconds = seconds
        self._shares = FairShares(memory // 2)

    async def read(self, request: Request) -> bytes:
        """Read a body.

        Raises:
            ProblemError: it is too large (413), too slow (408) or compressed (415), or all bodies
                together are too large (429).
            ClientGoneError: the client closed the connection.
        """
        _check_encoding(request)
        claimed = request.headers.get("content-length", "0")
        if not claimed.isdigit() or int(claimed) > self.limit:
            raise self._too_large()
        # Taken before the body arrives: of many that come at once, some find room from end to end.
        self._hold(Holder.of(request), int(claimed))
        chunks: list[bytes] = []
        try:
            await asyncio.wait_for(self._collect(request, chunks), self.seconds)
        except asyncio.TimeoutError:
            raise ProblemError(
                408, f"the body did not arrive within {self.seconds:g} seconds.", CLOSE
            ) from None
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def free(self, holder: Holder) -> None:
        """The request is answered, and its body is gone."""
        self._shares.give(holder.client, holder.size)
        holder.size = 0

    async def _collect(self, request: Request, chunks: list[bytes]) -> None:
        holder, size, more = Holder.of(request), 0, True
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
            if size > self.limit:
                raise self._too_large()
            self._hold(holder, max(0, size - holder.size))

    def _hold(self, holder: Holder, size: int) -> None:
        if not self._shares.take(holder.client, size):
            raise _too_many()
        holder.size += size

    def _too_large(self) -> ProblemError:
        return ProblemError(
            413,
            f"the body is larger than {self.limit >> 20} MB: send fewer or smaller images, or "
            "start the service with a larger --max-mb.",
            CLOSE,
        )


def _too_many() -> ProblemError:
    return ProblemError(
        429,
        "too many large bodies arrive or wait at once: try again.",
        {"Retry-After": "1", **CLOSE},
    )


def _check_encoding(request: Request) -> None:
    for header, plain in (("content-encoding", "identity"), ("transfer-encoding", "chunked")):
        given = ", ".join(request.headers.getlist(header))
        if any(one.strip().lower() not in {"", plain} for one in given.split(",")):
            raise ProblemError(
                415,
                f"the body is compressed ({header.title()}: {given[:100]}): send it uncompressed.",
                {"Accept-Encoding": "identity", **CLOSE},
            )


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
    if kind.startswith(IMAGE_TYPES):
        return None
    raise ProblemError(
        415,
        "send an image (image/*, application/octet-stream) or multipart/form-data.",
        {"Accept": "image/*, application/octet-stream, multipart/form-data", **CLOSE},
    )


def split_multipart(body: bytes, boundary: bytes, most: int) -> list[Upload]:
    """The files of a multipart body.

    A part is a file if it has a file name or the type of an image, or is in the field ``file``.

    Args:
        body: the whole body.
        boundary: its boundary.
        most: most files.

    Raises:
        ProblemError: the body is malformed or ends early (400), a part is no file (422), it is
            encoded (415), or there are more files (413).
    """
    uploads: list[Upload] = []
    for part in split_parts(body, boundary):
        if len(uploads) >= most:
            raise ProblemError(413, f"the queue takes {most} images at most: send fewer at once.")
        uploads.append(_make_upload(part))
    if not uploads:
        raise ProblemError(
            400, "the multipart body holds no file: send images in the field 'file'."
        )
    return uploads


def _make_upload(part: Part) -> Upload:
    """A part of a form as an image. Raises ProblemError as :func:`split_multipart`."""
    headers = part.headers
    parameters = read_disposition(headers.get(b"content-disposition"))
    field, name = parameters.get("name"), parameters.get("filename")
    for header in (b"content-encoding", b"content-transfer-encoding"):
        encoding = headers.get(header, b"binary").strip().lower()
        if encoding not in {b"binary", b"8bit", b"7bit", b"identity", b""}:
            raise ProblemError(
                415,
                f"the form's field '{field}' is encoded ({header.decode().title()}: "
                f"{encoding.decode('latin-1')[:100]}): send the bytes of the image as they are.",
            )
    kind = headers.get(b"content-type", b"").lower()
    if name is None and field != FIELD and not kind.startswith(IMAGE_TYPES):
        what = "a part without a name" if field is None else f"a field '{field}'"
        raise ProblemError(
            422,
            f"the form has {what}, which is no image: send images as files in the field '{FIELD}', "
            "and anything else in the address, as in  ?model=NAME.",
        )
    return Upload(part.data, name, field)
