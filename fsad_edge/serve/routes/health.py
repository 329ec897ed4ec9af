"""Health, readiness, status and metrics of the service."""

from __future__ import annotations

import functools
import json

from fastapi import FastAPI, Request
from starlette.responses import Response

from fsad_edge.serve import schemas
from fsad_edge.serve.fair_shares import OWN
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.result_store import tag_of
from fsad_edge.serve.routes.route_helpers import (
    engine_hangs,
    json_from,
    json_response,
    tagged_response,
)
from fsad_edge.serve.schemas import problem_responses
from fsad_edge.serve.service import Service


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes to an application."""

    @app.get(
        "/healthz",
        summary="Whether the process works",
        responses={200: {"model": schemas.Health}, **problem_responses(503)},
    )
    async def healthz() -> Response:
        if service.queue.stalled:
            raise engine_hangs(503)
        return json_response(schemas.Health())

    @app.get(
        "/readyz",
        summary="Whether images may be sent here",
        responses={200: {"model": schemas.Readiness}, **problem_responses(503)},
    )
    async def readyz(request: Request) -> Response:
        if service.draining:
            raise ProblemError(503, "the service is shutting down.", ready=False)
        authorized = request.scope["authorized"]
        fault = await service.health.run(OWN, service.watch_fault, "fault")
        if fault is not None:
            secret = (
                "a watched folder makes no progress: /v1/status tells why, to those with a token."
            )
            raise ProblemError(503, fault if authorized else secret, ready=False)
        if not authorized:
            return json_response(schemas.Ready())
        return await json_from(service.health, OWN, lambda: _readiness(service), "ready")

    @app.get(
        "/v1/status",
        summary="The state of the service",
        responses={200: {"model": schemas.ServiceStatus}, **problem_responses()},
    )
    async def status() -> Response:
        return await json_from(service.lists, OWN, service.status, "status")

    @app.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        text = await service.lists.run(OWN, service.metrics.text, "metrics")
        return Response(text, media_type="text/plain; version=0.0.4")


def add_openapi(app: FastAPI, service: Service) -> None:
    """Add the route of the OpenAPI document, which is made once."""

    @functools.cache
    def make(root_path: str) -> tuple[bytes, str]:
        servers = {"servers": [{"url": root_path}]} if root_path else {}
        text = json.dumps({**app.openapi(), **servers}).encode()
        return text, tag_of(text)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> Response:
        root_path = request.scope["root_path"]
        made = await service.lists.run(OWN, lambda: make(root_path), ("openapi", root_path))
        return tagged_response(request, *made)


def _readiness(service: Service) -> schemas.Readiness:
    models = {}
    for name, slot in service.models.slots.items():
        info = slot.info()
        error = info.error or service.models.engine_fault(name)
        models[name] = schemas.ModelReadiness(info.version, info.graph, info.golden, error)
    return schemas.Readiness(models=models)
