"""Errors as problem documents (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fsad_edge.errors import BusyError, ImageTooLargeError
from fsad_edge.serve.root_path import route_path

#: Most faults of a request that its answer names.
MOST_FAULTS = 20

MEDIA_TYPE = "application/problem+json"


class ProblemError(Exception):
    """A request is answered with an error.

    Args:
        status: HTTP status.
        detail: one sentence for people.
        headers: headers of the answer.
        members: further members of the problem document, for programs.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    def response(self, path: str = "") -> Response:
        """The problem document as an answer.

        Args:
            path: the request's path. Below ``/v2`` the document is also an error of the Open
                Inference Protocol.
        """
        document = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **({"error": self.detail} if path.startswith("/v2") else {}),
            **self.members,
        }
        return Response(
            json.dumps(document), self.status, headers=self.headers, media_type=MEDIA_TYPE
        )


def add_handlers(app: FastAPI) -> None:
    """Answer every error of an application with a problem document."""

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return error.response(route_path(request.scope))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = [
            {
                "where": ".".join(map(str, fault["loc"])),
                "what": fault["msg"].removeprefix("Value error, "),
            }
            for fault in error.errors()[:MOST_FAULTS]
        ]
        first = faults[0] if faults else {"where": "the request", "what": "is not valid"}
        return ProblemError(422, f"{first['where']}: {first['what']}.", errors=faults).response(
            route_path(request.scope)
        )

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        details = {
            404: f"there is nothing at {request.url.path[:200]}.",
            405: f"{request.url.path[:200]} does not take {request.method}.",
        }
        detail = details.get(error.status_code, str(error.detail))
        return ProblemError(error.status_code, detail, error.headers).response(
            route_path(request.scope)
        )

    async def too_large(request: Request, error: Exception) -> Response:
        return ProblemError(413, str(error)).response(route_path(request.scope))

    async def busy(request: Request, error: Exception) -> Response:
        return ProblemError(429, str(error), {"Retry-After": "1"}).response(
            route_path(request.scope)
        )

    async def memory(request: Request, error: Exception) -> Response:
        return ProblemError(
            503, "the service has no memory left for this: try again.", {"Retry-After": "5"}
        ).response(route_path(request.scope))

    async def fault(request: Request, error: Exception) -> Response:
        return ProblemError(
            500, "an internal error occurred: the service's log tells more."
        ).response(route_path(request.scope))

    app.add_exception_handler(ProblemError, problem)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ImageTooLargeError, too_large)
    app.add_exception_handler(BusyError, busy)
    app.add_exception_handler(MemoryError, memory)
    app.add_exception_handler(Exception, fault)
