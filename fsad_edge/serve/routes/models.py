"""``/v1/models``: the models in service, and the reset of their drift test."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import Response

from fsad_edge.serve import schemas
from fsad_edge.serve.routes.route_helpers import find_model, json_response
from fsad_edge.serve.schemas import problem_responses
from fsad_edge.serve.service import Service


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes to an application."""

    @app.get(
        "/v1/models",
        summary="All models in service",
        responses={200: {"model": schemas.ModelList}, **problem_responses()},
    )
    async def models() -> Response:
        slots = service.models.slots.values()
        infos = [slot.info() for slot in slots]
        return json_response(schemas.ModelList(infos, service.models.faults()))

    @app.get(
        "/v1/models/{name}",
        summary="One model",
        responses={200: {"model": schemas.ModelInfo}, **problem_responses(404)},
    )
    async def model(name: str) -> Response:
        find_model(service, name)
        return json_response(service.models.slots[name].info())

    @app.post(
        "/v1/models/{name}/drift/reset",
        summary="Start the drift test again",
        responses={200: {"model": schemas.ModelInfo}, **problem_responses(403, 404)},
    )
    async def reset_drift(name: str) -> Response:
        find_model(service, name).reset_drift()
        return json_response(service.models.slots[name].info())
