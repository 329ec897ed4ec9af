"""``/v1/models/NAME/shots/I`` and ``/v1/results/ID/twin``: what a part should look like."""

from __future__ import annotations

import functools
from dataclasses import fields
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from starlette.responses import Response

from fsad_edge.errors import ImageError, InputError
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.found_regions import Region
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.origins import Origins
from fsad_edge.runtime.real_scale import LEAST_MM, MOST_MM
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.routes.results import PATIENCE, Number
from fsad_edge.serve.routes.route_helpers import client_of, find_model, json_from
from fsad_edge.serve.schemas import RegionRecord, ResultRecord, problem_responses
from fsad_edge.serve.service import Service
from fsad_edge.serve.twin_schemas import TwinList, TwinRecord
from fsad_edge.twin import check_has_twins, find_twins

Shot = Annotated[int, Path(ge=0, le=65535, description="Which shot, counted from 0.")]

RegionNumber = Annotated[
    int | None,
    Query(ge=1, le=1000, description="Only of this region; left out, of the first three."),
]

Scale = Annotated[
    float | None,
    Query(
        ge=LEAST_MM,
        le=MOST_MM,
        description="Millimetres that a pixel of its photograph shows; left out, those that the "
        "service was told.",
    ),
]

_JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
    **problem_responses(404, 409, 422),
}


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes to an application."""

    @app.get(
        "/v1/models/{name}/shots/{number}",
        summary="A shot as the model looks at it",
        response_class=Response,
        responses=_JPEG,
    )
    async def shot(name: str, number: Shot) -> Response:
        """Its longer side has at most 256 pixels. 409: the model's file holds no pictures of its
        shots.
        """
        origins = _origins_of(find_model(service, name).model)
        if number >= origins.count:
            raise ProblemError(
                404,
                f"{name} has {origins.count} shots, which are counted from 0: take a lower one.",
            )
        headers = {"Cache-Control": "private, no-cache"}
        return Response(origins.pictures[number], media_type="image/jpeg", headers=headers)

    @app.get(
        "/v1/results/{number}/twin",
        summary="The regions of a result beside the good places most like them",
        responses={200: {"model": TwinList}, **problem_responses(404, 409, 413, 422, 429)},
    )
    async def twin(
        request: Request, number: Number, region: RegionNumber = None, mm_per_px: Scale = None
    ) -> Response:
        """It is computed when it is asked for. 409: the model's file holds no pictures of its
        shots, or the result is of another version of it.
        """
        make = functools.partial(_make, service, number, region, mm_per_px)
        return await json_from(service.twins, client_of(request), make, (number, region, mm_per_px))


def _make(service: Service, number: int, only: int | None, scale: float | None) -> TwinList:
    record = service.results.get(number)
    if record is None:
        raise ProblemError(404, "that result is no longer kept.")
    served = find_model(service, record.model)
    _origins_of(served.model)
    if served.version != record.version:
        raise ProblemError(
            409,
            "that result is of another version of the model's file than the one that is in "
            "service: score the photograph again.",
        )
    regions = _regions_of(record, only)
    if not regions:
        return TwinList([])
    image = service.image(number)
    data = None if image is None else image.read()
    if data is None:
        raise ProblemError(
            404,
            "the photograph of that result is no longer kept, so that it cannot be compared: score "
            "it again.",
        )
    with GATE.working(PATIENCE):
        try:
            twins = find_twins(served.model, data, regions, scale or record.mm_per_px)
        except ImageError as error:
            raise ProblemError(422, str(error)) from error
    return TwinList([TwinRecord.of(one) for one in twins])


def _regions_of(record: ResultRecord, only: int | None) -> list[Region]:
    found = [one for one in record.regions if only in {None, one.number}]
    if only is not None and not found:
        raise ProblemError(
            404, f"that result has no region {only}: it has {len(record.regions)}, from 1 on."
        )
    return [_to_region(one) for one in found]


def _to_region(record: RegionRecord) -> Region:
    values: dict[str, Any] = {field.name: getattr(record, field.name) for field in fields(Region)}
    values["polygon"] = tuple((x, y) for x, y in record.polygon)
    values["box"], values["centroid"] = tuple(record.box), tuple(record.centroid)
    return Region(**values)


def _origins_of(model: Model) -> Origins:
    """Where a model's rows come from, with pictures of the shots; 409 where its file holds none."""
    try:
        return check_has_twins(model)
    except InputError as error:
        raise ProblemError(409, str(error)) from error
