"""From the pixels of a mask file to the pixels of the defect, whatever a program wrote into it.

A mask can be black and white, hold numbers of classes, have soft edges, a palette, colours or
transparency. Each kind is first brought to one number a pixel, which is 0 on the background. Then
one rule decides which numbers mark the defect. What could be read in two ways is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fsad_edge.errors import ImageError
from fsad_edge.runtime.arrays import BoolArray, Float64Array, UInt8Array
from fsad_edge.runtime.decode_cost import admitted
from fsad_edge.runtime.files import open_regular
from fsad_edge.runtime.images import MAX_PIXELS
from fsad_edge.runtime.opening import open_image
from fsad_edge.runtime.pillow_layouts import mend_layout
from fsad_edge.runtime.sample_formats import PHOTOMETRIC, WHITE_IS_ZERO

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
LOSSY_NOISE = 8  # how far compression moves values where no edge is near
_FLAT = 0.8  # share of equal neighbours above which a region is a class
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
        with open_regular(path) as file:
            image = open_image(file, f"the mask {path}")
            lossy = is_lossy(image)
            _check_storage(image, path)
            mend_layout(image, f"the mask {path}")
            with admitted(image, f"the mask {path}"):
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
    deep = image.mode.startswith("I") or image.mode == "F"
    if deep and image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # type: ignore[attr-defined]
        raise ImageError(
            f"the mask {path} is a TIFF of more than 8 bits in which 0 is white: save it as PNG, "
            "black with the defect in white."
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
    """Which numbers mark the defect: all but 0, without soft edges and the noise of JPEG."""
    top = float(numbers.max())
    if top == 0:
        return np.zeros(numbers.shape, dtype=bool)
    if lossy and top < LOSSY_DARK:
        raise ImageError(
            f"the mask {path} is almost black, and its compression changes values, so that a "
            "defect cannot be told from noise: save it as PNG."
        )
    bright: BoolArray = numbers >= top / 2
    if not lossy and _are_classes(numbers, bright):
        return np.asarray(numbers > 0)
    drawn, unclear = np.zeros(numbers.shape, dtype=bool), False
    if lossy:
        unclear = _has_faint_regions(numbers, bright)
    else:
        drawn, unclear = _dim_regions(numbers, bright)
    few = not lossy and _count(numbers) <= MOST_CLASSES
    shaded = not few and _shaded(np.where(drawn, 0, numbers), bright) > MOST_SHADED
    if shaded or unclear:
        raise ImageError(
            f"the mask {path} has shades that are neither background nor the edge of a defect, as "
            "a photograph has: give a mask that is black, with all defects in white, as PNG."
        )
    return bright | drawn


def _count(numbers: Numbers) -> int:
    """The number of classes, if the numbers are classes."""
    values = np.unique(numbers)
    return len(values) - int(values[0] == 0)


def _are_classes(numbers: Numbers, bright: BoolArray) -> bool:
    """Whether all numbers of a lossless mask are classes, with no soft edge among them."""
    dim = (numbers > 0) & ~bright
    if not dim.any():
        return True
    few = _count(numbers) <= MOST_CLASSES
    if few and numbers.max() < CLASS_NUMBERS_BELOW:
        return True
    near = dim & _grown(bright)
    if few and (dim & ~near).any() and _is_flat(numbers, dim & ~near):
        return True
    # An edge and noise of JPEG are beside bright pixels and have shades.
    return (not near.any() or numbers.max() < CLASS_NUMBERS_BELOW) and _is_flat(numbers, dim)


def _dim_regions(numbers: Numbers, bright: BoolArray) -> tuple[BoolArray, bool]:
    """The dim regions of a lossless mask that are defects, and whether others may be.

    A flat region is a defect. Shades near a bright region are its edge or noise of JPEG; shades
    away from all bright ones are a defect of their own if they are far brighter than noise.
    """
    from scipy.ndimage import distance_transform_cdt, label  # a device may be without it

    dim = (numbers > 0) & ~bright
    away = distance_transform_cdt(~bright, "chessboard")
    regions, count = label(dim & (away > SOFT_EDGE), _EIGHT_NEIGHBOURS)
    whole, wholes = label(numbers > 0, _EIGHT_NEIGHBOURS)
    lone = _any_of(regions, count, ~_any_of(whole, wholes, bright)[whole])
    far = _any_of(regions, count, away > JPEG_BLOCK)
    flat = lone & (_equal_pairs(numbers, regions, count) > _FLAT)
    flat[0] = lone[0] = far[0] = False
    if not _is_flat(
        numbers, dim & (away > SOFT_EDGE) & (away <= JPEG_BLOCK)
    ):  # noise of JPEG is there, some of which is flat
        flat &= far
    drawn = flat[regions] | _plateaus(numbers, dim & (away > SOFT_EDGE))
    # The seam of a flat region with a bright one has its value.
    drawn |= dim & _grown(drawn) & np.isin(numbers, np.unique(numbers[drawn]))
    peaks = np.zeros(count + 1, dtype=numbers.dtype)
    np.maximum.at(peaks, regions.ravel(), np.where(regions > 0, numbers, 0).ravel())
    soft = lone & ~flat & (peaks >= numbers.max() / 4)
    unclear = ((far & lone & ~soft)[regions] | (away > 4 * JPEG_BLOCK) & dim) & ~drawn
    drawn |= soft[regions] & (numbers >= peaks[regions] / 2)
    return drawn, float((unclear & ~drawn).mean()) > MOST_APART


def _plateaus(numbers: Numbers, where: BoolArray) -> BoolArray:
    """Blocks of 3 by 3 equal numbers that are brighter than noise; no edge has them."""
    from scipy.ndimage import binary_dilation, maximum_filter, minimum_filter

    size = np.ones((3, 3), dtype=bool)
    equal = maximum_filter(numbers, footprint=size) == minimum_filter(numbers, footprint=size)
    blocks = equal & where & (numbers > LOSSY_NOISE)
    return np.asarray(binary_dilation(blocks, _EIGHT_NEIGHBOURS) & where)


def _has_faint_regions(numbers: Numbers, bright: BoolArray) -> bool:
    """Whether a lossy mask has regions that are brighter than noise and no edge of a bright one.

    The noise of JPEG is in the block of pixels that an edge is in.
    """
    from scipy.ndimage import binary_opening, label

    faint: BoolArray = (numbers > LOSSY_NOISE) & ~bright
    far = faint & ~_grown(bright, JPEG_BLOCK)
    regions, count = label(numbers > LOSSY_NOISE, _EIGHT_NEIGHBOURS)
    lone = ~_any_of(regions, count, bright)[regions]
    solid = binary_opening(lone & (numbers >= numbers.max() / 8), np.ones((5, 5), dtype=bool))
    speck = binary_opening(far & lone, np.ones((2, 2), dtype=bool))
    return bool(solid.any() or speck.any() or far.mean() > MOST_APART)


def _any_of(regions: NDArray[np.int32], count: int, where: BoolArray) -> BoolArray:
    """For each region, whether any of its pixels is where."""
    return np.bincount(regions[where], minlength=count + 1) > 0


def _equal_pairs(numbers: Numbers, regions: NDArray[np.int32], count: int) -> Float64Array:
    """For each region, the share of neighbours that are equal; 1 where there are none."""
    pairs, equal = np.zeros(count + 1), np.zeros(count + 1)
    for values, at in ((numbers, regions), (numbers.T, regions.T)):
        both = at[1:] == at[:-1]
        same = both & (values[1:] == values[:-1])
        pairs += np.bincount(at[1:][both], minlength=count + 1)
        equal += np.bincount(at[1:][same], minlength=count + 1)
    return np.divide(equal, pairs, out=np.ones(count + 1), where=pairs > 0)


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
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(region, _EIGHT_NEIGHBOURS, iterations=pixels))


def _is_flat(numbers: Numbers, region: BoolArray) -> bool:
    """Whether neighbours are equal, as in a class; not so in noise of JPEG that became a PNG."""
    return bool(_equal_pairs(numbers, region.astype(np.int32), 1)[1] > _FLAT)
