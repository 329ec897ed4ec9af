"""What several files of routes use: parameters, bodies, answers and the wait for scores."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import Query, Request
from starlette.responses import Response

from fsad_edge.errors import ImageError, ImageTooLargeError
from fsad_edge.options import HeatScale
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.plain_text import printable
from fsad_edge.serve.desk import Desk
from fsad_edge.serve.disposition import read_disposition
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.request_body import (
    FIELD,
    ClientGoneError,
    Holder,
    Upload,
    check_media_type,
    split_multipart,
)
from fsad_edge.serve.result_store import tag_of
from fsad_edge.serve.schemas import to_json
from fsad_edge.serve.scoring_queue import ScoredImage
from fsad_edge.serve.served_model import ServedModel
from fsad_edge.serve.service import Service

IMAGE_BODY = {
    "required": True,
    "content": {
        **{
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("image/jpeg", "image/png", "application/octet-stream")
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "file": {"type": "array", "items": {"type": "string", "format": "binary"}}
                },
                "required": ["file"],
            }
        },
    },
}

#: The fields of the only image in a body whose errors need not name it.
PLAIN = {None, FIELD}

ModelName = Annotated[
    str | None, Query(description="Can be left out where there is one model.", examples=["part"])
]

Colours = Annotated[
    HeatScale,
    Query(
        description="threshold: what is near the threshold and above it; near: also, in blue, what "
        "lies well below it."
    ),
]

#: The answer for a client that has closed the connection; nobody reads it.
GONE = Response(status_code=400)


def find_model(service: Service, name: str | None) -> ServedModel:
    """A model by its name, or the only model.

    Raises:
        ProblemError: there is no such model (404), or there are several and no name (422).
    """
    if name in service.models.faulty and name not in service.models.slots:
        raise ProblemError(404, f"{name} is not served: {service.models.faulty[name].fault}")
    known = ", ".join(service.models.slots)
    if name is None:
        if service.models.only is None:
            raise ProblemError(422, f"several models are served: add  ?model=NAME  ({known}).")
        return service.models.only
    try:
        return service.models[name]
    except KeyError:
        raise ProblemError(404, f"there is no model of that name: take one of {known}.") from None


def check_parameters(request: Request) -> None:
    """Refuse a parameter in the address that its route does not know: it would change nothing.

    Raises:
        ProblemError: there is one (422).
    """
    dependant = request.scope["route"].dependant
    known = [field.alias for field in dependant.query_params]
    unknown = next((name for name in request.query_params if name not in known), None)
    if unknown is not None:
        raise ProblemError(
            422,
            f"there is no parameter {printable(unknown[:50])!r} here: take one of "
            f"{', '.join(known)}.",
        )


def json_response(document: Any, status: int = 200) -> Response:
    """A dataclass of :mod:`fsad_edge.serve.schemas` as a JSON answer."""
    return Response(to_json(document), status, media_type="application/json")


async def json_from(
    desk: Desk, client: str, make: Callable[[], Any], key: object = None
) -> Response:
    """A document that is made in a thread, as a JSON answer. Arguments are as of ``Desk.run``."""
    text = await desk.run(client, lambda: to_json(make()).encode(), key)
    return Response(text, media_type="application/json")


async def list_from(
    service: Service, request: Request, make: Callable[[], Any], key: object
) -> Response:
    """A list that is made in a thread, once for all who ask for it at the same time.

    Args:
        service: the service.
        request: who asks, and which list is known there (``If-None-Match``).
        make: makes the document.
        key: which list it is.
    """

    def encode() -> tuple[bytes, str]:
        text = to_json(make()).encode()
        return text, tag_of(text)

    text, tag = await service.lists.run(client_of(request), encode, key)
    return tagged_response(request, text, tag)


def tagged_response(request: Request, text: bytes, tag: str) -> Response:
    """A JSON answer, or 304 where the client has it already."""
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    known = request.headers.get("if-none-match", "")
    if tag in (one.strip().removeprefix("W/") for one in known[:1000].split(",")):
        return Response(status_code=304, headers=headers)
    return Response(text, headers=headers, media_type="application/json")


def client_of(request: Request) -> str:
    """Who sent a request."""
    return Holder.of(request).client


async def read_images(service: Service, request: Request) -> list[Upload]:
    """The images of a request's body.

    Raises:
        ProblemError: the body is neither an image nor a form with images, or exceeds a limit.
        ClientGoneError: the client closed the connection.
    """
    queue, boundary, client = service.queue, check_media_type(request), client_of(request)
    try:
        body = await service.bodies.read(request)
    except ProblemError as problem:
        service.metrics.refused.labels(f"body_{problem.status}").inc()
        raise
    if not body:
        raise ProblemError(400, "the body is empty: send an image.")
    if boundary is None:
        disposition = request.headers.get("content-disposition")
        return [Upload(body, read_disposition(disposition).get("filename"))]
    split = functools.partial(split_multipart, body, boundary, queue.limit)
    return await service.reading.run(client, split)


def queue_full(service: Service) -> ProblemError:
    """The error for a request that finds no place in the queue; it is counted."""
    service.metrics.refused.labels("queue").inc()
    return ProblemError(
        429,
        f"{service.queue.length} images are waiting already: try again, or send fewer per second.",
        {"Retry-After": "1"},
    )


def engine_hangs(status: int) -> ProblemError:
    """The error of the health routes while a run of the engine does not end."""
    return ProblemError(status, "the engine hangs: restart the service.")


async def wait_for_scores(
    service: Service,
    request: Request,
    served: ServedModel,
    sources: Sequence[Upload | UInt8Array],
) -> list[ScoredImage]:
    """Score images for which places are reserved, until the client closes the connection.

    Args:
        service: the service.
        request: the request, whose body is read.
        served: the model.
        sources: encoded images, or uint8 ``[H, W, 3]`` RGB.

    Raises:
        ProblemError: an image cannot be decoded (422), or is too large (413).
        ClientGoneError: the client closed the connection; what had not begun is left out.
    """
    images = [one.data if isinstance(one, Upload) else one for one in sources]
    client = client_of(request)
    futures = [asyncio.wrap_future(service.score(served, image, client)) for image in images]
    hung_up = asyncio.ensure_future(request.receive())
    hung_up.add_done_callback(lambda _: [future.cancel() for future in futures])
    try:
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
    finally:
        gone = hung_up.done()
        hung_up.cancel()
        for future in futures:
            future.cancel()
    if gone:
        raise ClientGoneError
    scored: list[ScoredImage] = []
    for place, (source, outcome) in enumerate(zip(sources, outcomes, strict=True)):
        if isinstance(outcome, ImageError):
            service.metrics.refused.labels("image").inc()
            sentence = str(outcome)
            if isinstance(source, Upload) and (len(sources) > 1 or source.field not in PLAIN):
                sentence = f"{source}: {sentence}"
            status = 413 if isinstance(outcome, ImageTooLargeError) else 422
            raise ProblemError(status, sentence, image=place)
        if isinstance(outcome, BaseException):
            raise outcome
        scored.append(outcome)
    return scored
