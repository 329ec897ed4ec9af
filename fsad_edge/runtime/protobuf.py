"""The wire format of protocol buffers: a message's fields, without its schema."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from fsad_edge.errors import ModelFileError

# Wire types.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Field:
    """One field of a message: ``data[start:end]`` with its tag, ``data[begin:end]`` without."""

    number: int
    wire: int
    start: int
    begin: int
    end: int
    value: int


def fields(data: memoryview) -> Iterator[Field]:
    """The fields of a message, in order; each of them is within ``data``.

    Raises:
        ModelFileError: the bytes are damaged.
    """
    place = 0
    while place < len(data):
        start = place
        tag, place = _varint(data, place)
        number, wire = tag >> 3, tag & 7
        value = 0
        begin = place
        if wire == VARINT:
            value, place = _varint(data, place)
        elif wire == BYTES:
            length, begin = _varint(data, place)
            place = begin + length
        elif wire in (FIXED32, FIXED64):
            place += 4 if wire == FIXED32 else 8
        else:
            raise damaged()
        if number == 0 or place > len(data):
            raise damaged()
        yield Field(number, wire, start, begin, place, value)


def varints(data: memoryview) -> Iterator[int]:
    """The whole numbers of a packed field."""
    place = 0
    while place < len(data):
        value, place = _varint(data, place)
        yield value


def message(number: int, payload: bytes) -> bytes:
    """A field of bytes, encoded with its tag and length."""
    return _encoded(number << 3 | BYTES) + _encoded(len(payload)) + payload


def varint_field(number: int, value: int) -> bytes:
    """A field that holds a whole number; a negative one takes ten bytes, as the format asks for."""
    return _encoded(number << 3 | VARINT) + _encoded(value & 2**64 - 1)


def float_field(number: int, value: float) -> bytes:
    """A field that holds a number of 32 bits."""
    return _encoded(number << 3 | FIXED32) + struct.pack("<f", value)


def text(data: memoryview) -> str:
    """The text of a field.

    Raises:
        ModelFileError: the bytes are damaged.
    """
    try:
        return bytes(data).decode()
    except UnicodeDecodeError:
        raise damaged() from None


def damaged() -> ModelFileError:
    """The error for bytes that do not form a message."""
    return ModelFileError("the model's bytes are damaged: copy it again, or export it again.")


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), place
    raise damaged()


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
