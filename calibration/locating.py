"""From the shots: how to find the part in a photograph, and whether it pays to look for it.

It pays where every shot shows exactly one clear part on a plain ground, the parts are about equally
large and lie at different places or angles, and the part is small: then a model that looks at the
whole photograph spends its pixels on the ground.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fsad_edge.calibration.part_angles import (
    angle_tells,
    lie_turned,
    main_direction,
    part_angles,
)
from fsad_edge.errors import InputError
from fsad_edge.options import Locate
from fsad_edge.runtime.arrays import BoolArray, Float32Array, Float64Array, UInt8Array
from fsad_edge.runtime.ground import (
    SIDE,
    border_of,
    distances,
    small_copy,
    whitening_of,
    without_ground,
)
from fsad_edge.runtime.locator import (
    DIRECTIONS,
    OUTLINE,
    SECOND,
    Bounds,
    Locator,
    Region,
    find_region,
)
from fsad_edge.runtime.regions import grown

#: Standard deviation, grey levels, that compression and sensors make of nothing.
NOISE = 1.5

#: The share of the border's pixels that are taken for ground, whatever they look like, and the one
#: that the limit is at least as far away as.
GROUND, NEARLY_ALL = 0.95, 0.99

#: How many times as far from the ground as nearly all of the border the part must be, and the limit
#: is at most.
CLEARLY, MOST = 2.5, 3.0

#: The least and the most of the photograph that a part covers.
LEAST_AREA, MOST_AREA = 0.002, 0.5

#: How much the area and the lengths of the parts in the shots may differ, as factors.
SAME_AREA, SAME_LENGTH = 1.5, 1.35

#: By these factors an image's part may differ from those of the shots in root of area and in
#: lengths: a broken part is still to be judged, half of one or two of them are not.
EXTENT_MAY_DIFFER, LENGTH_MAY_DIFFER = 1.3, 1.4

#: Parts that are not turned lie loose on their ground where the centroids of two of them are this
#: far apart, as a fraction of the photograph's longer side. What does not move may be a hole or a
#: label on a surface that fills the photograph, whose defects may be anywhere.
MOVES = 0.05

#: A part that is this many times as long as broad has a main axis.
ELONGATED = 1.5

#: Margin around the parts, as a fraction of the geometric mean of their sides, and in pixels of the
#: small copy.
MARGIN, MARGIN_PIXELS = 0.08, 1.5

#: The longer side of the rectangle is at most this many times the shorter one.
MOST_ELONGATED = 4.0

#: A rectangle whose longer side is less than this many times the shorter one becomes a square.
SQUARE = 1.1

#: Where the usual shot would lose more of its part than this share, nothing is painted over: dirt
#: lies beside the part in a shot or two, and what lies there in most of them is a piece of it.
MAY_LOSE = 0.005

#: Margin of the outline, as a fraction of the rectangle's shorter side.
OUTLINE_MARGIN = 0.06

#: It pays where the rectangle has at most this share of the photograph. Metal nuts that fill theirs
#: were told apart as well with a turned bank as turned upright.
PAYS = 0.5


@dataclass(frozen=True)
class FoundParts:
    """What :func:`find_locator` decided.

    Attributes:
        locator: how to find the part; None where the model looks at the whole photograph.
        why: why, in words, one sentence without a full stop.
        share: the share of a photograph that the model looks at.
    """

    locator: Locator | None
    why: str
    share: float = 1.0


@dataclass(frozen=True)
class _Shots:
    """What lies on the ground of each shot."""

    names: list[str]
    sizes: list[tuple[int, int]]
    regions: list[Region]
    whitening: Float32Array
    limit: float


class _NoPartError(Exception):
    """Why the part cannot be found in the shots."""


def find_locator(
    photographs: Iterable[UInt8Array],
    names: Sequence[str],
    locate: Locate,
    may_turn: bool = True,
) -> FoundParts:
    """How to find the part, from the shots.

    Args:
        photographs: the shots, uint8 ``[H, W, 3]`` each, at least one; gone through twice.
        names: their names, for sentences.
        locate: what the user asks for.
        may_turn: whether a part may be turned upright.

    Raises:
        InputError: the part is to be found (``box``), and a shot does not show one part clearly.
    """
    if locate is Locate.OFF:
        return FoundParts(None, "not looked for (--locate off)")
    if locate is Locate.AUTO and len(names) == 1:
        return FoundParts(None, "not looked for, because one shot cannot show how parts lie")
    try:
        shots = _find_regions(photographs, names)
        _check_alike(shots)
    except _NoPartError as error:
        if locate is Locate.BOX:
            raise InputError(
                f"--locate box: {error}; take --locate off, or photographs of one part on a plain "
                "ground."
            ) from None
        return FoundParts(None, f"not looked for, because {error}")
    locator = _make(shots, may_turn and locate is Locate.AUTO)
    if _loses_pieces(locator, photographs):
        locator = replace(locator, painted=False)
    shares = [_share(locator, size) for size in shots.sizes]
    share = float(np.mean(shares))
    if locate is Locate.BOX:
        return FoundParts(locator, "found and cropped (--locate box)", share)
    if not locator.turned and _moved(shots) < MOVES:
        return FoundParts(
            None,
            "not looked for, because what stands out lies at the same place in all shots, as a "
            "mark on a surface does (--locate box looks for it)",
            share,
        )
    if share > PAYS:
        return FoundParts(
            None, f"not looked for, because it would leave {share:.0%} of the photograph", share
        )
    turned = "found, turned upright and cropped" if locator.turned else "found and cropped"
    return FoundParts(
        locator,
        f"{turned}, because each shot shows one part on a plain ground, and {share:.0%} of the "
        "photograph suffices",
        share,
    )


def _find_regions(photographs: Iterable[UInt8Array], names: Sequence[str]) -> _Shots:
    """What lies on the ground of each shot, where that is exactly one part."""
    sizes, smalls = [], []
    for photograph in photographs:  # one at a time: a hundred large ones fill the memory
        sizes.append((photograph.shape[1], photograph.shape[0]))
        smalls.append(small_copy(photograph))
    lefts = [without_ground(small) for small in smalls]
    borders = np.concatenate([left[border_of(left.shape)] for left in lefts])
    apart = np.abs(borders - np.median(borders, axis=0)).max(axis=1)
    whitening = whitening_of(borders[apart <= np.quantile(apart, GROUND)], NOISE)
    fields = [distances(left, whitening) for left in lefts]
    noise = [np.quantile(field[border_of(field.shape)], NEARLY_ALL) for field in fields]
    noise_level = max(float(np.median(noise)), 1.0)  # of a white ground all pixels may be alike
    contrasts = []
    for name, field in zip(names, fields, strict=True):
        far = field[field > 2 * noise_level]
        if len(far) < LEAST_AREA * field.size:
            raise _NoPartError(f"{name} shows nothing that stands out from a plain ground")
        contrasts.append(float(np.median(far)))
    contrast = float(np.median(contrasts))
    if contrast < CLEARLY * noise_level:
        raise _NoPartError("the shots show no part on a plain ground")
    limit = min(math.sqrt(noise_level * contrast), MOST * noise_level)
    regions = []
    for name, small in zip(names, smalls, strict=True):
        region = find_region(small, whitening, limit)
        regions.append(_checked(name, region))
    return _Shots(list(names), sizes, regions, whitening, limit)


def _checked(name: str, region: Region | None) -> Region:
    if region is None:
        raise _NoPartError(f"{name} shows nothing that stands out from a plain ground")
    covered = float(region.mask.mean())
    if region.cut_off:
        raise _NoPartError(f"what stands out in {name} reaches the border of the photograph")
    if region.second >= SECOND * region.extent**2:
        raise _NoPartError(f"{name} shows more than one part")
    if covered > MOST_AREA:
        raise _NoPartError(f"the part fills {covered:.0%} of {name}")
    if covered < LEAST_AREA:
        raise _NoPartError(f"the part is only {covered:.2%} of {name}")
    return region


def _check_alike(shots: _Shots) -> None:
    extents = np.array([region.extent for region in shots.regions])
    lengths = np.array([region.length for region in shots.regions])
    for values, most, word in (
        (extents**2, SAME_AREA, "large"),
        (lengths, SAME_LENGTH, "long"),
    ):
        if values.max() > most * values.min():
            low, high = shots.names[int(values.argmin())], shots.names[int(values.argmax())]
            raise _NoPartError(
                f"what {high} shows is {values.max() / values.min():.1f} times as {word} as what "
                f"{low} shows"
            )


def _moved(shots: _Shots) -> float:
    """How far the centroids of two parts are apart at most."""
    places = np.array([(region.x, region.y) for region in shots.regions])
    places /= np.array([[region.longer] for region in shots.regions])
    return float(np.linalg.norm(places[:, None] - places, axis=2).max())


def _make(shots: _Shots, may_turn: bool) -> Locator:
    regions = shots.regions
    reach = 1.1 * max(float(_radii(region).max()) for region in regions)
    angles, template = part_angles(regions, reach)
    # One shot does not tell at which angles others lie: there is room for all.
    any_angle = len(regions) == 1 or lie_turned(regions, template, reach)
    elongated = min(region.length / region.breadth for region in regions) >= ELONGATED
    turned = may_turn and any_angle and (elongated or angle_tells(regions, template, reach))
    if turned:
        upright = main_direction(regions, angles) if elongated else 0.0
        angles = angles + upright
        template = np.roll(template, -round(upright * DIRECTIONS / 360), axis=2)
        exact = round(upright * DIRECTIONS / 360) * 360 / DIRECTIONS
        angles = angles - upright + exact
    else:
        angles = np.zeros(len(regions))
    any_angle = any_angle and not turned
    box = _box(regions, angles, any_angle)
    locator = Locator(
        whitening=[float(value) for value in shots.whitening.ravel()],
        limit=shots.limit,
        extent=_bounds([region.extent for region in regions], EXTENT_MAY_DIFFER),
        length=_bounds([region.length for region in regions], LENGTH_MAY_DIFFER),
        breadth=_bounds([region.breadth for region in regions], LENGTH_MAY_DIFFER),
        width=box[2],
        height=box[3],
        shift=(box[0], box[1]),
        turned=turned,
        reach=reach,
        template=_to_bytes(template) if turned else b"",
        outline=bytes(OUTLINE * OUTLINE // 8),
        painted=True,
    )
    return replace(locator, outline=_outline(locator, regions, angles, any_angle))


def _loses_pieces(locator: Locator, photographs: Iterable[UInt8Array]) -> bool:
    """Whether painting over what lies beside the part would take pieces off the part itself."""
    lost = []
    for photograph in photographs:
        located = locator.locate(photograph)
        if located.beside is not None:
            cut = located.placement.cut_out(photograph)
            lost.append(located.beside.lost(cut, located.placement))
    return bool(lost) and float(np.median(lost)) > MAY_LOSE


def _radii(region: Region) -> Float64Array:
    """Distances of a part's pixels from its centroid."""
    rows, columns = np.nonzero(region.mask)
    radii: Float64Array = np.hypot(columns + 0.5 - region.x, rows + 0.5 - region.y) / region.longer
    return radii


def _box(
    regions: Sequence[Region], angles: Float64Array, any_angle: bool
) -> tuple[float, float, float, float]:
    """Shift, width and height of the rectangle around all parts, with a margin."""
    if any_angle:
        radius = max(float(_radii(region).max()) for region in regions)
        edges = np.array([-radius, -radius, radius, radius])
    else:
        found = [_edges(region, angle) for region, angle in zip(regions, angles, strict=True)]
        left, top = np.min([edge[:2] for edge in found], axis=0)
        right, bottom = np.max([edge[2:] for edge in found], axis=0)
        edges = np.array([left, top, right, bottom])
    width, height = edges[2] - edges[0], edges[3] - edges[1]
    margin = MARGIN * math.sqrt(width * height) + MARGIN_PIXELS / SIDE
    width, height = width + 2 * margin, height + 2 * margin
    longer = max(width, height)
    if longer < SQUARE * min(width, height):
        width = height = longer
    width, height = max(width, longer / MOST_ELONGATED), max(height, longer / MOST_ELONGATED)
    middle = (edges[:2] + edges[2:]) / 2
    return float(middle[0]), float(middle[1]), float(width), float(height)


def _edges(region: Region, angle: float) -> Float64Array:
    """Left, top, right and bottom of a part that is turned back, from its centroid."""
    rows, columns = np.nonzero(region.mask)
    x = (columns + 0.5 - region.x) / region.longer
    y = (rows + 0.5 - region.y) / region.longer
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    u, v = x * cos + y * sin, y * cos - x * sin
    return np.array([u.min(), v.min(), u.max(), v.max()])


def _bounds(values: Sequence[float], factor: float) -> Bounds:
    return min(values) / factor, max(values) * factor


def _to_bytes(template: Float32Array) -> bytes:
    scaled = template * (127 / max(float(np.abs(template).max()), 1e-6))
    written: bytes = scaled.round().astype(np.int8).tobytes()
    return written


def _outline(
    locator: Locator, regions: Sequence[Region], angles: Float64Array, any_angle: bool
) -> bytes:
    """Where in the rectangle a part is in any of the shots, with a margin."""
    union = np.zeros((OUTLINE, OUTLINE), np.bool_)
    centres = (np.arange(OUTLINE) + 0.5) / OUTLINE
    v, u = np.meshgrid(centres, centres, indexing="ij")
    for region, angle in zip(regions, angles, strict=True):
        height, width = region.mask.shape
        x, y = locator.placement(region, float(angle), (width, height)).to_photograph(u, v)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        column = np.clip(x, 0, width - 1).astype(np.intp)
        row = np.clip(y, 0, height - 1).astype(np.intp)
        union |= region.mask[row, column] & inside
    if any_angle:
        union |= np.hypot(u - 0.5, v - 0.5) <= 0.5
    return np.packbits(_with_margin(union, locator)).tobytes()


def _with_margin(outline: BoolArray, locator: Locator) -> BoolArray:
    """The outline grown as far across as down, in the photograph."""
    reach = OUTLINE_MARGIN * min(locator.width, locator.height)
    return grown(
        outline,
        math.ceil(reach / locator.height * OUTLINE),
        math.ceil(reach / locator.width * OUTLINE),
    )


def _share(locator: Locator, size: tuple[int, int]) -> float:
    """The share of a photograph that the rectangle has."""
    longer, shorter = max(size), min(size)
    return locator.width * locator.height * longer / shorter
