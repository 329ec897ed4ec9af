"""``/v1/models/NAME/zones``: where on the part a model looks; set a zone, undo it, propose some."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from fsad_edge.errors import FsadEdgeError, ImageError, ImageTooLargeError, InputError
from fsad_edge.learning.learner import Learner
from fsad_edge.learning.zones_asked import AskedZone, check_active, why_no_following
from fsad_edge.learning.zones_placed import MarkedPhotograph, fractions_of, painted_on_frame
from fsad_edge.learning.zones_proposal import propose_zones
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.documents import DocumentError, from_document, parse_json
from fsad_edge.runtime.images import load_image
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.painted_mask import PNG
from fsad_edge.runtime.zones import Corner, ZoneEntry, ZoneKind
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.request_body import ClientGoneError
from fsad_edge.serve.routes.results import PATIENCE
from fsad_edge.serve.routes.route_helpers import (
    GONE,
    check_parameters,
    client_of,
    find_model,
    json_from,
)
from fsad_edge.serve.routes.teaching import Who, change, stored_image
from fsad_edge.serve.schemas import problem_responses
from fsad_edge.serve.served_model import ServedModel
from fsad_edge.serve.service import Service
from fsad_edge.serve.zone_schemas import ProposedZones, ZoneBody, ZoneChange, ZoneList

PATH = "/v1/models/{name}/zones"

Force = Annotated[bool, Query(description="Do it although an example would be lost.")]
DryRun = Annotated[bool, Query(description="Answer what the zone would change, and set nothing.")]
Kind = Annotated[ZoneKind | None, Query(description="Of a painted PNG: what the zone does.")]
Weight = Annotated[
    float | None, Query(gt=0, allow_inf_nan=False, description="Of a painted PNG: the weight.")
]
Note = Annotated[str, Query(max_length=1000, description="Of a painted PNG: why.")]
Result = Annotated[
    int | None,
    Query(ge=0, description="Of a painted PNG: the result on whose photograph it was painted."),
]
Shot = Annotated[
    int | None, Query(ge=0, description="Of a painted PNG: the shot on whose picture it was.")
]

#: What is said in the address of a painted PNG alone: JSON says it in the body.
_OF_A_PNG = ("kind", "weight", "note", "result", "shot")

#: The weights that zones of the other kinds have anyway.
_OWN_WEIGHT = {ZoneKind.IGNORE: 0.0, ZoneKind.LOOK: 1.0}

_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["kind", "polygon"],
                "properties": {
                    "kind": {"enum": [kind.value for kind in ZoneKind]},
                    "polygon": {
                        "type": "array",
                        "description": "Corners, each across and down, as fractions of a picture "
                        "of the model's frame, or of the photograph of a result.",
                        "items": {
                            "type": "array",
                            "items": {"type": "number", "minimum": 0, "maximum": 1},
                            "minItems": 2,
                            "maxItems": 2,
                        },
                        "minItems": 3,
                    },
                    "weight": {"type": "number", "description": "Of the kind weight."},
                    "own_threshold": {
                        "type": "number",
                        "description": "In place of a weight: the score above which a place in it "
                        "is rejected.",
                    },
                    "note": {"type": "string", "maxLength": 1000},
                    "result": {"type": ["integer", "null"]},
                    "shot": {"type": ["integer", "null"]},
                },
            }
        },
        "image/png": {"schema": {"type": "string", "format": "binary"}},
    },
}


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes to an application."""
    routes = ZoneRoutes(service)
    changed: dict[str, Any] = {"model": ZoneChange}
    app.get(
        PATH, summary="The zones, and what each place counts",
        responses={200: {"model": ZoneList}, **problem_responses(404, 409, 429)},
    )(routes.state)  # fmt: skip
    app.get(
        PATH + "/proposal", summary="Places that could be ignored",
        responses={200: {"model": ProposedZones}, **problem_responses(404, 409, 429)},
    )(routes.proposal)  # fmt: skip
    app.post(
        PATH, summary="Set a zone", status_code=201, response_class=Response,
        responses={
            200: {**changed, "description": "What it would change, with dry_run."},
            201: {**changed, "description": "On disk and applied."},
            **problem_responses(400, 403, 404, 408, 409, 413, 415, 422, 429),
        },
        openapi_extra={"requestBody": _BODY},
    )(routes.add)  # fmt: skip
    app.delete(
        PATH + "/{number}", summary="Undo a zone",
        responses={200: changed, **problem_responses(403, 404, 409, 422, 429)},
    )(routes.undo)  # fmt: skip


class ZoneRoutes:
    """``/v1/models/NAME/zones``."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def state(self, name: str, request: Request) -> Response:
        """Zones that were undone are listed, too. 409: the model's file takes no zones."""
        served = find_model(self._service, name)
        return await self._read(
            request, name, "zones", served, lambda: ZoneList.of(served.model, served.learner)
        )

    async def proposal(self, name: str, request: Request) -> Response:
        """Where the shots differ most from one another. Nothing is set."""
        served = find_model(self._service, name)
        return await self._read(
            request,
            name,
            "proposed zones",
            served,
            lambda: ProposedZones.of(
                propose_zones(served.model, served.learner),
                why_no_following(served.model.metadata),
            ),
        )

    async def add(
        self,
        request: Request,
        name: str,
        who: Who,
        force: Force = False,
        dry_run: DryRun = False,
        kind: Kind = None,
        weight: Weight = None,
        note: Note = "",
        result: Result = None,
        shot: Shot = None,
    ) -> Response:
        """The body is a JSON object, or a PNG in which the place is painted: what is neither
        transparent nor black. 409 with ``force``: an example would be lost. With ``dry_run`` the
        answer is the same, with the id 0, and nothing is set.
        """
        check_parameters(request)
        served = find_model(self._service, name)
        self._service.teaching.check(client_of(request))
        try:
            body = await self._service.bodies.read(request)
        except ClientGoneError:
            return GONE
        painted = body if body.startswith(PNG) else None
        if painted is None:
            asked = _parsed(body, request)
        elif kind is None:
            raise ProblemError(422, "say what the painted place is for: add  ?kind=ignore .")
        else:
            asked = ZoneBody(kind, [], weight, None, note, result, shot)
        _check_asked(served.model, asked)

        def act(learner: Learner) -> ZoneChange:
            zone = self._zone(served, asked, painted)
            if not dry_run:
                return _done(learner, learner.add_zone(zone, who, asked.note, force))
            entry, trial = learner.plan_zone(zone, who, asked.note)
            return ZoneChange.done(dataclasses.replace(entry, id=0), trial)

        status = 200 if dry_run else 201
        return await change(self._service, request, served, act, status, dry_run)

    async def undo(
        self, request: Request, name: str, number: int, who: Who, force: Force = False
    ) -> Response:
        """The model looks as if it had never been set. 409 with ``force``: an example would be
        lost.
        """
        served = find_model(self._service, name)

        def act(learner: Learner) -> ZoneChange:
            ever = learner.zones()
            try:
                check_active(learner.in_effect.here, ever, number)
            except InputError as error:
                known = number in {entry.id for entry in ever}
                raise ProblemError(409 if known else 404, str(error)) from error
            undone = learner.undo(number, who, force)
            assert isinstance(undone, ZoneEntry)
            return _done(learner, undone)

        return await change(self._service, request, served, act)

    async def _read(
        self, request: Request, name: str, what: str, served: ServedModel, make: Any
    ) -> Response:
        try:
            key = (what, served.version, name)
            return await json_from(self._service.states, client_of(request), make, key)
        except FsadEdgeError as error:
            raise ProblemError(409, str(error)) from error

    def _zone(self, served: ServedModel, asked: ZoneBody, painted: bytes | None) -> AskedZone:
        """The zone in the frame of the model.

        Raises:
            ImageTooLargeError, BusyError: there is no memory to decode an image.
            ProblemError: it is no zone, no part is found in the photograph (422), or the result,
                its photograph or the picture of the shot is not there (404).
        """
        weight = asked.weight if asked.kind is ZoneKind.WEIGHT else None
        try:
            if painted is not None:
                self._check_pixels(painted)
            with GATE.working(PATIENCE):
                corners = self._corners(served, asked, painted)
            return AskedZone(asked.kind, corners, weight, asked.own_threshold)
        except ImageTooLargeError:
            raise
        except InputError as error:
            raise ProblemError(422, str(error)) from error

    def _check_pixels(self, painted: bytes) -> None:
        """Refuse a PNG of more pixels than the service takes, by its header."""
        try:
            self._service.queue.check_size(painted)
        except ImageError as error:
            raise ImageError(str(error).replace("the image", "the painted mask", 1)) from error

    def _corners(
        self, served: ServedModel, asked: ZoneBody, painted: bytes | None
    ) -> tuple[Corner, ...]:
        if asked.result is not None:
            image, _ = stored_image(self._service, served, asked.result)
            photograph = MarkedPhotograph.of(served.model, image)
            if painted is not None:
                return photograph.painted_in_frame(served.model, painted)
            width, height = photograph.size
            return photograph.in_frame([(x * width, y * height) for x, y in asked.polygon])
        if painted is None:
            return fractions_of(asked.polygon)
        if asked.shot is None:
            raise ProblemError(
                422, "say on what the PNG was painted: add  ?shot=0  for a shot, or  ?result=ID ."
            )
        size = _size_of(_picture(served.model, asked.shot))
        return painted_on_frame(served.model, painted, size)


def _parsed(body: bytes, request: Request) -> ZoneBody:
    """The zone that a JSON body asks for."""
    try:
        asked = from_document(ZoneBody, parse_json(body))
    except DocumentError as error:
        raise ProblemError(
            422, f"the body is neither a zone as JSON nor a painted PNG: {error}."
        ) from error
    misplaced = [name for name in _OF_A_PNG if name in request.query_params]
    if misplaced:
        raise ProblemError(
            422,
            f"in the address, {misplaced[0]} is of a painted PNG: put it into the JSON body, which "
            "says all of the zone.",
        )
    return asked


def _check_asked(model: Model, asked: ZoneBody) -> None:
    """Refuse a request that would set something else than it asks for.

    Raises:
        ProblemError: a weight where none belongs, both a result and a shot (422), or a shot without
            a picture (404).
    """
    if asked.weight not in {None, _OWN_WEIGHT.get(asked.kind, asked.weight)}:
        raise ProblemError(
            422,
            f"a zone of the kind {asked.kind} takes no weight: leave it out, or ask for the kind "
            f"{ZoneKind.WEIGHT}.",
        )
    if asked.result is not None and asked.shot is not None:
        raise ProblemError(
            422, "a zone is drawn on one picture: give the id of a result or a shot, not both."
        )
    if asked.shot is not None:
        _picture(model, asked.shot)


@functools.lru_cache(maxsize=64)
def _size_of(picture: bytes) -> tuple[int, int]:
    height, width = load_image(picture).shape[:2]
    return width, height


def _picture(model: Model, shot: int) -> bytes:
    """The picture of a shot on which a zone was drawn."""
    pictures = [] if model.metadata.origins is None else model.metadata.origins.pictures
    if not 0 <= shot < len(pictures):
        raise ProblemError(404, f"there is no picture of shot {shot}: there are {len(pictures)}.")
    return pictures[shot]


def _done(learner: Learner, entry: ZoneEntry) -> ZoneChange:
    assert learner.zone_trial is not None  # the change has just told
    return ZoneChange.done(entry, learner.zone_trial)
