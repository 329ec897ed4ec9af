"""The directories of tags in a TIFF file or a block of EXIF: bounded before Pillow reads them.

Pillow makes Python objects of tags and of their values. A small file can hold directories that
share their bytes, so that the objects take many times the file.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np

#: The first bytes of a file.
HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

#: Most tags of a directory: cameras write about 100.
MAX_TAGS = 2_000

#: Most tags of all directories of a file, and most numbers in them: those of 10,000 pages.
MAX_ALL_TAGS, MAX_NUMBERS = 250_000, 4_000_000

#: Most numbers in the tags of a directory. Each strip and each tile of an image takes two.
MAX_OWN_NUMBERS = 400_000

#: What a fraction counts for, of which Pillow makes several objects.
_FRACTION = 20

#: Bytes that Pillow holds for a number, and for each strip or tile.
_BYTES_A_NUMBER = 250

#: The bytes of a value by its type, and the types of texts and of fractions.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_TEXTS, _FRACTIONS = {1, 2, 7}, {5, 10}

#: Tags of the bytes of each strip or tile, and the types of their numbers.
_COMPRESSION = 259
_STRIP_BYTES, _CODES = {279, 325}, {3: "u2", 4: "u4", 16: "u8"}

#: Tags that point to a directory: EXIF, GPS, interoperability.
_POINTERS = {34665, 34853, 40965}


class TooManyTagsError(Exception):
    """The sentence's part that tells what there is too much of."""


def measure_directories(file: BinaryIO, size: int, pages: int) -> int:
    """Check the directories of a file, from its start.

    Args:
        file: a TIFF, or a block of EXIF without its first name.
        size: bytes of it.
        pages: most directories in a row that are looked at, as Pillow does.

    Returns:
        Bytes that Pillow's objects of the largest one take at most.

    Raises:
        TooManyTagsError: they would keep Pillow busy.
    """
    file.seek(0)
    head = file.read(16)
    if not head.startswith(HEADS):
        return 0
    order, big = "<" if head.startswith(b"II") else ">", 43 in head[2:4]
    walk = _Walk(file, size, order, big)
    start = struct.unpack_from(
        order + ("Q" if big else "L"), head.ljust(16, b"\0"), 8 if big else 4
    )
    following = int(start[0])
    for _ in range(pages):
        if not following or following in walk.seen:
            break
        following = walk.look_at(following)
    return walk.held


class _Walk:
    def __init__(self, file: BinaryIO, size: int, order: str, big: bool) -> None:
        self._file, self._size = file, size
        self._counting = struct.Struct(order + ("Q" if big else "H"))
        self._entry = struct.Struct(order + ("HHQQ" if big else "HHLL"))
        self._next = struct.Struct(order + ("Q" if big else "L"))
        self.seen: set[int] = set()
        self._tags = self._numbers = self.held = 0

    def look_at(self, place: int) -> int:
        """Check a directory and those that it points to; returns the place of the next one."""
        if place >= self._size or place in self.seen:
            return 0
        self.seen.add(place)
        self._file.seek(place)
        begin = self._file.read(self._counting.size)
        if len(begin) < self._counting.size:
            return 0
        count = self._counting.unpack(begin)[0]
        there = min(count, (self._size - place) // self._entry.size)
        if there > MAX_TAGS:
            raise TooManyTagsError(f"more than {MAX_TAGS:,} tags in one directory")
        data = self._file.read(there * self._entry.size)
        data = data[: len(data) // self._entry.size * self._entry.size]
        last = self._file.read(self._next.size)
        for one in self._count(data):
            self.look_at(one)
        self._check_strips(data)
        return int(self._next.unpack(last)[0]) if len(last) == self._next.size else 0

    def _count(self, data: bytes) -> list[int]:
        """Count the values of a directory; returns what it points to."""
        numbers = size = 0
        pointed = []
        for tag, kind, count, value in self._entry.iter_unpack(data):
            self._tags += 1
            size += count * _SIZES.get(kind, 0)
            if kind not in _TEXTS and kind in _SIZES and count * _SIZES[kind] <= self._size:
                numbers += count * (_FRACTION if kind in _FRACTIONS else 1)
            if tag in _POINTERS:
                pointed.append(int(value))
        self._numbers += numbers
        self.held = max(self.held, numbers * _BYTES_A_NUMBER + size)
        if size > 2 * self._size + (1 << 16):
            raise TooManyTagsError("tags that say they hold more than the whole file")
        if numbers > MAX_OWN_NUMBERS:
            raise TooManyTagsError(f"more than {MAX_OWN_NUMBERS:,} numbers in its tags")
        if self._tags > MAX_ALL_TAGS or self._numbers > MAX_NUMBERS:
            raise TooManyTagsError(f"more than {MAX_ALL_TAGS:,} tags or {MAX_NUMBERS:,} numbers")
        return pointed

    def _check_strips(self, data: bytes) -> None:
        """Refuse strips that share bytes, each of which would be decoded again."""
        entries = [*self._entry.iter_unpack(data)]
        if not any(tag == _COMPRESSION and one[2] != 1 for tag, *one in entries):
            return  # uncompressed ones are read by their places alone
        for tag, kind, count, value in entries:
            size = count * _SIZES.get(kind, 0)
            if tag not in _STRIP_BYTES or kind not in _CODES or size <= self._next.size:
                continue
            self._file.seek(min(value, self._size))
            sizes = np.frombuffer(
                self._file.read(size), self._counting.format[0] + _CODES[kind],
                max(0, min(size, self._size - value)) // _SIZES[kind],
            )  # fmt: skip
            if float(sizes.sum(dtype=np.float64)) > 2 * self._size + (1 << 16):
                raise TooManyTagsError("strips that say they hold more than the whole file")
