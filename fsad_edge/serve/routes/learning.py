"""The routes by which a person teaches the service a new normal."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from fsad_edge.errors import FsadEdgeError, ImageError, NotNormalError
from fsad_edge.learning.learner import Entry
from fsad_edge.serve import schemas
from fsad_edge.serve.body import BodyReader, ClientGoneError, check_media_type, split_multipart
from fsad_edge.serve.models import ServedModel
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.routes.common import IMAGE_BODY, find_model, json_response
from fsad_edge.serve.schemas import problems as documented
from fsad_edge.serve.service import Service

Who = Annotated[
    str, Query(min_length=1, max_length=100, description="Who says so.", examples=["anna"])
]


class LearningRoutes:
    """``/v1/models/NAME/normals``."""

    def __init__(self, service: Service, reader: BodyReader) -> None:
        self._service = service
        self._reader = reader
        self._one = asyncio.Lock()  # learning one after the other leaves the pool to scoring

    def install(self, app: FastAPI) -> None:
        path = "/v1/models/{name}/normals"
        learned: dict[int | str, dict[str, Any]] = {
            201: {"model": schemas.LearnedEntry, "description": "Learned, on disk and in force."},
            **documented(400, 403, 404, 408, 409, 413, 415, 422, 429),
        }
        body = {"requestBody": {**IMAGE_BODY, "required": False}}
        app.post(
            path, summary="Learn a new normal", status_code=201, response_class=Response,
            responses=learned, openapi_extra=body,
        )(self.add)  # fmt: skip
        app.get(
            path, summary="What was learned",
            responses={200: {"model": schemas.LearnedList}, **documented(404)},
        )(self.entries)  # fmt: skip
        app.delete(
            path + "/{number}", summary="Unlearn one",
            responses={200: {"model": schemas.LearnedEntry}, **documented(403, 404, 409, 422)},
        )(self.undo)  # fmt: skip

    async def add(
        self,
        request: Request,
        name: str,
        who: Who,
        result: Annotated[
            int | None, Query(ge=0, description="Id of a result whose image it is; no body then.")
        ] = None,
        force: Annotated[
            bool, Query(description="Learn it even if it scores like a gross defect.")
        ] = False,
    ) -> Response:
        served = find_model(self._service, name)
        try:
            image = await self._image(request) if result is None else self._kept(served, result)
        except ClientGoneError:
            return Response(status_code=400)
        entry = await self._in_pool(served.learn, image, who, force)
        self._service.models.show(served)
        return json_response(_describe(entry, served), 201)

    async def entries(self, name: str) -> Response:
        served = find_model(self._service, name)
        found = [dataclasses.asdict(entry) for entry in served.learner.entries()]
        return json_response({"entries": found, "threshold": served.model.threshold})

    async def undo(self, name: str, number: int, who: Who) -> Response:
        served = find_model(self._service, name)
        if number not in {entry.id for entry in served.learner.entries()}:
            raise ProblemError(404, "no normal of that id was learned.")
        entry = await self._in_pool(served.unlearn, number, who)
        self._service.models.show(served)
        return json_response(_describe(entry, served))

    async def _image(self, request: Request) -> bytes:
        boundary = check_media_type(request)
        body = await self._reader.read(request)
        if boundary is not None:
            uploads = split_multipart(body, boundary)
            if len(uploads) > 1:
                raise ProblemError(400, "send one image to learn at a time.")
            body = uploads[0].data
        if not body:
            raise ProblemError(400, "the body is empty: send an image, or name a ?result=ID.")
        return body

    def _kept(self, served: ServedModel, number: int) -> bytes:
        record, kept = self._service.results.get(number), self._service.results.image(number)
        if kept is None:
            raise ProblemError(404, "the image of that result is not kept any more.")
        if record is None or record["model"] != served.name:
            raise ProblemError(404, f"that result is not of model {served.name}.")
        return kept.data

    async def _in_pool(self, act: Any, *arguments: Any) -> Entry:
        loop = asyncio.get_running_loop()
        try:
            async with self._one:
                entry: Entry = await loop.run_in_executor(
                    self._service.scorer.pool, act, *arguments
                )
        except ImageError as error:
            raise ProblemError(422, str(error)) from error
        except NotNormalError as error:
            raise ProblemError(409, str(error), force=True) from error
        except FsadEdgeError as error:
            raise ProblemError(409, str(error)) from error
        return entry


def _describe(entry: Entry, served: ServedModel) -> dict[str, Any]:
    return {**dataclasses.asdict(entry), "threshold_after": served.model.threshold}
