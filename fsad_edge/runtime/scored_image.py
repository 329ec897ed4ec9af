"""From what the graph gives for an image to its result."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from fsad_edge.options import Doubt, ScoreKind
from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.found_regions import NO_REGIONS, find_regions
from fsad_edge.runtime.judgement import Look, Reason, reasons_of
from fsad_edge.runtime.locator import Located
from fsad_edge.runtime.metadata import Metadata
from fsad_edge.runtime.result import Result
from fsad_edge.runtime.upsampling import where_seen


@dataclass(frozen=True)
class ScoringState:
    """What a model scores with.

    Attributes:
        threshold: the threshold of the score that decides.
        map_threshold: the threshold of the map, for drawing it.
        inputs: the reference model's arrays by the names of the graph's inputs; empty where the
            session's defaults are used.
    """

    threshold: float
    map_threshold: float
    inputs: dict[str, Float32Array]


@dataclass(frozen=True)
class ImageToScore:
    """What is known of an image before it is scored.

    Attributes:
        prepared: the image at the model's size, uint8 ``[H, W, 3]``.
        clock: seconds that its decoding and its resizing took.
        size: width and height of the photograph as decoded, pixels; None judges any size.
        located: where its part was found; None where the model looks at the whole photograph.
        look: what :func:`~fsad_edge.runtime.judgement.look_at` gives for it; None measures it.
        full_size: width and height of the photograph in its file, pixels.
    """

    prepared: UInt8Array
    clock: tuple[float, float]
    size: tuple[int, int] | None
    located: Located | None
    look: Look | None
    full_size: tuple[int, int]


@dataclass(frozen=True)
class GraphOutputs:
    """What the graph gives for an image.

    Attributes:
        score: the score that decides.
        image_score: the distance of the whole image.
        anomaly_map: float32 ``[h, w]``, the weighted distances of the patches.
        place_score: the distance place by place; None where places are not compared.
        place_map: float32 ``[h, w]``, likewise.
    """

    score: float
    image_score: float
    anomaly_map: Float32Array
    place_score: float | None = None
    place_map: Float32Array | None = None


def result_of(
    image: ImageToScore,
    found: GraphOutputs,
    state: ScoringState,
    weights: Float32Array | None,
    metadata: Metadata,
    infer: float,
) -> Result:
    """The result of an image.

    Args:
        image: the image.
        found: what the graph gives for it.
        state: what it was scored with.
        weights: of the map's cells, float32 ``[P]``; None where the file has none.
        metadata: the file's description of itself.
        infer: milliseconds that the graph took.
    """
    start = time.perf_counter()
    # Whether an image is judged is a question of what it shows, and not of where.
    reasons = _reasons(image, found, _counted(found.anomaly_map, weights, metadata), metadata)
    anomaly_map = found.anomaly_map
    if found.place_map is not None:
        anomaly_map = np.maximum(anomaly_map, found.place_map)
    patch_map = anomaly_map
    map_threshold = state.map_threshold
    if metadata.score is ScoreKind.IMAGE and found.score > 0:
        # The map says nothing of this score: its highest place gets the image's ratio.
        map_threshold = float(anomaly_map.max()) * state.threshold / found.score or map_threshold
    place = None if image.located is None else image.located.placement
    if place is not None:
        anomaly_map = place.in_photograph(anomaly_map, metadata.cell_shift)
        place = place.scaled(image.full_size)
    elif any(metadata.cell_shift):
        anomaly_map = where_seen(anomaly_map, metadata.cell_shift)
    # Where the score decides for good, rounding must not make a region.
    is_above = not found.score <= state.threshold
    regions = NO_REGIONS
    if is_above:
        regions = find_regions(anomaly_map, map_threshold, image.full_size)
    decode, resize = image.clock
    return Result(
        score=found.score,
        threshold=state.threshold,
        image_score=found.image_score,
        reasons=reasons,
        anomaly_map=anomaly_map,
        map_threshold=map_threshold,
        timings={
            "decode": decode * 1e3,
            "resize": resize * 1e3,
            "infer": infer,
            "post": (time.perf_counter() - start) * 1e3,
        },
        place=place,
        size=image.full_size,
        regions=regions.regions,
        more_regions=regions.more,
        place_score=found.place_score,
        patch_map=patch_map,
    )


def _reasons(
    image: ImageToScore, found: GraphOutputs, counted: Float32Array, metadata: Metadata
) -> tuple[Reason, ...]:
    """Why the image is not judged; empty where it is."""
    reasons = reasons_of(
        metadata.judgement, image.prepared, found.image_score, counted, image.size, image.look
    )
    if image.located is None or image.located.why_not is None:
        return reasons
    # What else is there is unlike the shots: that says no more.
    others = (one for one in reasons if one.doubt is not Doubt.UNLIKE)
    text = f"no single whole part is found: {image.located.why_not}"
    return (*others, Reason(Doubt.NOT_FOUND, text))


def _counted(
    anomaly_map: Float32Array, weights: Float32Array | None, metadata: Metadata
) -> Float32Array:
    """The distances of the patches that count, float32 ``[h, w]`` or ``[n]``, before weights.

    What "unlike the shots" means does not depend on how much a place counts, only on whether.
    """
    if weights is not None:
        counts = weights > 0
        counted: Float32Array = anomaly_map.ravel()[counts] / weights[counts]
        return counted
    locator = metadata.locator
    return anomaly_map if locator is None else anomaly_map[locator.cells(*anomaly_map.shape)]
