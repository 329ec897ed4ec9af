"""From the pixels of a mask file to the pixels of the defect, whatever a program wrote into it.

A mask can be black and white, hold numbers of classes, have soft edges, a palette, colours or
transparency. Each kind is first brought to one number a pixel, which is 0 on the background. Then
one rule decides which numbers mark the defect. What could be read in two ways is refused.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.ndimage import binary_dilation, label

from fsad_edge.errors import ImageError
from fsad_edge.runtime.arrays import BoolArray, UInt8Array
from fsad_edge.runtime.images import FORMATS, MAX_PIXELS

#: ``[H, W]``, of the type that the file has, 0 on the background.
Numbers: TypeAlias = NDArray[Any]

#: A mask with more different values than this has shades, not classes.
MOST_CLASSES = 32
#: Values that are all below this are numbers of classes: no mask with shades is so dark.
CLASS_NUMBERS_BELOW = 64
#: Up to this many pixels from a bright pixel, a darker one is the soft edge of a defect.
SOFT_EDGE = 3
JPEG_BLOCK = 16  # pixels, with the colour at half the size
#: A lossy file that is darker than this holds noise, or numbers that the compression has changed.
LOSSY_DARK = 32
#: Share of the image in middle shades, but for soft edges, above which it is a photograph. Masks of
#: Magnetic Tile, with soft edges and the noise of JPEG, reach 0.0004; of 297 photographs the lowest
#: has 0.07.
MOST_SHADED = 0.03
#: Share of the image in dark regions of their own above which these may be defects. The masks of
#: Magnetic Tile reach 0.0001.
MOST_APART = 0.001

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def read_defect(path: Path, inverted: bool = False) -> BoolArray:
    """Read which pixels a mask file marks.

    Args:
        path: an image file. Numbers of classes (any but 0 is a defect), soft edges and noise of
            JPEG, 8 and 16 bits, palettes, colours on black or white, and transparency are read.
        inverted: whether the defect is black, or a colour, and the rest white.

    Returns:
        bool ``[H, W]``, True on the defect, after EXIF rotation.

    Raises:
        ImageError: the file cannot be read, or could be read in two ways; the sentence says how to
            save it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=FORMATS)
        with opened as image:
            lossy = is_lossy(image)
            _check_storage(image, path)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _marked(_numbers(image, path, inverted), path, lossy)
    except ImageError:
        raise
    # Pillow's decoders raise many types for broken files; each of them means the same to the user.
    except Exception as error:
        raise ImageError(f"the mask {path} cannot be read ({error}): mend or remove it.") from error


def is_lossy(image: Image.Image) -> bool:
    """Whether the file's compression changes values; the image is opened and not yet loaded."""
    lossy_formats = {"JPEG", "MPO", "JPEG2000", "WEBP"}
    return image.format in lossy_formats or image.info.get("compression") == "jpeg"


def _check_storage(image: Image.Image, path: Path) -> None:
    """Refuse what Pillow would read in part only; the image is opened and not yet loaded."""
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"the mask {path} has more than {MAX_PIXELS:,} pixels: make it smaller.")
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        raise ImageError(
            f"the mask {path} holds {pages} pages, and only one is expected: save each as a file "
            "of its own in a folder with the name of its image."
        )
    if not image.mode.startswith("I") and _drops_bits(image):
        raise ImageError(
            f"the mask {path} stores colours of 16 bits, of which only the upper 8 can be read: "
            "save it with 8 bits a colour, or as grey."
        )


def _drops_bits(image: Image.Image) -> bool:
    """Whether Pillow drops the lower half of 16 bits for each colour while it decodes."""
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _numbers(image: Image.Image, path: Path, inverted: bool) -> Numbers:
    """One number a pixel, 0 on the background."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_grey(np.asarray(image), path, inverted)
    first = None
    if image.mode == "P":
        indices = np.asarray(image)
        palette = image.convert("RGBA")
        if len(palette.getcolors(MOST_CLASSES) or ()) == 1:  # the palette was never filled in
            return _from_grey(indices, path, inverted)
        if (indices == 0).any():
            first = np.asarray(palette.convert("RGB"))[indices == 0][0]
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        alpha = rgba[..., 3]
        if alpha.min() != alpha.max():
            return _from_alpha(rgba, path, inverted)
        if alpha.max() == 0 and (rgba == rgba[0, 0]).all():  # nothing was painted on this layer
            return np.zeros_like(alpha)
    rgb = np.asarray(image.convert("RGB"))
    if (rgb == rgb[..., :1]).all():
        return _from_grey(rgb[..., 0], path, inverted)
    return _from_colour(rgb, first, path, inverted)


def _from_grey(grey: Numbers, path: Path, inverted: bool) -> Numbers:
    top = grey.max()
    if not (np.isfinite(top) and grey.min() >= 0):
        raise ImageError(
            f"the mask {path} holds values below 0 or values that are not numbers: save it with 0 "
            "for the background and positive values for defects."
        )
    if inverted:
        grey = top - grey if top > 0 else np.ones_like(grey)
    if grey.dtype.kind == "f" and top <= 1 and (grey != grey.round()).any():
        grey = grey * 255  # shades from 0 to 1, not numbers of classes
    return grey


def _from_alpha(rgba: UInt8Array, path: Path, inverted: bool) -> Numbers:
    """The opaque part is the defect, unless it contains a black background of its own."""
    opaque = rgba[rgba[..., 3] >= 128]
    black = (opaque[:, :3] == 0).all(axis=1)
    if black.any() and not black.all():
        raise ImageError(
            f"the mask {path} has transparent pixels, and among its opaque ones are black and "
            "others, so that it can be read in two ways: save it without transparency."
        )
    return _from_grey(rgba[..., 3], path, inverted)


def _from_colour(rgb: UInt8Array, first: UInt8Array | None, path: Path, inverted: bool) -> Numbers:
    """The distance from the background, which is black, else white, else a palette's first colour.

    Args:
        rgb: uint8 ``[H, W, 3]``.
        first: uint8 ``[3]``, the palette's first colour if the mask uses it; None without one.
    """
    has_black, has_white = (rgb.max(axis=2) < 32).any(), (rgb.min(axis=2) >= 224).any()
    if has_black and not inverted:
        background = np.zeros(3, dtype=np.int16)
    elif has_white:
        background = np.full(3, 255, dtype=np.int16)
    elif first is not None and not inverted:
        background = first.astype(np.int16)
    else:
        wanted = "white" if inverted else "black or white"
        raise ImageError(
            f"the mask {path} has colours and no {wanted} background, like a photograph: give a "
            "mask that is black, with the defect in white."
        )
    distance: Numbers = np.abs(rgb.astype(np.int16) - background).max(axis=2)
    return distance


def _marked(numbers: Numbers, path: Path, lossy: bool) -> BoolArray:
    """Which numbers mark the defect: all but 0 where they are classes, else the brighter half."""
    top = float(numbers.max())
    if top == 0:
        return np.zeros(numbers.shape, dtype=bool)
    if lossy and top < LOSSY_DARK:
        raise ImageError(
            f"the mask {path} is almost black, and its compression changes values, so that a "
            "defect cannot be told from noise: save it as PNG."
        )
    values = np.unique(numbers)
    bright: BoolArray = numbers >= top / 2
    few = not lossy and len(values) - (values[0] == 0) <= MOST_CLASSES
    if few and _are_classes(numbers, bright):
        return np.asarray(numbers > 0)
    shaded = not few and _shaded(numbers, bright) > MOST_SHADED
    if shaded or _apart(numbers, bright) > MOST_APART:
        raise ImageError(
            f"the mask {path} has shades that are neither background nor the edge of a defect, as "
            "a photograph has: give a mask that is black, with all defects in white, as PNG."
        )
    return bright


def _apart(numbers: Numbers, bright: BoolArray) -> float:
    """The share of the image in regions that are not black, have no bright pixel and are near none.

    The noise of JPEG is in the block of pixels that an edge is in.
    """
    regions, count = label(numbers >= numbers.max() / 8, _EIGHT_NEIGHBOURS)
    dim = np.ones(count + 1, dtype=bool)
    dim[0] = False  # what is in no region
    dim[regions[bright]] = False
    if not dim.any():
        return 0.0
    return float((dim[regions] & ~_grown(bright, JPEG_BLOCK)).mean())


def _shaded(numbers: Numbers, bright: BoolArray) -> float:
    """The share of the image in middle shades that are on no edge of a defect."""
    top = float(numbers.max())
    dark: BoolArray = numbers < top / 8
    middle = ~dark & (numbers < top * 7 / 8)
    if not middle.any():
        return 0.0
    return float((middle & ~(_grown(dark) & _grown(bright))).mean())


def _grown(region: BoolArray, pixels: int = SOFT_EDGE) -> BoolArray:
    """The region and what is at most some pixels away from it."""
    return np.asarray(binary_dilation(region, _EIGHT_NEIGHBOURS, iterations=pixels))


def _are_classes(numbers: Numbers, bright: BoolArray) -> bool:
    """Whether the few values of a lossless mask are classes, not the shades of soft edges."""
    if numbers.max() < CLASS_NUMBERS_BELOW or not ((numbers > 0) & ~bright).any():
        return True
    apart = (numbers > 0) & ~_grown(bright)
    return bool(apart.any()) and _is_flat(numbers, apart)


def _is_flat(numbers: Numbers, region: BoolArray) -> bool:
    """Whether neighbours are equal, as in a class; not so in noise of JPEG that became a PNG."""
    equal = [
        numbers[1:][both] == numbers[:-1][both]
        for numbers, both in (
            (numbers, region[1:] & region[:-1]),
            (numbers.T, region.T[1:] & region.T[:-1]),
        )
    ]
    pairs = np.concatenate(equal)
    return pairs.size == 0 or bool(pairs.mean() > 0.8)
