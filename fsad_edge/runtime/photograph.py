"""The quality of a photograph, whatever it shows: dark, bright, flat, blurred or shifted.

:func:`measure_appearance` describes the shots; :class:`PhotographCheck` compares one image with
that description. Its flags are warnings; :mod:`fsad_edge.runtime.judgement` says when an image is
not judged at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fsad_edge.runtime.arrays import AnyArray, Float32Array, UInt8Array
from fsad_edge.runtime.metadata import SMALL, Appearance
from fsad_edge.runtime.student_t import pooled_std

#: An image is flagged where the logarithm of a measure is this many standard deviations from the
#: shots' mean.
DEVIATIONS = 3.5

#: Prior standard deviation of the logarithms of the measures, and the number of shots that this
#: prior counts for.
PRIOR_STDS = {"brightness": 0.1, "contrast": 0.15, "sharpness": 0.1}
PRIOR_SHOTS = 4

#: The flags of each measure, for a value too low and for a value too high; None is no flag.
FLAGS: dict[str, tuple[str | None, str | None]] = {
    "brightness": ("dark", "bright"),
    "contrast": ("flat", None),
    "sharpness": ("blurred", None),
}

#: Cells of the small image that count as a shift, about a tenth of the side.
SHIFT = 3

#: A shift is looked for only where no shot is shifted against the others by more cells than this.
SHOTS_SHIFT = 1

#: The least number of shots that can show whether the position of the part varies.
ENOUGH_FOR_SHIFT = 3

#: Cells of a side of a fingerprint.
FINGERPRINT = 8

#: Two images are nearly the same photograph where their fingerprints differ by less than this many
#: grey levels (root mean square). Saving a photograph as a JPEG of quality 50 changes 0.4 levels at
#: most, and different parts of six data sets differ by 3 levels at least.
SAME_PHOTOGRAPH = 1.0

#: No measure is below this: an image of one colour has no contrast and no sharpness.
_LEAST = 1e-4

_WINDOW = np.outer(*(2 * [np.hanning(SMALL + 2)[1:-1]])).astype(np.float32)


@dataclass(frozen=True)
class Quality:
    """Measures of one image, taken on its green channel.

    Attributes:
        brightness: mean grey level, 0 to 255.
        contrast: standard deviation of the grey levels over their mean, which a longer exposure
            does not change.
        sharpness: energy of the Laplacian over that of the gradient, 0 and up. It hardly depends on
            what is shown or on the light, and falls where the finest detail is lost.
        small: float32 ``[SMALL, SMALL]``, the image averaged down.
    """

    brightness: float
    contrast: float
    sharpness: float
    small: Float32Array


def image_quality(prepared: UInt8Array) -> Quality:
    """Measure an image, uint8 ``[H, W, 3]``, at the model's size."""
    grey = prepared[:, :, 1].astype(np.float32)
    down, right = grey[1:] - grey[:-1], grey[:, 1:] - grey[:, :-1]
    curved = down[1:, 1:-1] - down[:-1, 1:-1] + right[1:-1, 1:] - right[1:-1, :-1]
    gradient = _energy(down) + _energy(right)
    brightness = float(grey.mean())
    return Quality(
        brightness=brightness,
        contrast=math.sqrt(_energy(grey - brightness)) / max(brightness, 1),
        sharpness=_energy(curved) / max(gradient, 1e-6),
        small=_average_down(grey, SMALL),
    )


def fingerprint(prepared: UInt8Array) -> UInt8Array:
    """What a photograph keeps in another file format: mean grey levels on a coarse grid.

    Args:
        prepared: uint8 ``[H, W, 3]`` at the model's size.

    Returns:
        uint8 ``[FINGERPRINT * FINGERPRINT]``.
    """
    cells = _average_down(prepared[:, :, 1].astype(np.float32), FINGERPRINT)
    levels: UInt8Array = cells.round().astype(np.uint8).ravel()
    return levels


def same_photograph(one: UInt8Array, other: UInt8Array) -> bool:
    """Whether two fingerprints are those of nearly the same photograph.

    They cannot tell two parts that differ in a small place only.
    """
    difference = one.astype(np.float32) - other.astype(np.float32)
    return math.sqrt(_energy(difference)) < SAME_PHOTOGRAPH


def measure_appearance(shots: Sequence[UInt8Array]) -> Appearance:
    """Describe how shots look as photographs, for a file's metadata.

    Args:
        shots: images uint8 ``[H, W, 3]`` at the model's size, at least one.
    """
    measured = [image_quality(shot) for shot in shots]
    small = np.stack([quality.small for quality in measured])
    shifts = []
    if len(small) >= ENOUGH_FOR_SHIFT:
        others = [np.delete(small, index, axis=0).mean(axis=0) for index in range(len(small))]
        shifts = [find_shift(image, other) for image, other in zip(small, others, strict=True)]
    aligned = bool(shifts) and all(max(map(abs, shift)) <= SHOTS_SHIFT for shift, _ in shifts)
    return Appearance(
        **{name: [round(getattr(quality, name), 5) for quality in measured] for name in FLAGS},
        mean_image=small.mean(axis=0).round().astype(np.uint8).tobytes(),
        fingerprints=[fingerprint(shot).tobytes() for shot in shots],
        similarity=round(min(peak for _, peak in shifts) / 2, 4) if aligned else None,
    )


def find_shift(small: Float32Array, other: Float32Array) -> tuple[tuple[int, int], float]:
    """Measure how far an image is shifted against another (phase correlation, Kuglin & Hines 1975).

    Args:
        small: float32 ``[SMALL, SMALL]``.
        other: an image of the same shape.

    Returns:
        The shift in cells, down and to the right, and the height of the peak, 0 to 1: how similar
        the images are at that shift.
    """
    return _shift_between(_spectrum(small), _spectrum(other))


def _spectrum(small: Float32Array) -> AnyArray:
    """The spectrum of a small image, complex ``[SMALL, SMALL // 2 + 1]``."""
    return np.fft.rfft2((small - small.mean()) * _WINDOW)


def _shift_between(one: AnyArray, two: AnyArray) -> tuple[tuple[int, int], float]:
    cross = one * two.conj()
    correlation = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-9), (SMALL, SMALL))
    down, right = divmod(int(correlation.argmax()), SMALL)
    half = SMALL // 2
    return ((down + half) % SMALL - half, (right + half) % SMALL - half), float(correlation.max())


class PhotographCheck:
    """Tells what is wrong with an image as a photograph, whatever it shows.

    Args:
        appearance: how the shots look, from :func:`measure_appearance`.

    Example:
        >>> from fsad_edge import Model
        >>> with Model.load(part_file) as model:
        ...     image = model.prepare(model.decode(photograph))
        ...     check = PhotographCheck(model.metadata.appearance)
        >>> check.check(image), check.check(image // 3)
        ([], ['dark'])
    """

    def __init__(self, appearance: Appearance) -> None:
        self._bounds = {
            name: _bounds(getattr(appearance, name), prior) for name, prior in PRIOR_STDS.items()
        }
        flat = np.frombuffer(appearance.mean_image, np.uint8)
        self._mean_spectrum = _spectrum(flat.reshape(SMALL, SMALL).astype(np.float32))
        self._similarity = appearance.similarity

    def check(self, prepared: UInt8Array) -> list[str]:
        """Find what is wrong with an image, uint8 ``[H, W, 3]`` at the model's size.

        Returns:
            Some of ``dark``, ``bright``, ``flat`` (low in contrast), ``blurred``, ``shifted``.
        """
        return self.flags(image_quality(prepared))

    def flags(self, quality: Quality) -> list[str]:
        """Find the same as :meth:`check`, for an image that was measured already."""
        found = _outside(quality, self._bounds)
        if self._similarity is not None:
            shift, similarity = _shift_between(_spectrum(quality.small), self._mean_spectrum)
            if max(map(abs, shift)) >= SHIFT and similarity >= self._similarity:
                found.append("shifted")
        return found


def flags_among(quality: Quality, others: Sequence[Quality]) -> list[str]:
    """Find what is wrong with an image beside at least one other, as :class:`PhotographCheck` does.

    Returns:
        Some of ``dark``, ``bright``, ``flat``, ``blurred``.
    """
    bounds = {
        name: _bounds([getattr(other, name) for other in others], prior)
        for name, prior in PRIOR_STDS.items()
    }
    return _outside(quality, bounds)


def _outside(quality: Quality, bounds: Mapping[str, tuple[float, float]]) -> list[str]:
    found = []
    for name, (lowest, highest) in bounds.items():
        value, (below, above) = max(getattr(quality, name), _LEAST), FLAGS[name]
        if value < lowest and below:
            found.append(below)
        if value > highest and above:
            found.append(above)
    return found


def _energy(values: Float32Array) -> float:
    flat = values.ravel()
    return float(flat @ flat) / max(flat.size, 1)


def _average_down(grey: Float32Array, cells: int) -> Float32Array:
    """The means of the cells, float32 ``[cells, cells]``."""
    edges = [np.arange(cells + 1) * side // cells for side in grey.shape]
    if min(grey.shape) < cells:  # pixels are repeated
        return grey[np.ix_(*(edge[:-1] for edge in edges))]
    sums = np.add.reduceat(np.add.reduceat(grey, edges[0][:-1], 0), edges[1][:-1], 1)
    means: Float32Array = (sums / np.outer(*map(np.diff, edges))).astype(np.float32)
    return means


def _bounds(values: Sequence[float], prior_std: float) -> tuple[float, float]:
    """The bounds that the measure of one more image is expected between."""
    logs = np.log(np.maximum(values, _LEAST))
    pooled = pooled_std(logs, prior_std, PRIOR_SHOTS)
    width = DEVIATIONS * pooled.std * math.sqrt(1 + 1 / len(logs))
    return math.exp(logs.mean() - width), math.exp(logs.mean() + width)
