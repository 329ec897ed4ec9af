"""The page for people: ``/`` and its files below ``/page/``."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import Response

from fsad_edge.serve.page_files import INDEX, PageFiles


def add_routes(app: FastAPI, files: PageFiles) -> None:
    """Add the routes to an application."""

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        known_tag = request.headers.get("if-none-match")
        return files.response(INDEX, known_tag, request.scope["root_path"])

    @app.get("/page/{name}", include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        return files.response(name, request.headers.get("if-none-match"))
