"""What several routes share."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Query
from starlette.responses import Response

from fsad_edge.serve.models import ServedModel
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.service import Service

IMAGE_BODY = {
    "required": True,
    "content": {
        **{
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("image/jpeg", "image/png", "application/octet-stream")
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "file": {"type": "array", "items": {"type": "string", "format": "binary"}}
                },
                "required": ["file"],
            }
        },
    },
}

ModelName = Annotated[
    str | None, Query(description="May be left out where there is one model.", examples=["part"])
]


def find_model(service: Service, name: str | None) -> ServedModel:
    """A model by name, or the only one.

    Raises:
        ProblemError: 404, or 422 where there are several and none was named.
    """
    known = ", ".join(service.models.slots)
    if name is None:
        if service.models.only is None:
            raise ProblemError(422, f"several models are served: add  ?model=NAME  ({known}).")
        return service.models.only
    try:
        return service.models[name]
    except KeyError:
        raise ProblemError(404, f"there is no model of that name: {known}.") from None


def json_response(document: Any, status: int = 200) -> Response:
    """A JSON answer; floats are finite."""
    return Response(json.dumps(document), status, media_type="application/json")
