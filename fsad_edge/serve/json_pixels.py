"""Pixels as JSON numbers, read and written in steps.

A JSON library does not let other threads run before it is done, and a document with the pixels of a
few images takes it a second. So its one long list is cut out and read piece by piece.
"""

from __future__ import annotations

import json
import re
import secrets
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

#: Bytes of text, or numbers, that are turned at once: about a millisecond's work.
TEXT_STEP, STEP = 16 << 10, 4096

_BEGIN = re.compile(rb'"data"\s*:\s*(?=\[)')
_LIST = re.compile(rb"[\[\]\d\s,]*")


class PixelError(ValueError):
    """A list does not hold what it must; the message is a sentence."""


def cut_pixels(text: bytes) -> tuple[bytes, str, memoryview]:
    """Cut the first list called ``data`` out of a JSON document.

    Args:
        text: the document.

    Returns:
        the document with a text in its place, that text, and the text of the list. Where there is
        none, the list is empty.

    Raises:
        PixelError: it holds other things than whole numbers.
    """
    token = secrets.token_hex(16)
    begin = _BEGIN.search(text)
    if begin is None:
        return text, token, memoryview(b"")
    start = end = begin.end()
    while end < len(text):
        found = _LIST.match(text, end, end + TEXT_STEP)
        assert found is not None
        if found.end() == end:
            break
        end = found.end()
    if text[end : end + 1] not in {b"}", b'"', b""}:
        raise PixelError("'data' must hold whole numbers from 0 to 255.")
    while end > start and text[end - 1] in b", \t\r\n":
        end -= 1
    rest = b'%b"%b"%b' % (text[:start], token.encode(), text[end:])
    return rest, token, memoryview(text)[start:end]


def read_pixels(text: memoryview) -> bytes:
    """The numbers of a list of lists, whatever their nesting, from its JSON text.

    Raises:
        PixelError: it is not JSON, mixes numbers and lists, or holds other numbers than 0 to 255.
    """
    pixels = bytearray()
    depth, start, level = 0, 0, None
    while start < len(text):
        piece = bytes(text[start : start + TEXT_STEP])
        cut = piece.rfind(b",") if start + len(piece) < len(text) else len(piece)
        if cut < 0:
            raise PixelError("'data' must hold whole numbers from 0 to 255.")
        # What is open before a piece is opened before it, and what is open after it is closed.
        opened, piece = b"[" * depth, piece[:cut]
        depth += piece.count(b"[") - piece.count(b"]")
        start += cut + 1
        if depth < (start < len(text)) or depth > 100:
            raise PixelError("'data' is no list of lists.")
        try:
            lists = from_json(opened + piece + b"]" * depth)
        except ValueError as error:
            raise PixelError(f"'data' is not JSON ({error}).") from error
        found = flatten(lists, pixels)
        if level not in {None, found}:
            raise PixelError("'data' mixes numbers and lists.")
        level = found
    return bytes(pixels)


def flatten(lists: list[Any], pixels: bytearray) -> int:
    """Append the numbers of nested lists, and tell how deep they are.

    Raises:
        PixelError: they mix numbers and lists, or hold other numbers than 0 to 255.
    """
    level = 1
    while lists and isinstance(lists[0], list):
        if not all(isinstance(row, list) for row in lists):
            raise PixelError("'data' mixes numbers and lists.")
        lists = list(chain.from_iterable(lists))
        level += 1
    try:
        for start in range(0, len(lists), STEP):
            pixels += bytes(lists[start : start + STEP])
    except (TypeError, ValueError):
        raise PixelError("'data' must hold whole numbers from 0 to 255.") from None
    return level


def write_numbers(array: NDArray[Any]) -> str:
    """The values of an array as the text of one JSON list.

    Example:
        >>> write_numbers(np.array([[0.5, 1.0]]))
        '[0.5, 1.0]'
    """
    flat = np.ravel(array)
    steps = (flat[start : start + STEP].tolist() for start in range(0, flat.size, STEP))
    return f"[{', '.join(json.dumps(step)[1:-1] for step in steps)}]"
