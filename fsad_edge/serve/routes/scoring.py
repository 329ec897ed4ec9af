"""``POST /v1/score``: score the images of a request."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Annotated, Literal

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from fsad_edge.runtime.heatmap import overlay, shrink
from fsad_edge.runtime.images import load_image
from fsad_edge.serve import schemas
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.request_body import (
    ClientGoneError,
    Upload,
    check_media_type,
    split_multipart,
)
from fsad_edge.serve.result_store import encode_png
from fsad_edge.serve.routes.route_helpers import (
    GONE,
    IMAGE_BODY,
    ModelName,
    find_model,
    json_response,
    queue_full,
    wait_for_scores,
)
from fsad_edge.serve.schemas import ResultWithHeatmap, Source, problem_responses
from fsad_edge.serve.scoring_queue import QueueFullError, ScoredImage
from fsad_edge.serve.served_model import ServedModel
from fsad_edge.serve.service import Service

#: Pixels of the longer side of a heat map in an answer, at most.
HEATMAP_SIDE = 800


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the route to an application."""
    app.post(
        "/v1/score",
        summary="Score images",
        response_class=Response,
        responses={
            200: {"model": schemas.Scores, "description": "A result for each image."},
            **problem_responses(400, 403, 404, 408, 413, 415, 422, 429),
        },
        openapi_extra={"requestBody": IMAGE_BODY},
    )(ScoreRoute(service).score)


class ScoreRoute:
    """``POST /v1/score``."""

    def __init__(self, service: Service) -> None:
        self._service = service

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
        if self._service.queue.full:
            raise queue_full(self._service)  # before the body is read
        try:
            uploads = await self._read(request, boundary)
            read_ms = (time.perf_counter() - start) * 1e3
            results = await self._score(request, served, uploads, heatmap == "png", read_ms)
        except ClientGoneError:
            self._service.metrics.abandoned.inc()
            return GONE
        return json_response(schemas.Scores(results))

    async def _read(self, request: Request, boundary: bytes | None) -> list[Upload]:
        try:
            body = await self._service.bodies.read(request)
        except ProblemError as problem:
            self._service.metrics.refused.labels(f"body_{problem.status}").inc()
            raise
        if not body:
            raise ProblemError(400, "the body is empty: send an image.")
        if boundary is None:
            return [Upload(body)]
        loop, queue = asyncio.get_running_loop(), self._service.queue
        uploads = await loop.run_in_executor(queue.pool, split_multipart, body, boundary)
        if len(uploads) > queue.limit:
            raise ProblemError(
                413,
                f"{len(uploads)} images are more than the queue takes: send at most {queue.limit} "
                "at once.",
            )
        return uploads

    async def _score(
        self,
        request: Request,
        served: ServedModel,
        uploads: list[Upload],
        heatmap: bool,
        read_ms: float,
    ) -> list[ResultWithHeatmap]:
        service = self._service
        earlier = {"read": round(read_ms, 3)}
        try:
            with service.queue.reserve(len(uploads)):
                sources = [upload.data for upload in uploads]
                scored = await wait_for_scores(service, request, served, sources)
                records = [
                    service.record(one, Source.HTTP, upload.name, upload.data, earlier)
                    for one, upload in zip(scored, uploads, strict=True)
                ]
                heatmaps = await self._draw(scored, uploads) if heatmap else [None] * len(uploads)
        except QueueFullError:
            raise queue_full(service) from None
        return [
            ResultWithHeatmap(**vars(record), heatmap=url)
            for record, url in zip(records, heatmaps, strict=True)
        ]

    async def _draw(self, scored: list[ScoredImage], uploads: list[Upload]) -> list[str]:
        loop, pool = asyncio.get_running_loop(), self._service.queue.pool
        return await asyncio.gather(
            *(
                loop.run_in_executor(pool, _heatmap_url, one, upload.data)
                for one, upload in zip(scored, uploads, strict=True)
            )
        )


def _heatmap_url(scored: ScoredImage, data: bytes) -> str:
    """A ``data:`` URL of the image under its heat map."""
    image = shrink(load_image(data), HEATMAP_SIDE)
    pixels = overlay(image, scored.result.anomaly_map, scored.result.map_threshold)
    return "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode()
