"""The one door by which Pillow gets a file: bounded, in the formats that are read, in silence."""

from __future__ import annotations

import importlib.util
import warnings
from typing import BinaryIO

from PIL import Image, ImageFile

from fsad_edge.runtime.file_parts import measure_parts
from fsad_edge.runtime.pillow_layouts import tile
from fsad_edge.runtime.plain_pnm import DECODERS

#: Pillow's decoders that are tried. Others start programs (EPS) or serve no camera, and each adds a
#: way in for a hostile file. Pillow reads AVIF from 11.3 on.
FORMATS = (
    *(("AVIF",) if importlib.util.find_spec("PIL._avif") else ()),
    *("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"),
)

#: The most pages of a file that are scored one by one.
MAX_PAGES = 10_000

_HELD = "_fsad_edge_held"

# Of damaged tags and large files, for which there are errors here where they matter. They are
# silenced for the process: Python can silence a block of code in one thread only from 3.14 on.
warnings.filterwarnings("ignore", module=r"PIL\.")


def open_image(file: BinaryIO, name: str) -> ImageFile.ImageFile:
    """Open an image file, as ``PIL.Image.open`` does, once its parts were counted.

    Args:
        file: open at any place.
        name: of it, for the error.

    Raises:
        ImageError: it has more parts besides its pixels than are read.
        Exception: whatever Pillow raises.
    """
    held = measure_parts(file, name, MAX_PAGES + 2)
    image = Image.open(file, "r", FORMATS)
    setattr(image, _HELD, held)
    if image.tile and image.tile[0][0] in DECODERS:
        codec, extents, offset, arguments = image.tile[0]
        image.tile = [tile(DECODERS[codec], extents, offset, arguments)]
    return image


def held_bytes(image: ImageFile.ImageFile) -> int:
    """Bytes that Pillow holds at most of an opened file besides its pixels."""
    return int(getattr(image, _HELD, 0))
