"""Embed the shots through a graph and derive what it needs to decide.

Runs on the runtime alone, so that what is calibrated is what will score, in any precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from fsad_edge.calibration.alignment import alignment, illumination_scatter
from fsad_edge.calibration.threshold import (
    PRIOR_SIDE,
    prior_std_for,
    threshold_from_one_shot,
    threshold_from_scores,
)
from fsad_edge.runtime.arrays import Float32Array, Float64Array, UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.bank import ReferenceModel, fit_reference, greedy_coreset, projected_patches
from fsad_edge.runtime.metadata import Threshold
from fsad_edge.synthesis import Shot, Views, random_view, relight, rotate

#: Images that go through the graph at once.
BATCH = 8


#: Steps of a full turn in which shots of parts that lie at any angle go into the bank.
ROTATIONS = 12

#: Patches of all shots together that a bank's rows are means of.
POOL = 20_000

#: Rows of the memory bank: so many for each shot, but within these bounds. A shot's own features
#: would lose what they say of it were they to share a bank with many others'.
ROWS_A_SHOT, ROWS_AT_LEAST, ROWS_AT_MOST = 200, 1000, 2000

#: Views of a shot under other light, and of all shots together.
RELIT, RELIT_IN_ALL = 12, 120


@dataclass(frozen=True)
class CalibrationSettings:
    """Choices of the user's that calibration needs.

    Attributes:
        views: how far augmented views may differ.
        bank_size: rows of the memory bank at most.
        bank_rotations: shots go into the bank turned in this many steps of a full turn; 1 is as is.
            Where views are flipped, they go in flipped too.
        align: shrink what light changes in the features (:mod:`fsad_edge.calibration.alignment`).
        gaussian_views: augmented views of each shot behind the Gaussian (N_A in COFT-AD).
        false_alarm_rate: normal images that may be rejected, as a fraction.
        score: the score that decides, ``patch`` or ``image``.
        seed: of all chance.
    """

    views: Views = field(default_factory=Views)
    bank_size: int = 1000
    bank_rotations: int = 1
    align: bool = True
    gaussian_views: int = 16
    false_alarm_rate: float = 0.01
    score: str = "patch"
    seed: int = 0

    @property
    def lying_views(self) -> Views:
        """Views that lie as parts do: at any angle where the bank is turned."""
        return replace(self.views, rotate=180.0) if self.bank_rotations > 1 else self.views


@dataclass(frozen=True)
class Calibration:
    """The normal parts and the boundaries, as one graph sees them.

    Attributes:
        normals: projection, memory bank and Gaussian.
        threshold: on the score that decides.
        map_threshold: the same bound on the patch score, for what is drawn on a map.
    """

    reference: ReferenceModel
    threshold: Threshold
    map_threshold: float


@dataclass(frozen=True)
class Embedded:
    """One shot, through a graph without a projection.

    Attributes:
        patches: float32 ``[P, D + 1]``, of which the bank is chosen.
        pool: float32 ``[Q, D + 1]``, whose means the bank's rows become.
        embeddings: float32 ``[N, D]`` for the Gaussian.
        light: float64 ``[D, D]``, what light does to its features; None where that is not asked.
    """

    patches: Float32Array
    pool: Float32Array
    embeddings: Float32Array
    light: Float64Array | None

    @cached_property
    def moments(self) -> tuple[Float64Array, Float64Array]:
        """Mean ``[D]`` and mean outer product ``[D, D]`` of the pool's features: each is summed
        once, and not again for every shot that is left out."""
        rows = self.pool[:, :-1].astype(np.float64)
        return rows.mean(axis=0), rows.T @ rows / len(rows)


def calibrate(
    session: OnnxSession,
    shots: Sequence[Shot],
    settings: CalibrationSettings,
    progress: Callable[[float], None] = lambda done: None,
) -> Calibration:
    """Projection, memory bank, Gaussian and threshold for a graph, from normal images alone.

    Args:
        session: the graph; its own defaults for the normal parts are not used.
        shots: at least one.
        settings: the user's choices.
        progress: told the fraction that is done.
    """
    rng = np.random.default_rng(settings.seed)
    embedded = []
    for index, shot in enumerate(shots):
        embedded.append(embed_shot(session, shot, settings, len(shots), rng))
        progress(0.6 * (index + 1) / len(shots))
    scores = []
    for index, against in enumerate(leave_one_out(embedded, settings.bank_size)):
        images, inputs = left_out_images(shots, index), against.as_inputs()
        scores.append(run_batches(session, images, ["patch_score", "image_score"], inputs))
        progress(0.6 + 0.4 * (index + 1) / len(shots))
    by_patch, by_image = (
        threshold_of(np.concatenate(values), shots, replace(settings, score=kind))
        for kind, values in zip(("patch", "image"), zip(*scores, strict=True), strict=True)
    )
    return Calibration(
        reference=fit_shots(embedded, settings.bank_size),
        threshold=by_patch if settings.score == "patch" else by_image,
        map_threshold=by_patch.value,
    )


def bank_size_for(shots: int) -> int:
    """Rows of the memory bank that so many shots get unless told otherwise."""
    return min(max(ROWS_A_SHOT * shots, ROWS_AT_LEAST), ROWS_AT_MOST)


def threshold_of(
    scores: Float32Array, shots: Sequence[Shot], settings: CalibrationSettings
) -> Threshold:
    """The threshold that some shots lead to.

    Args:
        scores: float32 ``[N]``, of :func:`left_out_images` of all of them.
        shots: at least one.
        settings: the user's choices; ``score`` says which scores they are.
    """
    rule = threshold_from_scores if len(shots) > 1 else threshold_from_one_shot
    side = min(shots[0].image.shape[:2]) if settings.score == "patch" else PRIOR_SIDE
    prior = prior_std_for(settings.bank_rotations > 1, side)
    return rule(scores.tolist(), settings.false_alarm_rate, prior)


def score_images(session: OnnxSession, images: Sequence[UInt8Array]) -> Float32Array:
    """Scores, float32 ``[N]``, of images uint8 ``[H, W, 3]`` at the model's size."""
    return run_batches(session, images, ["score"])[0]


def left_out_images(shots: Sequence[Shot], index: int) -> list[UInt8Array]:
    """What is scored against the fit without a shot: the shot, or views of it where it is alone."""
    return [shots[index].image] if len(shots) > 1 else between_rotations(shots[0].image)


def between_rotations(image: UInt8Array) -> list[UInt8Array]:
    """Views of a single shot that are as unlike its bank as another part may be.

    Args:
        image: uint8 ``[H, W, 3]``.

    Returns:
        it, turned to halfway between two steps of the bank's turns, four times.
    """
    return [rotate(image, 360 * (step + 0.5) / ROTATIONS) for step in (0, 3, 6, 9)]


def leave_one_out(embedded: Sequence[Embedded], bank_size: int) -> Iterator[ReferenceModel]:
    """For each shot, the fit of the others; for a single one, of itself.

    Their bank is smaller by as much, so that each row stands for as many patches as in the whole
    one: with finer rows the shot would score lower than another part will.
    """
    for index in range(len(embedded)):
        others = [*embedded[:index], *embedded[index + 1 :]] or embedded
        yield fit_shots(others, bank_size, math.ceil(bank_size * len(others) / len(embedded)))


def embed_shot(
    session: OnnxSession,
    shot: Shot,
    settings: CalibrationSettings,
    shots: int,
    rng: np.random.Generator,
) -> Embedded:
    """Features of one of some shots: turns and flips for the bank, views for the rest."""
    plain = {"projection": np.eye(session.defaults["projection"][0], dtype=np.float32)}
    rotated = bank_views(shot.image, settings.bank_rotations, settings.views.flip)
    patches = run_batches(session, rotated, ["patches"], plain)[0]
    as_is, patches = patches[0], patches.reshape(-1, patches.shape[-1])
    # Twice what the bank can take from each, so that many shots don't take hours.
    share = max(2 * settings.bank_size // shots, 1)
    height, width = shot.image.shape[:2]
    views = [
        random_view(shot.canvas, height, width, settings.lying_views, rng)
        for _ in range(settings.gaussian_views)
    ]
    embeddings = run_batches(session, [shot.image, *views], ["embedding"], plain)[0]
    light = None
    if settings.align:
        views = [relight(shot.image, rng) for _ in range(min(RELIT, max(1, RELIT_IN_ALL // shots)))]
        lit = run_batches(session, views, ["patches"], plain)[0]
        light = illumination_scatter(as_is[:, :-1], lit[..., :-1])
    step = -(-len(patches) * shots // POOL)
    whole = Embedded(patches, patches[::step], embeddings, light)
    # Thinned as the bank will see them: what is far apart before a projection may not be after it.
    projection = _projection([whole])
    seen = patches if projection is None else projected_patches(patches, projection)
    return replace(whole, patches=patches[greedy_coreset(seen[:, :-1], share)])


def bank_views(image: UInt8Array, rotations: int, flip: bool) -> list[UInt8Array]:
    """An image as it goes into the memory bank: as it is, and turned and flipped where parts are.

    Args:
        image: uint8 ``[H, W, 3]`` at the model's size.
        turns: steps of a full turn; 1 is as is.
        flip: its mirror images too.
    """
    quarters = 4 if rotations % 4 == 0 and image.shape[0] == image.shape[1] else 1
    rotated = [
        image,
        *(rotate(image, 360 * turn / rotations) for turn in range(1, rotations // quarters)),
    ]
    # Quarter turns of those are the others, and cost next to nothing.
    rotated = [np.rot90(view, -quarter) for quarter in range(quarters) for view in rotated]
    if flip:
        # Two mirror images and the half turn; turns of the bank bring the half turn themselves.
        axes: list[int | tuple[int, int]] = [0, 1] + ([(0, 1)] if rotations == 1 else [])
        rotated += [np.flip(image, axis) for image in rotated for axis in axes]
    return rotated


def fit_shots(
    embedded: Sequence[Embedded], bank_size: int, rows: int | None = None
) -> ReferenceModel:
    """Projection, memory bank and Gaussian of some shots; arguments as of ``fit_reference``."""
    pool = np.concatenate([shot.pool for shot in embedded])
    return fit_reference(
        np.concatenate([shot.patches for shot in embedded]),
        np.concatenate([shot.embeddings for shot in embedded]),
        bank_size,
        pool,
        _projection(embedded),
        rows,
    )


def _projection(embedded: Sequence[Embedded]) -> Float32Array | None:
    """What shrinks the light of some shots, or None where it was not asked for."""
    light = [shot.light for shot in embedded if shot.light is not None]
    if not light:
        return None
    means, outers = zip(*(shot.moments for shot in embedded), strict=True)
    mean = np.mean(means, axis=0)
    return alignment(np.mean(light, axis=0), np.mean(outers, axis=0) - np.outer(mean, mean))


def run_batches(
    session: OnnxSession,
    images: Sequence[UInt8Array],
    outputs: list[str],
    reference: Mapping[str, Float32Array] | None = None,
) -> list[Float32Array]:
    """The named outputs for any number of images, ``BATCH`` at a time.

    Args:
        session: the graph.
        images: uint8 ``[H, W, 3]`` at the model's size.
        outputs: to be given.
        normals: inputs to be given in place of the graph's defaults.
    """
    feeds = reference or {}
    parts = [
        session.run(outputs, {"image": np.stack(images[start : start + BATCH]), **feeds})
        for start in range(0, len(images), BATCH)
    ]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
