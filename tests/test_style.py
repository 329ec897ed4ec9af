"""Rules of the code that no linter checks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("fsad_edge", "cli", "calibration", "benchmarks", "examples", "pretraining", "tests")

#: A function longer than this does not fit a screen.
MOST_LINES = 80


def functions(folder: str) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The functions of all modules below a folder, with where they are."""
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        if path.is_relative_to(ROOT / "fsad_edge/cli") or "node_modules" in path.parts:
            continue  # a link to a folder that is looked at by its own name
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.append((f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node))
    return found


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, without the signature of a command's options."""
    assert function.end_lineno is not None
    return function.end_lineno - function.body[0].lineno + 1


@pytest.mark.parametrize("folder", SOURCES)
def test_every_function_fits_a_screen(folder: str) -> None:
    found = functions(folder)
    assert found
    long = [where for where, function in found if lines_of(function) > MOST_LINES]
    assert not long, f"split these: {long}"
