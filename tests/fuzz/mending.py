"""Seal files again that were changed, so that what lies behind the seal is attacked too.

The product's own function is used; while there is none, these cases are skipped.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

#: Where the product may have the function, which takes a file's bytes and returns them sealed.
_MODEL_FILE = (
    ("fsad_edge.runtime.seal", "seal"),
    ("fsad_edge.runtime.seal", "sealed"),
    ("fsad_edge.runtime.file_seal", "seal"),
    ("fsad_edge.runtime.onnx_file", "seal"),
    ("fsad_edge.runtime.onnx_file", "sealed"),
)

#: The same for the text of a document in a model directory.
_DOCUMENT = (
    ("fsad_edge.runtime.seal", "seal_document"),
    ("fsad_edge.runtime.documents", "seal_document"),
    ("fsad_edge.runtime.documents", "sealed"),
)

WHY_NOT = "the product has no public function that seals this again"


def _find(places: tuple[tuple[str, str], ...]) -> Callable[[bytes], bytes] | None:
    for module, name in places:
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
        return cast("Callable[[bytes], bytes]", found)
    return None


def seal_model_file(data: bytes) -> bytes | None:
    """A model file's bytes with a seal that fits; None where the product cannot do it."""
    seal = _find(_MODEL_FILE)
    return None if seal is None else seal(data)


def seal_document(text: bytes) -> bytes | None:
    """A document's text with a seal that fits; None where the product cannot do it."""
    seal = _find(_DOCUMENT)
    return None if seal is None else seal(text)
