"""The model files of a service and the names that they are served under."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fsad_edge.errors import InputError
from fsad_edge.runtime.metadata import NAME


def find_model_files(
    models: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> dict[str, Path]:
    """Model files by the names that they are served under.

    Args:
        models: one or several of ``NAME=FILE``; ``FILE``, which is served under its own name
            without the suffix; and ``FOLDER``, which stands for the model files in it.

    Raises:
        InputError: a name is unfit or given twice, or a folder holds no model file.
    """
    given = [models] if isinstance(models, str | os.PathLike) else models
    files: dict[str, Path] = {}
    for name, path in (pair for one in given for pair in _named_files(os.fspath(one))):
        if not NAME.fullmatch(name):
            raise InputError(
                f"'{name}' cannot name a model: use letters, digits, '.', '_' and '-', as in  "
                f"part={path}."
            )
        if name in files:
            raise InputError(f"two models are called {name}: rename one, as in  other={path}.")
        files[name] = path
    if not files:
        raise InputError("no model is named: give a file that  fsad-edge export  wrote.")
    return files


def _named_files(text: str) -> list[tuple[str, Path]]:
    """The models that one argument names. In a folder an engine replaces its ONNX file."""
    name, equals, file = text.partition("=")
    path = Path(file if equals else text)
    if equals or not path.is_dir():
        return [(name if equals else path.stem, path)]
    by_stem = {
        found.stem: found
        for suffix in (".onnx", ".engine")
        for found in sorted(path.glob(f"*{suffix}"))
        if not found.name.startswith(".")  # a file that is being copied
    }
    if not by_stem:
        folder = "the current folder" if path == Path() else f"the folder {path}"
        raise InputError(
            f"{folder} holds no model file (.onnx or .engine): write one with  fsad-edge export,  "
            "or name a file."
        )
    return sorted(by_stem.items())
