"""The images that a benchmark scores: encoded and in memory, so that no disk is timed."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fsad_edge.errors import ImageError
from fsad_edge.runtime.files import read_bytes, sha256
from fsad_edge.runtime.folders import find_images
from fsad_edge.runtime.image_scale import UNASKED, ImageScale
from fsad_edge.runtime.images import load_image
from fsad_edge.runtime.metadata import Metadata

#: The number of images that are kept in memory; further ones are left out.
MAX_IMAGES = 64

_NOISE_SIZE = (1280, 960)  # width and height of a common camera's images
_NOISE_IMAGES = 4


@dataclass(frozen=True)
class ImageSet:
    """Encoded images and where they came from.

    Attributes:
        encoded: bytes of at least one image file; each can be decoded.
        source: where the images came from, in words.
        sizes: the different widths and heights in pixels, sorted.
    """

    encoded: list[bytes]
    source: str
    sizes: list[tuple[int, int]]

    @property
    def sha256(self) -> str:
        """SHA-256 over all images, which tells whether two runs scored the same ones."""
        return sha256(b"".join(self.encoded))


def read_images(paths: Sequence[Path], scale: ImageScale = UNASKED) -> ImageSet:
    """Read image files and folders of them, at most ``MAX_IMAGES``.

    Args:
        paths: the files and folders.
        scale: black and white in files of more than 8 bits.

    Raises:
        InputError: a folder is missing or holds no image.
        ImageError: a file cannot be read or decoded.
    """
    files = [
        file
        for path in paths
        for file in (find_images(path).images if os.path.isdir(path) else [path])
    ]
    encoded = []
    for file in files[:MAX_IMAGES]:
        load_image(file, scale)  # its error names the file
        encoded.append(read_bytes(file, ImageError))
    source = ", ".join(map(str, paths))
    if len(files) > MAX_IMAGES:
        source += f" (the first {MAX_IMAGES} of {len(files)})"
    return _image_set(encoded, source, scale)


def default_images(models: Sequence[Metadata]) -> ImageSet:
    """The golden images of the first model that has any, else noise at a camera's size."""
    for metadata in models:
        if metadata.golden:
            encoded = [golden.image for golden in metadata.golden]
            return _image_set(encoded, f"golden images of {metadata.name}")
    return _image_set([_noise_jpeg(seed) for seed in range(_NOISE_IMAGES)], "noise, as JPEG")


def _image_set(encoded: list[bytes], source: str, scale: ImageScale = UNASKED) -> ImageSet:
    shapes = [load_image(data, scale).shape for data in encoded]
    return ImageSet(encoded, source, sorted({(shape[1], shape[0]) for shape in shapes}))


def _noise_jpeg(seed: int) -> bytes:
    """A JPEG that takes as long to decode as a photograph: soft shapes under fine grain."""
    width, height = _NOISE_SIZE
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 200, (12, 16, 3), np.uint8))
    soft = np.asarray(coarse.resize(_NOISE_SIZE, Image.Resampling.BICUBIC), np.float32)
    pixels = soft + rng.normal(0, 6, (height, width, 1)).astype(np.float32)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
