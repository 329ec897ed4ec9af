"""Health, readiness, status and metrics of the service."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import Response

from fsad_edge.serve import schemas
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.routes.route_helpers import engine_hangs, json_response
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
        authorized, fault = request.scope["authorized"], service.watch_fault()
        if fault is not None:
            secret = (
                "a watched folder makes no progress: /v1/status tells why, to those with a token."
            )
            raise ProblemError(503, fault if authorized else secret, ready=False)
        if not authorized:
            return json_response(schemas.Ready())
        models = {}
        for name, slot in service.models.slots.items():
            info = slot.info()
            models[name] = schemas.ModelReadiness(info.version, info.graph, info.golden, info.error)
        return json_response(schemas.Readiness(models=models))

    @app.get(
        "/v1/status",
        summary="The state of the service",
        responses={200: {"model": schemas.ServiceStatus}, **problem_responses()},
    )
    async def status() -> Response:
        return json_response(service.status())

    @app.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")
