"""Every attribute of TensorRT that the code uses exists in the bindings of 10.3, 10.13 and 11.4.

The lists in ``tensorrt_names`` were read from the bindings' wheels (``read_names.py`` there).
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from fsad_edge.deploy import build_machine, engine, tensorrt_plan
from fsad_edge.runtime.backends import tensorrt, tensorrt_module
from tests.tensorrt_names.read_names import CLASSES

FOLDER = Path(__file__).with_name("tensorrt_names")
VERSIONS = {file.stem: json.loads(file.read_text())["names"] for file in FOLDER.glob("*.json")}
MODULES = [
    str(module.__file__)
    for module in (build_machine, engine, tensorrt, tensorrt_module, tensorrt_plan)
]


def uses(source: str) -> set[tuple[str, str]]:
    """Class and attribute of each use: ``trt.X.Y`` of the module, and attributes of its objects."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value
        if isinstance(owner, ast.Name):
            if owner.id == "trt" and node.attr != "__version__":
                found.add(("", node.attr))
            elif owner.id in CLASSES:
                found.add((CLASSES[owner.id], node.attr))
        elif isinstance(owner, ast.Attribute) and isinstance(owner.value, ast.Name):
            if owner.value.id == "trt" and not node.attr.startswith("_"):
                found.add((owner.attr, node.attr))
            elif owner.value.id == "self" and owner.attr.lstrip("_") in CLASSES:
                found.add((CLASSES[owner.attr.lstrip("_")], node.attr))
    return found


def overridden(source: str) -> set[tuple[str, str]]:
    """The methods of TensorRT's classes that the code overrides."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                if isinstance(base, ast.Attribute) and ast.unparse(base.value) == "trt":
                    found |= {
                        (base.attr, each.name)
                        for each in node.body
                        if isinstance(each, ast.FunctionDef) and not each.name.startswith("_")
                    }
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_code_uses_exists(version: str) -> None:
    names = VERSIONS[version]
    sources = [Path(module).read_text() for module in MODULES]
    used = set().union(*map(uses, sources), *map(overridden, sources))
    missing = {f"{owner}.{name}" for owner, name in used if name not in names.get(owner, ())}
    assert not missing
    # These build and run an engine: the walk over the source must find them.
    assert {
        ("", "OnnxParser"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("IBuilderConfig", "set_timing_cache"),
        ("IProgressMonitor", "step_complete"),
        ("IExecutionContext", "execute_async_v3"),
        ("ICudaEngine", "get_tensor_mode"),
    } <= used


def test_both_generations_are_compared() -> None:
    assert {version.split(".")[0] for version in VERSIONS} == {"10", "11"}
    assert {"10.3.0", "10.13.2.6"} < set(VERSIONS)


def test_a_name_that_a_version_lacks_is_found() -> None:
    gone = "flags = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)"
    (use,) = uses(gone) - {("", "NetworkDefinitionCreationFlag")}
    assert [name for name, names in VERSIONS.items() if use[1] in names[use[0]]] != list(VERSIONS)
    assert ("IBuilderConfig", "int8_calibrator") in uses("config.int8_calibrator = calibrator")
    assert "int8_calibrator" not in VERSIONS["11.4.0.106"]["IBuilderConfig"]
