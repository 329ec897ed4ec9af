"""The pictures a benchmark scores: encoded, in memory, so that no disk is timed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fsad_edge.errors import ImageError
from fsad_edge.runtime.images import find_images, load_image
from fsad_edge.runtime.metadata import Metadata

#: Of more pictures the first are taken: they stay in memory.
MOST = 64

_NOISE_SIZE = (1280, 960)  # width, height: a common camera's
_NOISE_PICTURES = 4


@dataclass(frozen=True)
class Pictures:
    """Encoded pictures and where they came from.

    Attributes:
        encoded: files as bytes, at least one; each can be decoded.
        source: in words.
        sizes: width and height in pixels, each that occurs once.
    """

    encoded: list[bytes]
    source: str
    sizes: list[tuple[int, int]]

    @property
    def sha256(self) -> str:
        """Of all of them, to know whether two runs had the same."""
        digest = hashlib.sha256()
        for data in self.encoded:
            digest.update(data)
        return digest.hexdigest()


def read_pictures(given: Sequence[Path]) -> Pictures:
    """Read image files and folders of them; of more than ``MOST`` the first.

    Raises:
        InputError: a folder is missing or holds no image.
        ImageError: a file cannot be read or decoded.
    """
    files = [file for path in given for file in (find_images(path) if path.is_dir() else [path])]
    encoded = []
    for file in files[:MOST]:
        load_image(file)  # its sentences say what is wrong with a file
        try:
            encoded.append(file.read_bytes())
        except OSError as error:
            raise ImageError(f"{file} cannot be read: {error.strerror or error}.") from error
    source = f"{', '.join(map(str, given))}"
    if len(files) > MOST:
        source += f" (the first {MOST} of {len(files)})"
    return _pictures(encoded, source)


def default_pictures(models: Sequence[Metadata]) -> Pictures:
    """The golden images of the first model that has any, or noise at a camera's size."""
    for metadata in models:
        if metadata.golden:
            encoded = [golden.image for golden in metadata.golden]
            return _pictures(encoded, f"golden images of {metadata.name}")
    return _pictures([_noise(seed) for seed in range(_NOISE_PICTURES)], "noise, as JPEG")


def _pictures(encoded: list[bytes], source: str) -> Pictures:
    shapes = [load_image(data).shape for data in encoded]
    return Pictures(encoded, source, sorted({(shape[1], shape[0]) for shape in shapes}))


def _noise(seed: int) -> bytes:
    """A JPEG that decodes in about the time of a photograph: soft shapes under fine grain."""
    width, height = _NOISE_SIZE
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 200, (12, 16, 3), np.uint8))
    soft = np.asarray(coarse.resize(_NOISE_SIZE, Image.Resampling.BICUBIC), np.float32)
    pixels = soft + rng.normal(0, 6, (height, width, 1)).astype(np.float32)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
