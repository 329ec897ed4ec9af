"""``/v1/models``: the models in service, and the reset of their drift test."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import Response

from fsad_edge.serve import schemas
from fsad_edge.serve.routes.route_helpers import client_of, find_model, json_from, list_from
from fsad_edge.serve.schemas import problem_responses
from fsad_edge.serve.service import Service


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes to an application."""

    @app.get(
        "/v1/models",
        summary="All models in service",
        responses={200: {"model": schemas.ModelList}, **problem_responses()},
    )
    async def models(request: Request) -> Response:
        def make() -> schemas.ModelList:
            infos = [slot.info() for slot in service.models.slots.values()]
            return schemas.ModelList(infos, service.models.faults())

        return await list_from(service, request, make, "models")

    @app.get(
        "/v1/models/{name}",
        summary="One model",
        responses={200: {"model": schemas.ModelInfo}, **problem_responses(404)},
    )
    async def model(name: str, request: Request) -> Response:
        find_model(service, name)
        slot = service.models.slots[name]
        return await list_from(service, request, slot.info, ("model", name))

    @app.post(
        "/v1/models/{name}/drift/reset",
        summary="Start the drift test again",
        responses={200: {"model": schemas.ModelInfo}, **problem_responses(403, 404)},
    )
    async def reset_drift(name: str, request: Request) -> Response:
        find_model(service, name).reset_drift()
        slot = service.models.slots[name]
        return await json_from(service.lists, client_of(request), slot.info)
