"""The header of a JPEG 2000: the bits of its components, and what its numbers mean as colours."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import ImageFile

#: Bytes at the start that are looked at: a colour profile may come before the codestream.
_HEAD = 1 << 22

#: The marker of the codestream and that of its sizes.
_SIZES = b"\xff\x4f\xff\x51"

#: Colour spaces by number that Pillow shows as a viewer does: sRGB, grey and sYCC.
_KNOWN_COLOURS = {16, 17, 18}

#: What a colour profile is of, where Pillow shows it so.
_KNOWN_PROFILES = {b"RGB ", b"GRAY"}


@dataclass(frozen=True)
class Component:
    """One component, such as red or alpha.

    Attributes:
        bits: of each sample.
        signed: whether samples may be below 0.
    """

    bits: int
    signed: bool


def read_components(image: ImageFile.ImageFile) -> list[Component]:
    """The components of an opened file; empty where they are not found."""
    head = _head(image)
    start = head.find(_SIZES)
    if start < 0 or len(head) < start + 42:
        return []
    count = int.from_bytes(head[start + 40 : start + 42], "big")
    depths = head[start + 42 : start + 42 + 3 * count : 3]
    return [Component((depth & 0x7F) + 1, bool(depth & 0x80)) for depth in depths]


def has_known_colours(image: ImageFile.ImageFile) -> bool:
    """Whether the colours are ones that Pillow shows as a viewer does; True where none are named.

    Only the first specification of colours counts, as readers agree on.
    """
    head = _head(image)
    stop = head.find(_SIZES)
    place = head.find(b"colr", 0, max(stop, 0))
    if place < 0:
        return True
    method = head[place + 4 : place + 5]
    if method == b"\x01":
        return int.from_bytes(head[place + 7 : place + 11], "big") in _KNOWN_COLOURS
    return head[place + 7 + 16 : place + 7 + 20] in _KNOWN_PROFILES


def _head(image: ImageFile.ImageFile) -> bytes:
    file = image.fp
    assert file is not None
    place = file.tell()
    file.seek(0)
    head: bytes = file.read(_HEAD)
    file.seek(place)
    return head
