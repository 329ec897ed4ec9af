"""The names that models are served under."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fsad_edge.errors import InputError
from fsad_edge.runtime.metadata import NAME


def name_models(given: Iterable[str]) -> dict[str, Path]:
    """Files by name from ``NAME=FILE``, ``FILE``, which is named after itself, or ``FOLDER``.

    Raises:
        InputError: a name that is unfit or given twice, or a folder that holds no model.
    """
    files: dict[str, Path] = {}
    for name, path in (pair for text in given for pair in _named(text)):
        if not NAME.fullmatch(name):
            raise InputError(
                f"'{name}' cannot name a model: use letters, digits, '.', '_' and '-', as in  "
                f"part={path}."
            )
        if name in files:
            raise InputError(f"two models are called {name}: name them, as in  other={path}.")
        files[name] = path
    return files


def _named(text: str) -> list[tuple[str, Path]]:
    """What one argument names; of a folder its model files, engines in place of their sources."""
    name, equals, file = text.partition("=")
    path = Path(file if equals else text)
    if equals or not path.is_dir():
        return [(name if equals else path.stem, path)]
    by_stem = {
        found.stem: found
        for suffix in (".onnx", ".engine")
        for found in sorted(path.glob(f"*{suffix}"))
        if not found.name.startswith(".")  # one that is being copied
    }
    if not by_stem:
        raise InputError(
            f"{path} is a folder without a model file: give one with files that  fsad-edge export  "
            "wrote, or such a file."
        )
    return sorted(by_stem.items())
