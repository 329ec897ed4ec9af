"""Image files at the sizes of cameras, made from smaller images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fsad_edge.runtime.images import load_image


@dataclass(frozen=True)
class Size:
    """A camera's image: size in pixels, kind of file, and sensor noise in grey levels (sigma)."""

    name: str
    width: int
    height: int
    suffix: str
    noise: float = 0.0


#: Enlarged images are smooth and therefore the easiest to reduce again. Real images have a sensor's
#: noise at the scale of a pixel.
SIZES = (
    Size("1920x1080 JPEG", 1920, 1080, ".jpg"),
    Size("2592x1944 PNG, noise 2 levels", 2592, 1944, ".png", 2.0),
    Size("4000x3000 JPEG", 4000, 3000, ".jpg"),
)
AS_IS = "as they are"


@dataclass(frozen=True)
class Photo:
    """One image file, the name of its size, and the name of the image that it was made from."""

    path: Path
    size: str
    name: str


def camera_images(paths: Sequence[Path], sizes: Sequence[Size], folder: Path) -> list[Photo]:
    """Write each image at each size into ``folder``; the original files come first."""
    photos = [Photo(path, AS_IS, f"{path.parent.name}/{path.name}") for path in paths]
    rng = np.random.default_rng(0)
    for size in sizes:
        for index, path in enumerate(paths):
            image = Image.fromarray(load_image(path))
            large = image.resize((size.width, size.height), Image.Resampling.BICUBIC)
            if size.noise:
                grain = rng.standard_normal((size.height, size.width, 3), np.float32) * size.noise
                noisy = (np.asarray(large) + grain).round().clip(0, 255)
                large = Image.fromarray(noisy.astype(np.uint8))
            file = folder / f"{size.width}x{size.height}_{index:03d}{size.suffix}"
            large.save(file, quality=92, compress_level=1)
            photos.append(Photo(file, size.name, f"{path.parent.name}/{path.name}"))
    return photos


def evenly_spaced(paths: Sequence[Path], count: int) -> list[Path]:
    """``count`` of the paths at even steps, or all if there are no more."""
    if len(paths) <= count:
        return list(paths)
    return [paths[index * len(paths) // count] for index in range(count)]
