"""The memory that an image takes at most to decode and use, from its header alone."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from PIL import ImageFile

from fsad_edge.errors import ImageError
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.opening import held_bytes
from fsad_edge.runtime.sample_formats import BITS, SampleFormat, Samples, sample_format

#: Most scans of a JPEG: cameras write about ten, and a small file with thousands can keep a decoder
#: busy for minutes.
MAX_SCANS = 100

#: What the measured peaks are multiplied with, and the bytes that any image takes besides.
SAFETY, LEAST = 1.15, 4 << 20

#: Bytes for each pixel that decoders take besides the image, as measured.
_DECODERS = {"AVIF": 10.0, "GIF": 5.0, "WEBP": 13.0}
_OTHERS = 0.5

#: The same for each channel: of a JPEG that comes in several scans, and of a JPEG 2000.
_SCANS, _JPEG2000 = 2.0, 5.5

#: How many times the file is held by decoders that read all of it first. That of JPEG 2000 notes
#: each marker, of which the smallest has 4 bytes.
_READ = {"AVIF": 3, "WEBP": 3, "JPEG2000": 6}

#: Bytes for each pixel that are held besides the decoded image when it is resized or made an array
#: of, and when a part is cut out of it.
USE, CUTTING = 4, 8

#: The start of a scan. In its data 0xFF is followed by 0x00 or a restart marker.
_SCAN = b"\xff\xda"


def check_scans(image: ImageFile.ImageFile, name: str) -> None:
    """Refuse a JPEG that would keep a decoder busy.

    Args:
        image: opened and not loaded.
        name: of it, for the error.

    Raises:
        ImageError: it has more than ``MAX_SCANS`` scans.
    """
    if image.format not in {"JPEG", "MPO"}:
        return
    file = image.fp
    assert file is not None
    place, scans, last = file.tell(), 0, b""
    file.seek(0)
    while scans <= MAX_SCANS and (read := file.read(1 << 20)):
        scans += (last + read).count(_SCAN)
        last = read[-1:]
    file.seek(place)
    if scans > MAX_SCANS:
        raise ImageError(
            f"{name} has more than {MAX_SCANS} JPEG scans: save it again as a baseline JPEG."
        )


def admitted(image: ImageFile.ImageFile, name: str) -> AbstractContextManager[None]:
    """The block in which an opened image may be loaded; arguments and errors as of the gate's."""
    check_scans(image, name)
    need = peak_bytes(image, sample_format(image), image.width * image.height)
    return GATE.admit(need, name)


def peak_bytes(
    image: ImageFile.ImageFile, samples: SampleFormat, pixels: int, use: int = USE
) -> int:
    """The bytes that an opened image takes at most, from decoding to its use.

    Args:
        image: not loaded; a JPEG is asked already for the fraction of its size that is decoded.
        samples: what :func:`~fsad_edge.runtime.sample_formats.sample_format` tells of it.
        pixels: all that the file holds.
        use: bytes for each decoded pixel that are held besides the image when it is used.
    """
    decoded = image.width * image.height
    own, decoder = _bytes_a_pixel(image.mode), int(pixels * _decoder(image))
    if image.format == "TIFF":  # of which a strip may be the whole file, compressed
        decoder += min(decoder, _size(image))
    if samples.kind is Samples.BYTES:
        result = own if image.mode in {"L", "RGB"} else 4
        converting = 0 if result == own else result
    elif samples.kind is Samples.COLOUR16:
        result, converting = 4, 4 if samples.upper_only else 8
        if not samples.upper_only:  # the lower bytes are decoded beside the upper ones
            decoder += decoded * own
    else:
        result, converting = 1, 1
    turning = own  # a PNG tells only behind its pixels whether it is to be turned
    using = result - own + use
    most = decoded * own + max(decoder, decoded * max(converting, turning, using))
    # Three decoders read the whole file first, and copy what is in it besides the pixels.
    read = _READ.get(str(image.format), 0) * _size(image)
    return int(SAFETY * most) + held_bytes(image) + read + LEAST


def _decoder(image: ImageFile.ImageFile) -> float:
    """Bytes for each pixel that the decoder takes besides the image."""
    codec = image.tile[0][0] if image.tile else ""
    if image.format in {"JPEG", "MPO"}:
        return _SCANS * len(image.getbands())
    if image.format == "JPEG2000":
        return _JPEG2000 * len(image.getbands())
    if image.format == "TIFF":  # a strip or a tile, and each may be the whole image
        bits = image.tag_v2.get(BITS, (1,))  # type: ignore[attr-defined]
        bits = bits if isinstance(bits, tuple) else (bits,)
        return sum(bits) / 8 if codec == "libtiff" else _OTHERS
    if image.format == "PPM" and codec.startswith("ppm"):
        return 2.2 * (4 if image.mode in {"I", "F"} else len(image.getbands()))
    if image.format == "BMP" and "rle" in codec:
        return 2.2
    return _DECODERS.get(str(image.format), _OTHERS)


def _bytes_a_pixel(mode: str) -> int:
    """The bytes of a pixel in Pillow's memory."""
    return {"1": 1, "L": 1, "P": 1}.get(mode, 2 if mode.startswith("I;16") else 4)


def _size(image: ImageFile.ImageFile) -> int:
    """Bytes of the file."""
    file = image.fp
    if file is None:
        return 0
    place = file.tell()
    size: int = file.seek(0, os.SEEK_END)
    file.seek(place)
    return size
