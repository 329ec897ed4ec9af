"""The parts of an image file besides its pixels: counted before Pillow makes objects of each.

Pillow reads the segments, chunks, blocks, boxes and tags of a file in Python. A few bytes of a file
can then take a microsecond and hundreds of bytes of memory, again and again: 30 MB of empty
segments take half a minute and a gigabyte. Here each format is walked as far as Pillow walks it,
and a file with more parts than any camera or program writes is refused.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from fsad_edge.errors import ImageError
from fsad_edge.runtime.tiff_directories import HEADS, TooManyTagsError, measure_directories

#: Most segments before the pixels of a JPEG, and bytes between them, of which each has one.
MAX_SEGMENTS, MAX_STRAY = 4096, 1 << 16

#: Most bytes of what a JPEG or PNG holds besides its pixels: profiles, previews, descriptions.
MAX_METADATA = 16 << 20

#: Most segments of EXIF or of Photoshop, each of up to 64 KB. Pillow copies the ones before for
#: each.
MAX_LONG_BLOCKS = 64

#: Most bytes of tables, such as those of Huffman, in a JPEG.
MAX_TABLES = 1 << 20

#: Most bytes of 0xFF in a row within the pixels of a JPEG. Pillow copies them again and again.
MAX_FILL = 1 << 16

#: Most chunks of a PNG that are not pixels, and most compressed ones, each of up to 1 MB.
MAX_CHUNKS, MAX_PACKED = 1000, 16

#: Most bytes of EXIF that stand in a PNG as text.
MAX_RAW_PROFILE = 1 << 20

#: The parts of any file that are always read, and the bytes that each part above has on average.
FEW, PNG_BYTES, GIF_BYTES, WEBP_BYTES = 1000, 256, 32, 64

#: Most boxes before the pixels of a JPEG 2000, and most tiles, each of which takes 9 kB at once.
MAX_BOXES, MAX_TILES = 1000, 8192

#: Most markers in the headers of a JPEG 2000, and bytes that each code block takes.
MAX_MARKERS, _BLOCK = 100_000, 600

#: Most bytes of a BMP in run lengths, and pixels of it. Pillow takes each run in Python.
MAX_RUNS, MAX_RUN_PIXELS = 2 << 20, 4_000_000

#: Most bytes before the samples of a PBM, PGM or PPM.
MAX_PNM_HEADER = 1 << 16

#: Bytes of memory for each part that Pillow keeps, and of a packed text unpacked, whose letters may
#: take four bytes.
_OBJECT, _UNPACKED = 250, 5 << 20

_EXIF, _RAW_PROFILE = b"Exif\0\0", b"Raw profile type"
_FRAMES = {*range(0xC0, 0xD0), 0xDE} - {0xC4, 0xC8, 0xCC}
_BARE = {0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)}
_PIXELS = {b"IDAT", b"fdAT", b"fcTL"}


class _TooMuchError(Exception):
    """What a file has too much of."""


@dataclass
class _Walk:
    """A file that is walked.

    Attributes:
        file: it.
        size: bytes of it.
        pages: most pages that are looked at.
        held: bytes that Pillow holds of what is no pixels.
    """

    file: BinaryIO
    size: int
    pages: int
    held: int = 0

    def read(self, place: int, count: int) -> bytes:
        self.file.seek(place)
        return self.file.read(count)

    def exif(self, data: bytes) -> None:
        """Check a block of EXIF, or of another kind that is made like a TIFF."""
        if data.startswith(_EXIF):
            data = data[len(_EXIF) :]
        self.held += measure_directories(io.BytesIO(data), len(data), 2)


def measure_parts(file: BinaryIO, name: str, pages: int) -> int:
    """Refuse a file whose parts would keep Pillow busy; it is left at its start.

    Args:
        file: any file; what is no image is left to Pillow.
        name: of it, for the error.
        pages: most pages of a TIFF that are looked at.

    Returns:
        Bytes of memory that Pillow takes at most for what is no pixels.

    Raises:
        ImageError: it has more parts than are read.
    """
    walk = _Walk(file, file.seek(0, os.SEEK_END), pages)
    head = walk.read(0, 32)
    try:
        for starts, measure in _FORMATS:
            if head.startswith(starts):
                measure(walk)
                break
    except (_TooMuchError, TooManyTagsError) as error:
        raise ImageError(
            f"{name} has {error}, which is not read, since it would keep a decoder busy: open it "
            "in an image editor and save it again as a PNG or JPEG without metadata."
        ) from None
    finally:
        file.seek(0)
    return walk.held


def _jpeg(walk: _Walk) -> None:
    segments = frames = metadata = tables = long_blocks = 0
    exif = b""
    for marker, place, length in _jpeg_segments(walk):
        segments += 1
        if segments > MAX_SEGMENTS:
            raise _TooMuchError(f"more than {MAX_SEGMENTS:,} segments before its pixels")
        if marker >= 0xE0:
            metadata += length
            start = walk.read(place, min(length, 16))
            if marker in {0xE1, 0xED} and start.startswith((_EXIF, b"Photoshop 3.0\0")):
                long_blocks += 1
            if marker == 0xE1 and start.startswith(_EXIF):
                exif += walk.read(place, length)[len(_EXIF) if exif else 0 :]
            if marker == 0xE2 and start.startswith(b"MPF\0"):
                walk.exif(walk.read(place + 4, length - 4))
        else:
            tables += length
            frames += marker in _FRAMES
        _check_jpeg(metadata, long_blocks, tables, frames)
    walk.exif(exif)
    # A profile is held in its segments and in one piece, and while it is put together once more.
    walk.held += 3 * metadata + _OBJECT * segments
    _jpeg_fill(walk)


def _check_jpeg(metadata: int, long_blocks: int, tables: int, frames: int) -> None:
    if metadata > MAX_METADATA:
        raise _TooMuchError(f"more than {MAX_METADATA >> 20} MB besides its pixels")
    if long_blocks > MAX_LONG_BLOCKS:
        raise _TooMuchError(f"more than {MAX_LONG_BLOCKS} segments of EXIF or Photoshop")
    if tables > MAX_TABLES:
        raise _TooMuchError(f"more than {MAX_TABLES >> 20} MB of tables")
    if frames > 1:
        raise _TooMuchError("several frames")


def _jpeg_segments(walk: _Walk) -> Iterator[tuple[int, int, int]]:
    """The segments up to the first scan, as Pillow reads them: marker, place and bytes of each.

    The file is left behind what was read last.
    """
    file = walk.file
    file.seek(2)
    stray = last = 0
    while code := file.read(1):
        marker = code[0] if last == 0xFF and code[0] not in {0, 0xFF} else None
        last = code[0]
        if marker is None:
            stray += 1
            if stray > MAX_STRAY:
                raise _TooMuchError(f"more than {MAX_STRAY:,} bytes between its segments")
            continue
        last = 0
        if marker < 0xC0 or marker == 0xDA:
            return
        place = length = 0
        if marker not in _BARE:
            length = max(int.from_bytes(file.read(2), "big") - 2, 0)
            place = file.tell()
        yield marker, place, length
        if place:
            file.seek(place + length)


def _jpeg_fill(walk: _Walk) -> None:
    """Refuse a long run of 0xFF before the end of the pixels; after it, it is padding."""
    fill, rest = b"\xff" * MAX_FILL, b""
    while read := walk.file.read(1 << 20):
        block = rest + read
        # A long needle costs more to prepare than the whole file to search for a short one.
        found = block.find(fill) if fill[:64] in block else -1
        end = block.find(b"\xff\xd9")
        if found >= 0 and not 0 <= end < found:
            raise _TooMuchError(f"{MAX_FILL:,} empty bytes among its pixels")
        if end >= 0:
            return
        rest = block[-MAX_FILL:]


def _png(walk: _Walk) -> None:
    place, chunks, others, packed, metadata = 8, 0, 0, 0, 0
    most = FEW + walk.size // PNG_BYTES
    while len(head := walk.read(place, 8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"IEND":
            break
        chunks += 1
        if chunks > most:
            raise _TooMuchError(f"more than {most:,} chunks of fewer than {PNG_BYTES} bytes each")
        if kind not in _PIXELS:
            others += 1
            packed += kind in {b"iCCP", b"zTXt", b"iTXt"}
            metadata += length if place + 8 + length <= walk.size else 0
            _check_png(metadata, others, packed)
            _png_exif(walk, kind, length)
        place += 12 + length
    walk.held += 5 * metadata + _OBJECT * others + _UNPACKED * packed


def _check_png(metadata: int, others: int, packed: int) -> None:
    if others > MAX_CHUNKS:
        raise _TooMuchError(f"more than {MAX_CHUNKS:,} chunks that are no pixels")
    if packed > MAX_PACKED:
        raise _TooMuchError(f"more than {MAX_PACKED} compressed texts or profiles")
    if metadata > MAX_METADATA:
        raise _TooMuchError(f"more than {MAX_METADATA >> 20} MB besides its pixels")


def _png_exif(walk: _Walk, kind: bytes, length: int) -> None:
    """Check EXIF in a chunk of its own, or in hexadecimal in a text; the file is at its data."""
    if kind == b"eXIf":
        walk.exif(walk.file.read(min(length, MAX_METADATA)))
    is_text = kind in {b"tEXt", b"iTXt"} and walk.file.read(len(_RAW_PROFILE)) == _RAW_PROFILE
    if is_text and length > MAX_RAW_PROFILE:
        raise _TooMuchError(f"more than {MAX_RAW_PROFILE:,} bytes of EXIF as text")


def _gif(walk: _Walk) -> None:
    file = walk.file
    head = walk.read(0, 13)
    if len(head) < 13:
        return
    file.seek(13 + (3 << (head[10] & 7) + 1 if head[10] & 0x80 else 0))
    blocks = texts = 0
    most = FEW + walk.size // GIF_BYTES

    def count() -> None:
        nonlocal blocks
        blocks += 1
        if blocks > most:
            raise _TooMuchError(f"more than {most:,} blocks of fewer than {GIF_BYTES} bytes each")

    while (kind := file.read(1)) and kind != b";":
        count()
        is_text = kind == b"!"
        if is_text:
            file.read(1)
        elif kind == b",":
            frame = file.read(9)
            if len(frame) < 9:
                break
            file.seek((3 << (frame[8] & 7) + 1 if frame[8] & 0x80 else 0) + 1, os.SEEK_CUR)
        else:  # Pillow looks on
            continue
        while (length := file.read(1)) and length[0]:
            count()
            texts += length[0] if is_text else 0
            file.seek(length[0], os.SEEK_CUR)
    if texts > MAX_METADATA:
        raise _TooMuchError(f"more than {MAX_METADATA >> 20} MB besides its pixels")
    walk.held += 3 * texts + _OBJECT * (texts // GIF_BYTES)


def _tiff(walk: _Walk) -> None:
    walk.held += measure_directories(walk.file, walk.size, walk.pages)


def _bmp(walk: _Walk) -> None:
    head = walk.read(14, 20)
    width, height = (int.from_bytes(head[at : at + 4], "little", signed=True) for at in (4, 8))
    runs = int.from_bytes(head[16:20], "little") in {1, 2} and head[:1] != b"\x0c"
    if runs and (walk.size > MAX_RUNS or abs(width * height) > MAX_RUN_PIXELS):
        raise _TooMuchError(
            f"run lengths (RLE) in more than {MAX_RUNS >> 20} MB or for more than "
            f"{MAX_RUN_PIXELS:,} pixels"
        )


def _webp(walk: _Walk) -> None:
    place, chunks, most = 12, 0, FEW + walk.size // WEBP_BYTES
    while len(head := walk.read(place, 8)) == 8:
        chunks += 1
        if chunks > most:
            raise _TooMuchError(f"more than {most:,} chunks of fewer than {WEBP_BYTES} bytes each")
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"EXIF":
            walk.exif(walk.file.read(min(length, MAX_METADATA)))
        place += 8 + length + length % 2


def _jpeg2000(walk: _Walk) -> None:
    """Walk the boxes up to the codestream, and count its tiles."""
    boxes, place, end = 0, 0, walk.size
    while walk.read(0, 4) != b"\xff\x4f\xff\x51" and len(head := walk.read(place, 8)) == 8:
        boxes += 1
        if boxes > MAX_BOXES:
            raise _TooMuchError(f"more than {MAX_BOXES:,} boxes before its pixels")
        length, kind, own = int.from_bytes(head[:4], "big"), head[4:], 8
        if length == 1:
            length, own = int.from_bytes(walk.file.read(8), "big"), 16
        if kind == b"jp2c":
            place += own
            break
        if kind == b"jp2h":  # which holds boxes itself
            length = own
        if length < own or place + length > end:
            return
        place += length
    sizes = walk.read(place, 42)
    if sizes[:4] == b"\xff\x4f\xff\x51" and len(sizes) == 42:
        fields = [int.from_bytes(sizes[at : at + 4], "big") for at in range(8, 40, 4)]
        across, down, _, _, tile_across, tile_down, left, top = fields
        if tile_across and tile_down:
            tiles = -(-(across - left) // tile_across) * -(-(down - top) // tile_down)
            if tiles > MAX_TILES:
                raise _TooMuchError(f"{tiles:,} tiles")
            walk.held += tiles * 10_000
        samples = (across - left) * (down - top) * int.from_bytes(sizes[40:42], "big")
        walk.held += max(samples, 0) // _least_block(walk, place + 2) * _BLOCK


def _least_block(walk: _Walk, place: int) -> int:
    """The samples of the smallest code block that a JPEG 2000 names in its headers."""
    least, following = 4096, walk.size
    for _ in range(MAX_MARKERS):
        head = walk.read(place, 4)
        marker, length = head[:2], int.from_bytes(head[2:], "big")
        if len(head) < 4 or marker == b"\xff\xd9":
            return least
        if marker == b"\xff\x93":  # the data of a tile, behind which is the next one
            if following <= place:
                return least
            place = following
            continue
        if marker == b"\xff\x90":
            size = int.from_bytes(walk.read(place + 6, 4), "big")
            following = place + size if size else walk.size
        elif marker in {b"\xff\x52", b"\xff\x53"}:
            data = walk.read(place, 2 + length)
            least = min(least, _block(data[9 if marker == b"\xff\x52" else 6 :]))
        place += 2 + length
    raise _TooMuchError(f"more than {MAX_MARKERS:,} markers")


def _block(data: bytes) -> int:
    """The samples of a code block: of the levels, two exponents, two flags and the precincts."""
    if len(data) < 5:
        return 4096
    across, down = (data[1] & 15) + 2, (data[2] & 15) + 2
    for one in data[5:]:
        across, down = min(across, max((one & 15) - 1, 0)), min(down, max((one >> 4) - 1, 0))
    return int(1 << (across + down))


def _pnm(walk: _Walk) -> None:
    """Look whether the header ends: its magic, its width and height, and the highest value."""
    head = walk.read(0, MAX_PNM_HEADER)
    if len(head) < MAX_PNM_HEADER:
        return
    words = 3 if head[1:2] in b"14" else 4
    found = re.sub(rb"#[^\r\n]*", b"", head).split(None, words - 1)
    if len(found) < words or len(found[-1].split(None, 1)[0]) == len(found[-1]):
        raise _TooMuchError(f"more than {MAX_PNM_HEADER:,} bytes of header")


#: What files of each format start with, and how they are walked.
_FORMATS: tuple[tuple[bytes | tuple[bytes, ...], Callable[[_Walk], None]], ...] = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    ((b"GIF87a", b"GIF89a"), _gif),
    (HEADS, _tiff),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    ((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"), _jpeg2000),
    (b"P", _pnm),
)
