"""The routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from fsad_edge import _version
from fsad_edge.serve import problems, schemas
from fsad_edge.serve.body import BodyReader
from fsad_edge.serve.models import describe
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.results import Kept
from fsad_edge.serve.routes.common import ModelName, find_model, json_response
from fsad_edge.serve.routes.kserve import KServe
from fsad_edge.serve.routes.learning import LearningRoutes
from fsad_edge.serve.routes.scoring import Scoring
from fsad_edge.serve.schemas import problems as documented
from fsad_edge.serve.service import Service
from fsad_edge.serve.static import Page

Side = Annotated[int, Query(ge=16, le=1600, description="Of the longer side, pixels.")]


def create_app(service: Service, reader: BodyReader, page: Page) -> FastAPI:
    """The application: routes over the parts of a service.

    Args:
        service: started and stopped by the caller.
        reader: of bodies.
        page: the files that people see.
    """
    app = FastAPI(
        title="fsad-edge",
        version=_version.__version__,
        description="Scores photographs of parts: how far each is from the good ones it knows.",
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
    )
    problems.install(app)
    Scoring(service, reader).install(app)
    LearningRoutes(service, reader).install(app)
    KServe(service, reader).install(app)
    _results(app, service)
    _models(app, service)
    _health(app, service)
    _page(app, page)
    return app


def _results(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/recent",
        summary="The newest results",
        responses={200: {"model": schemas.Recent}, **documented(422)},
    )
    async def recent(
        model: ModelName = None,
        after: Annotated[int, Query(ge=0, le=1 << 62)] = 0,
        decision: Literal["good", "anomaly"] | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Response:
        records, last = service.results.recent(after, model, decision, limit)
        return json_response({"results": records, "last": last})

    @app.get(
        "/v1/results/{number}",
        summary="One result",
        responses={200: {"model": schemas.Result}, **documented(404, 422)},
    )
    async def result(number: int) -> Response:
        record = service.results.get(number)
        if record is None:
            raise ProblemError(404, "that result is not kept any more.")
        return json_response(record)

    async def picture(number: int, side: int, heat: bool) -> Response:
        kept = service.results.image(number)
        if kept is None:
            raise ProblemError(404, "the image of that result is not kept any more.")
        data = await run_in_threadpool(Kept.jpeg, kept, side, heat)
        # Under its id an image never changes.
        headers = {"Cache-Control": "private, max-age=3600, immutable"}
        return Response(data, media_type="image/jpeg", headers=headers)

    jpeg: dict[int | str, dict[str, Any]] = {
        200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
        **documented(404, 422),
    }

    @app.get(
        "/v1/results/{number}/image",
        summary="The image of a result",
        response_class=Response,
        responses=jpeg,
    )
    async def image(number: int, side: Side = 640) -> Response:
        return await picture(number, side, heat=False)

    @app.get(
        "/v1/results/{number}/overlay",
        summary="The image of a result under its heat map",
        response_class=Response,
        responses=jpeg,
    )
    async def overlaid(number: int, side: Side = 640) -> Response:
        return await picture(number, side, heat=True)

    @app.get(
        "/v1/status",
        summary="How the service does",
        responses={200: {"model": schemas.Status}, **documented()},
    )
    async def status() -> Response:
        return json_response(service.status())


def _models(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/models",
        summary="All models in service",
        responses={200: {"model": schemas.ModelList}, **documented()},
    )
    async def models() -> Response:
        return json_response({"models": [describe(slot) for slot in service.models.slots.values()]})

    @app.get(
        "/v1/models/{name}",
        summary="One model",
        responses={200: {"model": schemas.ModelInfo}, **documented(404)},
    )
    async def model(name: str) -> Response:
        find_model(service, name)
        return json_response(describe(service.models.slots[name]))

    @app.post(
        "/v1/models/{name}/drift/reset",
        summary="Take what comes next for what is normal",
        responses={200: {"model": schemas.ModelInfo}, **documented(403, 404)},
    )
    async def reset_drift(name: str) -> Response:
        find_model(service, name).reset_drift()
        return json_response(describe(service.models.slots[name]))


def _health(app: FastAPI, service: Service) -> None:
    @app.get(
        "/healthz",
        summary="Whether it lives",
        responses={200: {"model": schemas.Health}, **documented(503)},
    )
    async def healthz() -> Response:
        if service.scorer.stalled:
            raise ProblemError(503, "the engine hangs: start the service anew.")
        return json_response({"status": "ok"})

    @app.get(
        "/readyz",
        summary="Whether images should be sent here",
        responses={200: {"model": schemas.Readiness}, **documented(503)},
    )
    async def readyz(request: Request) -> Response:
        if service.draining:
            raise ProblemError(503, "it is shutting down.", ready=False)
        document: dict[str, Any] = {"ready": True}
        if request.scope.get("authorized", True):
            document["models"] = {
                name: {
                    "version": slot.current.version,
                    "graph": slot.current.model.graph,
                    "golden": len(slot.current.model.metadata.golden),
                    "error": slot.error,
                }
                for name, slot in service.models.slots.items()
            }
        return json_response(document)

    @app.get(
        "/metrics",
        summary="For Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _page(app: FastAPI, page: Page) -> None:
    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return page.answer("index.html", request.headers.get("if-none-match"))

    @app.get("/page/{name}", include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        return page.answer(name, request.headers.get("if-none-match"))
