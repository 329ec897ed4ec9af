"""Decoding and resizing: the one way from a file to pixels, in training, calibration and serving.

It needs numpy and Pillow only. The model's graph starts where this module ends: at uint8 RGB of the
model's size.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fsad_edge.errors import ImageError
from fsad_edge.runtime.arrays import UInt8Array

#: Pillow's decoders that are tried. Others start programs (EPS) or serve no camera, and each adds a
#: way in for a hostile file.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

#: The most pixels that are decoded. Photographs of parts are rarely larger, and a file of 10 kB can
#: claim any size.
MAX_PIXELS = 89_478_485

#: The shortest side, in pixels, that still holds one patch of a stride-16 map.
MIN_SIDE = 16


def load_image(source: str | Path | bytes) -> UInt8Array:
    """Decode an image file, or the bytes of one, at its own size.

    Images that are scored come through :func:`load_resized` instead, whose pixels differ a little
    where a JPEG is much larger than the model's input.

    Returns:
        uint8 ``[H, W, 3]``, RGB, as :func:`decode` reads it.

    Raises:
        ImageError: as :func:`decode`.

    Example:
        >>> height, width, channels = load_image(photograph).shape
        >>> channels
        3
    """
    return np.asarray(decode(source).convert("RGB"))


def load_resized(source: str | Path | bytes, height: int, width: int) -> UInt8Array:
    """Decode an image and bring it to the model's size, the one way that every use shares.

    Returns:
        uint8 ``[height, width, 3]``, RGB.

    Raises:
        ImageError: as :func:`decode`.
    """
    return resize(decode(source, at_least=(height, width)), height, width)


def decode(source: str | Path | bytes, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Decode an image file, or the bytes of one.

    Every mode that Pillow opens is read. EXIF rotation is applied, and transparent parts become
    black. Integer greys of 16 and 32 bits keep the upper byte of 16 bits; they are not stretched by
    content, so that two exposures stay different. Float greys are read as 0 to 1, or as 0 to 255
    where a value is above 1. Of several frames the first is taken.

    Args:
        source: a file or its bytes.
        at_least: height and width in pixels that are enough. A JPEG is then decoded at the smallest
            of 1, 1/2, 1/4 and 1/8 of its size that is not below them, which is faster. None decodes
            all pixels.

    Returns:
        The image in memory, mode ``RGB`` or ``L``.

    Raises:
        ImageError: not an image, truncated, larger than ``MAX_PIXELS`` or smaller than a patch.
    """
    name = "the image" if isinstance(source, bytes) else str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(
                io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS
            )
        with opened as image:
            _check_size(image, name)
            if at_least is not None:
                _draft(image, *at_least)
            image.load()  # the file is closed on return
            ImageOps.exif_transpose(image, in_place=True)
            return _to_eight_bits(image)
    except Image.DecompressionBombError:
        raise ImageError(
            f"{name} claims more than the {MAX_PIXELS:,} pixels that are decoded: "
            "crop it or make it smaller."
        ) from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{name} is not an image of a kind that is read ({', '.join(FORMATS)})."
        ) from None
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist.") from None
    except IsADirectoryError:
        raise ImageError(f"{name} is a folder, not an image.") from None
    except MemoryError:
        raise ImageError(f"{name} does not fit into memory: make it smaller.") from None
    except ImageError:
        raise
    # Pillow's decoders raise many types for broken files; each of them means the same to the user.
    except Exception as error:
        raise ImageError(f"{name} cannot be decoded ({error}): it may be cut short.") from error


def resize(image: UInt8Array | Image.Image, height: int, width: int) -> UInt8Array:
    """Stretch an image to the model's size: bilinear with antialiasing.

    Args:
        image: uint8 ``[H, W, 3]``, or the result of :func:`decode`.
        height: height of the result in pixels.
        width: width of the result in pixels.

    Returns:
        uint8 ``[height, width, 3]``; the same array where the size is already right.
    """
    if isinstance(image, np.ndarray):
        if image.shape[:2] == (height, width):
            return image
        image = Image.fromarray(image)
    if image.size != (width, height):
        # An image over four times too large is averaged down first: as sharp, and far quicker.
        size = (width, height)
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    # Grey becomes RGB last, for a third of the work and the same pixels.
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} claims {width}x{height} pixels, more than the {MAX_PIXELS:,} that "
            "are decoded: crop it or make it smaller."
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"{name} is {width}x{height} pixels, smaller than one patch "
            f"({MIN_SIDE}x{MIN_SIDE}): give a larger image."
        )


def _draft(image: Image.Image, height: int, width: int) -> None:
    """Let a JPEG be decoded at a fraction of its size that is not below this one."""
    if image.format not in {"JPEG", "MPO"}:
        return
    on_its_side = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # not rotated yet
    image.draft(None, (height, width) if on_its_side else (width, height))


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """The image in mode ``RGB`` or ``L``."""
    if image.mode.startswith("I"):
        grey16 = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((grey16 >> 8).astype(np.uint8))
    if image.mode == "F":
        grey = np.nan_to_num(np.asarray(image, dtype=np.float32)).clip(0, 255)
        scale = 255.0 if grey.max() <= 1.0 else 1.0
        return Image.fromarray((grey * scale).round().astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")
    return image if image.mode in {"RGB", "L"} else image.convert("RGB")
