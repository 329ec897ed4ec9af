"""Embed the shots through a graph and derive what the graph needs to decide.

This runs on the runtime alone, so that what is calibrated is what will score, in any precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import repeat
from typing import Annotated

import numpy as np

from fsad_edge.calibration.alignment import alignment, illumination_scatter
from fsad_edge.calibration.batches import plain_inputs, run_batches
from fsad_edge.calibration.judgement import find_judgement, offset_for
from fsad_edge.calibration.placing import (
    SAME_PLACE,
    Places,
    fit_places,
    in_other_colours,
    same_place_share,
    why_not_comparable,
    with_share_of_places,
)
from fsad_edge.calibration.prediction import PRIOR_STD, SMALLEST, WHOLE_PRIOR_STD
from fsad_edge.calibration.row_origins import RowPlaces, find_origins
from fsad_edge.calibration.spread import spread_of_scores
from fsad_edge.calibration.threshold import (
    HighScore,
    high_score,
    scores_of_new_parts,
    threshold_from_one_shot,
    threshold_from_scores,
    withdraw_promise,
)
from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.options import ComparePlaces, ScoreKind
from fsad_edge.runtime.arrays import BoolArray, Float32Array, Float64Array, UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.bank import (
    WHOLE_PRIOR,
    ReferenceModel,
    fit_reference,
    greedy_coreset,
    projected_patches,
    unlimited_distances,
)
from fsad_edge.runtime.documents import APART, Range
from fsad_edge.runtime.judgement import unlikeness
from fsad_edge.runtime.locator import Locator, default_weights
from fsad_edge.runtime.metadata import ByPlace, Judgement, LeftOutMaps, Threshold
from fsad_edge.runtime.origins import Origins
from fsad_edge.runtime.side_by_side import fraction_of, side_by_side
from fsad_edge.runtime.steps import Steps
from fsad_edge.synthesis import (
    Shot,
    Views,
    generators,
    other_pictures,
    random_view,
    relight,
    rotate,
)

#: Steps of a full turn in which shots of parts at any angle go into the bank.
ROTATIONS = 12

#: Patches of all shots together whose means the bank's rows become.
POOL = 20_000

#: Rows of the memory bank: so many for each shot, within these bounds. With fewer, a shot's own
#: features would be averaged with many others' and lose what is particular to it.
ROWS_PER_SHOT, FEWEST_ROWS, MOST_ROWS = 200, 1000, 2000

#: Grey levels that noise and compression make of nothing.
BLANK = 8

#: What is computed of each shot without it.
LEFT_OUT = ["patch_score", "image_score", "anomaly_map"]

#: How many views of a single shot stand for other parts, and how far they are moved: on six
#: materials other parts score about as high (``RATIO_MEAN`` of the threshold).
MOVED_VIEWS, MOVED = 8, Views(rotate=4.0, shift=0.06, zoom=0.06)

#: Views under other light: of a shot, and of all shots together.
RELIT_PER_SHOT, RELIT_IN_ALL = 12, 120


@dataclass(frozen=True)
class CalibrationSettings:
    """The user's choices that calibration needs.

    Attributes:
        views: how far augmented views may differ.
        bank_size: most rows of the memory bank.
        bank_rotations: the shots go into the bank rotated in this many steps of a full turn; 1
            leaves them as photographed. Where views are flipped, they go in flipped too.
        align: shrink what light changes in the features (:mod:`fsad_edge.calibration.alignment`).
        gaussian_views: augmented views of each shot behind the Gaussian (N_A in COFT-AD).
        false_alarm_rate: the share of normal images that may be rejected.
        score: the score that decides.
        seed: random seed.
        outliers: how many shots unlike the rest were kept; with any, no false alarm rate is
            promised.
        locator: how the part is found; what shows it in no shot does not count.
        full_depth: the embedding is of the encoder's full depth
            (:mod:`fsad_edge.training.full_depth`).
        learned: float32 ``[D, D]``, a projection that was trained contrastively; empty where none
            is used. A model directory keeps it as a tensor, beside the document.
        place: whether images are to be compared with the shots place by place.
        by_place: whether they are, where that is decided; None decides.
    """

    views: Views = field(default_factory=Views)
    bank_size: Annotated[int, Range(1, 100_000)] = 1000
    bank_rotations: Annotated[int, Range(1, 360)] = 1
    align: bool = True
    gaussian_views: Annotated[int, Range(0, 1000)] = 16
    false_alarm_rate: Annotated[float, Range(1e-9, 0.5)] = 0.01
    score: ScoreKind = ScoreKind.PATCH
    seed: Annotated[int, Range(0)] = 0
    outliers: Annotated[int, Range(0)] = 0
    locator: Locator | None = None
    full_depth: bool = False
    learned: bytes = field(default=b"", metadata=APART)
    place: ComparePlaces = ComparePlaces.OFF
    by_place: ByPlace | None = None

    @property
    def part_views(self) -> Views:
        """Views at the angles that parts have: at any angle where the bank is rotated."""
        return replace(self.views, rotate=180.0) if self.bank_rotations > 1 else self.views


@dataclass(frozen=True)
class Calibration:
    """The reference model and the boundaries, as one graph computes them.

    Attributes:
        reference: projection, memory bank and Gaussian.
        threshold: the boundary on the score that decides.
        map_threshold: the same bound on the patch score, for drawing maps.
        judgement: the bounds beyond which an image is not judged.
        high_score: the one shot that decides the threshold, as a broken part does; mostly None.
        left_out: how far the shots are from one another, place by place; None where that would be
            too much for a file.
        origins: where the rows of the memory bank come from, without pictures.
        by_place: whether images are compared with the shots place by place.
    """

    reference: ReferenceModel
    threshold: Threshold
    map_threshold: float
    judgement: Judgement
    high_score: HighScore | None
    left_out: LeftOutMaps | None
    by_place: ByPlace
    origins: Origins | None = None


@dataclass(frozen=True)
class Embedded:
    """One shot, through a graph without a projection.

    Attributes:
        patches: float32 ``[P, D + 1]``, from which the bank is chosen.
        pool: float32 ``[Q, D + 1]``, whose means the bank's rows become.
        embeddings: float32 ``[N, E]`` for the Gaussian.
        illumination: float64 ``[D, D]``, how light changes its features; None where alignment is
            off.
        weights: float32 ``[P]``, of the map's cells.
        full_depth: whether the embeddings are of the encoder's full depth.
        learned: float32 ``[D, D]``, a projection that was trained contrastively; None where none is
            used.
        places: where in the shot the patches and those of the pool are; None where nobody asks.
    """

    patches: Float32Array
    pool: Float32Array
    embeddings: Float32Array
    illumination: Float64Array | None
    weights: Float32Array
    full_depth: bool = False
    learned: Float32Array | None = None
    places: RowPlaces | None = None

    @cached_property
    def moments(self) -> tuple[Float64Array, Float64Array]:
        """Mean ``[D]`` and mean outer product ``[D, D]`` of the pool's features.

        They are summed once, not again for every shot that is left out.
        """
        rows = self.pool[:, :-1].astype(np.float64)
        return rows.mean(axis=0), rows.T @ rows / len(rows)


def calibrate(
    session: OnnxSession,
    shots: Sequence[Shot],
    settings: CalibrationSettings,
    on_progress: Callable[[float], None] = lambda done: None,
    weights: Float32Array | None = None,
) -> Calibration:
    """Projection, memory bank, Gaussian and threshold for a graph, from normal images alone.

    Args:
        session: the graph; its own defaults for the reference model are not used.
        shots: at least one.
        settings: the user's choices.
        on_progress: called with the fraction that is done.
        weights: of the map's cells, float32 ``[P]``; by default all cells count that show the part.

    Raises:
        InputError: the shots taught nothing: each scores zero, up to rounding, without itself.
    """
    rng = np.random.default_rng(settings.seed)
    embedded = []
    steps = Steps(on_progress)
    for shot in shots:
        step = steps.next(0.7 / len(shots))
        embedded.append(embed_shot(session, shot, settings, len(shots), rng, step))
    wanted = embedded[0].weights > 0
    if weights is not None:
        embedded = [replace(one, weights=weights) for one in embedded]
    scores: list[list[Float32Array]] = []
    distances: list[Float32Array] = []
    for index, others in enumerate(leave_one_out(embedded, settings.bank_size)):
        step = steps.next(0.3 / len(shots))
        images = left_out_images(shots, index)
        found = run_batches(session, images, [*LEFT_OUT, "patches"], others.as_inputs(), step)
        patch_score, _, maps, patches = found
        distances += map(
            unlimited_distances, maps, patch_score, patches, repeat(others), repeat(wanted)
        )
        scores.append(found[:-1])
    patch_scores, image_scores, maps = (
        np.concatenate(values) for values in zip(*scores, strict=True)
    )
    grid = (maps.shape[1], maps.shape[2])
    left_out_maps = LeftOutMaps.of(np.stack(distances), grid, len(shots), settings.outliers)
    maps = counted_distances(maps, embedded[0].weights)
    left_out = {
        ScoreKind.PATCH: scores_of_new_parts(patch_scores, len(shots)),
        ScoreKind.IMAGE: image_scores,
    }
    thresholds = {
        kind: threshold_of(values, maps, len(shots), replace(settings, score=kind))
        for kind, values in left_out.items()
    }
    reference = fit_shots(embedded, settings.bank_size)
    if float(patch_scores.max()) <= SMALLEST:
        raise InputError(f"the model learned nothing: {_why_nothing(session, shots, reference)}.")
    threshold = thresholds[settings.score]
    by_place, places = _places(session, shots, reference, grid, threshold, settings)
    if places is not None:
        ratios = np.maximum(left_out[ScoreKind.PATCH] / threshold.value, places.scores)
        by_place = replace(
            by_place,
            scores=np.sort(ratios).round(6).tolist(),
            place_scores=np.sort(places.scores).round(6).tolist(),
        )
        if threshold.rate_promised:
            said = with_share_of_places(threshold.reliability)
            threshold = replace(threshold, reliability=said)
    return Calibration(
        reference=reference if places is None else with_places(reference, places),
        threshold=threshold,
        map_threshold=thresholds[ScoreKind.PATCH].value,
        judgement=_judgement(
            session, shots, reference, (patch_scores, image_scores, maps), settings
        ),
        # A single shot's scores are of its views.
        high_score=high_score(left_out[settings.score].tolist(), threshold)
        if len(shots) > 1
        else None,
        left_out=left_out_maps,
        origins=_origins(embedded, reference),
        by_place=by_place,
    )


def _places(
    session: OnnxSession,
    shots: Sequence[Shot],
    reference: ReferenceModel,
    grid: tuple[int, int],
    threshold: Threshold,
    settings: CalibrationSettings,
) -> tuple[ByPlace, Places | None]:
    """Whether images are compared with the shots place by place, and what with."""
    decided = settings.by_place
    if decided is None:
        turned = settings.bank_rotations > 1 or settings.views.flip
        whole = settings.score is ScoreKind.IMAGE
        why_not = why_not_comparable(settings.place, len(shots), grid, turned, whole)
        decided = None if why_not is None else ByPlace(False, f"not compared, {why_not}")
    if decided is not None and not decided.on:
        return decided, None
    images = [shot.image for shot in shots]
    [patches] = run_batches(session, images, ["patches"], reference.as_inputs())
    weights = reference.weights
    assert weights is not None
    if decided is None:
        decided = _decided(same_place_share(patches, grid, weights), settings.place)
        if not decided.on:
            return decided, None
    [colours] = run_batches(session, in_other_colours(images), ["patches"], reference.as_inputs())
    rate = threshold.false_alarm_rate
    return decided, fit_places(patches, grid, weights, threshold.value, rate, colours)


def _decided(same: float, asked: ComparePlaces) -> ByPlace:
    """Whether places are compared, where the shots could be."""
    shown = f"{same:.0%} of the places of a shot look most like the same places of the others"
    if asked is ComparePlaces.ON:
        return ByPlace(True, f"compared (--place on), and {shown}")
    if same >= SAME_PLACE:
        return ByPlace(True, f"compared, because {shown}")
    return ByPlace(False, f"not compared, because only {shown}, and {SAME_PLACE:.0%} are needed")


def with_places(reference: ReferenceModel, places: Places) -> ReferenceModel:
    """The same reference model, which also compares images place by place."""
    return replace(
        reference,
        place_bank=places.bank,
        place_projection=places.projection,
        place_scale=places.scale,
    )


def _origins(embedded: Sequence[Embedded], reference: ReferenceModel) -> Origins | None:
    """Where the rows of the bank come from, among the patches that the shots were thinned to."""
    places = [shot.places for shot in embedded if shot.places is not None]
    features = [np.concatenate([shot.patches, shot.pool])[:, :-1] for shot in embedded]
    return find_origins(reference, features, places) if places else None


def _judgement(
    session: OnnxSession,
    shots: Sequence[Shot],
    reference: ReferenceModel,
    left_out: tuple[Float32Array, Float32Array, Float32Array],
    settings: CalibrationSettings,
) -> Judgement:
    """When an image is not judged, from the ``LEFT_OUT`` outputs and from other pictures.

    With the image score it is judged however unlike the shots it is: another kind of object is what
    that score is to find.
    """
    patch_scores, *scores_and_maps = left_out
    offset = offset_for(patch_scores.astype(np.float64))
    weights = reference.weights
    assert weights is not None

    def unlikenesses(image_scores: Float32Array, maps: Float32Array) -> Float64Array:
        # Whether an image is judged does not depend on how much a place counts.
        pairs = zip(image_scores.tolist(), maps / weights[weights > 0], strict=True)
        return np.array([unlikeness(score, one, offset) for score, one in pairs])

    pictures = other_pictures(*shots[0].image.shape[:2])
    far_scores, far_maps = run_batches(session, pictures, LEFT_OUT[1:], reference.as_inputs())
    judgement = find_judgement(
        unlikenesses(*scores_and_maps),
        unlikenesses(far_scores, counted_distances(far_maps, weights)),
        offset,
        [shot.image for shot in shots],
        [shot.size for shot in shots],
    )
    return replace(judgement, unlikeness=None) if settings.score == ScoreKind.IMAGE else judgement


def _why_nothing(session: OnnxSession, shots: Sequence[Shot], reference: ReferenceModel) -> str:
    """Why no shot scores above zero without itself, and what to do about it."""
    noise = np.random.default_rng(0).integers(0, 256, shots[0].image.shape, np.uint8)
    [score] = run_batches(session, [noise], ["patch_score"], reference.as_inputs())
    if float(score.max()) <= SMALLEST:
        return (
            "the encoder gives the same features for every picture; take other --weights or "
            "another --backbone"
        )
    if max(int(np.ptp(shot.image)) for shot in shots) <= BLANK:
        return "the shots are blank; photograph the part so that its surface can be seen"
    return (
        "each shot has its like among the others, as copies of one picture have; photograph "
        "several parts, each once"
    )


def bank_size_for(shots: int) -> int:
    """Rows of the memory bank for so many shots, unless the user gives a number."""
    return min(max(ROWS_PER_SHOT * shots, FEWEST_ROWS), MOST_ROWS)


def threshold_of(
    scores: Float32Array, maps: Float32Array, shots: int, settings: CalibrationSettings
) -> Threshold:
    """The threshold that some shots lead to.

    Args:
        scores: float32 ``[N]``, scores of :func:`left_out_images` of all shots; patch scores as of
            new parts (:func:`scores_of_new_parts`).
        maps: float32 ``[N, n]``, the distances of their patches that count
            (:func:`counted_distances`).
        shots: how many shots there are.
        settings: the user's choices; ``score`` says which scores they are.
    """
    if settings.score == ScoreKind.PATCH:
        prior = spread_of_scores(maps) or PRIOR_STD
    else:
        prior = WHOLE_PRIOR_STD if settings.full_depth else PRIOR_STD
    rule = threshold_from_scores if shots > 1 else threshold_from_one_shot
    threshold = rule(scores.tolist(), settings.false_alarm_rate, prior)
    return withdraw_promise(threshold, settings.outliers) if settings.outliers else threshold


def score_images(session: OnnxSession, images: Sequence[UInt8Array]) -> Float32Array:
    """Scores, float32 ``[N]``, of images uint8 ``[H, W, 3]`` at the model's size."""
    return run_batches(session, images, ["score"])[0]


def left_out_images(shots: Sequence[Shot], index: int) -> list[UInt8Array]:
    """The images that are scored without a shot: the shot, or views of it where it is the only one.

    Returns:
        uint8 ``[H, W, 3]`` each.
    """
    return [shots[index].image] if len(shots) > 1 else moved_views(shots[0])


def moved_views(shot: Shot) -> list[UInt8Array]:
    """Views of a single shot that are about as far from its bank as another part is.

    They are moved, turned by a few degrees and zoomed, whether the bank is turned or not.

    Returns:
        ``MOVED_VIEWS`` images, uint8 ``[H, W, 3]`` each; always the same ones.
    """
    rng = np.random.default_rng(0)
    height, width = shot.image.shape[:2]
    return [random_view(shot.canvas, height, width, MOVED, rng) for _ in range(MOVED_VIEWS)]


def leave_one_out(embedded: Sequence[Embedded], bank_size: int) -> Iterator[ReferenceModel]:
    """For each shot, the reference model of the others; for a single shot, its own.

    The bank of the others is smaller in proportion, so that each row represents as many patches as
    in the whole one: with finer rows the shot would score lower than another part will.
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
    on_progress: Callable[[float], None] = lambda done: None,
) -> Embedded:
    """Features of one shot of several: rotated and flipped for the bank, views for the rest.

    Args:
        session: the graph.
        shot: the shot to embed.
        settings: the user's choices.
        shots: how many shots there are in all.
        rng: source of the random views.
        on_progress: called with the fraction that is done.
    """
    plain, steps = plain_inputs(session), Steps(on_progress)
    turned = bank_views(shot.image, settings.bank_rotations, settings.views.flip)
    every, maps = run_batches(session, turned, ["patches", "anomaly_map"], plain, steps.next(0.2))
    counted = np.ones(every.shape[:2], np.bool_)
    if settings.locator is not None:
        counted = bank_cells(
            settings.locator, maps.shape[1:], settings.bank_rotations, settings.views.flip
        )
    patches = every[counted]
    views = _gaussian_views(shot, settings, rng, session.workers, steps.next(0.3))
    embeddings = run_batches(session, views, ["embedding"], plain, steps.next(0.15))[0]
    if not (np.isfinite(patches).all() and np.isfinite(embeddings).all()):
        raise ModelFileError(
            "the encoder's features of a shot are no finite numbers, so its weights are damaged: "
            "run  fsad-edge finetune  again."
        )
    illumination = None
    if settings.align:
        count = min(RELIT_PER_SHOT, max(1, RELIT_IN_ALL // shots))
        own = generators(rng, count)
        relit = side_by_side(lambda own: relight(shot.image, own), own, session.workers)
        lit = run_batches(session, relit, ["patches"], plain, steps.next(0.3))[0]
        upright = every[0, counted[0], :-1]
        illumination = illumination_scatter(upright, lit[:, counted[0], :-1])
    step = -(-len(patches) * shots // POOL)
    numbers = np.flatnonzero(counted)
    whole = Embedded(
        patches,
        patches[::step],
        embeddings,
        illumination,
        default_weights(settings.locator, *maps.shape[1:]),
        settings.full_depth,
        _learned(settings, patches.shape[1] - 1),
    )
    # They are thinned as the bank will see them: patches that are far apart before a projection may
    # be close after it.
    projection = projection_of([whole])
    seen = patches if projection is None else projected_patches(patches, projection)
    # Twice what the bank can take from each shot, so that many shots do not take hours.
    share = max(2 * settings.bank_size // shots, 1)
    kept = greedy_coreset(seen[:, :-1], share)
    numbers = np.concatenate([numbers[kept], numbers[::step]])
    return replace(
        whole, patches=patches[kept], places=RowPlaces(numbers, len(every), *maps.shape[1:])
    )


def _gaussian_views(
    shot: Shot,
    settings: CalibrationSettings,
    rng: np.random.Generator,
    workers: int,
    on_progress: Callable[[float], None],
) -> list[UInt8Array]:
    """The shot and augmented views of it, whose embeddings the Gaussian is fitted to."""
    height, width = shot.image.shape[:2]
    count = settings.gaussian_views
    views = side_by_side(
        lambda own: random_view(shot.canvas, height, width, settings.part_views, own),
        generators(rng, count),
        workers,
        fraction_of(on_progress, count),
    )
    if settings.score == ScoreKind.IMAGE:
        # An object that looks to the left is of the same kind as one that looks to the right.
        views = [np.fliplr(shot.image), *views[::2], *(np.fliplr(view) for view in views[1::2])]
    return [shot.image, *views]


def bank_views(image: UInt8Array, rotations: int, flip: bool) -> list[UInt8Array]:
    """The views of an image that go into the memory bank: as photographed, rotated and flipped.

    Args:
        image: uint8 ``[H, W, 3]`` at the model's size.
        rotations: steps of a full turn; 1 is as photographed.
        flip: include mirror images.
    """
    quarters = 4 if rotations % 4 == 0 and image.shape[0] == image.shape[1] else 1
    steps = range(1, rotations // quarters)
    views = [image, *(rotate(image, 360 * step / rotations) for step in steps)]
    # Quarter turns of those are the others, and cost next to nothing.
    views = [np.rot90(view, -quarter) for quarter in range(quarters) for view in views]
    if flip:
        # Two mirror images and the half turn; a rotated bank has the half turn already.
        axes: list[int | tuple[int, int]] = [0, 1] + ([(0, 1)] if rotations == 1 else [])
        views += [np.flip(view, axis) for view in views for axis in axes]
    return views


def bank_cells(locator: Locator, grid: tuple[int, ...], rotations: int, flip: bool) -> BoolArray:
    """Which patches of the views that :func:`bank_views` makes show the part, or lie beside it.

    Args:
        locator: how the part is found.
        grid: rows and columns of a map.
        rotations: as of :func:`bank_views`.
        flip: as of :func:`bank_views`.

    Returns:
        bool ``[V, P]``.
    """
    rows, columns = grid
    cells = locator.cells(rows, columns)
    picture = np.repeat(cells[..., None] * np.uint8(255), 3, axis=2)
    views = bank_views(picture, rotations, flip)
    return np.stack([view[..., 0] > 127 for view in views]).reshape(len(views), -1)


def counted_distances(maps: Float32Array, weights: Float32Array) -> Float32Array:
    """The distances of the patches that count, float32 ``[N, n]``, of maps ``[N, h, w]``.

    Args:
        maps: float32 ``[N, h, w]`` or ``[N, P]``.
        weights: of their cells, float32 ``[P]``; those of 0 do not count.
    """
    counted: Float32Array = maps.reshape(len(maps), -1)[:, weights > 0]
    return counted


def fit_shots(
    embedded: Sequence[Embedded], bank_size: int, rows: int | None = None
) -> ReferenceModel:
    """The reference model of some shots; arguments as of :func:`fit_reference`."""
    pool = np.concatenate([shot.pool for shot in embedded])
    fitted = fit_reference(
        np.concatenate([shot.patches for shot in embedded]),
        np.concatenate([shot.embeddings for shot in embedded]),
        bank_size,
        pool,
        projection_of(embedded),
        rows,
        WHOLE_PRIOR if embedded[0].full_depth else None,
    )
    return replace(fitted, weights=embedded[0].weights)


def projection_of(embedded: Sequence[Embedded]) -> Float32Array | None:
    """The projection of some shots: it shrinks what light changes, then comes what was learned.

    Returns:
        float32 ``[D, D]``; None where alignment is off and nothing was learned.
    """
    learned = embedded[0].learned
    scatters = [shot.illumination for shot in embedded if shot.illumination is not None]
    if not scatters:
        return learned
    means, outers = zip(*(shot.moments for shot in embedded), strict=True)
    mean = np.mean(means, axis=0)
    aligned = alignment(np.mean(scatters, axis=0), np.mean(outers, axis=0) - np.outer(mean, mean))
    return aligned if learned is None else aligned @ learned


def _learned(settings: CalibrationSettings, depth: int) -> Float32Array | None:
    """The projection that was trained, float32 ``[D, D]``; None where none is used.

    Raises:
        ModelFileError: it is of another size, as in a directory that was edited.
    """
    if not settings.learned:
        return None
    if len(settings.learned) != 4 * depth**2:
        raise ModelFileError(
            f"the projection that was trained has {len(settings.learned)} bytes and not "
            f"{4 * depth**2}: run  fsad-edge finetune  again."
        )
    return np.frombuffer(settings.learned, np.float32).reshape(depth, depth)
