"""What black and white are in images of more than 8 bits, and their way to 8 bits.

A file of 16-bit samples may hold the 10 or 12 bits of a camera, and float samples may have any
range. The file's sample format and metadata say which, or the user does, once. The brightest pixel
of an image never decides: two exposures of a part would become alike, and a label or a hot pixel
would make photographs of 12 bits black.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

from fsad_edge.errors import ImageError, InputError
from fsad_edge.options import Choice
from fsad_edge.runtime.arrays import AnyArray
from fsad_edge.runtime.brightness import CAMERA_BITS, Brightness, brightness
from fsad_edge.runtime.documents import STATED, Range

# Tags of a TIFF file.
_BITS, _PHOTOMETRIC, _LEAST, _MOST, _FORMAT, _SLEAST, _SMOST = 258, 262, 280, 281, 339, 340, 341
_PLANES = 284
_WHITE_IS_ZERO, _UNSIGNED = 0, 1

#: The values that samples of 32 bits can have; a difference of two of them is finite.
_Sample = Annotated[float, Range(-3.5e38, 3.5e38)]


@dataclass(frozen=True)
class ImageScale:
    """What black and white are in files of more than 8 bits.

    Attributes:
        bits: significant bits of unsigned 16-bit samples, which are at the lower end; None takes
            what the file says, or 16 where many samples need more than ``MOST_CAMERA_BITS``.
        range: the values of black and white of float, signed and 32-bit samples; None takes what
            the file says, or 0 and 1 for float samples that are all within.

    Example:
        >>> from fsad_edge import load_image
        >>> load_image(photograph, ImageScale(bits=12)).dtype  # the scale of other files is known
        dtype('uint8')
    """

    bits: Annotated[int, Range(8, 16)] | None = field(default=None, metadata=STATED)
    range: tuple[_Sample, _Sample] | None = field(default=None, metadata=STATED)

    def __post_init__(self) -> None:
        """Refuse values that no file can have."""
        if self.bits is not None and not 8 <= self.bits <= 16:
            raise InputError(f"the bits of 16-bit files are 8 to 16, not {self.bits}.")
        if self.range is not None:
            low, high = self.range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise InputError(
                    f"the range is the value of black and a higher one of white, not {low:g} and "
                    f"{high:g}."
                )


#: Nobody was asked: only what a file says of itself counts.
UNASKED = ImageScale()


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
        bits: significant bits of 16-bit samples; None where the file does not say.
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


@dataclass(frozen=True)
class FoundSamples:
    """The samples of one file of more than 8 bits.

    Attributes:
        format: what the file says of them.
        least: the lowest value.
        most: the highest value.
        brightness: of unsigned 16-bit samples.
    """

    format: SampleFormat
    least: float
    most: float
    brightness: Brightness | None = None


def sample_format(image: ImageFile.ImageFile) -> SampleFormat:
    """What an opened file says of its samples; it must not be loaded yet."""
    if image.format == "TIFF":
        return _tiff_format(image)
    arguments = image.tile[0][3] if image.tile else None
    if image.format in {"PNG", "PPM"} and ";16" in str(arguments) and image.mode.startswith("RGB"):
        return SampleFormat(Samples.COLOUR16)
    depth = _jpeg2000_depth(image) if image.format == "JPEG2000" else None
    if depth is not None and depth & 0x7F >= 15 and image.mode[0] not in "IF":
        return SampleFormat(Samples.COLOUR16, upper_only=True)
    if image.mode == "F":
        return SampleFormat(Samples.FLOAT)
    if not image.mode.startswith("I"):
        return SampleFormat(Samples.BYTES)
    # Pillow scales up by the highest value that a PGM names, and by the bits of a JPEG 2000.
    scaled_up = (
        image.format == "PPM" and isinstance(arguments, tuple) and arguments[-1] != 65535
    ) or (image.format == "JPEG2000" and _jpeg2000_bits(image) < 16)
    return SampleFormat(Samples.GREY16, bits=16 if scaled_up else None, certain=scaled_up)


def to_eight_bits(
    image: Image.Image,
    samples: SampleFormat,
    scale: ImageScale,
    name: str,
    lower_bytes: Callable[[], Image.Image],
) -> Image.Image:
    """The image with 8 bits for each sample.

    Args:
        image: loaded; Pillow loads 16-bit colours at their upper bytes.
        samples: what its file says.
        scale: what the user says.
        name: of the image, for errors.
        lower_bytes: loads the lower bytes of 16-bit colours.

    Raises:
        ImageError: the scale is not known, or a sample has more bits than it may.
    """
    if samples.kind is Samples.BYTES:
        return image
    if samples.kind is Samples.COLOUR16:
        bits = scale.bits or samples.bits
        _check_alpha(image, samples, name)
        if bits == 16 or (bits is None and brightness(_upper(image)).fills):
            return image
        if samples.upper_only:
            raise ImageError(without_lower_bytes(name))
        values = _merge(image, lower_bytes(), name)
        return _shift(values, _known_bits(values, samples, scale, name), False)
    values = _values(image, samples)
    if samples.kind is Samples.GREY16:
        return _shift(values, _known_bits(values, samples, scale, name), samples.inverted)
    low, high = scale.range or samples.range or _unit_range(values, samples, name)
    # float64 holds every 32-bit value
    grey = (np.nan_to_num(values.astype(np.float64), nan=low) - low) / (high - low)
    grey = (grey.clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(255 - grey if samples.inverted else grey)


def find_samples(
    image: Image.Image,
    samples: SampleFormat,
    name: str,
    lower_bytes: Callable[[], Image.Image],
) -> FoundSamples | None:
    """The range of a loaded image's samples; None for one of 8 bits. Arguments as above."""
    if samples.kind is Samples.BYTES:
        return None
    if samples.upper_only:
        _check_alpha(image, samples, name)
        values = _upper(image)
    elif samples.kind is Samples.COLOUR16:
        values = _merge(image, lower_bytes(), name)
    else:
        values = _values(image, samples)
        values = values[np.isfinite(values)]
    if not values.size:
        raise ImageError(f"{name} holds no finite value.")
    sixteen = samples.kind in {Samples.GREY16, Samples.COLOUR16}
    judged = brightness(values) if sixteen else None
    return FoundSamples(samples, float(values.min()), float(values.max()), judged)


def without_lower_bytes(name: str) -> str:
    """The sentence for 16-bit colours of fewer bits whose lower bytes cannot be had."""
    return (
        f"{name} holds 16-bit colours in a layout of which only the upper 8 bits are read, too "
        "little for values that do not fill 16 bits: save it as PNG of 16 bits, or as TIFF of "
        "16 bits with RGB side by side and no alpha."
    )


def mend_samples(image: ImageFile.ImageFile, name: str) -> None:
    """Have 16-bit colours read as such, where Pillow takes them for others.

    It takes the bytes of a TIFF's planes for samples where they are not compressed, and rounds the
    colours of a PPM to 8 bits.

    Raises:
        ImageError: this cannot be mended.
    """
    if image.format == "PPM":
        _mend_ppm(image, name)
    if image.format == "JPEG2000" and _jpeg2000_bits(image) >= 16 and _jpeg2000_signed(image):
        raise ImageError(
            f"{name} is a JPEG 2000 of signed 16-bit samples, which are not read: save it as PNG "
            "or TIFF of 8 or 16 bits."
        )
    if image.format != "TIFF" or not image.mode.startswith("RGB"):
        return
    tags = image.tag_v2  # type: ignore[attr-defined]
    if tags.get(_PLANES, 1) == 2 and _first(tags.get(_BITS, 1)) == 16:
        order = "L" if tags.prefix == b"II" else "B"
        _change_raw_modes(image, lambda mode: f"{mode};16{order}" if len(mode) == 1 else mode)


def _mend_ppm(image: ImageFile.ImageFile, name: str) -> None:
    codec, extents, offset, arguments = image.tile[0]
    if image.mode in {"1", "L", "I", "F"} or not isinstance(arguments, tuple):
        return
    if arguments[-1] != 65535:  # Pillow scales by it
        return
    if image.mode != "RGB" or codec != "ppm":
        raise ImageError(
            f"{name} is a PPM of 16-bit colours as text, which is not read: save it as PNG or TIFF "
            "of 8 or 16 bits, or as a binary PPM (P6)."
        )
    image.tile = [_tile("raw", extents, offset, ("RGB;16B", 0, 1))]


def _compressed_planes(image: ImageFile.ImageFile) -> bool:
    planes = image.tag_v2.get(_PLANES, 1)  # type: ignore[attr-defined]
    return planes == 2 and image.tile[0][0] == "libtiff"


def load_lower_bytes(image: ImageFile.ImageFile) -> Image.Image:
    """Load the lower bytes of 16-bit colours, of which Pillow loads the upper ones.

    Args:
        image: opened again and not loaded yet.
    """
    grey = str(_first(image.tile[0][3])).startswith("LA")
    _change_raw_modes(image, _other_bytes)
    upright(image)
    if not grey:
        return image
    _, lower, _, alpha = image.split()  # both bytes of grey, both of alpha
    return Image.merge("RGBA", (lower, lower, lower, alpha))


def likely_range(least: float, most: float, kind: Samples) -> tuple[float, float]:
    """A usual range that values may have been meant for."""
    if kind is Samples.INTEGER:
        if least >= 0:
            bits = (*CAMERA_BITS, 15, 16, 24, 31, 32)
            return 0.0, next(2.0**b - 1 for b in bits if most < 2.0**b)
        halves = (2.0 ** (bits - 1) for bits in (*CAMERA_BITS, 16, 32))
        half = next(h for h in halves if -h <= least and most < h)
        return -half, half - 1
    ends = [1.0, *(2.0**bits - 1 for bits in (*CAMERA_BITS, 16, 32))]
    size = max(most, -least)
    # Filters overshoot: a value a little over 1 does not make 1 unlikely.
    end = next((end for end in ends if size <= end * 1.25), ends[-1])
    return (-end if least < -0.25 * end else 0.0), end


def _known_bits(values: AnyArray, samples: SampleFormat, scale: ImageScale, name: str) -> int:
    bits = samples.bits if samples.certain else scale.bits or samples.bits
    if bits is not None and int(values.max()) < 2**bits:
        return bits
    found = brightness(values)
    if bits is None:
        if found.fills:
            return 16
        guess = found.camera_bits
        raise ImageError(
            f"{name} is a 16-bit file whose brightest pixel is {found.most}, and most of it does "
            f"not fill 16 bits: it looks like {guess} bits; say so once with  fsad-edge finetune "
            f"--bits {guess}  or --bits 16 (ImageScale(bits={guess}) in Python)."
        )
    if found.bits > bits:
        raise ImageError(
            f"{name} holds many values above those of {bits} bits, up to {found.most}, which "
            f"{bits} bits do not hold, but 16-bit files were said to have {bits}: save it like the "
            "others, or run  fsad-edge finetune  with another --bits."
        )
    return bits  # a label or hot pixels above become white


def _unit_range(values: AnyArray, samples: SampleFormat, name: str) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if samples.kind is Samples.FLOAT and least >= 0 and most <= 1:
        return 0.0, 1.0
    low, high = likely_range(least, most, samples.kind)
    raise ImageError(
        f"{name} is a {samples.kind} file with values from {least:g} to {most:g}, and it is not "
        "known which of them are black and white: say so once with  fsad-edge finetune --range "
        f"{low:g} {high:g}  (ImageScale(range=({low:g}, {high:g})) in Python)."
    )


def _shift(values: AnyArray, bits: int, inverted: bool) -> Image.Image:
    eight = (values >> (bits - 8)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(255 - eight if inverted else eight)


def _values(image: Image.Image, samples: SampleFormat) -> AnyArray:
    """The samples of a grey image, in their own type."""
    values = np.asarray(image)
    if samples.kind is Samples.GREY16:
        return values.astype(np.uint16)  # Pillow holds some in 32 bits
    return values if samples.dtype is None else values.view(samples.dtype)


def _merge(upper: Image.Image, lower: Image.Image, name: str) -> AnyArray:
    """16-bit samples of their bytes, uint16 ``[H, W, 3]``; an opaque alpha channel is left out."""
    if upper.mode not in {"RGB", "RGBA"}:
        raise ImageError(
            f"{name} has 16-bit samples of the mode {upper.mode} and fewer significant bits: save "
            "it as grey or RGB."
        )
    values = np.asarray(upper).astype(np.uint16) << 8 | np.asarray(lower)
    alpha = values[:, :, 3:]
    if alpha.size and (alpha.min() < alpha.max() or not alpha.any()):
        raise ImageError(f"{name} has transparent parts in 16-bit samples: save it without them.")
    colours: AnyArray = values[:, :, :3]
    return colours


def _check_alpha(image: Image.Image, samples: SampleFormat, name: str) -> None:
    """Refuse colours that were divided by an alpha of which it is not known what opaque is."""
    if samples.upper_only and image.mode == "RGBA" and np.asarray(image)[:, :, 3].max() < 255:
        raise ImageError(without_lower_bytes(name))


def _upper(image: Image.Image) -> AnyArray:
    """The upper bytes of 16-bit colours at their places, without alpha."""
    colours = len(image.getbands()) - image.mode.upper().endswith("A")
    values: AnyArray = np.asarray(image)[:, :, :colours].astype(np.uint16) << 8
    values[values == 0xFF00] = 0xFFFF
    return values


def _tiff_format(image: ImageFile.ImageFile) -> SampleFormat:
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits, kind = _first(tags.get(_BITS, 1)), _first(tags.get(_FORMAT, _UNSIGNED))
    inverted = tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO) == _WHITE_IS_ZERO
    if image.mode == "F":
        return SampleFormat(Samples.FLOAT, range=_declared_range(tags), inverted=inverted)
    if bits == 32 or (kind != _UNSIGNED and image.mode in {"L", "I"}):
        dtype = np.int8 if bits == 8 else np.uint32 if kind == _UNSIGNED else None
        return SampleFormat(Samples.INTEGER, dtype, range=_declared_range(tags), inverted=inverted)
    if image.mode.startswith("I"):
        certain = bits < 16
        bits = bits if certain else _declared_bits(tags)
        return SampleFormat(Samples.GREY16, bits=bits, certain=certain, inverted=inverted)
    if bits == 16:
        # libtiff gives the planes their own layout, CMYK has no name for the other bytes, and
        # Pillow divides by alpha what was multiplied by it
        premultiplied = str(_first(image.tile[0][3])).startswith("RGBa")
        whole = image.mode.startswith("RGB") and not (premultiplied or _compressed_planes(image))
        declared = _declared_bits(tags)
        return SampleFormat(Samples.COLOUR16, bits=declared, upper_only=not whole)
    return SampleFormat(Samples.BYTES)


def _declared_bits(tags: Any) -> int | None:
    """Bits by the highest value that a TIFF names, where that is the highest of some bits.

    Many programs write the highest value of this very image there, which is no scale.
    """
    for tag in (_SMOST, _MOST):
        most = _number(tags, tag)
        # 65535 is what the tag means where it is not there
        if most is not None and most == int(most) and 256 <= most + 1 < 65536:
            bits = int(most).bit_length()
            if most == 2**bits - 1:
                return bits
    return None


def _declared_range(tags: Any) -> tuple[float, float] | None:
    """The range that a TIFF names, where its ends are those of a type and not of this image."""
    least, most = _number(tags, _SLEAST), _number(tags, _SMOST)
    if least is None or most is None:
        least, most = _number(tags, _LEAST), _number(tags, _MOST)
    if least is None or most is None or most != int(most) or most < 1:
        return None
    whole = most == 1 or most == 2 ** int(most).bit_length() - 1
    return (least, most) if whole and least in {0.0, -most, -most - 1} else None


def _number(tags: Any, tag: int) -> float | None:
    try:
        number = float(_first(tags[tag]))
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return number if math.isfinite(number) else None


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def _change_raw_modes(image: ImageFile.ImageFile, change: Callable[[str], str]) -> None:
    """Change how Pillow's decoders take the samples; their raw mode is their first argument."""
    tiles: list[Any] = []
    for codec, extents, offset, arguments in image.tile:
        mode = change(str(_first(arguments)))
        arguments = (mode, *arguments[1:]) if isinstance(arguments, tuple) else mode
        tiles.append(_tile(codec, extents, offset, arguments))
    image.tile = tiles


def _tile(*fields: Any) -> Any:
    """An entry of Pillow's list of what to decode; a plain tuple before Pillow 11."""
    kind = getattr(ImageFile, "_Tile", None)
    return kind(*fields) if kind else fields


def _other_bytes(mode: str) -> str:
    """The layout that gives the other byte of each 16-bit sample."""
    if mode.startswith("LA"):
        return "RGBA"  # 32 bits for a pixel, too
    little = mode.endswith("L") or (mode.endswith("N") and sys.byteorder == "little")
    return mode[:-1] + ("B" if little else "L")


def _jpeg2000_bits(image: ImageFile.ImageFile) -> int:
    """Bits of the first component; 16 where they are not found."""
    depth = _jpeg2000_depth(image)
    return 16 if depth is None else (depth & 0x7F) + 1


def _jpeg2000_signed(image: ImageFile.ImageFile) -> bool:
    return bool((_jpeg2000_depth(image) or 0) & 0x80)


def _jpeg2000_depth(image: ImageFile.ImageFile) -> int | None:
    """The byte for sign and bits of the first component in the header of the codestream."""
    file = image.fp
    assert file is not None
    place = file.tell()
    file.seek(0)
    head = file.read(1 << 22)  # a colour profile may come first
    file.seek(place)
    start = head.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(head) <= start + 42:
        return None
    depth: int = head[start + 42]
    return depth


def upright(image: Image.Image) -> Image.Image:
    """Load an image and turn it as its EXIF says."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image
