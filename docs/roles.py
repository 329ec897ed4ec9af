"""Shows the Sphinx roles of docstrings, such as :class:`Model`, as code on the library's page."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr):`[~.]?(?:[\w.]+\.)?(\w+)`")


class Roles(griffe.Extension):
    """Replaces each role by the name that it refers to."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)
