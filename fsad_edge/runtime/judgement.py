"""When an image is not judged: it shows what the shots do not, and the model cannot know.

An image is doubted for what it shows (:func:`unlikeness`), as a photograph (:func:`look_at`) or for
its size. The bounds are in the model file (:class:`~fsad_edge.runtime.metadata.Judgement`) and far
wider than those of the flags in :mod:`fsad_edge.runtime.photograph`: a defect may be dark, and a
broken part looks like no other. :mod:`fsad_edge.calibration.judgement` derives them from the shots.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fsad_edge.options import Doubt
from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.images import DARKEST
from fsad_edge.runtime.metadata import Judgement

#: Pixels are looked at on a grid of about this many a side: the measures are of the whole image.
GRID = 74

#: The share of patches that are nearest to the memory bank, whose distance tells whether any of the
#: image is as in the shots. A defect leaves at least so much of a part as it was.
NEAREST = 0.1

#: Local contrast is that of squares of this many points of the grid. In less than this share of a
#: photograph that was cut off, or shifted by half, it is the ground's.
SQUARE, PLAIN = 8, 0.4

#: A pixel is overexposed from this value on.
SATURATED = 250

#: An image without contrast is white rather than grey where its mean is above this.
WHITE = 240

#: No measure is below this: a bound is compared with it and divided by it.
SMALLEST = 1e-6


@dataclass(frozen=True)
class Reason:
    """Why an image is not judged.

    Attributes:
        doubt: the reason.
        text: the same with its numbers, one sentence without a full stop.
    """

    doubt: Doubt
    text: str


@dataclass(frozen=True)
class Look:
    """How an image looks as a photograph. A pixel counts with its highest channel.

    Attributes:
        highest: the highest value.
        mean: mean value, 0 to 255.
        highlight: the value that one pixel in a hundred is above.
        saturated: share of the pixels that are overexposed.
        contrast: standard deviation of the values.
        detail: root mean square of the Laplacian, in values.
        edges: root mean square of the gradient, over the contrast.
        plain: the local contrast that the plainest part of the image (``PLAIN``) stays below, over
            the contrast.
        sharpness: energy of the Laplacian over that of the gradient; 5 for white noise.
    """

    highest: int
    mean: float
    highlight: float
    saturated: float
    contrast: float
    detail: float
    edges: float
    plain: float
    sharpness: float


def look_at(prepared: UInt8Array) -> Look:
    """Measure an image, uint8 ``[H, W, 3]``, at the model's size.

    Example:
        >>> import numpy as np
        >>> look = look_at(np.full((64, 64, 3), 90, np.uint8))
        >>> look.mean, look.contrast
        (90.0, 0.0)
    """
    height, width = prepared.shape[:2]
    step = max(1, min(height, width) // GRID)

    def values(down: int, right: int) -> Float32Array:
        rows = slice(1 + down, height - 1 + down, step)
        columns = slice(1 + right, width - 1 + right, step)
        red, green, blue = (prepared[rows, columns, channel] for channel in range(3))
        highest: Float32Array = np.maximum(np.maximum(red, green), blue).astype(np.float32)
        return highest

    middle, below, beside = values(0, 0), values(1, 0), values(0, 1)
    laplacian = below + values(-1, 0) + beside + values(0, -1) - 4 * middle
    curved = _energy(laplacian)
    steep = _energy(below - middle) + _energy(beside - middle)
    counts = np.bincount(middle.astype(np.uint8).ravel(), minlength=256)
    mean = float(middle.mean())
    centred = middle - mean
    contrast = math.sqrt(_energy(centred))
    return Look(
        highest=int(prepared.max()),
        mean=mean,
        highlight=float(np.searchsorted(counts.cumsum(), 0.99 * middle.size)),
        saturated=float(counts[SATURATED:].sum() / middle.size),
        contrast=contrast,
        detail=math.sqrt(curved),
        edges=math.sqrt(steep) / max(contrast, SMALLEST),
        plain=_plain(centred) / max(contrast, SMALLEST),
        sharpness=curved / max(steep, SMALLEST),
    )


def unlikeness(image_score: float, anomaly_map: Float32Array, offset: float) -> float:
    """How far an image is from the shots as a whole.

    It is the geometric mean of two distances: that of the image embedding (COFT-AD's Gaussian) and
    that of the tenth of the patches that are nearest to the memory bank. A defect changes the
    first, and in most images leaves the second; another part changes both.

    Args:
        image_score: the distance of the image embedding.
        anomaly_map: float32 ``[h, w]`` or ``[n]``, the distances of the patches.
        offset: added to the second distance, so that its noise does not count where the ground of
            a photograph is the same in every image.

    Example:
        >>> import numpy as np
        >>> round(unlikeness(9.0, np.full((4, 4), 0.03, np.float32), offset=0.01), 2)
        0.6
    """
    distances = anomaly_map.ravel()
    place = int(NEAREST * distances.size)
    nearest = float(np.partition(distances, place)[place])
    return math.sqrt(max(image_score, SMALLEST) * max(nearest + offset, SMALLEST))


def reasons_of(
    judgement: Judgement,
    prepared: UInt8Array,
    image_score: float,
    anomaly_map: Float32Array,
    size: tuple[int, int] | None = None,
    look: Look | None = None,
) -> tuple[Reason, ...]:
    """Why an image is not judged; empty where it is.

    Args:
        judgement: the bounds of the model file.
        prepared: the image at the model's size, uint8 ``[H, W, 3]``.
        image_score: the distance of its embedding.
        anomaly_map: float32 ``[h, w]`` or ``[n]``, the distances of its patches that count.
        size: width and height of the photograph in pixels; None where they are not known.
        look: what :func:`look_at` gave for the image; None measures it now.
    """
    found = list(_doubts_on_look(judgement, look or look_at(prepared)))
    if size is not None:
        found += _doubts_on_size(judgement, *size)
    bound = judgement.unlikeness
    if bound is not None:
        value = unlikeness(image_score, anomaly_map, judgement.offset)
        if value > bound:
            times = value / bound
            found.append(
                Reason(Doubt.UNLIKE, f"it is unlike the shots: {times:.2f} times the bound")
            )
    return tuple(found)


def _doubts_on_look(judgement: Judgement, look: Look) -> Iterator[Reason]:
    dark = look.highlight < judgement.highlight
    if look.highest <= DARKEST or (dark and look.highlight <= DARKEST):
        yield Reason(Doubt.BLACK, f"it is black: its highest value is {look.highest} of 255")
    elif dark:
        yield Reason(
            Doubt.DARK,
            f"it is dark: its bright places have {look.highlight:.0f} of 255, and at least "
            f"{judgement.highlight:.0f} is expected",
        )
    elif look.contrast < judgement.contrast:
        yield _blank(judgement, look)
    elif look.saturated > judgement.saturated:
        yield Reason(
            Doubt.BRIGHT,
            f"it is overexposed: {look.saturated:.0%} of it is white, and at most "
            f"{judgement.saturated:.0%} is expected",
        )
    elif look.plain < judgement.plain:
        yield Reason(Doubt.FLAT, "it shows nothing in a large part: is the part out of view?")
    else:
        yield from _doubts_on_sharpness(judgement, look)


def _blank(judgement: Judgement, look: Look) -> Reason:
    if look.mean > WHITE:
        return Reason(Doubt.WHITE, f"it is white: its mean value is {look.mean:.0f} of 255")
    return Reason(
        Doubt.FLAT,
        f"it shows nothing: its contrast is {look.contrast:.1f}, and at least "
        f"{judgement.contrast:.1f} is expected",
    )


def _doubts_on_sharpness(judgement: Judgement, look: Look) -> Iterator[Reason]:
    if look.sharpness > judgement.sharpness:
        yield Reason(Doubt.NOISY, "it shows hardly more than noise")
    shares = [
        value / max(least, SMALLEST)
        for value, least in ((look.detail, judgement.detail), (look.edges, judgement.edges))
    ]
    if min(shares) < 1:
        yield Reason(
            Doubt.BLURRED, f"it is blurred: it has {min(shares):.0%} of the least fine detail"
        )


def _doubts_on_size(judgement: Judgement, width: int, height: int) -> Iterator[Reason]:
    shape = width / height
    if judgement.shape is not None and not judgement.shape[0] <= shape <= judgement.shape[1]:
        low, high = judgement.shape
        yield Reason(
            Doubt.SHAPE,
            f"it has another shape than the shots: its width is {shape:.2f} of its height, and "
            f"{low:.2f} to {high:.2f} is expected",
        )
    if math.sqrt(width * height) < judgement.side:
        yield Reason(Doubt.SIZE, f"it is much smaller than the shots: {width}x{height} pixels")


def _plain(centred: Float32Array) -> float:
    """The standard deviation that ``PLAIN`` of the squares of the grid are below."""
    down, right = map(_squares, centred.shape)
    used = centred[: down.shape[1], : right.shape[1]]
    area = used.size / (len(down) * len(right))
    means, energies = (down @ values @ right.T / area for values in (used, used * used))
    variances = (energies - means * means).ravel()
    place = int(PLAIN * variances.size)
    return math.sqrt(max(float(np.partition(variances, place)[place]), 0.0))


@functools.lru_cache(64)  # images of one model have one size
def _squares(length: int) -> Float32Array:
    """What adds up the points of each square along a side, float32 ``[squares, length]``."""
    one_each = np.eye(max(length // SQUARE, 1), dtype=np.float32)
    return np.repeat(one_each, SQUARE, axis=1)[:, :length]


def _energy(values: Float32Array) -> float:
    flat = values.ravel()
    return float(flat @ flat) / max(flat.size, 1)
