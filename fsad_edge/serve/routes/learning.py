"""``/v1/models/NAME/normals`` and ``…/rejects``: call an image good or bad, list these, undo it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from fsad_edge.learning.embedding import Box
from fsad_edge.learning.journal import Entry, Role
from fsad_edge.learning.learner import Learner
from fsad_edge.serve.learning_schemas import (
    ExampleChange,
    MarkedPlace,
    TaughtEntry,
    TaughtList,
)
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.request_body import ClientGoneError
from fsad_edge.serve.routes.route_helpers import GONE, IMAGE_BODY, find_model, list_from
from fsad_edge.serve.routes.teaching import ResultId, Who, change, read_taught
from fsad_edge.serve.schemas import problem_responses
from fsad_edge.serve.service import Service

Force = Annotated[bool, Query(description="Do it all the same, where the answer was 409.")]

BoxText = Annotated[
    str | None,
    Query(
        pattern=r"^\d{1,6},\d{1,6},\d{1,6},\d{1,6}$",
        description="Left, top, right and bottom of the bad place, in pixels of the photograph; "
        "left out, it is the worst region of the heat map.",
        examples=["120,80,180,130"],
    ),
]

PATH = "/v1/models/{name}"


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes to an application."""
    normals, rejects = LearningRoutes(service, good=True), LearningRoutes(service, good=False)
    added: dict[int | str, dict[str, Any]] = {
        201: {"model": TaughtEntry, "description": "On disk and applied."},
        **problem_responses(400, 403, 404, 408, 409, 413, 415, 422, 429),
    }
    body = {"requestBody": {**IMAGE_BODY, "required": False}}
    app.post(
        PATH + "/normals", summary="Learn an image as normal", status_code=201,
        response_class=Response, responses=added, openapi_extra=body,
    )(normals.add)  # fmt: skip
    app.post(
        PATH + "/rejects", summary="Call an image bad", status_code=201,
        response_class=Response, responses=added, openapi_extra=body,
    )(rejects.reject)  # fmt: skip
    for routes, kind, what in (
        (normals, "normals", "learned images"),
        (rejects, "rejects", "images that were called bad"),
    ):
        app.get(
            f"{PATH}/{kind}", summary=f"The {what}", operation_id=f"list_{kind}",
            responses={200: {"model": TaughtList}, **problem_responses(404, 429)},
        )(routes.entries)  # fmt: skip
        app.delete(
            f"{PATH}/{kind}/{{number}}", summary=f"Undo one of the {what}",
            operation_id=f"undo_{kind}",
            responses={200: {"model": TaughtEntry}, **problem_responses(403, 404, 409, 422, 429)},
        )(routes.undo)  # fmt: skip


class LearningRoutes:
    """``/v1/models/NAME/normals`` or ``…/rejects``."""

    def __init__(self, service: Service, good: bool) -> None:
        self._service, self._good = service, good

    async def add(
        self,
        request: Request,
        name: str,
        who: Who,
        result: ResultId = None,
        force: Force = False,
    ) -> Response:
        """Parts like it count as good from then on.

        409 with ``force``: it scores as high as a defect, is a bad photograph, or is learned or one
        of the shots already; or an example would be lost.
        """
        return await self._teach(
            request,
            name,
            result,
            lambda learner, *image: learner.add(image[0], who, force, image[1]),
        )

    async def reject(
        self,
        request: Request,
        name: str,
        who: Who,
        result: ResultId = None,
        box: BoxText = None,
        force: Force = False,
    ) -> Response:
        """It is kept as an example of a bad part, and what looks like the bad place in it needs a
        lower score to be rejected from then on.

        409 with ``force``: it is called bad already; or an example would be lost.
        """
        place = _read_box(box)
        return await self._teach(
            request, name, result,
            lambda learner, image, title: learner.reject(image, who, place, force, title),
        )  # fmt: skip

    async def entries(self, request: Request, name: str) -> Response:
        served, role = find_model(self._service, name), self._role

        def make() -> TaughtList:
            entries = [entry for entry in served.entries if entry.role is role]
            return TaughtList(entries, served.model.threshold)

        return await list_from(self._service, request, make, ("taught", role, name))

    async def undo(
        self, request: Request, name: str, number: int, who: Who, force: Force = False
    ) -> Response:
        """The model is as if it had never been taught. 409 with ``force``: another example would be
        lost.
        """
        served = find_model(self._service, name)
        # Those that were given for a threshold are undone here, too.
        side = [one for one in served.entries if one.role.is_good is self._good]
        if number not in {entry.id for entry in side}:
            what = "learned image" if self._good else "image that was called bad"
            raise ProblemError(404, f"no {what} has that id.")

        def undo(learner: Learner) -> TaughtEntry:
            undone = learner.undo(number, who, force)
            assert isinstance(undone, Entry)
            return _document(learner, undone)

        return await change(self._service, request, served, undo)

    @property
    def _role(self) -> Role:
        return Role.NORMAL if self._good else Role.REJECTED

    async def _teach(
        self, request: Request, name: str, result: int | None, act: Callable[..., Entry]
    ) -> Response:
        served = find_model(self._service, name)
        try:
            image = await read_taught(self._service, request, served, result)
        except ClientGoneError:
            return GONE

        def teach(learner: Learner) -> TaughtEntry:
            return _document(learner, act(learner, *image))

        return await change(self._service, request, served, teach, 201)


def _read_box(text: str | None) -> Box | None:
    if text is None:
        return None
    left, top, right, bottom = map(int, text.split(","))
    return left, top, right, bottom


def _document(learner: Learner, entry: Entry) -> TaughtEntry:
    """An entry with what the last change did."""
    changes = [ExampleChange.of(one) for one in learner.changes]
    state = next((one for one in learner.examples() if one.entry.id == entry.id), None)
    told = learner.rejection
    just_now = told is not None and entry.undone is None and told.entry.id == entry.id
    return TaughtEntry(
        **vars(entry),
        marked=MarkedPlace.of(told) if told is not None and just_now else None,
        threshold_after=learner.threshold.value,
        score_after=None if state is None else state.score,
        decision_after=None if state is None else state.decision,
        changes=changes,
    )
