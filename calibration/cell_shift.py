"""Where in the image the cells of a map look.

A convolution with stride 2 and the same padding on all sides puts its first result around the first
pixel, and not between the first two. After four of them cell i looks around pixel 16 i, and the
middle of the square of 16 pixels that it stands for is at 16 i + 7.5: the map lies almost half a
cell too far right and down. What kernels, strides and pads say of it is not what a trained network
does, whose weights may lie to one side: two networks that pad right and below alone are 0.47 cells
off by their pads, and 0.1 by what they do. So it is measured.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsad_edge.calibration.batches import unit_patches
from fsad_edge.runtime.arrays import Float64Array, UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.scoring.bundled import FILES

#: Of the bundled encoders: the mean of 216 stains on 36 pictures of parts and of other things.
BUNDLED = (-0.42, -0.37)

#: Images that get stains, and stains in all: as many as this, but fewer on images with more pixels
#: than a square of ``SIDE``.
IMAGES, MOST, LEAST, SIDE = 4, 24, 6, 448

#: Sides of a stain in cells, and where in the image its middle lies.
SIDES, MIDDLE = (0.6, 1.6), (0.3, 0.7)


def cell_shift(
    session: OnnxSession, images: Sequence[UInt8Array], architecture: str
) -> tuple[float, float]:
    """How far what a cell of the map sees lies right of and below the cell, in cells.

    For the bundled encoders it is known. For others stains are put on images, one at a time, and
    it is how far on the mean they are from the middle of what changes in the features.

    Args:
        session: the scoring graph.
        images: uint8 ``[H, W, 3]`` at the model's size, good ones.
        architecture: the encoder's name.

    Returns:
        x and y, from -1 to 1, of two decimals.
    """
    if architecture in FILES:
        return BUNDLED
    [before] = unit_patches(session, images[:1])
    height, width = images[0].shape[:2]
    rows, columns = _grid(height, width, len(before))
    count = int(np.clip(MOST * SIDE**2 / (height * width), LEAST, MOST))
    rng = np.random.default_rng(0)
    apart = []
    for index, image in enumerate(images[:IMAGES]):
        stains = range(index, count, min(len(images), IMAGES))
        stained, middles = zip(*(_stained(image, rows, columns, rng) for _ in stains), strict=True)
        plain, *others = unit_patches(session, [image, *stained])
        for middle, other in zip(middles, others, strict=True):
            changed = np.square(np.square(other - plain).sum(axis=1)).reshape(rows, columns)
            if changed.any():
                apart.append(middle - _centre(changed))
    if not apart:
        return 0.0, 0.0
    x, y = np.mean(apart, axis=0).clip(-1, 1).round(2).tolist()
    return x, y


def _grid(height: int, width: int, cells: int) -> tuple[int, int]:
    """Rows and columns of a map of so many square cells."""
    stride = round((height * width / cells) ** 0.5)
    return height // stride, width // stride


def _stained(
    image: UInt8Array, rows: int, columns: int, rng: np.random.Generator
) -> tuple[UInt8Array, Float64Array]:
    """An image with a stain that is as far from the grey below it as can be; its middle, in cells.

    It lies anywhere in the middle of the image, and so at any place of a cell.
    """
    height, width = image.shape[:2]
    cell = np.array([width / columns, height / rows])
    sides = np.maximum(rng.uniform(*SIDES) * cell, 1).astype(int)
    start = (rng.uniform(*MIDDLE, 2) * (width, height) - sides / 2).astype(int).clip(0)
    (x, y), (right, bottom) = start, start + sides
    stained = image.copy()
    below = stained[y:bottom, x:right]
    colour = (below.mean(axis=(0, 1)) + 128) % 256
    below[:] = np.uint8(0.2 * below + 0.8 * colour)
    return stained, (start + sides / 2) / cell


def _centre(changed: Float64Array) -> Float64Array:
    """The middle of what a map shows, x and y in cells."""
    rows, columns = (np.arange(side) + 0.5 for side in changed.shape)
    across, down = changed.sum(axis=0) @ columns, changed.sum(axis=1) @ rows
    centre: Float64Array = np.array([across, down]) / changed.sum()
    return centre
