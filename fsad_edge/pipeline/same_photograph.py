"""Shots that show one part in one place: exposures of it, or copies of one photograph.

Two pictures are laid on top of one another to a fraction of a pixel. What is left of their middle
detail is compared with what two exposures of the same part leave, which each shot shows itself: it
is shifted by a pixel or two, made brighter or darker, and noise is added. Parts that a machine
places alike still differ in texture, grain and wear.

A picture of next to nothing differs from its own exposures as much as from anything else. It is
near-identical only to another such picture with the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsad_edge.runtime.arrays import Float64Array, UInt8Array
from fsad_edge.runtime.images import resize
from fsad_edge.synthesis import Shot, Views, random_view

#: Side of the pictures that are compared, pixels, and the mirrored border around them.
SIDE, PAD = 112, 8

#: What is compared lies between blurs of these two standard deviations, pixels. Finer detail is
#: mostly noise and JPEG, coarser is mostly light.
BAND = (1.5, 6.0)

#: The largest shift in either direction at which two pictures are compared, pixels.
REACH = 6

#: What differs between two exposures of one part.
EXPOSURE = Views(rotate=0, zoom=0, shift=0.01, brightness=0.03, contrast=0.02, noise=2)
EXPOSURES = 3

#: Two shots are near-identical where they differ by less than this many times what two exposures of
#: one of them do. benchmarks/shots.py measures both sides.
NEAR = 6.0

#: However much exposures of a shot differ, near-identical ones differ by less than this. Of six
#: materials exposures differed by 0.01 and seldom by 0.04; unrelated pictures differ by up to 1.
MOST = 0.05

#: A picture shows next to nothing where its exposures differ by more than this: what is left of it
#: is noise. Two such pictures are near-identical where their pixels differ by less than
#: ``SAME_LEVEL`` grey levels (root mean square, without noise, at one brightness).
EMPTY, SAME_LEVEL = 0.04, 2.0

#: Detail is divided by its local contrast, within a blur of this standard deviation, pixels, and of
#: at least this many grey levels: else a label that every frame bears would outweigh a dark part.
LOCAL, LEAST_CONTRAST = 6.0, 1.0

#: What exposures differ by at least: rendered parts have no noise of their own.
LEAST = 1e-4

#: Near-identical shots are copies of one photograph where they are also shifted by less than this,
#: pixels, and their mean brightness differs by less than this, grey levels.
COPY_SHIFT, COPY_BRIGHTNESS = 0.25, 1.0

#: Of more shots than this not every pair is compared, but each shot with so many of the likeliest
#: in each turn, by pictures of ``THUMBNAIL`` pixels a side.
MOST_PAIRED, LIKELY, THUMBNAIL = 200, 12, 24

#: Pictures whose detail correlates less than this, before the fine alignment, are not alike.
_ALIKE = 0.4

_WHOLE = SIDE + 2 * PAD
_INNER = slice(2 * PAD, -2 * PAD)
_FY, _FX = np.fft.fftfreq(_WHOLE)[:, None], np.fft.rfftfreq(_WHOLE)[None]
_GAUSSIANS = [np.exp(-2 * (np.pi * std) ** 2 * (_FY**2 + _FX**2)) for std in (*BAND, LOCAL)]

Spectrum = NDArray[np.complex128]


@dataclass(frozen=True)
class Same:
    """Shots that show one part in one place.

    Attributes:
        kept: index of the shot that stands for them, the one with the most pixels.
        copies: indices of copies of that photograph.
        exposures: indices of other photographs of that part.
    """

    kept: int
    copies: tuple[int, ...]
    exposures: tuple[int, ...]


@dataclass(frozen=True)
class _Match:
    mismatch: float
    shift: float


@dataclass(frozen=True)
class _Relation:
    """Two pictures of one part in one place: whether they are copies, and how far they differ."""

    copy: bool
    mismatch: float


@dataclass(frozen=True)
class _Detail:
    """The middle detail of an image.

    Attributes:
        spectrum: its Fourier transform.
        norm: root of its energy.
        inner: its pixels without the border, float64 ``[P]``.
        smooth: the image's pixels without the border and without noise, float64 ``[P]``.
    """

    spectrum: Spectrum
    norm: float
    inner: Float64Array
    smooth: Float64Array


@dataclass(frozen=True)
class _Picture:
    """A shot: its detail, mean brightness, and how much two exposures of it differ."""

    detail: _Detail
    brightness: float
    exposure: float

    @property
    def empty(self) -> bool:
        """Whether it shows next to nothing."""
        return self.exposure > EMPTY


def find_same(shots: Sequence[Shot], seed: int = 0) -> list[Same]:
    """The groups of shots that show one part in one place; a shot of its own is in none.

    A photograph that was turned by a quarter or half turn is a copy too. Among more than
    ``MOST_PAIRED`` shots each is compared with the ``LIKELY`` that look most like it when small, in
    each turn: all pairs of thousands would take hours.

    Args:
        shots: all at one size, the side at least ``SIDE`` pixels.
        seed: for the exposures that are made of each shot.
    """
    rng = np.random.default_rng([seed, 3])
    pictures = [_picture(shot, rng) for shot in shots]
    turned = [[_detail(np.rot90(shot.image, k)) for k in (1, 2, 3)] for shot in shots]
    related = np.full((len(shots), len(shots)), np.inf)
    copies: set[tuple[int, int]] = set()
    for one, other in _pairs(shots):
        found = _relation(pictures[one], pictures[other], turned[other])
        if shots[one].sha256 == shots[other].sha256:
            found = _Relation(True, 0.0)
        if found is not None:
            related[one, other] = related[other, one] = found.mismatch
            if found.copy:
                copies |= {(one, other), (other, one)}
    groups = []
    for members in _grouped(related):
        kept = max(members, key=lambda index: (np.prod(shots[index].size), -index))
        rest = [index for index in members if index != kept]
        if rest:
            same = tuple(index for index in rest if (kept, index) in copies)
            groups.append(Same(kept, same, tuple(sorted(set(rest) - set(same)))))
    return groups


def _pairs(shots: Sequence[Shot]) -> list[tuple[int, int]]:
    """The pairs of shots that are compared, the later one of each first, in order."""
    count = len(shots)
    if count <= MOST_PAIRED:
        return [(one, other) for one in range(count) for other in range(one)]
    small = [resize(np.ascontiguousarray(shot.image), THUMBNAIL, THUMBNAIL) for shot in shots]
    upright = _standardised(small)
    found: set[tuple[int, int]] = set()
    for turn in range(4):
        turned = _standardised([np.rot90(image, turn) for image in small])
        for one in range(count):
            alike = turned @ upright[one]
            alike[one] = -np.inf
            nearest = np.argpartition(-alike, LIKELY)[:LIKELY].tolist()
            found |= {(max(one, other), min(one, other)) for other in nearest}
    same: dict[str, int] = {}
    for index, shot in enumerate(shots):  # copies of a file, however many there are
        found |= {(index, same[shot.sha256])} if shot.sha256 in same else set()
        same[shot.sha256] = index
    return sorted(found)


def _standardised(images: Sequence[UInt8Array]) -> Float64Array:
    """The green of small images without their mean and contrast, float64 ``[N, P]``."""
    pixels = np.stack([image[..., 1].ravel() for image in images]).astype(np.float64)
    pixels -= pixels.mean(axis=1, keepdims=True)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True) + 1e-6
    return pixels


def _grouped(related: Float64Array) -> list[list[int]]:
    """Groups in which every two shots are related, joined from the most alike pair on.

    Args:
        related: the mismatch of every two shots, float64 ``[N, N]``; infinite where they are not.
    """
    group = np.arange(len(related))
    pairs = np.argwhere(np.isfinite(np.triu(related, 1)) & np.triu(np.ones_like(related, bool), 1))
    for one, other in sorted(pairs.tolist(), key=lambda pair: (related[pair[0], pair[1]], pair)):
        joined = np.flatnonzero(group == group[one]), np.flatnonzero(group == group[other])
        if group[one] != group[other] and np.isfinite(related[np.ix_(*joined)]).all():
            group[joined[0]] = group[other]
    return [np.flatnonzero(group == label).tolist() for label in np.unique(group)]


def _relation(one: _Picture, other: _Picture, turned: Sequence[_Detail]) -> _Relation | None:
    """What two pictures of one part in one place are to one another; None for other pictures."""
    if one.empty or other.empty:
        difference = _level_difference(one, other)
        agree = one.empty and other.empty and difference < SAME_LEVEL
        return _Relation(False, difference) if agree else None
    limit = min(NEAR * max(one.exposure, other.exposure), MOST)
    alike = abs(one.brightness - other.brightness) < COPY_BRIGHTNESS
    if alike:
        for detail in turned:
            match = _match(one.detail, detail)
            if match.mismatch < limit:
                return _Relation(True, match.mismatch)
    match = _match(one.detail, other.detail)
    if match.mismatch >= limit:
        return None
    return _Relation(alike and match.shift < COPY_SHIFT, match.mismatch)


def _level_difference(one: _Picture, other: _Picture) -> float:
    """How far the pixels of two pictures differ at the mean brightness of the second one."""
    gain = max(other.brightness, 1.0) / max(one.brightness, 1.0)
    return float(np.sqrt(np.mean((gain * one.detail.smooth - other.detail.smooth) ** 2)))


def _picture(shot: Shot, rng: np.random.Generator) -> _Picture:
    detail = _detail(shot.image)
    height, width = shot.image.shape[:2]
    views = [random_view(shot.canvas, height, width, EXPOSURE, rng) for _ in range(EXPOSURES)]
    exposure = float(np.mean([_match(detail, _detail(view)).mismatch for view in views]))
    return _Picture(detail, float(shot.image[..., 1].mean()), max(exposure, LEAST))


def _detail(image: UInt8Array) -> _Detail:
    """The middle detail of an image, uint8 ``[H, W, 3]``."""
    small = resize(np.ascontiguousarray(image), SIDE, SIDE)[..., 1].astype(np.float64)
    padded = np.pad(small - small.mean(), PAD, mode="reflect")
    fine, coarse, local = _GAUSSIANS
    spectrum = np.fft.rfft2(padded)
    smooth, pixels = _pixels(spectrum * fine), _pixels(spectrum * (fine - coarse))
    contrast = _pixels(np.fft.rfft2(pixels**2) * local).clip(0)
    pixels = pixels / np.sqrt(contrast + LEAST_CONTRAST**2)
    return _Detail(
        np.fft.rfft2(pixels),
        float(np.linalg.norm(pixels)),
        pixels[_INNER, _INNER].ravel(),
        smooth[_INNER, _INNER].ravel(),
    )


def _pixels(spectrum: Spectrum) -> Float64Array:
    pixels: Float64Array = np.fft.irfft2(spectrum, (_WHOLE, _WHOLE))
    return pixels


def _match(one: _Detail, other: _Detail) -> _Match:
    """How much of one picture's detail another one lacks, at the shift and gain that suit best.

    The whole shift is where the cross-correlation is largest; the fraction of a pixel is found by
    least squares on the gradient (Lucas & Kanade 1981).
    """
    around = _pixels(one.spectrum * other.spectrum.conj())
    around = np.roll(around, (REACH, REACH), (0, 1))
    around = around[: 2 * REACH + 1, : 2 * REACH + 1]
    if around.max() < _ALIKE * (one.norm * other.norm + 1e-6):
        return _Match(1.0, 0.0)
    peak = np.unravel_index(int(around.argmax()), around.shape)
    starts = [np.array(peak, float) - REACH, np.zeros(2)]
    found = [_refine(one.inner, other.spectrum, start) for start in starts]
    return min(found, key=lambda match: match.mismatch)


def _refine(target: Float64Array, other: Spectrum, shift: Float64Array) -> _Match:
    energy = float(target @ target) + 1e-6
    best = _Match(1.0, 0.0)
    for _ in range(4):
        moved = other * np.exp(-2j * np.pi * (_FY * shift[0] + _FX * shift[1]))
        parts = (moved, moved * 2j * np.pi * _FY, moved * 2j * np.pi * _FX)
        columns = np.stack([_pixels(part)[_INNER, _INNER].ravel() for part in parts])
        normal, right = columns @ columns.T, columns @ target
        # Streaks do not show how far they are shifted along themselves: a ridge keeps that small.
        gradient = float(normal[1, 1] + normal[2, 2])
        ridge = np.diag([1e-6 * normal[0, 0], 1e-3 * gradient, 1e-3 * gradient]) + 1e-9 * np.eye(3)
        weights = np.linalg.solve(normal + ridge, right)
        mismatch = max(1 - float(2 * weights @ right - weights @ normal @ weights) / energy, 0.0)
        if mismatch < best.mismatch:
            best = _Match(mismatch, float(np.abs(shift).max()))
        if weights[0] < 0.2:
            break
        shift = shift - (weights[1:] / weights[0]).clip(-1, 1)
    return best
