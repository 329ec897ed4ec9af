"""Damage to bytes and to JSON documents, drawn from a seed, and done again from its steps."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

#: One change of some bytes: its name, and numbers or hexadecimal bytes.
Edit = list[Any]

#: Ways in which bytes are damaged.
WAYS = (
    *("flip", "flip", "flip", "flips", "set", "zero", "cut", "drop"),
    *("insert", "swap", "copy", "append", "again"),
)


def draw_edits(
    rng: random.Random, size: int, spans: Sequence[tuple[int, int]] = (), ways: Sequence[str] = WAYS
) -> list[Edit]:
    """Damage to ``size`` bytes: anywhere, or within one of some spans (begin, end)."""
    size = max(size, 1)
    begin, end = rng.choice([*spans, (0, size)]) if spans else (0, size)
    end = max(begin + 1, min(end, size))

    def place() -> int:
        return rng.randrange(begin, end)

    way, length = rng.choice(ways), 2 ** rng.randrange(13)
    if way == "flips":
        return [["flip", place(), rng.randrange(8)] for _ in range(rng.randrange(2, 30))]
    edits: dict[str, Edit] = {
        "flip": ["flip", place(), rng.randrange(8)],
        "set": ["set", place(), rng.choice(["00", "ff", "7f", "80", "ffffffff", "00000000"])],
        "zero": ["set", place(), "00" * length],
        "cut": ["cut", place()],
        "drop": ["drop", place(), length],
        "insert": ["insert", place(), rng.randbytes(min(length, 256)).hex()],
        "swap": ["swap", place(), rng.randrange(size), length],
        "copy": ["copy", place(), rng.randrange(size), length],
        "append": ["insert", size, rng.randbytes(min(length, 256)).hex()],
        "again": ["again", min(length, size)],
    }
    return [edits[way]]


def apply_edits(data: bytes, edits: Sequence[Edit]) -> bytes:
    """The bytes with the changes."""
    for name, *values in edits:
        data = _apply(bytearray(data), name, values)
    return data


def _apply(data: bytearray, name: str, values: Sequence[Any]) -> bytes:
    at = int(values[0])
    if name == "flip" and data:
        data[at % len(data)] ^= 1 << values[1]
    elif name == "set":
        new = bytes.fromhex(values[1])[: max(0, len(data) - at)]
        data[at : at + len(new)] = new
    elif name == "cut":
        del data[at:]
    elif name == "drop":
        del data[at : at + values[1]]
    elif name == "insert":
        data[at:at] = bytes.fromhex(values[1])
    elif name == "again":
        data += data[:at]
    elif name in {"swap", "copy"}:
        other, length = values[1], values[2]
        length = min(length, abs(at - other), len(data) - max(at, other))
        one, two = data[at : at + length], data[other : other + length]
        data[other : other + length] = one
        if name == "swap":
            data[at : at + length] = two
    return bytes(data)


#: Text that stands for another in a document until it is written: JSON that no Python value has.
_MARK = "\x00raw:"

_RAW = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "-0.0", "5e-324", "1e308", "1E400"),
    *("9" * 400, "9" * 5000, "1" + "0" * 30, '"\\ud800"', '"\\u0000"', "0.1e", "truE"),
    *("[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "0" + "}" * 10_000, "[" * 100_000),
    *("[" + "0," * 100_000 + "0]", '"' + "x" * 1_000_000 + '"'),
)
_WRONG: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, -0.5, 2**31, 2**63, 2**64, 1e-300, 1e300),
    *("", "x", "NaN", "../../etc/passwd", "\x1b[31mred\n", "ä" * 300),
    *([], [1], [None], [[]], {}, {"a": 1}, [0.5] * 4),
)

#: The ways in which a document is changed.
_CHANGES = (
    *("wrong", "wrong", "wrong", "raw", "raw", "delete", "rename", "double", "add", "exchange"),
    *("longer", "shorter", "scale", "scale"),
)


def damage_document(rng: random.Random, document: Any) -> str:
    """The text of a JSON document with one to three changes anywhere in it."""
    changed = copy.deepcopy(document)
    if rng.random() < 0.04:
        return rng.choice(["", "null", "[]", "0", "{", '"x"', "\ufeff{}", "[" * 200_000])
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change(rng, changed)
    text = json.dumps(changed)
    # A key that stands twice was written as another, with the mark in front.
    text = re.sub(r'"\\u0000raw:double:([^"]*)"', r'"\1"', text)
    text = re.sub(r'"\\u0000raw:(\d+)"', lambda found: _RAW[int(found[1])], text)
    if rng.random() < 0.02:
        text = text[: rng.randrange(len(text))]
    return text


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container of a document with a key or index in it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in list(inner):
        yield value, key
        if isinstance(one, (dict, list)):
            yield from _places(one)


def _change(rng: random.Random, document: Any) -> None:
    places = [place for place in _places(document) if not str(place[1]).startswith(_MARK)]
    if not places:
        return
    # Long lists of numbers must not take all the cases.
    named = [place for place in places if isinstance(place[1], str)]
    holder, key = rng.choice(named if named and rng.random() < 0.7 else places)
    value = holder[key]
    way = rng.choice(_CHANGES)
    if way == "raw":
        holder[key] = f"{_MARK}{rng.randrange(len(_RAW))}"
    elif way == "delete":
        del holder[key]
    elif way in {"rename", "double", "add"} and isinstance(holder, dict):
        names = {"rename": f"{key}_", "double": f"{_MARK}double:{key}", "add": "unheard_of"}
        holder[names[way]] = value if rng.random() < 0.5 else copy.deepcopy(rng.choice(_WRONG))
        if way == "rename":
            del holder[key]
    elif way == "exchange":
        other, place = rng.choice(places)
        if not isinstance(value, (dict, list)) and not isinstance(other[place], (dict, list)):
            holder[key], other[place] = other[place], value
    elif way in {"longer", "shorter"} and isinstance(value, list):
        holder[key] = value * rng.choice((2, 3, 1000)) if way == "longer" else value[:-1]
    elif way == "scale" and isinstance(value, (int, float)) and not isinstance(value, bool):
        holder[key] = value * rng.choice((-1, 10, 1000, 1e-6, 1e6)) + rng.choice((0, 0, 1))
    else:
        holder[key] = copy.deepcopy(rng.choice(_WRONG))
