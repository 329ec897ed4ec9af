"""The page's files, read once: no name from a request ever reaches the file system."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from starlette.responses import Response

from fsad_edge.runtime.files import sha256
from fsad_edge.serve.problems import ProblemError

# Windows' registry may know scripts as text/plain, which browsers refuse to run.
mimetypes.add_type("text/javascript", ".js")

FOLDER = Path(__file__).parent / "page"

#: Beside the page's files, what needs no token.
OPEN = frozenset({"/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})


class Page:
    """What is served at ``/`` and below ``/page/``."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.is_file() and not path.name.startswith("."):
                data = path.read_bytes()
                kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                self._files[path.name] = (data, kind, f'"{sha256(data)[:16]}"')

    def is_open(self, path: str) -> bool:
        """Whether a path of a request needs no token: the page itself holds no results."""
        return path in OPEN or path.startswith("/page/")

    def answer(self, name: str, known: str | None) -> Response:
        """A file by name.

        Args:
            name: of the file.
            known: the ``If-None-Match`` of the request.

        Raises:
            ProblemError: there is none of that name (404).
        """
        if name not in self._files:
            raise ProblemError(404, "the page has no such file.")
        data, kind, tag = self._files[name]
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if known == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type=kind)
