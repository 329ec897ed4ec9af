"""``POST /v1/score``."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from fsad_edge.errors import ImageError
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.heatmap import overlay, shrink
from fsad_edge.runtime.images import load_image
from fsad_edge.serve import schemas
from fsad_edge.serve.body import (
    BodyReader,
    ClientGoneError,
    Upload,
    check_media_type,
    split_multipart,
)
from fsad_edge.serve.models import ServedModel
from fsad_edge.serve.problems import ProblemError, queue_full
from fsad_edge.serve.results import encode
from fsad_edge.serve.routes.common import IMAGE_BODY, ModelName, find_model, json_response
from fsad_edge.serve.schemas import problems as documented
from fsad_edge.serve.scoring_queue import QueueFullError, Scored
from fsad_edge.serve.service import Service

#: The longest side of a heat map in an answer, pixels.
HEATMAP_SIDE = 800

#: Sent for a client that has hung up; nobody reads it.
GONE = Response(status_code=400)


class Scoring:
    """``POST /v1/score``."""

    def __init__(self, service: Service, reader: BodyReader) -> None:
        self._service = service
        self._reader = reader

    def install(self, app: FastAPI) -> None:
        app.post(
            "/v1/score",
            summary="Score images",
            response_class=Response,
            responses={
                200: {"model": schemas.Scores, "description": "A result for each image."},
                **documented(400, 403, 404, 408, 413, 415, 422, 429),
            },
            openapi_extra={"requestBody": IMAGE_BODY},
        )(self.score)

    async def score(
        self,
        request: Request,
        model: ModelName = None,
        heatmap: Annotated[
            Literal["png", "none"], Query(description="png: each result carries its heat map.")
        ] = "none",
    ) -> Response:
        start = time.perf_counter()
        served = find_model(self._service, model)
        boundary = check_media_type(request)
        if self._service.scorer.full:
            raise refuse_full(self._service)  # before the body is read
        try:
            uploads = await self._read(request, boundary)
            read = (time.perf_counter() - start) * 1e3
            records = await self._score(request, served, uploads, heatmap == "png", read)
        except ClientGoneError:
            self._service.metrics.abandoned.inc()
            return GONE
        return json_response({"results": records})

    async def _read(self, request: Request, boundary: bytes | None) -> list[Upload]:
        try:
            body = await self._reader.read(request)
        except ProblemError as problem:
            self._service.metrics.refused.labels(f"body_{problem.status}").inc()
            raise
        if not body:
            raise ProblemError(400, "the body is empty: send an image.")
        if boundary is None:
            return [Upload(body)]
        pool = self._service.scorer.pool
        loop = asyncio.get_running_loop()
        uploads = await loop.run_in_executor(pool, split_multipart, body, boundary)
        if len(uploads) > self._service.scorer.limit:
            raise ProblemError(
                413,
                f"{len(uploads)} images are more than the queue takes: send at most "
                f"{self._service.scorer.limit} at once.",
            )
        return uploads

    async def _score(
        self,
        request: Request,
        served: ServedModel,
        uploads: list[Upload],
        heatmap: bool,
        read: float,
    ) -> list[dict[str, Any]]:
        service = self._service
        try:
            room = service.scorer.room(len(uploads))
            with room:
                sources = [upload.data for upload in uploads]
                scored = await wait_for_scores(service, request, served, sources)
                records = [
                    service.file(result, "http", upload.name, upload.data, {"read": round(read, 3)})
                    for result, upload in zip(scored, uploads, strict=True)
                ]
                if heatmap:
                    records = await self._draw(records, scored, uploads)
        except QueueFullError:
            raise refuse_full(service) from None
        return records

    async def _draw(
        self, records: list[dict[str, Any]], scored: list[Scored], uploads: list[Upload]
    ) -> list[dict[str, Any]]:
        def draw(result: Scored, data: bytes) -> str:
            image = shrink(load_image(data), HEATMAP_SIDE)
            picture = overlay(image, result.result.anomaly_map, result.result.map_threshold)
            return "data:image/png;base64," + base64.b64encode(encode(picture, "PNG")).decode()

        loop, pool = asyncio.get_running_loop(), self._service.scorer.pool
        drawn = await asyncio.gather(
            *(
                loop.run_in_executor(pool, draw, result, upload.data)
                for result, upload in zip(scored, uploads, strict=True)
            )
        )
        # Copies: what is kept and handed on carries no picture.
        return [
            {**record, "heatmap": picture} for record, picture in zip(records, drawn, strict=True)
        ]


def refuse_full(service: Service) -> ProblemError:
    """What a request gets that there is no room for; counted."""
    service.metrics.refused.labels("queue").inc()
    return queue_full(service.scorer.limit)


async def wait_for_scores(
    service: Service, request: Request, served: ServedModel, sources: Sequence[bytes | UInt8Array]
) -> list[Scored]:
    """The scores, unless the client hangs up first: then what has not begun is not done.

    Args:
        service: that there is room in.
        request: read to its end.
        served: the model.
        sources: images, as :meth:`Service.score` takes them.

    Raises:
        ProblemError: one of them cannot be decoded (422).
        ClientGoneError: the client hung up.
    """
    futures = [asyncio.wrap_future(service.score(served, source)) for source in sources]
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
    scored: list[Scored] = []
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome, ImageError):
            service.metrics.refused.labels("image").inc()
            raise ProblemError(422, str(outcome), image=place)
        if isinstance(outcome, BaseException):
            raise outcome
        scored.append(outcome)
    return scored
