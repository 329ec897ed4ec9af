"""A painted PNG: which pixels of a photograph a person painted over, and their outline.

A pixel is painted where it is neither transparent nor black. What could be read in two ways is
refused.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageOps

from fsad_edge.errors import FsadEdgeError, ImageError, InputError
from fsad_edge.runtime.arrays import AnyArray, BoolArray
from fsad_edge.runtime.decode_cost import admitted
from fsad_edge.runtime.images import MAX_PIXELS
from fsad_edge.runtime.opening import open_image
from fsad_edge.runtime.placement import Placement
from fsad_edge.runtime.strips import strips
from fsad_edge.runtime.zones import Corner

#: The bytes that every PNG begins with.
PNG = b"\x89PNG\r\n\x1a\n"

#: A picture without transparent pixels is a mask where this share of what is painted has one of so
#: many colours. Paint has few; a photograph that was painted over has many.
_COLOURS, _PAINT = 8, 0.8

#: About so many pixels, evenly spread, are looked at for that.
_LOOKED_AT = 1_000_000

_HOW = "paint on a transparent or a black layer of the size of the photograph, and save it as PNG"


def read_painted(
    data: bytes, name: str = "the painted mask", size: tuple[int, int] | None = None
) -> BoolArray:
    """Read which pixels are painted.

    Args:
        data: the bytes of a PNG.
        name: of the file, for errors.
        size: width and height that it must have as it is seen, pixels. Another size is refused
            before anything is decoded; None takes every size.

    Returns:
        bool ``[H, W]``, as it is seen: an EXIF rotation is applied.

    Raises:
        ImageError: it is no PNG or damaged, of several frames, wholly painted or not painted at
            all, or looks like a photograph.
        ImageTooLargeError: it takes more memory than there is for decoding.
        InputError: it has another size.
        BusyError: that memory did not become free in the time that is waited for it.
    """
    if not data.startswith(PNG):
        raise ImageError(
            f"{name} is no PNG, and other formats change colours or have no transparency: {_HOW}."
        )
    try:
        with open_image(io.BytesIO(data), name) as image:
            # A turn by EXIF is told behind the pixels, so that either side may be the width.
            if size is not None and sorted(image.size) != sorted(size):
                raise _other_size(name, image.size, size)
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"{name} claims more than the {MAX_PIXELS:,} pixels that are read: make it "
                    "smaller, with the photograph."
                )
            if getattr(image, "n_frames", 1) > 1:
                raise ImageError(f"{name} holds several frames: save one of them.")
            with admitted(image, name):
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                if size is not None and image.size != size:
                    raise _other_size(name, image.size, size)
                return _painted_in(image, name)
    except (FsadEdgeError, MemoryError):
        raise
    # Pillow's decoders raise many types for broken files; each of them means the same to the user.
    except Exception as error:
        raise ImageError(f"{name} cannot be read ({error}): {_HOW}.") from error


def _other_size(name: str, found: tuple[int, int], size: tuple[int, int]) -> InputError:
    return InputError(
        f"{name} has {found[0]} x {found[1]} pixels, and the photograph has {size[0]} x {size[1]}: "
        "paint on a layer of exactly its size."
    )


def _painted_in(image: Image.Image, name: str) -> BoolArray:
    """Which pixels of a loaded image are painted, a few rows at a time, and whether that is clear.

    Raises:
        ImageError: as :func:`read_painted`.
    """
    painted = np.empty((image.height, image.width), np.bool_)
    step = 1 + math.isqrt(image.width * image.height // _LOOKED_AT)
    colours, seen_through = [], False
    deep = image.mode.startswith("I")  # 16 bits, of which a conversion would cut some off
    for top, strip in strips(image):
        pixels = np.asarray(strip) if deep else np.asarray(strip.convert("RGBA"))
        if deep:
            found, pixels = pixels > 0, pixels[..., None]
        else:
            seen_through = seen_through or bool((pixels[..., 3] == 0).any())
            found = (pixels[..., 3] > 0) & (pixels[..., :3] > 0).any(axis=2)
            pixels = pixels[..., :3]
        painted[top : top + len(found)] = found
        rows = slice(-top % step, None, step)
        colours.append(pixels[rows, ::step][found[rows, ::step]])
    _check(painted, None if seen_through else np.concatenate(colours), name)
    return painted


def outline_in_frame(
    painted: BoolArray, place: Placement | None, rows: int, columns: int
) -> tuple[Corner, ...]:
    """The outline of what is painted, as fractions of what the model looks at.

    Patches that are apart, and holes, are joined by lines without breadth to one polygon, which is
    the same to :func:`~fsad_edge.runtime.zones.weights_of`.

    Args:
        painted: bool ``[H, W]``, of the whole photograph at any resolution.
        place: where the model looks; None for the whole photograph.
        rows: rows of points that are looked at.
        columns: columns of them.

    Returns:
        The corners; none where nothing of the frame is painted.
    """
    v, u = np.meshgrid(
        (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij"
    )
    height, width = painted.shape
    if place is not None:
        x, y = place.to_photograph(u, v)
        u, v = x / place.photograph[0], y / place.photograph[1]
    column, row = np.floor(u * width).astype(np.intp), np.floor(v * height).astype(np.intp)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    seen = np.zeros((rows, columns), np.bool_)
    seen[inside] = painted[row[inside], column[inside]]
    return tuple(
        (round(across / columns, 6), round(down / rows, 6)) for across, down in outline_of(seen)
    )


def outline_of(mask: BoolArray) -> list[tuple[int, int]]:
    """One polygon around the pixels of a mask, along their edges.

    Args:
        mask: bool ``[h, w]``.

    Returns:
        Corners, as the numbers of columns and rows before them. By the rule of odd crossings a
        pixel is inside where the mask is set.

    Example:
        >>> import numpy as np
        >>> outline_of(np.array([[False, True, True]]))
        [(1, 0), (3, 0), (3, 1), (1, 1)]
    """
    polygon: list[tuple[int, int]] = []
    for ring in _rings(mask):
        if not polygon:
            polygon = ring
            continue
        polygon += [polygon[0], *ring, ring[0]]
    return polygon


def _rings(mask: BoolArray) -> list[list[tuple[int, int]]]:
    """The closed lines between pixels that are set and others, without corners on one line."""
    padded = np.pad(mask, 1).astype(np.int8)
    ways: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def add(found: BoolArray, start: tuple[int, int], end: tuple[int, int]) -> None:
        for row, column in np.argwhere(found).tolist():
            ways.setdefault((column + start[0], row + start[1]), []).append(
                (column + end[0], row + end[1])
            )

    # Along each edge, the mask is to the right.
    above, left = np.diff(padded[:, 1:-1], axis=0), np.diff(padded[1:-1], axis=1)
    add(above == 1, (0, 0), (1, 0))
    add(above == -1, (1, 0), (0, 0))
    add(left == 1, (0, 1), (0, 0))
    add(left == -1, (0, 0), (0, 1))
    rings = []
    while ways:
        start = here = min(ways, key=lambda one: (one[1], one[0]))
        ring: list[tuple[int, int]] = []
        while True:
            after = ways[here].pop()
            if not ways[here]:
                del ways[here]
            ring.append(here)
            here = after
            if here == start:
                break
        rings.append(_without_middles(ring))
    return rings


def _without_middles(ring: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """A ring without the corners at which its direction stays."""
    around = zip([ring[-1], *ring[:-1]], ring, [*ring[1:], ring[0]], strict=True)
    return [
        here
        for before, here, after in around
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1])
    ]


def _check(painted: BoolArray, colours: AnyArray | None, name: str) -> None:
    """Refuse a mask that says nothing clear.

    Args:
        painted: bool ``[H, W]``.
        colours: ``[N, C]``, of the painted pixels that are looked at, where no pixel is
            transparent; None where some of the picture is seen through.
        name: of the file, for errors.

    Raises:
        ImageError: it is so.
    """
    if not painted.any():
        raise ImageError(
            f"nothing is painted in {name}: all its pixels are transparent or black. Paint with "
            f"another colour than black: {_HOW}."
        )
    if painted.all():
        raise ImageError(
            f"all of {name} is painted, so that it marks no place: {_HOW}; what is not meant stays "
            "transparent or black."
        )
    if colours is not None and len(colours):
        counts = np.unique(colours, axis=0, return_counts=True)[1]
        if np.sort(counts)[-_COLOURS:].sum() < _PAINT * counts.sum():
            raise ImageError(
                f"{name} looks like a photograph that was painted over, in which it is not known "
                f"what is paint: {_HOW}."
            )
