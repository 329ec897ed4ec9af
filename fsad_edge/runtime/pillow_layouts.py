"""Layouts of samples that Pillow takes for others: read as they are meant, or refused.

What is refused here would be decoded without an error, to other pixels than a viewer shows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from PIL import Image, ImageFile

from fsad_edge.errors import ImageError
from fsad_edge.runtime.jpeg2000_header import has_known_colours, read_components
from fsad_edge.runtime.plain_pnm import SCALED
from fsad_edge.runtime.sample_formats import BITS, FORMAT, PHOTOMETRIC, PLANES, UNSIGNED, first

# Tags of a TIFF file.
_FILL_ORDER, _SAMPLES, _PALETTE, _SUBSAMPLING = 266, 277, 320, 530
_WHITE, _GREY, _INDEX, _YCBCR = 0, 1, 3, 6

#: The raw mode of one plane by bits and photometric interpretation.
_ONE_PLANE = {(1, _WHITE): "1;I", (1, _GREY): "1", (8, _WHITE): "L;I", (8, _GREY): "L",
              (8, _INDEX): "P"}  # fmt: skip

#: How to save what is not read.
_CURE = "save it as PNG or TIFF of 8 or 16 bits, grey or RGB"


def mend_layout(image: ImageFile.ImageFile, name: str) -> None:
    """Have the samples of an opened file read as they are meant; it must not be loaded yet.

    Raises:
        ImageError: Pillow would show other pixels, and this cannot be mended.
    """
    if image.format == "PPM":
        _mend_ppm(image, name)
    elif image.format == "JPEG2000":
        _check_jpeg2000(image, name)
    elif image.format == "TIFF":
        _mend_tiff(image, name)
    elif image.format in {"JPEG", "MPO"} and image.mode == "CMYK" and "adobe" not in image.info:
        raise ImageError(
            f"{name} is a CMYK JPEG that does not say whether 0 is no ink or all ink: save it as "
            "RGB."
        )


def change_raw_modes(image: ImageFile.ImageFile, change: Callable[[str], str]) -> None:
    """Change how Pillow's decoders take the samples; their raw mode is their first argument."""
    tiles: list[Any] = []
    for codec, extents, offset, arguments in image.tile:
        mode = change(str(first(arguments)))
        arguments = (mode, *arguments[1:]) if isinstance(arguments, tuple) else mode
        tiles.append(tile(codec, extents, offset, arguments))
    image.tile = tiles


def other_bytes(mode: str) -> str:
    """The raw mode that gives the other byte of each 16-bit sample."""
    if mode.startswith("LA"):
        return "RGBA"  # 32 bits for a pixel, too
    little = mode.endswith("L") or (mode.endswith("N") and sys.byteorder == "little")
    return mode[:-1] + ("B" if little else "L")


def stretch_few_bits(image: Image.Image, bits: int) -> Image.Image:
    """Samples of fewer than 8 bits, which Pillow shifts up, so that the highest is white."""
    shift, most = 8 - bits, 2**bits - 1
    return image.point(
        [round((value >> shift) * 255 / most) for value in range(256)] * _bands(image)
    )


def _bands(image: Image.Image) -> int:
    return len(image.getbands())


def _mend_ppm(image: ImageFile.ImageFile, name: str) -> None:
    """Pillow rounds the colours of a PPM of 16 bits to 8."""
    codec, extents, offset, arguments = image.tile[0]
    if image.mode in {"1", "L", "I", "F"} or not isinstance(arguments, tuple):
        return
    if arguments[-1] != 65535:  # Pillow scales by it
        return
    if image.mode != "RGB" or codec != SCALED:
        raise ImageError(
            f"{name} is a PPM of 16-bit colours as text, which is not read: save it as PNG or TIFF "
            "of 8 or 16 bits, or as a binary PPM (P6)."
        )
    image.tile = [tile("raw", extents, offset, ("RGB;16B", 0, 1))]


def _check_jpeg2000(image: ImageFile.ImageFile, name: str) -> None:
    components = read_components(image)
    if any(one.signed and one.bits >= 16 for one in components):
        raise ImageError(
            f"{name} is a JPEG 2000 of signed 16-bit samples, which are not read: save it as PNG "
            "or TIFF of 8 or 16 bits."
        )
    if len({one.bits for one in components}) > 1:
        raise ImageError(
            f"{name} is a JPEG 2000 whose channels have different numbers of bits, which is not "
            f"read: {_CURE}."
        )
    if not has_known_colours(image):
        raise ImageError(
            f"{name} is a JPEG 2000 of other colours than grey, sRGB and sYCC, which are not read: "
            f"{_CURE}."
        )


def _mend_tiff(image: ImageFile.ImageFile, name: str) -> None:
    tags = image.tag_v2  # type: ignore[attr-defined]
    if PHOTOMETRIC not in tags and len(image.getbands()) == 1:
        raise ImageError(
            f"{name} is a TIFF that does not say whether 0 is black or white: save it again with "
            "another program."
        )
    if image.mode == "P" and 0 < max(tags.get(_PALETTE, (0,))) < 256:
        raise ImageError(
            f"{name} is a TIFF whose palette has 8 bits where the format wants 16, so that it may "
            "be black: save it as RGB."
        )
    if image.tile[0][0] == "libtiff":
        # libtiff gives the bytes of a number in this machine's order, whatever the file's is.
        change_raw_modes(image, _native)
        return
    if tags.get(PHOTOMETRIC) == _YCBCR and tuple(tags.get(_SUBSAMPLING, (2, 2))) != (1, 1):
        raise ImageError(
            f"{name} is an uncompressed TIFF in YCbCr with fewer samples of colour than pixels, "
            f"which is not read: {_CURE}."
        )
    if tags.get(PLANES, 1) == 2:
        _mend_planes(image, name)


def _native(mode: str) -> str:
    return {"F;32BF": "F;32NF", "I;16BS": "I;16NS", "I;32BS": "I;32NS"}.get(mode, mode)


def _mend_planes(image: ImageFile.ImageFile, name: str) -> None:
    """Pillow takes a letter of the raw mode for that of each plane, and forgets the rest of it."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = first(tags.get(BITS, 1))
    usual = tags.get(_FILL_ORDER, 1) == 1 and first(tags.get(FORMAT, UNSIGNED)) == UNSIGNED
    if tags.get(_SAMPLES, 1) == 1:  # the only plane has the raw mode of the whole image
        whole = _ONE_PLANE.get((bits, tags.get(PHOTOMETRIC))) if usual else None
        if usual and bits == 16 and image.mode.startswith("I;16"):
            whole = image.mode
        elif image.mode == "F":
            whole = "F;32F" if tags.prefix == b"II" else "F;32BF"
        if whole is not None:
            raw_mode = whole
            change_raw_modes(image, lambda mode: raw_mode)
            return
    elif usual and bits == 8 and image.mode in {"RGB", "RGBA", "CMYK", "YCbCr"}:
        return
    elif usual and bits == 16 and all(first(tile[3]) in {*"RGBA"} for tile in image.tile):
        order = "L" if tags.prefix == b"II" else "B"
        change_raw_modes(image, lambda mode: f"{mode};16{order}")
        return
    raise ImageError(f"{name} is a TIFF of samples in planes, which are not read: {_CURE}.")


def tile(*fields: Any) -> Any:
    """An entry of Pillow's list of what to decode; a plain tuple before Pillow 11."""
    kind = getattr(ImageFile, "_Tile", None)
    return kind(*fields) if kind else fields
