"""Image files as cameras and measuring programs write them, and Pillow does not."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
#: SampleFormat of TIFF by NumPy's kind of a type.
_FORMATS = {"u": 1, "i": 2, "f": 3}


def tiff(
    *pages: Array,
    photometric: int = 1,
    planes: bool = False,
    deflate: bool = False,
    order: Literal["<", ">"] = "<",
    per_page: list[dict[int, int]] | None = None,
    description: str = "",
    behind: bytes = b"",
    **tags: int,
) -> bytes:
    """A TIFF of pages ``[H, W]`` or ``[H, W, C]``; further tags as ``t281=4095``.

    ``planes`` stores the channels one after the other; ``behind`` are bytes at the end.
    """
    data = bytearray(b"II*\0" if order == "<" else b"MM\0*") + bytes(4)
    pointer = 4
    for place, page in enumerate(pages):
        samples = page.shape[2] if page.ndim == 3 else 1
        stored = page.astype(page.dtype.newbyteorder(order))
        parts = [part.tobytes() for part in (np.moveaxis(stored, 2, 0) if planes else [stored])]
        parts = [zlib.compress(part) for part in parts] if deflate else parts
        pixels = b"".join(parts)
        at = len(data)
        data += pixels + bytes(len(pixels) % 2)
        bits_at = len(data)
        data += struct.pack(f"{order}{samples}H", *[page.dtype.itemsize * 8] * samples)
        entries: dict[int, tuple[int, bytes]] = {
            256: (4, _long(order, page.shape[1])),
            257: (4, _long(order, page.shape[0])),
            258: (3, _long(order, bits_at) if samples > 2 else bytes(data[bits_at:])),
            259: (3, _short(order, 8 if deflate else 1)),
            262: (3, _short(order, photometric if samples == 1 or photometric > 2 else 2)),
            273: (4, _long(order, at)),
            277: (3, _short(order, samples)),
            278: (4, _long(order, page.shape[0])),
            279: (4, _long(order, len(pixels))),
            339: (3, _short(order, _FORMATS[page.dtype.kind])),
        }
        if planes:
            lists = len(data)
            sizes = [len(part) for part in parts]
            starts = [at + sum(sizes[:place]) for place in range(samples)]
            data += struct.pack(f"{order}{2 * samples}I", *starts, *sizes)
            entries[273] = (4, _long(order, lists))
            entries[279] = (4, _long(order, lists + 4 * samples))
            entries[284] = (3, _short(order, 2))
        further = {int(tag[1:]): value for tag, value in tags.items()}
        further |= per_page[place] if per_page else {}
        for number, number_in_it in further.items():
            entries[number] = (4, _long(order, number_in_it))
        if description:
            entries[270] = (2, _long(order, len(data)))
            data += description.encode() + bytes(len(description) % 2 + 2)
        struct.pack_into(f"{order}I", data, pointer, len(data))
        data += struct.pack(f"{order}H", len(entries))
        for number, (kind, value) in sorted(entries.items()):
            several = number == 258 or (planes and number in {273, 279})
            count = samples if several else len(description) + 1 if number == 270 else 1
            data += struct.pack(f"{order}HHI", number, kind, count) + value.ljust(4, b"\0")
        pointer = len(data)
        data += bytes(4)
    return bytes(data) + behind


def _long(order: str, value: int) -> bytes:
    return struct.pack(f"{order}I", value)


def _short(order: str, value: int) -> bytes:
    return struct.pack(f"{order}H", value)


#: A JPEG 2000 of 32 x 32 pixels in RGB, 12 bits in 16, which Pillow does not write.
JPEG2000_OF_12_BITS = base64.b85decode(
    "|4;u>051Rl0000W0000W00000000000000W0000W000000000000R#J0S^HI4*>!HQUDJD0ssL40t5sA0Emc)|6BkOLZ4EQ"
    "1&{@hN0-x=)0blZWB?@q0Yh?SVRU6=AYyqSPjF>!N>D{dAa-SPb7^mGATlmBE;Rp;015yA0000e00IA#&w%g|P(AR+n5uUz"
    "PA}oiGUR}OfPjF2fPnwm"
)


def png(values: Array) -> bytes:
    """A PNG of 16 bits: ``[H, W]`` or ``[H, W, C]`` with 2, 3 or 4 channels, its rows filtered."""
    pixels = values.astype(np.uint16)
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    step = 2 * channels
    left = np.pad(rows, ((0, 0), (step, 0)))[:, :-step]
    filtered = np.where(np.arange(height)[:, None] % 2, rows - left, rows)  # Sub on odd rows
    kinds = (np.arange(height) % 2).astype(np.uint8)[:, None]
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    body = zlib.compress(np.hstack([kinds, filtered.astype(np.uint8)]).tobytes())
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, data) for kind, data in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def bmp(pixels: NDArray[np.uint8], alpha: int, mask: int = 0xFF000000) -> bytes:
    """A BMP of 32 bits with the masks of a V4 header, whose fourth byte is ``alpha``."""
    height, width = pixels.shape[:2]
    rows = np.dstack([pixels[::-1, :, ::-1], np.full((height, width), alpha, np.uint8)])
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, rows.nbytes, 0, 0, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, mask)
    header = header.ljust(108, b"\0")
    start = 14 + len(header)
    return struct.pack("<2sIHHI", b"BM", start + rows.nbytes, 0, 0, start) + header + rows.tobytes()
