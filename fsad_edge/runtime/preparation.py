"""From a photograph to what a model's graph takes: decoding, finding the part, resizing.

This is the one way that calibration, golden images, scoring, the service and learning share. Where
a file has no locator, a photograph is decoded and resized and nothing else.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.decode_cost import CUTTING, USE
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.ground import SIDE
from fsad_edge.runtime.image_scale import UNASKED, ImageScale
from fsad_edge.runtime.images import Encoded, decode, resize, stored_size
from fsad_edge.runtime.locator import Located, Locator

#: A golden image of a file without a locator has sides of so many times the model's, up to so many
#: pixels or as many as the model has.
LARGER, LARGEST = 2.25, 2304

#: One of a file with a locator has a longer side of so many times what the model needs of it.
ENOUGH = 1.2

#: Quality of a golden image.
QUALITY = 90


@dataclass(frozen=True)
class Prepared:
    """An image at the model's size.

    Attributes:
        pixels: uint8 ``[H, W, 3]``, RGB.
        size: width and height of the photograph, pixels, as decoded.
        full_size: the same at the full resolution of its file.
        located: where the part is in it; None where the model looks at the whole photograph.
    """

    pixels: UInt8Array
    size: tuple[int, int]
    full_size: tuple[int, int]
    located: Located | None


@dataclass(frozen=True)
class Preparation:
    """How photographs are brought to a model's size.

    Attributes:
        height, width: of the model's input, pixels.
        scale: black and white in files of more than 8 bits.
        locator: how the part is found; None looks at the whole photograph.

    Example:
        >>> prepared = Preparation(64, 64).load(photograph)
        >>> prepared.pixels.shape, prepared.size, prepared.located
        ((64, 64, 3), (96, 96), None)
    """

    height: int
    width: int
    scale: ImageScale = UNASKED
    locator: Locator | None = None

    def load(self, source: Encoded) -> Prepared:
        """Decode an image and bring it to the model's size.

        Raises:
            ImageError: as :func:`~fsad_edge.runtime.images.decode`.
        """
        with GATE.working():
            return self.prepare(self.decode(source))

    def decode(self, source: Encoded) -> Image.Image:
        """Decode an image for :meth:`prepare`, at the smallest scale that is enough.

        Raises:
            ImageError: as :func:`~fsad_edge.runtime.images.decode`.
        """
        use = USE if self.locator is None else CUTTING
        return decode(source, self._enough, self.scale, use)

    def prepare(self, image: Image.Image | UInt8Array) -> Prepared:
        """Bring an image to the model's size.

        Args:
            image: the result of :meth:`decode`, or uint8 ``[H, W, 3]``.
        """
        width, height = image.shape[1::-1] if isinstance(image, np.ndarray) else image.size
        size, full_size = (width, height), stored_size(image)
        if self.locator is None:
            return Prepared(resize(image, self.height, self.width), size, full_size, None)
        located = self.locator.locate(image)
        pixels = located.cut(image, self.height, self.width)
        return Prepared(pixels, size, full_size, located)

    def golden_image(self, source: Encoded) -> bytes:
        """A JPEG of a photograph that is as large as the model needs it, and a little larger.

        Every load then also tests decoding, finding the part and resizing.
        """
        with GATE.working():
            return self._golden_image(source)

    def _golden_image(self, source: Encoded) -> bytes:
        if self.locator is None:
            factor = max(1.0, min(LARGER, LARGEST / max(self.height, self.width)))
            size = int(self.height * factor), int(self.width * factor)
            photograph = decode(source, size, self.scale)
            # Not larger than the photograph: that would only blow the file up.
            down, across = min(size[0], photograph.height), min(size[1], photograph.width)
            image = Image.fromarray(resize(photograph, down, across))
        else:
            image = decode(source, None, self.scale)
            factor = ENOUGH * self._enough[0] / max(image.size)
            if factor < 1:
                across, down = (max(1, round(side * factor)) for side in image.size)
                image = Image.fromarray(resize(image, down, across))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=QUALITY)
        return buffer.getvalue()

    @property
    def _enough(self) -> tuple[int, int]:
        """Height and width of a photograph that are enough."""
        if self.locator is None:
            return self.height, self.width
        longer = max(self.height / self.locator.height, self.width / self.locator.width, SIDE)
        return int(longer) + 1, int(longer) + 1
