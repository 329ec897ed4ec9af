"""What an image file says of its samples: how many bits, with or without a sign, which is black."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ImageFile

from fsad_edge.options import Choice
from fsad_edge.runtime.jpeg2000_header import read_components

# Tags of a TIFF file.
BITS, PHOTOMETRIC, LEAST, MOST, FORMAT, SLEAST, SMOST = 258, 262, 280, 281, 339, 340, 341
PLANES = 284
WHITE_IS_ZERO, UNSIGNED = 0, 1


class Samples(Choice):
    """The kinds of samples that are told apart."""

    BYTES = "8 bits or fewer"
    GREY16 = "unsigned 16-bit"
    COLOUR16 = "unsigned 16-bit colour"
    INTEGER = "signed or 32-bit"
    FLOAT = "float"


@dataclass(frozen=True)
class SampleFormat:
    """What a file says of its samples.

    Attributes:
        kind: their kind.
        dtype: what Pillow's samples are to be read as; None as they are.
        bits: significant bits of 16-bit samples; None where the file does not say. Of smaller
            samples: where Pillow shifts fewer than 8 bits up.
        certain: the format itself gives ``bits``, so that nobody's answer applies.
        range: black and white of other samples; None where the file does not say.
        inverted: 0 is white.
        upper_only: Pillow gives the upper bytes of 16-bit colours and never the lower ones.
    """

    kind: Samples
    dtype: type[np.int8 | np.uint32] | None = None
    bits: int | None = None
    certain: bool = False
    range: tuple[float, float] | None = None
    inverted: bool = False
    upper_only: bool = False


def sample_format(image: ImageFile.ImageFile) -> SampleFormat:
    """What an opened file says of its samples; it must not be loaded yet."""
    if image.format == "TIFF":
        return _tiff_format(image)
    arguments = image.tile[0][3] if image.tile else None
    if image.format in {"PNG", "PPM"} and ";16" in str(arguments) and image.mode.startswith("RGB"):
        return SampleFormat(Samples.COLOUR16)
    bits = 8
    if image.format == "JPEG2000":
        bits = components[0].bits if (components := read_components(image)) else 16
        if components and bits >= 15 and image.mode[0] not in "IF":
            return SampleFormat(Samples.COLOUR16, upper_only=True)
        if bits < 8 and image.mode != "P":
            return SampleFormat(Samples.BYTES, bits=bits)
    if image.mode == "F":
        return SampleFormat(Samples.FLOAT)
    if not image.mode.startswith("I"):
        return SampleFormat(Samples.BYTES)
    # Pillow scales up by the highest value that a PGM names, and by the bits of a JPEG 2000.
    scaled_up = (
        image.format == "PPM" and isinstance(arguments, tuple) and arguments[-1] != 65535
    ) or (image.format == "JPEG2000" and bits < 16)
    return SampleFormat(Samples.GREY16, bits=16 if scaled_up else None, certain=scaled_up)


def first(value: Any) -> Any:
    """The first of several values of a tag, or the only one."""
    return value[0] if isinstance(value, tuple) else value


def _tiff_format(image: ImageFile.ImageFile) -> SampleFormat:
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits, kind = first(tags.get(BITS, 1)), first(tags.get(FORMAT, UNSIGNED))
    inverted = tags.get(PHOTOMETRIC, WHITE_IS_ZERO) == WHITE_IS_ZERO
    if image.mode == "F":
        return SampleFormat(Samples.FLOAT, range=_declared_range(tags), inverted=inverted)
    if bits == 32 or (kind != UNSIGNED and image.mode in {"L", "I"}):
        dtype = np.int8 if bits == 8 else np.uint32 if kind == UNSIGNED else None
        return SampleFormat(Samples.INTEGER, dtype, range=_declared_range(tags), inverted=inverted)
    if image.mode.startswith("I"):
        certain = bits < 16
        bits = bits if certain else _declared_bits(tags)
        return SampleFormat(Samples.GREY16, bits=bits, certain=certain, inverted=inverted)
    if bits == 16:
        # libtiff gives the planes their own layout, CMYK has no name for the other bytes, and
        # Pillow divides by alpha what was multiplied by it
        premultiplied = str(first(image.tile[0][3])).startswith("RGBa")
        packed = tags.get(PLANES, 1) == 2 and image.tile[0][0] == "libtiff"
        whole = image.mode.startswith("RGB") and not (premultiplied or packed)
        declared = _declared_bits(tags)
        return SampleFormat(Samples.COLOUR16, bits=declared, upper_only=not whole)
    return SampleFormat(Samples.BYTES)


def _declared_bits(tags: Any) -> int | None:
    """Bits by the highest value that a TIFF names, where that is the highest of some bits.

    Many programs write the highest value of this very image there, which is no scale.
    """
    for tag in (SMOST, MOST):
        most = _number(tags, tag)
        # 65535 is what the tag means where it is not there
        if most is not None and most == int(most) and 256 <= most + 1 < 65536:
            bits = int(most).bit_length()
            if most == 2**bits - 1:
                return bits
    return None


def _declared_range(tags: Any) -> tuple[float, float] | None:
    """The range that a TIFF names, where its ends are those of a type and not of this image."""
    least, most = _number(tags, SLEAST), _number(tags, SMOST)
    if least is None or most is None:
        least, most = _number(tags, LEAST), _number(tags, MOST)
    if least is None or most is None or most != int(most) or most < 1:
        return None
    whole = most == 1 or most == 2 ** int(most).bit_length() - 1
    return (least, most) if whole and least in {0.0, -most, -most - 1} else None


def _number(tags: Any, tag: int) -> float | None:
    try:
        number = float(first(tags[tag]))
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return number if math.isfinite(number) else None
