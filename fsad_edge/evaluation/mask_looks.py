"""Whether an image looks like a mask, to find masks that lie among photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fsad_edge.evaluation.mask_pixels import MOST_CLASSES, Numbers, is_lossy
from fsad_edge.runtime.decode_cost import admitted
from fsad_edge.runtime.files import open_regular
from fsad_edge.runtime.opening import open_image

#: The least share of neighbours that are equal, where an image has few values or a black ground.
_FLAT_CLASSES, _FLAT_SHADES = 0.9, 0.95
#: The least share of the ground, and of the ground and the defect, which are black and white.
_GROUND, _BLACK_AND_WHITE = 0.5, 0.9
_BLACK_ON_WHITE = 0.98  # parts are often photographed on white
#: How far the compression moves values of black and of white that are not near an edge.
_NOISE = 8
#: A file that allows it is decoded at a fraction of its size, but no smaller than this.
_LEAST_SIDE = 256


def looks_like_mask(path: Path, or_empty: bool = False, shades: bool = True) -> bool:
    """Whether an image is flat like a drawing: few values, or shades on a flat black ground only.

    A photograph can look like this, too, such as a part before a lamp: compare with others of its
    kind.

    Args:
        path: the image file.
        or_empty: what to say of an image of one colour, which may be an empty mask.
        shades: whether shades on black are enough; not where photographs are dark.

    Returns:
        False for an image that cannot be read.
    """
    read = _pixels(path)
    if read is None:
        return False
    pixels, lossy = read
    if (pixels == pixels[0, 0]).all():
        return or_empty
    if lossy:
        return shades and _is_black_and_white(pixels[..., :3])
    return _is_drawn(pixels, shades)


def is_mostly_black(path: Path) -> bool:
    """Whether at least half of an image is black; False for one that cannot be read."""
    read = _pixels(path)
    if read is None:
        return False
    bright = read[0][..., :3].max(axis=2)
    black = 2 * _NOISE * max(1.0, float(bright.max()) / 255)
    return bool((bright <= black).mean() >= _GROUND)


def _pixels(path: Path) -> tuple[Numbers, bool] | None:
    """The pixels ``[H, W, C]`` and whether compression has changed them; None if not readable."""
    try:
        with open_regular(path) as file, open_image(file, str(path)) as image:
            lossy = is_lossy(image)
            image.draft(None, (_LEAST_SIDE, _LEAST_SIDE))
            with admitted(image, str(path)):
                image.load()
            if image.mode == "F" or image.mode.startswith("I"):
                return np.asarray(image)[..., None], False
            mode = "RGBA" if image.has_transparency_data else "RGB"
            return np.asarray(image.convert(mode)), lossy
    except Exception:  # of many types; scoring will say what is wrong with the image
        return None


def _is_drawn(pixels: Numbers, shades: bool) -> bool:
    """Whether ``[H, W, C]`` without compression is flat."""
    equal = [
        (pixels[1:] == pixels[:-1]).all(axis=2).ravel(),
        (pixels[:, 1:] == pixels[:, :-1]).all(axis=2).ravel(),
    ]
    flat = float(np.concatenate(equal).mean())
    if flat < _FLAT_CLASSES:
        return False
    colours = np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)
    if len(colours) <= MOST_CLASSES:
        return True
    black = (pixels == 0).all(axis=2)
    return shades and flat >= _FLAT_SHADES and float(black.mean()) >= _GROUND


def _is_black_and_white(pixels: Numbers) -> bool:
    """Whether ``[H, W, 3]`` of 8 bits with the noise of a compression is black and one shade."""
    bright, dim = pixels.max(axis=2), pixels.min(axis=2)
    if int(bright.max()) - int(dim.min()) <= 4 * _NOISE:
        return False
    black, white = bright <= _NOISE, dim >= 255 - _NOISE
    drawn = bright >= float(bright.max()) * 7 / 8
    on_black = black.mean() >= _GROUND and (black | drawn).mean() >= _BLACK_AND_WHITE
    on_white = white.mean() >= _GROUND and (black | white).mean() >= _BLACK_ON_WHITE
    return bool(on_black or on_white)
