"""``/v1/recent`` and ``/v1/results``: the newest results and their images."""

from __future__ import annotations

import functools
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from starlette.responses import Response

from fsad_edge.options import Decision, HeatScale
from fsad_edge.serve import schemas
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.result_store import Asked
from fsad_edge.serve.routes.route_helpers import (
    Colours,
    ModelName,
    client_of,
    json_response,
    tagged_response,
)
from fsad_edge.serve.schemas import problem_responses
from fsad_edge.serve.service import Service

Side = Annotated[
    int, Query(ge=16, le=1600, description="Most pixels of the longer side of the image.")
]

Number = Annotated[int, Path(description="Id of the result.")]

Numbers = Annotated[
    bool,
    Query(
        description="Number the regions. One that an earlier run drew for a watched folder is "
        "numbered in any case."
    ),
]

_JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
    **problem_responses(404, 413, 422, 429),
}

#: Seconds that a picture waits for memory before its request gets 429.
PATIENCE = 3.0


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes to an application."""

    @app.get(
        "/v1/recent",
        summary="The newest results",
        responses={200: {"model": schemas.RecentResults}, **problem_responses(422, 429)},
    )
    async def recent(
        request: Request,
        model: ModelName = None,
        after: Annotated[int, Query(ge=0, le=1 << 62)] = 0,
        decision: Annotated[
            list[Decision] | None,
            Query(description="Only these; repeat it for several, as anomaly and not_judged."),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Response:
        asked = Asked(after, model, frozenset(decision or ()), limit)
        made = service.results.made(asked)
        if made is None:
            make = functools.partial(service.results.make, asked)
            made = await service.lists.run(client_of(request), make, asked)
        return tagged_response(request, *made)

    @app.get(
        "/v1/results/{number}",
        summary="One result",
        responses={200: {"model": schemas.ResultRecord}, **problem_responses(404, 422)},
    )
    async def result(number: Number) -> Response:
        record = service.results.get(number)
        if record is None:
            raise ProblemError(404, "that result is no longer kept.")
        return json_response(record)

    @app.get(
        "/v1/results/{number}/image",
        summary="The image of a result",
        response_class=Response,
        responses=_JPEG,
    )
    async def image(request: Request, number: Number, side: Side = 640) -> Response:
        return await _jpeg_response(service, request, number, side, None)

    @app.get(
        "/v1/results/{number}/overlay",
        summary="The image of a result under its heat map",
        response_class=Response,
        responses=_JPEG,
    )
    async def overlay(
        request: Request,
        number: Number,
        side: Side = 640,
        scale: Colours = HeatScale.THRESHOLD,
        numbers: Numbers = True,
    ) -> Response:
        return await _jpeg_response(service, request, number, side, scale, numbers)


async def _jpeg_response(
    service: Service,
    request: Request,
    number: int,
    side: int,
    heat: HeatScale | None,
    numbered: bool = True,
) -> Response:
    def draw() -> bytes | None:
        image = service.image(number)
        return None if image is None else image.jpeg(side, heat, PATIENCE, numbered)

    data = await service.drawing.run(client_of(request), draw)
    if data is None:
        what = "image" if heat is None else "heat map"
        raise ProblemError(404, f"the {what} of that result is no longer kept.")
    # The image of an id never changes.
    headers = {"Cache-Control": "private, max-age=3600, immutable"}
    return Response(data, media_type="image/jpeg", headers=headers)
