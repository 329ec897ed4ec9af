"""``/v1/models/NAME/threshold``: where the threshold comes from, set it, undo that."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from fsad_edge.errors import FsadEdgeError
from fsad_edge.learning.learner import Learner
from fsad_edge.serve.learning_schemas import (
    ExampleChange,
    ThresholdChange,
    ThresholdState,
    threshold_members,
)
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.routes.route_helpers import client_of, find_model, json_from
from fsad_edge.serve.routes.teaching import Who, change
from fsad_edge.serve.schemas import problem_responses
from fsad_edge.serve.served_model import ServedModel
from fsad_edge.serve.service import Service

Force = Annotated[bool, Query(description="Do it although an example would be lost.")]
Value = Annotated[
    float | None, Query(gt=0, allow_inf_nan=False, description="The threshold itself.")
]
Ratio = Annotated[
    float | None, Query(gt=0, allow_inf_nan=False, description="A multiple of the present one.")
]
Rate = Annotated[
    float | None,
    Query(
        ge=1e-9, le=0.5, allow_inf_nan=False,
        description="The share of good parts that may be rejected, as a fraction; the threshold "
        "follows it when more is learned.",
    ),
]  # fmt: skip

PATH = "/v1/models/{name}/threshold"


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes to an application."""
    routes = ThresholdRoutes(service)
    app.get(
        PATH, summary="The threshold and the examples",
        responses={200: {"model": ThresholdState}, **problem_responses(404, 409, 429)},
    )(routes.state)  # fmt: skip
    changed = {200: {"model": ThresholdChange}, **problem_responses(403, 404, 409, 422, 429)}
    app.put(PATH, summary="Set the threshold", responses=changed)(routes.set)
    app.delete(PATH, summary="Undo the threshold that was set", responses=changed)(routes.undo)


class ThresholdRoutes:
    """``/v1/models/NAME/threshold``."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def state(self, name: str, request: Request) -> Response:
        """The examples are all images that were learned, called bad or given for a threshold."""
        served = find_model(self._service, name)

        def make() -> ThresholdState:
            return ThresholdState(**threshold_members(served.model, served.learner))

        desk, key = self._service.states, ("threshold", served.version, name)
        try:
            return await json_from(desk, client_of(request), make, key)
        except FsadEdgeError as error:
            raise ProblemError(409, str(error)) from error

    async def set(
        self,
        request: Request,
        name: str,
        who: Who,
        value: Value = None,
        ratio: Ratio = None,
        false_alarm_rate: Rate = None,
        force: Force = False,
    ) -> Response:
        """Exactly one of ``value``, ``ratio`` and ``false_alarm_rate`` is given.

        409 with ``force``: an example would be lost.
        """
        served = find_model(self._service, name)
        if sum(one is not None for one in (value, ratio, false_alarm_rate)) != 1:
            raise ProblemError(422, "give one of value, ratio and false_alarm_rate.")

        def act(learner: Learner) -> ThresholdChange:
            learner.set_threshold(who, value, ratio, false_alarm_rate, force)
            return _document(served, learner)

        return await change(self._service, request, served, act)

    async def undo(self, request: Request, name: str, who: Who, force: Force = False) -> Response:
        """The threshold that was in effect before counts again: one that was set earlier, or that
        of the file with what was learned.
        """
        served = find_model(self._service, name)

        def act(learner: Learner) -> ThresholdChange:
            setting = learner.setting
            if setting is None:
                raise ProblemError(404, "nobody has set the threshold of this model.")
            learner.undo(setting.id, who, force)
            return _document(served, learner)

        return await change(self._service, request, served, act)


def _document(served: ServedModel, learner: Learner) -> ThresholdChange:
    changes = [ExampleChange.of(one) for one in learner.changes]
    return ThresholdChange(**threshold_members(served.model, learner), changes=changes)
