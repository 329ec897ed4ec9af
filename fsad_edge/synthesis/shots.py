"""The user's normal images, read once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fsad_edge.errors import ImageError
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.images import load_image, load_resized, resize


@dataclass(frozen=True)
class Shot:
    """One normal image.

    Attributes:
        path: where it is.
        sha256: of the file.
        size: width and height of the photograph, pixels.
        image: uint8 ``[H, W, 3]`` at the model's size, as it would be scored.
        canvas: uint8 ``[2H, 2W, 3]``, what views are made from.
    """

    path: Path
    sha256: str
    size: tuple[int, int]
    image: UInt8Array
    canvas: UInt8Array


def load_shot(path: Path, height: int, width: int) -> Shot:
    """Read one shot for a model of this size.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        decoded = load_image(data)
    except ImageError as error:
        raise ImageError(str(error).replace("the image", str(path), 1)) from None
    return Shot(
        path=path,
        sha256=sha256(data),
        size=(decoded.shape[1], decoded.shape[0]),
        image=load_resized(data, height, width),
        canvas=resize(decoded, 2 * height, 2 * width),
    )
