"""The bounds beyond which an image is not judged, from the shots.

What an image shows is measured against two things: the shots, each left out once, and pictures of
something else (:mod:`fsad_edge.synthesis.pictures`). The bound is two to three times as far from
the shots as they are from one another, as the pictures leave room. Where those are much farther
away, as from a regular texture, it is halfway between the two, so that a large defect is still
judged. ``benchmarks/decisions`` measures both sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fsad_edge.calibration.threshold import ENOUGH_SHOTS
from fsad_edge.runtime.arrays import Float64Array, UInt8Array
from fsad_edge.runtime.images import DARKEST, LEAST_CONTRAST
from fsad_edge.runtime.judgement import SMALLEST, Look, look_at
from fsad_edge.runtime.metadata import Judgement

#: An image is judged where it is no more than so many times as unlike as a shot that is left out:
#: the first where a quarter of the pictures are within it, the second where none is. Of good parts
#: of six materials at 5 shots, the most unlike one of each draw was 1.1 to 2.6 times as unlike.
FACTORS = (2.0, 3.0)

#: Fewer than ``ENOUGH_SHOTS`` shots hardly show how parts differ, or seem to differ too much. Then
#: an image is judged at most up to this fraction of the lower quartile of the pictures.
OF_PICTURES = 0.6

#: Added to the distance of the nearest patches, as a fraction of the shots' patch score.
OFFSET = 0.1

#: An image is judged down to these fractions of what the shots have of light, contrast and detail.
#: Dead solar cells have a fifth of the light and of the contrast, and no good or broken part of six
#: materials has less than 0.37 of the detail and 0.48 of the edges; out of focus by a fiftieth of
#: the side (standard deviation) these fall to 0.24 and 0.5 at most, by a thirtieth to 0.2 and 0.33.
#: The plainest part has 0.37 of its relative contrast in solar cells with dead ones among them, in
#: all else at least 0.44; where half of the photograph is empty 0.27 at most, but for plain tiles.
LIGHT, CONTRAST, DETAIL, EDGES, PLAIN = 1 / 8, 1 / 8, 1 / 5, 0.3, 0.25

#: Where the plainest part of a shot has less contrast than this, it is a plain ground, whose noise
#: says nothing of the part.
GROUND = 2.0

#: At least this share of the pixels must be free of overexposure, of those that are in the shots.
UNSATURATED = 0.5

#: Sharpness of noise alone is 5, of photographs with and without defects 3 at most. An image with
#: more than the first of these and more than the second, times the shots' highest, is noise.
NOISE, SHARPER = 4.0, 1.5

#: A shape is expected where at least this many shots have it, with sides that agree within this
#: factor; an image may differ from it by the last factor. 4:3 and 16:9 differ by 1.33.
SHAPES, SAME_SHAPE, OTHER_SHAPE = 3, 1.05, 1.2

#: A photograph with less than this fraction of the shots' side in pixels is too small, where it
#: must be enlarged for the model.
SMALLER = 1 / 3


def offset_for(patch_scores: Float64Array) -> float:
    """The offset of :func:`~fsad_edge.runtime.judgement.unlikeness`, from left-out patch scores."""
    return OFFSET * _middle(patch_scores)


def find_judgement(
    left_out: Float64Array,
    pictures: Float64Array,
    offset: float,
    shots: Sequence[UInt8Array],
    sizes: Sequence[tuple[int, int]],
) -> Judgement:
    """The bounds beyond which an image is not judged.

    Args:
        left_out: unlikeness of each shot to the others, float64 ``[n]``.
        pictures: unlikeness of pictures of something else, float64 ``[m]``.
        offset: the offset that both were computed with.
        shots: uint8 ``[H, W, 3]`` each, at the model's size.
        sizes: width and height of the photographs in pixels.
    """
    looks = [look_at(shot) for shot in shots]

    def typical(measure: str) -> float:
        return _middle(np.array([getattr(look, measure) for look in looks], np.float64))

    height, width = shots[0].shape[:2]
    smallest = min(math.sqrt(across * down) for across, down in sizes)
    return Judgement(
        unlikeness=_unlikeness(left_out, pictures, len(shots)),
        offset=offset,
        highlight=_highlight(looks, LIGHT * typical("highlight")),
        saturated=1 - UNSATURATED * (1 - max(look.saturated for look in looks)),
        contrast=max(CONTRAST * typical("contrast"), LEAST_CONTRAST),
        detail=DETAIL * typical("detail"),
        edges=EDGES * typical("edges"),
        plain=PLAIN * typical("plain") if _is_full(looks) else 0.0,
        sharpness=_noise(looks),
        shape=_shape(sizes),
        side=min(SMALLER * smallest, math.sqrt(height * width)),
    )


def _unlikeness(left_out: Float64Array, pictures: Float64Array, shots: int) -> float:
    usual, (low, high) = _middle(left_out), FACTORS
    quartile, median = (float(np.quantile(pictures, share)) for share in (0.25, 0.5))
    near = min(max(quartile, low * usual), high * usual)
    bound = max(near, math.sqrt(usual * median))
    if shots >= ENOUGH_SHOTS:
        return bound
    # A single shot's views say nothing of other parts.
    return OF_PICTURES * quartile if shots == 1 else min(bound, OF_PICTURES * quartile)


def _highlight(looks: Sequence[Look], bound: float) -> float:
    """A black image is below the bound, unless the shots are nearly black themselves."""
    above_black = min(look.highlight for look in looks) > 2 * DARKEST
    return max(bound, DARKEST + 1.0) if above_black else bound


def _is_full(looks: Sequence[Look]) -> bool:
    """Whether the part fills the photographs, as far as enough of them tell."""
    least = min(look.plain * look.contrast for look in looks)
    return len(looks) >= ENOUGH_SHOTS and least >= GROUND


def _noise(looks: Sequence[Look]) -> float:
    return max(NOISE, SHARPER * max(look.sharpness for look in looks))


def _shape(sizes: Sequence[tuple[int, int]]) -> tuple[float, float] | None:
    """The lowest and highest width over height of an image; None where the shots do not tell."""
    shapes = [width / height for width, height in sizes]
    low, high = min(shapes), max(shapes)
    if len(shapes) < SHAPES or high > SAME_SHAPE * low:
        return None
    return low / OTHER_SHAPE, high * OTHER_SHAPE


def _middle(values: Float64Array) -> float:
    """Geometric mean."""
    return float(np.exp(np.log(np.maximum(values, SMALLEST)).mean()))
