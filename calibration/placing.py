"""Whether and how images are compared with the shots place by place, from the shots alone.

What is missing, extra or in another place is like the shots, but not like them there. Rows of each
place are kept, with the place's own tolerance: how far the shots are from one another there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fsad_edge.calibration.prediction import PRIOR_STD, SMALLEST, Prediction, predict_score
from fsad_edge.calibration.spread import spread_of_scores
from fsad_edge.calibration.threshold import scores_of_new_parts
from fsad_edge.errors import InputError
from fsad_edge.options import ComparePlaces
from fsad_edge.runtime.arrays import BoolArray, Float32Array, Float64Array, UInt8Array
from fsad_edge.runtime.metadata import ByPlace
from fsad_edge.runtime.places import (
    ROWS,
    SPARE_ROWS,
    on_the_map,
    place_distances,
    place_grid,
    place_means,
    spread_rows,
    unit,
    worst_places,
)
from fsad_edge.runtime.student_t import student_quantile

#: Fewer shots say too little of what varies at a place.
FEWEST_SHOTS, FEWEST_ASKED = 5, 3

#: With fewer places nothing was measured: at 96 pixels each is a sixth of the photograph.
FEWEST_PLACES = 100

#: The share of a shot's places whose most similar place in the other shots is the same one, or one
#: beside it, from which on shots show the same thing at the same place. Five bottles, brackets,
#: prints and lugs that were turned upright have 0.92 to 1.00; solar cells, carpet, commutators,
#: tiles and wood 0.35 to 0.71.
SAME_PLACE = 0.85

#: Of so many shots that share is taken, and so many are looked at in other colours.
MOST_SHOTS = 8

#: How much of a place's tolerance is its own; the rest is the mean of all places: a few shots say
#: little of each. From 0.5 to 0.9 told good and bad apart about as well.
OWN_TOLERANCE = 0.8

#: What varies among the shots at one place is shrunk in all of them, but the less the larger this
#: is, as a share of the mean variance. From 0.03 to 0.3 did about as well.
SHRINKAGE = 0.3

#: How much what a change of colours does to the features adds to what varies among the shots,
#: before both are shrunk. Without it, a third of the good bottles were rejected where all shots
#: were of one juice. Grey parts have no colours to change and stay as they were.
COLOURS = 100.0

#: The least standard deviation of the logarithms of place scores that is reckoned with. Twelve
#: draws of four parts had 0.10 to 0.32, which the shots' maps foretell only roughly.
LEAST_STD = 0.25

#: The place score may reject this share of what the patch score may, and in addition to it. On
#: twelve draws of four parts that were aligned, at 1 %, both together rejected 0.6 % of good parts
#: and the patch score alone 0.4 %.
PLACE_RATE = 0.5

#: What no shot can show to be so. Five bottles of one juice are as alike as five brackets, of which
#: there is only one kind; a third of the bottles of the other juices were then rejected.
ASSUMES = (
    "every kind of good part must be among the shots: parts of another colour, label or variant "
    "are rejected as having something missing, extra or in another place, and nothing in the shots "
    "can tell that there are any. Where such parts are to come, add shots of them, or give --place "
    "off"
)


@dataclass(frozen=True)
class Places:
    """How an image is compared with the shots place by place.

    Attributes:
        bank: float32 ``[Q, K, D]``, rows of each place; zeros where there is room for more.
        projection: float32 ``[D, D]``, which the features are multiplied by.
        scale: float32 ``[Q]``, what the distance of a place is multiplied by so that the place
            score is held against the threshold of the patch score.
        scores: of each shot without itself, over the threshold, float64 ``[n]``.
    """

    bank: Float32Array
    projection: Float32Array
    scale: Float32Array
    scores: Float64Array


def why_not_comparable(
    asked: ComparePlaces, shots: int, grid: tuple[int, int], turned: bool, whole: bool
) -> str | None:
    """Why images cannot be compared place by place, whatever the shots show; None where they can.

    Args:
        asked: what the user asks for.
        shots: how many shots there are.
        grid: rows and columns of the map.
        turned: turned or mirrored parts are good.
        whole: the score of the whole image decides.

    Raises:
        InputError: it is asked for, and cannot be.
    """
    if asked is ComparePlaces.OFF:
        return "--place off"
    least = FEWEST_ASKED if asked is ComparePlaces.ON else FEWEST_SHOTS
    why = None
    if whole:
        why = "the score of the whole image decides"
    elif turned:
        why = "turned or mirrored parts are good"
    elif shots < least:
        why = f"that takes {least} shots"
    elif asked is ComparePlaces.AUTO and math.prod(place_grid(*grid)) < FEWEST_PLACES:
        why = "the image is so small that it has few places"
    if why is not None and asked is ComparePlaces.ON:
        raise InputError(f"--place on: places cannot be compared, because {why}.")
    return None if why is None else f"because {why}"


def same_place_share(patches: Float32Array, grid: tuple[int, int], weights: Float32Array) -> float:
    """How far the shots show the same thing at the same place.

    Args:
        patches: float32 ``[n, P, D + 1]``, all patches of at least two shots.
        grid: rows and columns of the map.
        weights: of its cells, float32 ``[P]``; those of 0 do not count.

    Returns:
        the share, 0 to 1, of the places of a shot of which no place in the other shots is more
        similar than the same one or one beside it; the median of the shots.
    """
    features = unit(place_means(patches, *grid))
    counted = counted_places(weights, grid)
    columns = place_grid(*grid)[1]
    down, across = np.divmod(np.arange(features.shape[1]), columns)
    beside = (np.abs(down[:, None] - down) <= 1) & (np.abs(across[:, None] - across) <= 1)
    shares = []
    for index in range(min(len(features), MOST_SHOTS)):
        own, others = features[index], np.delete(features, index, axis=0)
        similar = np.max([own @ other.T for other in others], axis=0)
        here = np.where(beside, similar, -1).max(axis=1)
        shares.append(float((here >= similar.max(axis=1))[counted].mean()))
    return float(np.median(shares))


def fit_places(
    patches: Float32Array,
    grid: tuple[int, int],
    weights: Float32Array,
    threshold: float,
    false_alarm_rate: float,
    in_colours: Float32Array,
) -> Places:
    """Rows, tolerances and scale of each place.

    Args:
        patches: float32 ``[n, P, D + 1]``, all patches of the shots, at least ``FEWEST_ASKED``.
        grid: rows and columns of the map.
        weights: of its cells, float32 ``[P]``.
        threshold: that of the patch score.
        false_alarm_rate: what it was made for.
        in_colours: float32 ``[m * n, P, D + 1]``, likewise of the shots :func:`in_other_colours`.
    """
    means, counted = place_means(patches, *grid), counted_places(weights, grid)
    shown = means[:MOST_SHOTS, counted]
    colours = _colour_scatter(shown, place_means(in_colours, *grid)[:, counted])
    shots, near = len(means), []
    for index in range(shots):
        bank, projection = _rows(np.delete(means, index, axis=0), grid, counted, colours)
        near.append(place_distances(unit(means[[index]] @ projection), bank)[0])
    apart = np.stack(near)
    # Its own distances must not set the tolerance that a shot is held against.
    relative = np.stack(
        [apart[one] / _tolerance(np.delete(apart, one, axis=0), counted) for one in range(shots)]
    )
    maps = on_the_map(relative, *grid) * weights
    scores = scores_of_new_parts(worst_places(maps, *grid), shots)
    prior = max(spread_of_scores(relative[:, counted]) or PRIOR_STD, LEAST_STD)
    bound = predict_score(scores.tolist(), prior).score_at(PLACE_RATE * false_alarm_rate)
    bank, projection = _rows(means, grid, counted, colours)
    room = np.zeros((len(bank), SPARE_ROWS, bank.shape[2]), np.float32)
    return Places(
        np.concatenate([bank, room], axis=1),
        projection,
        np.float32(threshold / bound / _tolerance(apart, counted)),
        scores.astype(np.float64) / bound,
    )


def place_prediction(by_place: ByPlace | None, false_alarm_rate: float) -> Prediction | None:
    """What is known of the next good part's place score, over the threshold.

    Args:
        by_place: of the file; None of earlier versions.
        false_alarm_rate: what the file's threshold was made for.

    Returns:
        None where places are not compared, or their scores are not known.
    """
    if by_place is None or not by_place.place_scores:
        return None
    known = predict_score(by_place.place_scores)
    # The scale of the places was made such that this share is above the threshold.
    quantile = student_quantile(1 - PLACE_RATE * false_alarm_rate, known.dof)
    return replace(known, width=max(-known.mean / quantile, SMALLEST))


def with_share_of_places(reliability: str) -> str:
    """What is said of a threshold where places are compared, too."""
    return (
        f"{reliability} Comparing places may reject half as many in addition, and far more where "
        "good parts come whose colour, label or variant no shot shows."
    )


def place_facts(by_place: ByPlace) -> dict[str, str]:
    """Whether places are compared, what that takes for granted, and how the shots do, by names."""
    facts = {"places": by_place.why}
    if by_place.on:
        facts["they assume"] = ASSUMES
    if scores := by_place.place_scores:
        facts["shots by place"] = (
            f"without itself, each shot has a place score of {scores[0]:.0%} to {scores[-1]:.0%} "
            "of the threshold"
        )
    return facts


def counted_places(weights: Float32Array, grid: tuple[int, int]) -> BoolArray:
    """The places that some cell of the map counts for, bool ``[Q]``; all if none does."""
    one = np.concatenate([weights, np.zeros_like(weights)]).reshape(2, -1).T[None]
    counted: BoolArray = place_means(one, *grid)[0, :, 0] > 0
    return counted if counted.any() else np.ones_like(counted)


def _tolerance(distances: Float32Array, counted: BoolArray) -> Float32Array:
    """How far good parts are from the rows of each place, float32 ``[Q]``, of ``[n, Q]``."""
    own = distances.mean(axis=0)
    usual = float(own[counted].mean())
    tolerance: Float32Array = np.maximum(
        (1 - OWN_TOLERANCE) * usual + OWN_TOLERANCE * own, SMALLEST
    )
    return tolerance


def in_other_colours(images: Sequence[UInt8Array]) -> list[UInt8Array]:
    """The first ``MOST_SHOTS`` shots with their colour channels in each of the five other orders,
    all in one after all in another: no shot can show which other colours good parts have.

    Args:
        images: uint8 ``[H, W, 3]``, ``n`` of them.
    """
    orders = list(itertools.permutations(range(3)))[1:]
    return [
        np.ascontiguousarray(image[..., order]) for order in orders for image in images[:MOST_SHOTS]
    ]


def _colour_scatter(means: Float32Array, others: Float32Array) -> Float64Array:
    """How other colours change the features of a place, ``[D, D]``.

    Args:
        means: float32 ``[n, q, D]``, of the shots.
        others: float32 ``[m * n, q, D]``, of the shots :func:`in_other_colours`.
    """
    apart = unit(others).reshape(-1, *means.shape) - unit(means)
    rows = apart.reshape(-1, means.shape[-1]).astype(np.float64)
    scatter: Float64Array = rows.T @ rows / len(rows)
    return scatter


def _rows(
    means: Float32Array, grid: tuple[int, int], counted: BoolArray, colours: Float64Array
) -> tuple[Float32Array, Float32Array]:
    """Rows of each place ``[Q, ROWS, D]`` and the projection ``[D, D]``, of ``[n, Q, D]``."""
    features = unit(means)
    projection = _projection(features[:, counted], colours)
    places = unit(features @ projection)
    candidates = np.concatenate([places, *_half_a_place_away(places, place_grid(*grid))])
    return spread_rows(candidates.transpose(1, 0, 2), ROWS), projection


def _projection(features: Float32Array, colours: Float64Array) -> Float32Array:
    """Shrinks what varies at one place (whitening), ``[D, D]``, of features ``[n, q, D]``, and what
    other colours change, whose scatter is ``[D, D]``.
    """
    apart = (features - features.mean(axis=0)).reshape(-1, features.shape[-1]).astype(np.float64)
    scatter = apart.T @ apart / len(apart)
    usual = max(float(np.trace(scatter)) / len(scatter), SMALLEST**2)
    variances, axes = np.linalg.eigh(scatter + COLOURS * colours)
    variances = variances.clip(0) + SHRINKAGE * usual
    scaled = axes / np.sqrt(variances / variances.max())
    projection: Float32Array = np.float32(scaled @ axes.T)
    return projection


def _half_a_place_away(places: Float32Array, grid: tuple[int, int]) -> Sequence[Float32Array]:
    """What the shots would show, about, were they moved by half a place in eight directions.

    Args:
        places: float32 ``[n, Q, D]``.
        grid: rows and columns of the places.
    """
    rows, columns = grid
    count, _, depth = places.shape
    field = np.pad(
        places.reshape(count, rows, columns, depth), ((0, 0), (1, 1), (1, 1), (0, 0)), "edge"
    )
    return [
        unit(places + field[:, y : y + rows, x : x + columns].reshape(count, rows * columns, depth))
        for y in range(3)
        for x in range(3)
        if (y, x) != (1, 1)
    ]
