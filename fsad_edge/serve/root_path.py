"""The path below which a reverse proxy publishes the service, with or without the proxy's help."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fsad_edge.errors import InputError

_SEGMENTS = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")

#: First segments of the service's own paths. A prefix that began like them could not be told from
#: a path that the proxy has stripped of its prefix.
OWN_SEGMENTS = frozenset({"v1", "v2", "page", "healthz", "readyz", "metrics", "openapi.json"})


def check_root_path(given: str) -> str:
    """The prefix with a slash at its beginning and none at its end; empty for the root.

    Raises:
        InputError: it is no path, or begins like a path of the service itself.
    """
    inner = given.strip("/")
    path = f"/{inner}" if inner else ""
    if not _SEGMENTS.fullmatch(path):
        raise InputError(
            f"{given!r} is no path below which a service can be: use letters, digits, '.', '_', "
            "'~' and '-' between slashes, as in  --root-path /inspection."
        )
    first = inner.partition("/")[0]
    if first in OWN_SEGMENTS:
        raise InputError(
            f"--root-path may not begin with /{first}, which is a path of the service itself: take "
            "another one, as in  --root-path /inspection."
        )
    return path


def route_path(scope: Mapping[str, Any]) -> str:
    """The path of a request below the prefix; empty for the prefix itself without a slash."""
    path: str = scope["path"]
    return _strip(path, scope.get("root_path", ""))


def with_root_path(scope: Mapping[str, Any], root_path: str) -> dict[str, Any]:
    """A copy of an ASGI scope whose ``root_path`` and ``path`` begin with the prefix.

    Args:
        scope: the scope of a request. Its path has the prefix or, where a proxy strips it, not.
        root_path: as :func:`check_root_path` gives it.
    """
    root = scope.get("root_path", "") + root_path
    return {
        **scope,
        "root_path": root,
        "path": root + _strip(route_path(scope), root_path),
    }


def _strip(path: str, prefix: str) -> str:
    inner = path.removeprefix(prefix)
    return inner if inner[:1] in {"", "/"} else path
