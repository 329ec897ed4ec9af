"""Shows docstrings well on the library's page: Sphinx roles as code, examples as examples."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr):`[~.]?(?:[\w.]+\.)?(\w+)`")
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
_TREE = re.compile(r"((?:^\w+\n)?(?:^[├│└].*\n?)+)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            text = _EXAMPLE.sub(r"\1Examples:", text)
            obj.docstring.value = _TREE.sub(r"```text\n\1\n```\n", text)
