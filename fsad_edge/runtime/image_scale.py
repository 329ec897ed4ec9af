"""What black and white are in images of more than 8 bits, and their way to 8 bits.

A file of 16-bit samples may hold the 10 or 12 bits of a camera, and float samples may have any
range. The file's sample format and metadata say which, or the user does, once. The brightest pixel
of an image never decides: two exposures of a part would become alike, and a label or a hot pixel
would make photographs of 12 bits black.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

import numpy as np
from PIL import Image, ImageFile, ImageOps

from fsad_edge.errors import ImageError, InputError
from fsad_edge.runtime.arrays import AnyArray, IndexArray
from fsad_edge.runtime.brightness import CAMERA_BITS, Brightness, brightness
from fsad_edge.runtime.documents import STATED, Range
from fsad_edge.runtime.pillow_layouts import change_raw_modes, other_bytes, stretch_few_bits
from fsad_edge.runtime.sample_formats import SampleFormat, Samples, first
from fsad_edge.runtime.strips import strip_arrays

#: The samples of an image, each time from the top: strips ``[h, W]`` or ``[h, W, 3]`` of it, each
#: with its first row.
_Parts: TypeAlias = Callable[[], Iterator[tuple[int, AnyArray]]]

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
        return image if samples.bits is None else stretch_few_bits(image, samples.bits)
    if samples.kind is Samples.COLOUR16:
        bits = scale.bits or samples.bits
        _check_alpha(image, samples, name)
        if bits == 16 or (bits is None and brightness(_count_upper(image)).fills):
            return image
        if samples.upper_only:
            raise ImageError(without_lower_bytes(name))
        parts = _merged(image, lower_bytes(), name)
        return _shifted(parts, "RGB", image.size, samples, scale, name)
    parts = _grey(image, samples)
    if samples.kind is Samples.GREY16:
        return _shifted(parts, "L", image.size, samples, scale, name)
    low, high = scale.range or samples.range or _unit_range(*_ends(parts), samples, name)
    result = Image.new("L", image.size)
    for top, values in parts():
        # float64 holds every 32-bit value
        grey = (np.nan_to_num(values.astype(np.float64), nan=low) - low) / (high - low)
        eight = (grey.clip(0, 1) * 255).round().astype(np.uint8)
        result.paste(Image.fromarray(255 - eight if samples.inverted else eight), (0, top))
    return result


def find_samples(
    image: Image.Image,
    samples: SampleFormat,
    name: str,
    lower_bytes: Callable[[], Image.Image],
) -> FoundSamples | None:
    """The range of a loaded image's samples; None for one of 8 bits. Arguments as above."""
    if samples.kind is Samples.BYTES:
        return None
    if samples.kind not in {Samples.GREY16, Samples.COLOUR16}:
        least, most = _ends(_grey(image, samples))
        if least > most:
            raise ImageError(f"{name} holds no finite value.")
        return FoundSamples(samples, least, most)
    if samples.upper_only:
        _check_alpha(image, samples, name)
        counts = _count_upper(image)
    elif samples.kind is Samples.COLOUR16:
        counts = _count(_merged(image, lower_bytes(), name))
    else:
        counts = _count(_grey(image, samples))
    found = np.flatnonzero(counts)
    return FoundSamples(samples, float(found[0]), float(found[-1]), brightness(counts))


def without_lower_bytes(name: str) -> str:
    """The sentence for 16-bit colours of fewer bits whose lower bytes cannot be had."""
    return (
        f"{name} holds 16-bit colours in a layout of which only the upper 8 bits are read, too "
        "little for values that do not fill 16 bits: save it as PNG of 16 bits, or as TIFF of "
        "16 bits with RGB side by side and no alpha."
    )


def load_lower_bytes(image: ImageFile.ImageFile) -> Image.Image:
    """Load the lower bytes of 16-bit colours, of which Pillow loads the upper ones.

    Args:
        image: opened again and not loaded yet.
    """
    grey = str(first(image.tile[0][3])).startswith("LA")
    change_raw_modes(image, other_bytes)
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


def _known_bits(parts: _Parts, samples: SampleFormat, scale: ImageScale, name: str) -> int:
    bits = samples.bits if samples.certain else scale.bits or samples.bits
    if bits is not None and max(int(values.max()) for _, values in parts()) < 2**bits:
        return bits
    found = brightness(_count(parts))
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


def _ends(parts: _Parts) -> tuple[float, float]:
    """The lowest and the highest finite value; the lowest is above the highest if none is."""
    least, most = math.inf, -math.inf
    for _, values in parts():
        finite = values[np.isfinite(values)]
        if finite.size:
            least, most = min(least, float(finite.min())), max(most, float(finite.max()))
    return least, most


def _unit_range(least: float, most: float, samples: SampleFormat, name: str) -> tuple[float, float]:
    least, most = (least, most) if least <= most else (0.0, 0.0)
    if samples.kind is Samples.FLOAT and least >= 0 and most <= 1:
        return 0.0, 1.0
    low, high = likely_range(least, most, samples.kind)
    raise ImageError(
        f"{name} is a {samples.kind} file with values from {least:g} to {most:g}, and it is not "
        "known which of them are black and white: say so once with  fsad-edge finetune --range "
        f"{low:g} {high:g}  (ImageScale(range=({low:g}, {high:g})) in Python)."
    )


def _shifted(
    parts: _Parts,
    mode: str,
    size: tuple[int, int],
    samples: SampleFormat,
    scale: ImageScale,
    name: str,
) -> Image.Image:
    """The image of unsigned 16-bit samples, in mode ``L`` or ``RGB``, of width and height."""
    shift = _known_bits(parts, samples, scale, name) - 8
    result = Image.new(mode, size)
    for top, values in parts():
        eight = (values >> shift).clip(0, 255).astype(np.uint8)
        result.paste(Image.fromarray(255 - eight if samples.inverted else eight), (0, top))
    return result


def _count(parts: _Parts) -> IndexArray:
    """How many samples have each of the values of 16 bits, intp ``[65536]``."""
    counts = np.zeros(65536, np.intp)
    for _, values in parts():
        counts += np.bincount(values.ravel(), minlength=65536)
    return counts


def _grey(image: Image.Image, samples: SampleFormat) -> _Parts:
    """The samples of a grey image, in their own type."""

    def parts() -> Iterator[tuple[int, AnyArray]]:
        for top, values in strip_arrays(image):
            if samples.kind is Samples.GREY16:
                yield top, values.astype(np.uint16)  # Pillow holds some in 32 bits
            else:
                yield top, values if samples.dtype is None else values.view(samples.dtype)

    return parts


def _merged(upper: Image.Image, lower: Image.Image, name: str) -> _Parts:
    """16-bit samples of their bytes, uint16 ``[h, W, 3]``; an opaque alpha channel is left out."""
    if upper.mode not in {"RGB", "RGBA"}:
        raise ImageError(
            f"{name} has 16-bit samples of the mode {upper.mode} and fewer significant bits: save "
            "it as grey or RGB."
        )

    def samples() -> Iterator[tuple[int, AnyArray]]:
        for (top, high), (_, low) in zip(strip_arrays(upper), strip_arrays(lower), strict=True):
            yield top, high.astype(np.uint16) << 8 | low

    if upper.mode == "RGBA":
        ends = [(values[..., 3].min(), values[..., 3].max()) for _, values in samples()]
        if min(ends)[0] < max(most for _, most in ends) or not ends[0][0]:
            raise ImageError(
                f"{name} has transparent parts in 16-bit samples: save it without them."
            )
    return lambda: ((top, values[:, :, :3]) for top, values in samples())


def _check_alpha(image: Image.Image, samples: SampleFormat, name: str) -> None:
    """Refuse colours that were divided by an alpha of which it is not known what opaque is."""
    if samples.upper_only and image.mode == "RGBA" and not image.getchannel("A").histogram()[255]:
        raise ImageError(without_lower_bytes(name))


def _count_upper(image: Image.Image) -> IndexArray:
    """As :func:`_count`, of the upper bytes at their places, without alpha."""
    colours = len(image.getbands()) - image.mode.upper().endswith("A")
    counts = np.zeros(65536, np.intp)
    counts[::256] = np.reshape(image.histogram(), (-1, 256))[:colours].sum(axis=0)
    counts[65535], counts[0xFF00] = counts[0xFF00], 0
    return counts


def upright(image: Image.Image) -> Image.Image:
    """Load an image and turn it as its EXIF says."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image
