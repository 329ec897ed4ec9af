"""The files of the page, read once, so that no name in a request reaches the file system."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from urllib.parse import quote

from starlette.responses import Response

from fsad_edge.runtime.files import sha256
from fsad_edge.serve.problems import ProblemError

# The registry of Windows may give scripts as text/plain, which browsers refuse to run.
mimetypes.add_type("text/javascript", ".js")

INDEX = "index.html"
FOLDER = Path(__file__).parent / "page"


class PageFiles:
    """The files that are served at ``/`` and below ``/page/``."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.is_file() and not path.name.startswith("."):
                data = path.read_bytes()
                kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                self._files[path.name] = (data, kind, f'"{sha256(data)[:16]}"')

    def response(self, name: str, known_tag: str | None, root_path: str = "") -> Response:
        """A file by its name.

        Args:
            name: name of the file.
            known_tag: the request's ``If-None-Match``.
            root_path: the path below which a proxy publishes the service. It goes before the
                relative addresses in ``index.html``, which can be asked for without its slash.

        Raises:
            ProblemError: the page has no file of that name (404).
        """
        if name not in self._files:
            raise ProblemError(404, "the page has no such file.")
        data, kind, tag = self._files[name]
        if root_path and name == INDEX:
            data = data.replace(b'"page/', f'"{quote(root_path)}/page/'.encode())
            tag = f'"{sha256(data)[:16]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if known_tag == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type=kind)
