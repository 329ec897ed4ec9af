"""The lines of a journal: written with a check, and read one by one, whatever became of others.

A single bit that is wrong, as a failing disk makes it, is found by trying: the check is right with
one of them alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fsad_edge.errors import ModelFileError
from fsad_edge.learning.journal import Record
from fsad_edge.runtime.documents import DocumentError, from_document, to_document
from fsad_edge.runtime.files import sha256

#: The form of the lines that this version writes. Earlier versions wrote 1 and 2, without
#: ``store``, ``number`` and ``after``; they refuse this one as newer.
SCHEMA = 3

#: The form of a line that sets a zone. Versions that know no zones refuse it as newer, and with it
#: the folder: they would score without the zones.
SCHEMA_OF_ZONES = 4

#: Digits of the SHA-256 at the start of a line.
_DIGITS = 16

#: The end of a line: a line feed, or what became of one between two lines.
_END = re.compile(rb"\n|(?<=\})[^\n](?=[0-9a-f]{16} \{\")", re.DOTALL)

#: Of at most so many lines, up to so many bytes long, a wrong bit is looked for.
_MOST_MENDED, _LONGEST_MENDED = 8, 4096


@dataclass(frozen=True)
class Line:
    """A line that can be read.

    Attributes:
        place: its place in the file, from 1.
        record: what it says.
        digest: SHA-256 of its document.
    """

    place: int
    record: Record
    digest: str


@dataclass
class FoundLines:
    """The lines of a file.

    Attributes:
        lines: those that can be read, as they stand.
        damaged: the places of those that cannot, and why; an empty text where that is not known.
        remarks: sentences without a full stop on lines that had a wrong bit and were read.
        unfinished: the file ends with a line that was never finished.
    """

    lines: list[Line] = field(default_factory=list)
    damaged: dict[int, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    unfinished: bool = False


def encode(record: Record) -> tuple[bytes, str]:
    """A line, and the SHA-256 of its document."""
    fields = {name: one for name, one in to_document(record).items() if one is not None}
    schema = SCHEMA if record.zoned is None else SCHEMA_OF_ZONES
    document = json.dumps({"schema": schema, **fields}).encode()
    digest = sha256(document)
    return digest[:_DIGITS].encode() + b" " + document + b"\n", digest


def read_lines(data: bytes, path: Path) -> FoundLines:
    """The lines of a journal.

    Args:
        data: its bytes.
        path: the file, for sentences.

    Raises:
        ModelFileError: a newer version wrote it.
    """
    found, tries, place = FoundLines(), _MOST_MENDED, 0
    pieces, wrong_ends = _END.split(data), sum(one != b"\n" for one in _END.findall(data))
    if wrong_ends:
        found.remarks.append(f"{wrong_ends} line feeds of {path} have a wrong bit")
    ended = not pieces[-1]
    pieces = pieces[:-1] if ended else pieces
    while place < len(pieces):
        piece, number = pieces[place], place + 1
        place += 1
        document = _document(piece)
        last = place == len(pieces) and not ended
        if document is None and last:
            document = _document(piece[:-1])  # the line feed at its end has a wrong bit
        elif document is None and piece and tries:
            tries -= 1
            document, taken = _mended(piece, b"".join(pieces[place : place + 1]))
            place += taken
        if document is not None and _document(piece) is None:
            found.remarks.append(
                f"line {number} of {path} has a wrong bit, and was read as it was written"
            )
        if document is None:
            if last:
                found.unfinished = True
            elif piece:
                found.damaged[number] = ""
            continue
        try:
            found.lines.append(Line(number, _record(document, path), sha256(document)))
        except DocumentError as error:
            found.damaged[number] = str(error)
    return found


def _document(piece: bytes) -> bytes | None:
    """The document in a line; None where the check is wrong."""
    digits, _, document = piece.partition(b" ")
    return document if digits == sha256(document)[:_DIGITS].encode() else None


def _mended(piece: bytes, following: bytes) -> tuple[bytes | None, int]:
    """The document in a line of which one bit is wrong, and how many more pieces it took.

    The wrong bit may have made a line feed, which cut the line in two, or be in the line feed at
    its end.

    Args:
        piece: the line.
        following: the next one.
    """
    if len(piece) > _LONGEST_MENDED:
        return None, 0
    for one in _one_bit_apart(piece):
        if (document := _document(one)) is not None:
            return document, 0
    if (document := _document(piece[:-1])) is not None:
        return document, 0
    if len(piece) + len(following) <= _LONGEST_MENDED:
        for bit in range(8):
            document = _document(piece + bytes([ord("\n") ^ 1 << bit]) + following)
            if document is not None:
                return document, 1
    return None, 0


def _one_bit_apart(piece: bytes) -> Iterator[bytes]:
    changed = bytearray(piece)
    for place in range(len(piece)):
        for bit in range(8):
            changed[place] ^= 1 << bit
            yield bytes(changed)
            changed[place] ^= 1 << bit


def _record(document: bytes, path: Path) -> Record:
    """What a document says.

    Raises:
        DocumentError: it is none, or a value is of another type than its field, or not finite.
        ModelFileError: a newer version wrote it.
    """
    try:
        fields = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise DocumentError(str(error)) from error
    schema = fields.pop("schema", None) if isinstance(fields, dict) else None
    if type(schema) is not int or schema < 1:
        raise DocumentError("it names no schema")
    if schema > SCHEMA_OF_ZONES:
        raise ModelFileError(
            f"{path} was written by a newer fsad-edge (schema {str(schema)[:80]}; this version "
            f"reads schema {SCHEMA_OF_ZONES}): update fsad-edge here."
        )
    return from_document(Record, fields)
