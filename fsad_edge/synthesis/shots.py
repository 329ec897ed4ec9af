"""The shots: the user's normal images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fsad_edge.errors import ImageError
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.files import read_bytes, sha256
from fsad_edge.runtime.image_scale import UNASKED, ImageScale
from fsad_edge.runtime.images import check_content, load_image
from fsad_edge.runtime.locator import Locator
from fsad_edge.runtime.preparation import Preparation


@dataclass(frozen=True)
class Shot:
    """One normal image.

    Attributes:
        path: the file.
        sha256: SHA-256 of the file.
        size: width and height of the photograph, pixels.
        image: uint8 ``[H, W, 3]`` at the model's size, as it is scored.
        canvas: uint8 ``[2H, 2W, 3]``, from which views are made.
    """

    path: Path
    sha256: str
    size: tuple[int, int]
    image: UInt8Array
    canvas: UInt8Array


def load_shot(
    path: Path,
    height: int,
    width: int,
    scale: ImageScale = UNASKED,
    locator: Locator | None = None,
) -> Shot:
    """Read one shot for a model whose input is ``height`` x ``width`` pixels.

    Args:
        path: the file.
        height: height of the model's input in pixels.
        width: width of the model's input in pixels.
        scale: black and white in files of more than 8 bits.
        locator: how the part is found in it; None takes the whole photograph.

    Raises:
        ImageError: it cannot be read or shows nothing.
    """
    data = read_bytes(path, ImageError)
    try:
        decoded = load_image(data, scale)
        preparation = Preparation(height, width, scale, locator)
        image = preparation.load(data).pixels
        check_content(image)
    except ImageError as error:
        raise ImageError(str(error).replace("the image", str(path), 1)) from None
    return Shot(
        path=path,
        sha256=sha256(data),
        size=(decoded.shape[1], decoded.shape[0]),
        image=image,
        canvas=replace(preparation, height=2 * height, width=2 * width).prepare(decoded).pixels,
    )
