"""At which angles the parts of the shots lie, and the picture that tells those of other parts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fsad_edge.runtime.arrays import Float32Array, Float64Array
from fsad_edge.runtime.locator import (
    CHANNELS,
    DIRECTIONS,
    Region,
    best_angle,
    correlations,
    polar_picture,
)

#: Another part is turned where its agreement with the template at the best angle exceeds the mean
#: over all angles by this: the angle is then more than chance.
ANGLE_TELLS = 0.25

#: Parts that lie within so many degrees of one another lie in a fixture, and are not turned.
FIXTURE = 15.0

#: A part lies at another angle than the others where it agrees by so much better there.
TURNED_GAINS = 0.1

#: Shots that are tried as the first one, and how often all are laid upon their mean.
MOST_FIRST, PASSES = 8, 4

#: The shots are taken to agree no better than this: a fraction of a picture's energy.
LEAST_SCATTER = 0.01


def part_angles(regions: Sequence[Region], reach: float) -> tuple[Float64Array, Float32Array]:
    """By how many degrees each part is turned against the mean of all, and that mean's picture.

    Each shot is the first one once, because it may be the odd one. A channel in which the shots
    agree counts more: light falls from one side whatever the part's angle, its outline does not
    change.
    """
    pictures = [polar_picture(region, reach * region.longer) for region in regions]
    best: tuple[float, Float64Array, Float32Array] | None = None
    for first in pictures[:MOST_FIRST]:
        weights = np.ones((CHANNELS, 1, 1), np.float32)
        template = first
        angles = np.zeros(len(pictures))
        for _ in range(PASSES):
            angles = np.array([best_angle(one, weights * template) for one in pictures])
            template = np.mean(
                [_turned_back(*pair) for pair in zip(pictures, angles, strict=True)], axis=0
            ).astype(np.float32)
            agreement = np.square(template).sum(axis=(1, 2), keepdims=True)
            weights = np.float32(1 / np.maximum(1 - agreement, LEAST_SCATTER))
        # The likelihood of what is left, if it is noise: its determinant over the channels.
        scatter = float(np.log(np.maximum(1 - agreement, LEAST_SCATTER)).sum())
        if best is None or scatter < best[0]:
            best = scatter, angles, weights * template
    assert best is not None
    return best[1], best[2]


def _turned_back(picture: Float32Array, angle: float) -> Float32Array:
    """A polar picture turned by so many degrees counterclockwise, between the directions too."""
    spectrum = np.fft.rfft(picture, axis=2)
    frequencies = np.arange(spectrum.shape[2])
    turned: Float32Array = np.fft.irfft(
        spectrum * np.exp(1j * math.radians(angle) * frequencies), DIRECTIONS, axis=2
    ).astype(np.float32)
    return turned


def lie_turned(regions: Sequence[Region], template: Float32Array, reach: float) -> bool:
    """Whether parts lie at different angles: one agrees clearly better at another one than all do.

    A part that looks the same at several angles, as a slot or a square does, agrees as well there.
    """
    found = np.stack(
        [correlations(polar_picture(region, reach * region.longer), template) for region in regions]
    )
    found /= max(float(np.linalg.norm(template, axis=(1, 2)).sum()), 1e-6)
    play = round(FIXTURE * DIRECTIONS / 360)
    steps = np.arange(-play, play + 1)
    common = int(found.sum(axis=0).argmax())
    alike = found[:, (common + steps) % DIRECTIONS].max(axis=1)
    return bool((found.max(axis=1) - alike).max() >= TURNED_GAINS)


def angle_tells(regions: Sequence[Region], template: Float32Array, reach: float) -> bool:
    """Whether the template tells the angle of a part without a main axis."""
    unit = template / max(float(np.abs(template).max()), 1e-6)
    gains = []
    for region in regions:
        picture = polar_picture(region, reach * region.longer)
        found = correlations(picture, unit)
        gains.append(float(found.max() - found.mean()) / float(np.linalg.norm(unit)))
    return min(gains) >= ANGLE_TELLS


def main_direction(regions: Sequence[Region], angles: Float64Array) -> float:
    """The direction of the main axis where the parts are turned back, degrees, -90 to 90."""
    doubled = np.radians(2 * (np.array([region.axis for region in regions]) - np.asarray(angles)))
    return math.degrees(math.atan2(np.sin(doubled).mean(), np.cos(doubled).mean())) / 2
