"""The inspection service: ``fsad-edge serve``, or :func:`create_app` inside another program.

``create_app``, ``run_server`` and ``take_address`` are imported when they are first used: they need
the packages of the extra ``serve``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fsad_edge.errors import needs_extra
from fsad_edge.serve.options import ListenOptions, Publish, ServeOptions

if TYPE_CHECKING:
    from fsad_edge.serve.app import create_app
    from fsad_edge.serve.server import run_server, take_address

__all__ = [
    "ListenOptions",
    "Publish",
    "ServeOptions",
    "create_app",
    "run_server",
    "take_address",
]

_LAZY = {
    "create_app": "fsad_edge.serve.app",
    "run_server": "fsad_edge.serve.server",
    "take_address": "fsad_edge.serve.server",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs_extra("serve"):
        return getattr(importlib.import_module(_LAZY[name]), name)
