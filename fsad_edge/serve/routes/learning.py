"""``/v1/models/NAME/normals``: learn an image as normal, list what was learned, undo it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from fsad_edge.errors import FsadEdgeError, ImageError, NotNormalError
from fsad_edge.serve import schemas
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.request_body import ClientGoneError
from fsad_edge.serve.routes.route_helpers import (
    GONE,
    IMAGE_BODY,
    find_model,
    json_response,
    read_images,
)
from fsad_edge.serve.schemas import problem_responses
from fsad_edge.serve.served_model import ServedModel
from fsad_edge.serve.service import Service

Who = Annotated[
    str,
    Query(min_length=1, max_length=100, description="Name of the person.", examples=["anna"]),
]

#: The most characters of an image's name that are kept.
MOST_NAME = 255

PATH = "/v1/models/{name}/normals"


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes to an application."""
    routes = LearningRoutes(service)
    learned: dict[int | str, dict[str, Any]] = {
        201: {"model": schemas.LearnedEntry, "description": "Learned, on disk and applied."},
        **problem_responses(400, 403, 404, 408, 409, 413, 415, 422, 429),
    }
    body = {"requestBody": {**IMAGE_BODY, "required": False}}
    app.post(
        PATH, summary="Learn an image as normal", status_code=201, response_class=Response,
        responses=learned, openapi_extra=body,
    )(routes.add)  # fmt: skip
    app.get(
        PATH, summary="The learned images",
        responses={200: {"model": schemas.LearnedList}, **problem_responses(404)},
    )(routes.entries)  # fmt: skip
    app.delete(
        PATH + "/{number}", summary="Undo a learned image",
        responses={200: {"model": schemas.LearnedEntry}, **problem_responses(403, 404, 409, 422)},
    )(routes.undo)  # fmt: skip


class LearningRoutes:
    """``/v1/models/NAME/normals``."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._one_at_a_time = asyncio.Lock()  # so that the pool has threads left for scoring

    async def add(
        self,
        request: Request,
        name: str,
        who: Who,
        result: Annotated[
            int | None, Query(ge=0, description="Id of a result with that image; no body then.")
        ] = None,
        force: Annotated[
            bool,
            Query(
                description="Learn it even if it scores as high as a defect, is a bad photograph, "
                "or is learned or one of the shots already."
            ),
        ] = False,
    ) -> Response:
        served = find_model(self._service, name)
        try:
            if result is None:
                sent = await self._sent(request)
            else:
                sent = await run_in_threadpool(self._stored, served, result)
        except ClientGoneError:
            return GONE
        image, image_name = sent[0], sent[1] and sent[1][:MOST_NAME]
        return await self._change(served, 201, served.learn, image, who, force, image_name)

    async def entries(self, name: str) -> Response:
        served = find_model(self._service, name)
        return json_response(schemas.LearnedList(served.learner.entries(), served.model.threshold))

    async def undo(self, name: str, number: int, who: Who) -> Response:
        served = find_model(self._service, name)
        if number not in {entry.id for entry in served.learner.entries()}:
            raise ProblemError(404, "no learned image has that id.")
        return await self._change(served, 200, served.unlearn, number, who)

    async def _sent(self, request: Request) -> tuple[bytes, str | None]:
        """The image in a request and its name."""
        uploads = await read_images(self._service, request)
        if len(uploads) > 1:
            sent = " and ".join(map(str, uploads[:5]))
            raise ProblemError(
                400, f"{len(uploads)} images were sent ({sent}): learn one at a time."
            )
        return uploads[0].data, uploads[0].name

    def _stored(self, served: ServedModel, number: int) -> tuple[bytes, str | None]:
        """The image of a result and its name."""
        record, image = self._service.results.get(number), self._service.image(number)
        data = image.read() if image is not None else None
        if record is None or data is None:
            raise ProblemError(404, "the image of that result is no longer kept.")
        if record.model != served.name:
            raise ProblemError(404, f"that result is not of model {served.name}.")
        return data, record.name

    async def _change(
        self, served: ServedModel, status: int, act: Callable[..., Any], *arguments: Any
    ) -> Response:
        loop, pool = asyncio.get_running_loop(), self._service.queue.pool
        try:
            async with self._one_at_a_time:
                entry = await loop.run_in_executor(pool, act, *arguments)
        except ImageError as error:
            raise ProblemError(422, str(error)) from error
        except NotNormalError as error:
            raise ProblemError(409, str(error), force=True) from error
        except FsadEdgeError as error:
            raise ProblemError(409, str(error)) from error
        self._service.models.update_metrics(served)
        return json_response(
            schemas.LearnedEntry(**vars(entry), threshold_after=served.model.threshold), status
        )
