"""Why an image file cannot be read, in one sentence."""

from __future__ import annotations

import codecs
import io
import re
import stat
from pathlib import Path
from typing import Any

from PIL import UnidentifiedImageError
from PIL.TiffImagePlugin import COMPRESSION_INFO, ImageFileDirectory_v2

from fsad_edge.errors import ImageError

#: Bytes at the start of a file that tell what it is.
_HEAD = 1024

#: Brands of the container that HEIC photographs share with AVIF and video.
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

#: First bytes of cameras' RAW files: Canon, Fujifilm, Olympus, Panasonic, Sigma.
_RAW = re.compile(rb"II\*\0....CR|FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\0|FOVb", re.DOTALL)

#: First bytes of the formats that are read, where they are unmistakable.
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

#: What the sample format, photometric interpretation and compression of a TIFF are called.
_KINDS = {1: "unsigned", 2: "signed", 3: "float", 5: "complex integer", 6: "complex float"}
_COLOURS = {2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab", 32803: "colour filter"}
_PACKED = {33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34892: "lossy DNG JPEG",
           34887: "LERC", 50002: "JPEG XL", 52546: "JPEG XL"}  # fmt: skip

#: What Pillow's decoders say of a file that ends too early.
_CUT = re.compile("truncat|end of file|unexpected end|eof|not enough|requires a buffer", re.I)


def unreadable(
    error: Exception, source: Path | bytes, name: str, formats: tuple[str, ...]
) -> ImageError:
    """The error for an image that cannot be read.

    Args:
        error: what Pillow or the system raised.
        source: the file or its bytes.
        name: what the sentence calls it.
        formats: the formats that are read.
    """
    return ImageError(_explain(error, source, name, formats))


def raw_file(name: str) -> str:
    """The sentence for a camera's RAW file."""
    return f"{name} is a camera's RAW file, which is not read: convert it to TIFF, PNG or JPEG."


def not_a_file(path: Path, name: str) -> str | None:
    """The sentence for what would be waited for or read without an end; None for anything else."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # which opening it tells better
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return f"{name} is a pipe, a socket or a device, not an image file: save the image to a file."


def _explain(error: Exception, source: Path | bytes, name: str, formats: tuple[str, ...]) -> str:
    if isinstance(error, MemoryError):
        return f"{name} does not fit into memory: make it smaller."
    if isinstance(error, OSError) and error.errno is not None:
        return _explain_system(error, name)
    try:
        head, size = _read_head(source)
    except OSError as failed:
        return _explain_system(failed, name)
    if head.startswith(_TIFF):
        tiff = _explain_tiff(error, source, name)
        if tiff is not None:
            return tiff
    if isinstance(error, UnidentifiedImageError):
        return _explain_content(head, size, name, formats)
    cause = str(error) or type(error).__name__
    if _CUT.search(cause) or _riff_is_cut(head, size):
        return f"{name} cannot be decoded ({cause}): it is cut short; copy it again."
    return f"{name} cannot be decoded ({cause}): it is damaged, or of a kind that is not read."


def _explain_system(error: OSError, name: str) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{name} does not exist."
    if isinstance(error, IsADirectoryError):
        return f"{name} is a folder, not an image."
    if isinstance(error, PermissionError):
        return f"{name} cannot be opened: permission denied; give this user the right to read it."
    return f"{name} cannot be read: {error.strerror or error}."


def _explain_content(head: bytes, size: int, name: str, formats: tuple[str, ...]) -> str:
    """What a file is that no decoder takes."""
    if not size:
        return f"{name} is empty (0 bytes): copy it again."
    if head.startswith(b"version https://git-lfs"):
        return f"{name} is not an image but a Git LFS pointer to one: run  git lfs pull."
    brands = (
        {head[place : place + 4] for place in range(8, 64, 4)} if head[4:8] == b"ftyp" else set()
    )
    if b"avif" in brands and "AVIF" not in formats:
        return f"{name} is an AVIF image, which this Pillow does not read: update Pillow to 11.3."
    if brands & _HEIC and b"avif" not in brands:
        return (
            f"{name} is a HEIC photograph, which is not read: convert it to JPEG or PNG, or set "
            "the phone's camera to its most compatible format."
        )
    if _RAW.match(head) or head[8:12] == b"crx ":
        return raw_file(name)
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return f"{name} is not an image but a web page saved under this name: download it again."
    if _is_text(head):
        return f"{name} is not an image but text."
    if (coding := _jpeg_coding(head)) is not None:
        return (
            f"{name} is a JPEG {coding}, which is not read: save it as a JPEG of 8 bits, or as "
            "PNG or TIFF of 16 bits."
        )
    if head.startswith(_IMAGES) or b"avif" in brands:
        return _explain_known(head, size, name)
    return f"{name} is not an image of a kind that is read ({', '.join(formats)})."


def _jpeg_coding(head: bytes) -> str | None:
    """How a JPEG is coded that Pillow does not read; None for any other."""
    place = 2 if head.startswith(b"\xff\xd8") else len(head)
    while place + 5 <= len(head) and head[place] == 0xFF:
        marker, length = head[place + 1], int.from_bytes(head[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:  # the start of a frame
            if marker in {0xC3, 0xC7, 0xCB, 0xCF}:
                return "without loss"
            bits = head[place + 4]
            return None if bits == 8 else f"of {bits} bits"
        place += 2 + length
    return None


def _explain_known(head: bytes, size: int, name: str) -> str:
    tags_at = int.from_bytes(head[4:8], "big" if head.startswith(b"MM") else "little")
    if head.startswith((b"II*\0", b"MM\0*")) and tags_at < size:
        return (
            f"{name} cannot be decoded: it is a damaged TIFF; copy it again, or save it with 8 or "
            "16 bits, grey or RGB."
        )
    if size < 64 or _riff_is_cut(head, size):
        return f"{name} cannot be decoded: it is cut short ({size} bytes); copy it again."
    return f"{name} cannot be decoded: its header is damaged or cut short; copy it again."


def _explain_tiff(error: Exception, source: Path | bytes, name: str) -> str | None:
    """What the samples of a TIFF are, where its tags are whole and Pillow does not read them."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            head = file.read(8)
            tags: Any = ImageFileDirectory_v2(head + file.read(8) if head[2] == 43 else head)
            file.seek(tags.next)
            tags.load(file)
        bits, samples, compression = tags.get(258, (1,))[0], tags.get(277, 1), tags.get(259, 1)
        kind, light = tags.get(339, (1,))[0], tags.get(262, 0)
        whole = all(isinstance(tags.get(tag), int) for tag in (256, 257))
        whole = whole and (273 in tags or 324 in tags)
    except Exception:  # its tags are damaged, as they are where a file was cut
        return None
    packed = _PACKED.get(compression)
    if whole and (packed or compression not in COMPRESSION_INFO):
        return (
            f"{name} is a TIFF compressed as {packed or f'number {compression}'}, which is not "
            "read: save it uncompressed, or with LZW or Deflate."
        )
    usual = kind == 1 and bits in {8, 16} and (light, samples) in {(0, 1), (1, 1), (2, 3)}
    usual = usual and (bits, light) != (16, 0)  # which Pillow does not read from the high end
    if not whole or usual or not isinstance(error, UnidentifiedImageError):
        return None
    order = "big-endian " if head.startswith(b"MM") else ""
    colour = _COLOURS.get(light, "grey")
    more = samples - {2: 3, 5: 4, 6: 3, 8: 3}.get(light, 1)
    extra = " with alpha" if more == 1 and 338 in tags else f" and {more} more channels"
    return (
        f"{name} is a TIFF of {order}{bits}-bit {_KINDS.get(kind, 'undefined')} samples, {colour}"
        f"{extra if more > 0 else ''}, which are not read: save it as 8-bit or 16-bit grey or RGB "
        "without alpha, or as 32-bit float grey, little-endian."
    )


def _read_head(source: Path | bytes) -> tuple[bytes, int]:
    if isinstance(source, bytes):
        return source[:_HEAD], len(source)
    with source.open("rb") as file:
        head = file.read(_HEAD)
        return head, file.seek(0, 2)


def _riff_is_cut(head: bytes, size: int) -> bool:
    """Whether a WebP is shorter than it says."""
    return head.startswith(b"RIFF") and int.from_bytes(head[4:8], "little") + 8 > size


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # a last letter may be cut
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)
