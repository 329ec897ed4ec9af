"""The documents describe the code as it is: formats, commands, links."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from fsad_edge.cli.main import COMMANDS
from fsad_edge.learning.journal import Record
from fsad_edge.runtime.bank import ReferenceModel
from fsad_edge.runtime.documents import SCHEMA
from fsad_edge.runtime.engine_file import EngineHeader
from fsad_edge.runtime.metadata import Metadata

ROOT = Path(__file__).resolve().parent.parent
FORMAT = (ROOT / "docs/format.md").read_text()


def section(title: str) -> str:
    """The text under a heading of docs/format.md, up to the next heading."""
    return re.split(r"\n#+ ", FORMAT.split(f"# {title}\n", 1)[1], maxsplit=1)[0]


def field_names(kind: Any) -> set[str]:
    """Names of a dataclass's fields and of those of the dataclasses inside it."""
    names: set[str] = set()
    for field in dataclasses.fields(kind):
        names.add(field.name)
        for inner in inner_types(get_type_hints(kind)[field.name]):
            if dataclasses.is_dataclass(inner):
                names |= field_names(inner)
    return names


def inner_types(kind: Any) -> set[Any]:
    arguments = get_args(kind)
    return {kind} if not arguments else set().union(*map(inner_types, arguments))


@pytest.mark.parametrize(
    ("title", "kinds"),
    [
        ("The metadata document", [Metadata]),
        ("The exported file", [ReferenceModel]),
        ("The engine file", [EngineHeader]),
        ("The learning store", [Record]),
    ],
)
def test_every_field_of_a_format_is_described(title: str, kinds: list[Any]) -> None:
    described = set(re.findall(r"`(\w+)`", section(title)))
    wanted = set().union(*map(field_names, kinds))
    assert wanted <= described, f"docs/format.md does not name {sorted(wanted - described)}"


def test_no_field_of_the_metadata_is_described_that_is_not_there() -> None:
    rows = re.findall(
        r"^\| (?:&emsp;)?((?:`\w+`(?:, )?)+) \|", section("The metadata document"), re.M
    )
    described = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert described == field_names(Metadata) | {"schema"}


def test_the_schema_number_is_the_one_that_is_written() -> None:
    assert f'"schema": {SCHEMA}' in section("The schema number")


def test_the_readme_lists_every_command() -> None:
    readme = (ROOT / "README.md").read_text()
    table = readme.split("\n## Commands\n", 1)[1].split("\n## ", 1)[0]
    listed = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.M))))
    assert listed == set(COMMANDS)


def test_the_index_lists_every_decision() -> None:
    folder = ROOT / "docs/decisions"
    linked = re.findall(r"\(([\w-]+\.md)\)", (folder / "README.md").read_text())
    assert sorted(linked) == sorted(path.name for path in folder.glob("[0-9]*.md"))


@pytest.mark.parametrize(
    "document",
    [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))],
    ids=lambda path: path.name,
)
def test_every_module_that_a_document_names_exists(document: Path) -> None:
    named = set(re.findall(r"`([\w/]+/\w+\.py)`", document.read_text()))
    missing = [
        name
        for name in named
        if not ((ROOT / name).exists() or (ROOT / "fsad_edge" / name).exists())
    ]
    assert not missing
