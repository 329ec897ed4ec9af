"""``POST /v1/score``: score the images of a request."""

from __future__ import annotations

import base64
import functools
import time
from typing import Annotated, Literal

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from fsad_edge.options import HeatScale
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.heatmap import overlay
from fsad_edge.runtime.images import load_at_most
from fsad_edge.serve import schemas
from fsad_edge.serve.request_body import ClientGoneError
from fsad_edge.serve.result_store import drawing_bytes, encode_image
from fsad_edge.serve.routes import route_helpers
from fsad_edge.serve.routes.route_helpers import Colours, ModelName
from fsad_edge.serve.scoring_queue import QueueFullError, ScoredImage
from fsad_edge.serve.service import Service

#: Pixels of the longer side of a heat map in an answer, at most.
HEATMAP_SIDE = 800


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the route to an application."""

    @app.post(
        "/v1/score",
        summary="Score images",
        response_class=Response,
        responses={
            200: {"model": schemas.Scores, "description": "A result for each image."},
            **schemas.problem_responses(400, 403, 404, 408, 413, 415, 422, 429),
        },
        openapi_extra={"requestBody": route_helpers.IMAGE_BODY},
    )
    async def score(
        request: Request,
        model: ModelName = None,
        heatmap: Annotated[
            Literal["png", "none"], Query(description="png: each result carries its heat map.")
        ] = "none",
        scale: Colours = HeatScale.THRESHOLD,
    ) -> Response:
        start = time.perf_counter()
        served = route_helpers.find_model(service, model)
        client = route_helpers.client_of(request)
        if service.queue.is_full(client):
            raise route_helpers.queue_full(service)  # before the body is read
        try:
            uploads = await route_helpers.read_images(service, request)
            images = [upload.data for upload in uploads]
            earlier = {"read": round((time.perf_counter() - start) * 1e3, 3)}
            with service.queue.reserve(len(uploads), client=client):
                scored = await route_helpers.wait_for_scores(service, request, served, uploads)
                records = [
                    service.record(one, schemas.Source.HTTP, upload.name, upload.data, earlier)
                    for one, upload in zip(scored, uploads, strict=True)
                ]
                if heatmap == "none":
                    texts = b", ".join(map(service.results.json, records))
                    text = b'{"results": [%b]}' % texts
                    return Response(text, media_type="application/json")
                urls = await _draw_heatmaps(service, client, scored, images, scale)
        except ClientGoneError:
            service.metrics.abandoned.inc()
            return route_helpers.GONE
        except QueueFullError:
            raise route_helpers.queue_full(service) from None
        results = [
            schemas.ResultWithHeatmap(**vars(record), heatmap=url)
            for record, url in zip(records, urls, strict=True)
        ]
        return await route_helpers.json_from(
            service.drawing, client, lambda: schemas.Scores(results)
        )


async def _draw_heatmaps(
    service: Service,
    client: str,
    scored: list[ScoredImage],
    images: list[bytes],
    scale: HeatScale,
) -> list[str]:
    """``data:`` URLs of the images under their heat maps."""

    def draw(one: ScoredImage, data: bytes) -> str:
        with GATE.working(least=drawing_bytes(HEATMAP_SIDE)):
            image = load_at_most(data, HEATMAP_SIDE, one.served.model.metadata.scale)
            pixels = overlay(image, one.result.anomaly_map, one.result.map_threshold, scale)
            encoded = encode_image(pixels, "PNG", drawn=True)
        return "data:image/png;base64," + base64.b64encode(encoded).decode()

    # One after the other, so that the clients take turns by image.
    return [
        await service.answering.run(client, functools.partial(draw, one, data))
        for one, data in zip(scored, images, strict=True)
    ]
