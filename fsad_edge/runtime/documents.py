"""The one checker for JSON documents: metadata of a model file, manifests, headers, journals.

A document is described by a dataclass. Its annotations say what each field must be, and
``Annotated[float, Range(0, 1)]`` adds bounds, so that a value that would fail its user later on is
refused where the document is read.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import json
import math
import operator
import re
import reprlib
import types
import typing
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from fsad_edge.errors import InputError, ModelFileError

#: The format of every document that this version writes. ``docs/format.md`` describes it; a change
#: that an older reader would misread raises it.
SCHEMA = 3

#: Marks a field of a dataclass that every document must hold although the field has a default.
STATED = types.MappingProxyType({"stated": True})

#: Marks a field of a dataclass that a file of its own holds. It is not written into the document;
#: one that holds it all the same is read.
APART = types.MappingProxyType({"apart": True})

#: The most characters of a value that an error quotes.
QUOTED = 80

#: The most bytes of a document: those of the header of an engine.
MOST_BYTES = 64 << 20

#: The most digits of a number that is read. Python itself refuses more than 4300 for a whole one.
MOST_DIGITS = 1000

#: The deepest nesting within a field whose form is not known.
MOST_DEPTH = 16

#: Writes a value for an error. Unlike ``repr`` it stays short however long or deep the value is.
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = QUOTED

#: What a value of each plain type is, for the error's sentence.
_WORDS = {
    float: "a finite number",
    int: "a whole number of 64 bits",
    str: "a text",
    bool: "true or false",
}

T = TypeVar("T")


class DocumentError(ValueError):
    """A document is not what its dataclass says; the message names the field."""


@dataclass(frozen=True)
class Range:
    """Bounds of a number, or of the length of a text or list, both included.

    Attributes:
        least: the lower bound.
        most: the upper bound.
    """

    least: float
    most: float = math.inf


@dataclass(frozen=True)
class Above:
    """A bound that a number must be above."""

    bound: float


@dataclass(frozen=True)
class Ascending:
    """Each number of a list is at least the one before it."""


@dataclass(frozen=True)
class Matches:
    """A regular expression that a whole text must match.

    Attributes:
        pattern: the expression.
        words: what such a text is, for the error's sentence.
    """

    pattern: str
    words: str


#: A SHA-256 in hexadecimal.
Sha256 = typing.Annotated[str, Matches("[0-9a-f]{64}", "a SHA-256")]

#: The name of a file without a folder, so that it cannot lead elsewhere.
FileName = typing.Annotated[str, Matches(r"(?!\.{1,2}$)[^/\\\0]+", "a file name")]


def to_document(value: Any) -> Any:
    """What ``json.dumps`` takes for a dataclass: bytes become Base64, enums their words.

    Fields that are marked with ``APART`` are left out.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_document(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if "apart" not in field.metadata
        }
    if isinstance(value, Mapping):
        return {key: to_document(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_document(one) for one in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value.value if isinstance(value, Enum) else value


def from_document(kind: type[T], value: object) -> T:
    """Build a dataclass from what ``json.loads`` gave, and check all of it.

    Args:
        kind: the dataclass. Its fields may be texts, numbers, truth values, bytes (Base64), enums,
            dataclasses, lists, tuples and dictionaries of these, ``| None`` and ``Any``.
        value: the document.

    Raises:
        DocumentError: a field is missing, unknown, of another type, not finite or out of range.

    Example:
        >>> from_document(Range, {"least": 0, "most": 1})
        Range(least=0.0, most=1.0)
    """
    built: T = _build(kind, value, "the document")
    return built


def write_document(value: Any, indent: int | None = None) -> str:
    """A dataclass as one JSON object that names its schema."""
    return json.dumps({"schema": SCHEMA, **to_document(value)}, indent=indent)


def read_document(kind: type[T], text: str | bytes, source: str, cure: str) -> T:
    """Read what :func:`write_document` wrote.

    Args:
        kind: the dataclass.
        text: the JSON object.
        source: what it is or where it came from, for the error's sentence.
        cure: what to do about a damaged one, for the end of the sentence.

    Raises:
        ModelFileError: it is damaged, or of another schema.
    """
    try:
        document = parse_json(text)
    except DocumentError as error:
        raise ModelFileError(f"{source} is damaged ({error}): {cure}.") from error
    check_schema(document, source, cure)
    body = {name: value for name, value in document.items() if name != "schema"}
    try:
        return from_document(kind, body)
    except DocumentError as error:
        raise ModelFileError(f"{source} is damaged ({error}): {cure}.") from error


def parse_json(text: str | bytes) -> Any:
    """What ``json.loads`` makes of a document, which may not be too large nor say a thing twice.

    Args:
        text: the document; bytes are UTF-8.

    Raises:
        DocumentError: it is no JSON, too large or nested too deeply, or names a field twice.

    Example:
        >>> parse_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
            ...
        fsad_edge.runtime.documents.DocumentError: it names the field 'a' twice
    """
    if len(text) > MOST_BYTES:
        raise DocumentError(f"it has {len(text):,} bytes, and at most {MOST_BYTES:,} are read")
    try:
        # The bytes themselves would be taken for UTF-16 where every second one is zero.
        decoded = text if isinstance(text, str) else text.decode()
        return json.loads(decoded, object_pairs_hook=_fields_once, parse_int=_whole_number)
    except DocumentError:
        raise
    except RecursionError:
        raise DocumentError("it is nested too deeply") from None
    except ValueError as error:
        raise DocumentError(shorten(str(error))) from error


def _fields_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise DocumentError(f"it names the field {_quote(twice)} twice")
    return found


def _whole_number(digits: str) -> int:
    if len(digits.lstrip("-")) > MOST_DIGITS:
        raise DocumentError(f"it holds a number of {len(digits.lstrip('-')):,} digits")
    return int(digits)


def check_schema(document: object, source: str, cure: str) -> None:
    """Refuse what another version wrote, or what is no document at all.

    Raises:
        ModelFileError: the document names no schema, or another one than this version's.
    """
    schema = document.get("schema") if isinstance(document, dict) else None
    if type(schema) is not int or schema < 1:
        raise ModelFileError(f"{source} is damaged (it names no schema): {cure}.")
    if schema > SCHEMA:
        raise ModelFileError(
            f"{source} was written by a newer fsad-edge (schema {_quote(schema)}; this version "
            f"reads schema {SCHEMA}): update fsad-edge here, or {cure}."
        )


def _build(kind: Any, value: object, where: str) -> Any:
    """A value of the type ``kind``; ``where`` names the field in errors."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        built = _build(arguments[0], value, where)
        for bound in arguments[1:]:
            _check_bound(bound, built, where)
        return built
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (rest,) = (one for one in arguments if one is not type(None))
        return _build(rest, value, where)
    if origin in (list, tuple, dict):
        return _build_container(origin, arguments, value, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, where)
    return _build_plain(kind, value, where)


def _build_dataclass(kind: Any, value: object, where: str) -> Any:
    found = _expect(dict, value, where, "an object")
    kinds = _annotations(kind)
    required = {field.name for field in dataclasses.fields(kind) if _is_required(field)}
    missing, unknown = required - found.keys(), found.keys() - kinds.keys()
    if missing:
        raise DocumentError(f"{where} has no field '{min(missing)}'")
    if unknown:
        raise DocumentError(f"{where} has an unknown field {_quote(min(unknown))}")
    fields = {name: _build(kinds[name], one, _inside(where, name)) for name, one in found.items()}
    try:
        return kind(**fields)
    except InputError as error:
        raise DocumentError(f"{where} cannot be: {error}") from error


def _build_container(origin: Any, kinds: tuple[Any, ...], value: object, where: str) -> Any:
    if origin is dict:
        found = _expect(dict, value, where, "an object")
        for key in found:
            _check_text(key, where)
        return {key: _build(kinds[1], one, _inside(where, key)) for key, one in found.items()}
    items = _expect(list, value, where, "a list")
    if origin is tuple and kinds[-1] is not Ellipsis:
        if len(items) != len(kinds):
            raise DocumentError(f"{where} holds {len(items)} values and needs {len(kinds)}")
        return tuple(
            _build(one, item, f"{where}[{place}]")
            for place, (one, item) in enumerate(zip(kinds, items, strict=True))
        )
    return origin(_build(kinds[0], item, f"{where}[{place}]") for place, item in enumerate(items))


def _build_plain(kind: Any, value: object, where: str) -> Any:
    if kind is Any:
        _check_any(value, where)
        return value
    if kind is bytes:
        try:
            return base64.b64decode(_expect(str, value, where, "Base64 text"), validate=True)
        except ValueError:
            raise DocumentError(f"{where} is not Base64 text") from None
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(value)
        except ValueError:
            known = ", ".join(str(one.value) for one in kind)
            raise DocumentError(f"{where} is {_quote(value)} and not one of {known}") from None
    return _build_json(kind, value, where)


def _build_json(kind: Any, value: object, where: str) -> Any:
    """A number, text or truth value."""
    # bool is a subclass of int in Python, but true is not a number in a document.
    if kind is float and type(value) in (int, float):
        with contextlib.suppress(OverflowError):
            number = float(typing.cast(float, value))
            if math.isfinite(number):
                return number
    elif type(value) is kind:
        if isinstance(value, str):
            _check_text(value, where)
        if kind is not int or -(2**63) <= typing.cast(int, value) < 2**63:
            return value
    raise DocumentError(f"{where} is {_quote(value)} and not {_WORDS[kind]}")


def _check_any(value: object, where: str) -> None:
    """Refuse what cannot be written again, or would fail its user, in a value of any form."""
    waiting: list[tuple[object, int]] = [(value, 0)]
    while waiting:
        one, depth = waiting.pop()
        if depth > MOST_DEPTH:
            raise DocumentError(f"{where} is nested too deeply")
        if isinstance(one, dict):
            waiting += [(inner, depth + 1) for pair in one.items() for inner in pair]
        elif isinstance(one, list):
            waiting += [(inner, depth + 1) for inner in one]
        elif one is not None:
            _build_json(type(one), one, where)


def _check_text(value: str, where: str) -> None:
    """Refuse halves of characters, which no text can be written with.

    The halves that stand for the bytes of a file name that is no UTF-8 are read.
    """
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise DocumentError(f"{where} is {_quote(value)}, with half of a character") from None


def _check_bound(bound: object, value: Any, where: str) -> None:
    size = len(value) if isinstance(value, (str, list, tuple, dict, bytes)) else value
    if isinstance(bound, Range) and not bound.least <= size <= bound.most:
        raise DocumentError(f"{where} is {_quote(size)}, outside {bound.least:g} to {bound.most:g}")
    if isinstance(bound, Ascending) and any(map(operator.gt, value, value[1:])):
        raise DocumentError(f"{where} is not in ascending order")
    if isinstance(bound, Above) and not size > bound.bound:
        raise DocumentError(f"{where} is {_quote(size)} and not above {bound.bound:g}")
    if isinstance(bound, Matches) and not re.fullmatch(bound.pattern, value):
        raise DocumentError(f"{where} is {_quote(value)} and not {bound.words}")


def _expect(kind: type[T], value: object, where: str, words: str) -> T:
    if not isinstance(value, kind):
        raise DocumentError(f"{where} is {_quote(value)} and not {words}")
    return value


@functools.cache
def _annotations(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return "stated" in field.metadata or (
        field.default is missing and field.default_factory is missing
    )


def _inside(where: str, name: str) -> str:
    """The name of a field inside another; the document's own keys are cut as values are."""
    name = name if name.isidentifier() and len(name) <= QUOTED // 2 else _quote(name)
    return name if where == "the document" else f"{where}.{name}"


def _quote(value: object) -> str:
    return shorten(_REPR.repr(value))


def shorten(text: str) -> str:
    """A text for an error's sentence, cut to ``QUOTED`` characters."""
    return text if len(text) <= QUOTED else text[: QUOTED - 1] + "…"
