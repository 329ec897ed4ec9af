"""Decoding and resizing: the one way from a file to pixels, in training, calibration and serving.

It needs numpy and Pillow only. The model's graph starts where this module ends: at uint8 RGB of the
model's size.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile

from fsad_edge.errors import FsadEdgeError, ImageError
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.decode_cost import USE, admitted, check_scans, peak_bytes
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.file_pages import check_single_ppm, tiff_pages
from fsad_edge.runtime.files import open_regular
from fsad_edge.runtime.image_scale import (
    UNASKED,
    FoundSamples,
    ImageScale,
    find_samples,
    load_lower_bytes,
    to_eight_bits,
    upright,
)
from fsad_edge.runtime.opening import FORMATS, MAX_PAGES, open_image
from fsad_edge.runtime.pillow_layouts import mend_layout
from fsad_edge.runtime.sample_formats import SampleFormat, Samples, sample_format
from fsad_edge.runtime.strips import as_rgb, in_strips, strips
from fsad_edge.runtime.unreadable import not_a_file, unreadable

#: The most pixels that are decoded. Photographs of parts are rarely larger, and a file of 10 kB can
#: claim any size.
MAX_PIXELS = 89_478_485

#: The most pixels of all frames of a file together, each of which is decoded to be counted.
MAX_FRAME_PIXELS = 500_000_000

#: The shortest side, in pixels, that still holds one patch of a stride-16 map.
MIN_SIDE = 16


#: Under this name an image that was decoded at a fraction of its size holds its full one, upright.
_STORED = "fsad-edge stored size"

#: An image is taken to show nothing where the standard deviation of each channel, at the model's
#: size, is below this many grey levels. Of 3,400 photographs of seven kinds of parts and of the
#: world, the flattest has 4.3; a lens cap with its sensor's noise has less than 1.
LEAST_CONTRAST = 1.0

#: The same where no value is above this: the darkest of those photographs reaches 48.
DARKEST = 15


@dataclass(frozen=True)
class ImagePage:
    """One page of a file with several, such as a TIFF, a GIF or a WebP.

    Attributes:
        path: the file.
        number: the page, counted from 1.
    """

    path: Path
    number: int

    def __str__(self) -> str:
        return f"{self.path}#{self.number}"


#: An image file, a page of one, or the bytes of a file.
Encoded = str | Path | ImagePage | bytes


def load_image(source: Encoded, scale: ImageScale = UNASKED) -> UInt8Array:
    """Decode an image file, or the bytes of one, at its own size.

    Images that are scored come through :func:`load_resized` instead, whose pixels differ a little
    where a JPEG is much larger than the model's input.

    Returns:
        uint8 ``[H, W, 3]``, RGB, as :func:`decode` reads it.

    Raises:
        ImageError: as :func:`decode`, or it is neither a path nor bytes.

    Example:
        >>> height, width, channels = load_image(photograph).shape
        >>> channels
        3
    """
    if not isinstance(source, (str, os.PathLike, ImagePage, bytes)) or source == "":
        raise ImageError(f"an image file is a path or its bytes, not {source!r}.")
    with GATE.working():
        return as_rgb(decode(source, scale=scale))


def load_resized(
    source: Encoded, height: int, width: int, scale: ImageScale = UNASKED
) -> UInt8Array:
    """Decode an image and bring it to the model's size, the one way that every use shares.

    Returns:
        uint8 ``[height, width, 3]``, RGB.

    Raises:
        ImageError: as :func:`decode`.
    """
    with GATE.working():
        return resize(decode(source, (height, width), scale), height, width)


def load_at_most(source: Encoded, side: int, scale: ImageScale = UNASKED) -> UInt8Array:
    """Decode an image for a picture whose longer side has ``side`` pixels at most.

    Returns:
        uint8 ``[H, W, 3]``, RGB.

    Raises:
        ImageError: as :func:`decode`.
    """
    with GATE.working():
        image = decode(source, (side, side), scale)
        factor = side / max(image.size)
        if factor < 1:
            width, height = (max(1, round(length * factor)) for length in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        return as_rgb(image)


def decode(
    source: Encoded,
    at_least: tuple[int, int] | None = None,
    scale: ImageScale = UNASKED,
    use: int = USE,
) -> Image.Image:
    """Decode an image file, or the bytes of one.

    Every mode that Pillow opens is read. EXIF rotation is applied, and transparent parts become
    black; the fourth byte of a BMP, which most programs leave 0, is no transparency. Samples of
    more than 8 bits are scaled by what the file says of them or by ``scale``, never by their
    highest value, so that two exposures stay different. A file of several pages is refused, unless
    one of them is named. The further pictures of a camera's MPO, and the thumbnails and masks in a
    TIFF, are no pages.

    Args:
        source: a file, a page of one or the bytes of a file.
        at_least: height and width in pixels that are enough. A JPEG is then decoded at the smallest
            of 1, 1/2, 1/4 and 1/8 of its size that is not below them, which is faster. None decodes
            all pixels.
        scale: black and white in files of more than 8 bits.
        use: bytes for each pixel that are held besides the image when it is used.

    Returns:
        The image in memory, mode ``RGB`` or ``L``.

    Raises:
        ImageError: not an image, damaged, of several pages, larger than ``MAX_PIXELS``, smaller
            than a patch, of too many scans, wholly transparent, or of samples whose black and white
            are not known.
        ImageTooLargeError: it takes more memory than there is for decoding.
        BusyError: that memory did not become free in the time that is waited for it
            (:meth:`~fsad_edge.runtime.decode_gate.DecodeGate.working`); by default it always is.
    """
    name = _name_of(source)
    with _opened(source, name, at_least, use) as (image, samples):
        upright(image)  # the file is closed on return
        eight_bits = to_eight_bits(image, samples, scale, name, lambda: _lower_bytes(source, name))
        return _without_alpha(eight_bits, image.format, name)


def stored_size(image: Image.Image | UInt8Array) -> tuple[int, int]:
    """Width and height of a photograph as it is seen, at the full resolution of its file.

    Args:
        image: the result of :func:`decode`, whose own size may be a fraction of it; any other image
            has its own size.
    """
    if isinstance(image, np.ndarray):
        return image.shape[1], image.shape[0]
    width, height = stored = image.info.get(_STORED, image.size)
    # Whoever has cropped or resized the image since then has made another photograph of it.
    decoded = ((-(-width // scale), -(-height // scale)) for scale in (2, 4, 8))
    return stored if image.size in decoded else image.size


def samples_of(source: Encoded) -> FoundSamples | None:
    """The samples of an image of more than 8 bits, to find out what black and white are in it.

    Returns:
        None where it has 8 bits; it is not decoded then.

    Raises:
        ImageError: as :func:`decode`.
    """
    name = _name_of(source)
    with _opened(source, name) as (image, samples):
        if samples.kind is Samples.BYTES:
            return None
        return find_samples(upright(image), samples, name, lambda: _lower_bytes(source, name))


def find_pages(path: Path) -> list[Path] | list[ImagePage]:
    """The pages of an image file, or the file itself where it has one.

    Raises:
        ImageError: it cannot be read.
    """
    name = str(path)
    with _pillow_open(path, name) as image:
        # A TIFF's pages are found undecoded; other frames are decoded to be counted.
        is_decoded = image.format != "TIFF" and getattr(image, "is_animated", False)
        with admitted(image, name) if is_decoded else contextlib.nullcontext():
            count = len(_pages(image, name, MAX_PAGES + 1))
    if count > MAX_PAGES:
        raise ImageError(f"{name} holds more than {MAX_PAGES:,} pages or frames: split it.")
    return [path] if count == 1 else [ImagePage(path, number + 1) for number in range(count)]


def check_content(image: UInt8Array, name: str = "the image") -> None:
    """Refuse an image that shows nothing, on which every model is blind.

    Args:
        image: uint8 ``[H, W, 3]`` at the model's size.
        name: of the image, for the error.

    Raises:
        ImageError: all its pixels are alike or next to it, or next to black.
    """
    counts = np.array(Image.fromarray(image).histogram(), np.float64).reshape(3, 256)
    most = int(np.flatnonzero(counts.any(axis=0))[-1])
    if most <= DARKEST:
        raise ImageError(
            f"{name} shows nothing: it is black (the brightest value is {most} of 255); check the "
            "lamp, the lens cap and the exposure."
        )
    share, levels = counts / counts.sum(axis=1, keepdims=True), np.arange(256)
    mean = share @ levels
    contrast = np.sqrt((share * (levels - mean[:, None]) ** 2).sum(axis=1)).max()
    if contrast < LEAST_CONTRAST:
        colour = ", ".join(f"{value:.0f}" for value in mean)
        raise ImageError(
            f"{name} shows nothing: all its pixels are alike (RGB {colour}); check the lamp, the "
            "camera and the exposure."
        )


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
    stored = image.size
    image.draft(None, (height, width) if on_its_side else (width, height))
    if image.size != stored:
        image.info[_STORED] = stored[::-1] if on_its_side else stored


def _name_of(source: Encoded) -> str:
    return "the image" if isinstance(source, bytes) else str(source)


@contextlib.contextmanager
def _pillow_open(source: Encoded, name: str) -> Iterator[ImageFile.ImageFile]:
    """An image that Pillow has opened; what it raises in the block becomes an ImageError."""
    if isinstance(source, ImagePage):
        source = source.path
    file = source if isinstance(source, bytes) else Path(source)
    if isinstance(file, Path) and (words := not_a_file(file, name)):
        raise ImageError(words)
    try:
        # Pillow gets no path: it would map a file into memory, and some turned ones wrongly.
        with (
            io.BytesIO(file) if isinstance(file, bytes) else open_regular(file) as opened,
            open_image(opened, name) as image,
        ):
            yield image
    except FsadEdgeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"{name} claims more than the {MAX_PIXELS:,} pixels that are decoded: "
            "crop it or make it smaller."
        ) from None
    # Pillow's decoders raise many types for broken files; each of them means the same to the user.
    except Exception as error:
        raise unreadable(error, file, name, FORMATS) from error


@contextlib.contextmanager
def _opened(
    source: Encoded, name: str, at_least: tuple[int, int] | None = None, use: int = USE
) -> Iterator[tuple[ImageFile.ImageFile, SampleFormat]]:
    """An image at the page that is meant, and what it says of its samples.

    Nothing is decoded before the gate has let it in. Arguments are as of :func:`decode`.
    """
    with _pillow_open(source, name) as image:
        number = source.number if isinstance(source, ImagePage) else 1
        if image.format == "TIFF":  # whose pages have sizes of their own, and are found undecoded
            _seek(image, number, isinstance(source, ImagePage), name)
        _check_size(image, name)
        check_scans(image, name)
        pixels = image.width * image.height
        if at_least is not None:
            _draft(image, *at_least)
        mend_layout(image, name)
        samples = sample_format(image)
        with GATE.admit(peak_bytes(image, samples, pixels, use), name):
            if image.format != "TIFF":
                _seek(image, number, isinstance(source, ImagePage), name)
            yield image, samples


def _seek(image: ImageFile.ImageFile, number: int, is_named: bool, name: str) -> None:
    """Go to a page; the only one, unless it is named."""
    pages = _pages(image, name, max(number, 2))
    if len(pages) > 1 and not is_named:
        raise ImageError(
            f"{name} holds several pages or frames, and one image is wanted: save each as a "
            "file of its own."
        )
    if not 1 <= number <= len(pages):
        raise ImageError(f"{name} does not exist: the file has {len(pages)} pages.")
    image.seek(pages[number - 1])


def _pages(image: ImageFile.ImageFile, name: str, most: int) -> list[int]:
    """The first ``most`` frames that are pages, if there are as many; the file is left anywhere.

    A small file can hold a million frames, so that no more are counted than are asked for.
    """
    if image.format == "TIFF":
        return tiff_pages(image, name, most, MAX_PAGES + most)
    if image.format == "PPM":
        check_single_ppm(image, name)
    # The further pictures of an MPO are views and previews of the same photograph.
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return [0]
    if most <= 2:
        return [0, 1]
    _check_size(image, name)  # before frames are decoded
    pages = [0]
    with contextlib.suppress(EOFError):
        while len(pages) < most:
            if image.width * image.height * len(pages) > MAX_FRAME_PIXELS:
                raise ImageError(
                    f"{name} holds frames of more than {MAX_FRAME_PIXELS:,} pixels together: split "
                    "it."
                )
            image.seek(len(pages))
            pages.append(len(pages))
    return pages


def _lower_bytes(source: Encoded, name: str) -> Image.Image:
    with _opened(source, name) as (image, _):
        return load_lower_bytes(image)


def _without_alpha(image: Image.Image, kind: str | None, name: str) -> Image.Image:
    """The image in mode ``RGB`` or ``L``."""
    if not image.has_transparency_data or kind in {"BMP", "DIB"}:
        return image if image.mode in {"RGB", "L"} else image.convert("RGB")
    # The whole image is looked at first, since what it is over black may be black.
    if not any(strip.convert("RGBA").getchannel("A").getextrema()[1] for _, strip in strips(image)):
        raise ImageError(f"{name} shows nothing: it is wholly transparent; save it without.")

    def over_black(strip: Image.Image) -> Image.Image:
        rgba = strip.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")

    return in_strips(image, "RGB", over_black)
