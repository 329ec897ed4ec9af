"""The thresholds again under other weights of the map's cells, without the shots.

A model file keeps how far each left-out shot was from the others, cell by cell
(:class:`~fsad_edge.runtime.metadata.LeftOutMaps`). A device that lets a place count more, less or
not at all multiplies these distances by the weights, and applies the rule of the calibration.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fsad_edge.calibration.calibrate import CalibrationSettings, counted_distances, threshold_of
from fsad_edge.calibration.threshold import scores_of_new_parts
from fsad_edge.errors import InputError
from fsad_edge.options import ScoreKind
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.bank import why_no_weights, worst_of
from fsad_edge.runtime.locator import default_weights
from fsad_edge.runtime.metadata import LeftOutMaps, Metadata, Threshold


def threshold_under(
    metadata: Metadata, own: Float32Array, weights: Float32Array
) -> tuple[Threshold, float]:
    """The threshold and that of the map, as the calibration would give them with other weights.

    What the calibration of these shots with these weights in the graph gives is met to within the
    digits that are kept of each distance: a threshold differs by less than 0.5 %, mostly by less
    than 0.1 %. What moved the file's own threshold since it was calibrated, such as images that
    were learned before ``bank export``, moves the new one by the same factor; a threshold that a
    person set to a number stays at it.

    Args:
        metadata: what the model file says of itself.
        own: float32 ``[P]``, the weights that the file's threshold was computed with: those of its
            reference model. With these the file's own thresholds are returned.
        weights: float32 ``[P]``, the other weights. Cells that show the part in no shot do not
            count, whatever their weights are.

    Raises:
        InputError: the file keeps no such distances, or the weights are not of its map, no numbers
            from 0 on, or all 0 where the part is.
    """
    if np.array_equal(own, weights):
        return metadata.threshold, metadata.map_threshold
    before, after = (patch_threshold(metadata, one) for one in (own, weights))
    return _moved(metadata, after, after.value / before.value)


def threshold_where_looked(
    metadata: Metadata, own: Float32Array, mask: Float32Array
) -> tuple[Threshold, float]:
    """The same where only a share of the cells counts: it never rises above that of all of them.

    Without some cells no image scores higher; only the estimate of how much parts differ may rise.

    Args:
        metadata: what the model file says of itself.
        own: float32 ``[P]``, 0 to 1, the share of each cell that counted for the file's threshold.
        mask: float32 ``[P]``, 0 to 1, the share of each cell that counts.

    Raises:
        InputError: as :func:`threshold_under`.
    """
    if np.array_equal(own, mask):
        return metadata.threshold, metadata.map_threshold
    everywhere = patch_threshold(metadata, np.ones_like(mask)).value
    before, after = (patch_threshold(metadata, one) for one in (own, mask))
    factor = min(after.value, everywhere) / min(before.value, everywhere)
    return _moved(metadata, after, factor)


def left_out_scores(metadata: Metadata, weights: Float32Array) -> Float32Array:
    """What new parts like the left-out images score under weights, float32 ``[N]``; one for each.

    They are of the rule behind the threshold; what moved the file's own since is not in them.

    Args:
        metadata: what the model file says of itself.
        weights: float32 ``[P]``.

    Raises:
        InputError: as :func:`threshold_under`.
    """
    kept, weights = _checked(metadata, weights)
    return scores_of_new_parts(worst_of(kept.maps * weights), kept.shots)


def _moved(metadata: Metadata, after: Threshold, factor: float) -> tuple[Threshold, float]:
    """The file's thresholds, moved by a factor, for the scores behind another one."""
    map_threshold = metadata.map_threshold * factor
    if metadata.score is not ScoreKind.PATCH:  # the whole image's score has no places
        return metadata.threshold, map_threshold
    if metadata.threshold.set_by_hand:
        return replace(metadata.threshold, scores=after.scores), map_threshold
    return replace(after, value=metadata.threshold.value * factor), map_threshold


def _checked(metadata: Metadata, weights: Float32Array) -> tuple[LeftOutMaps, Float32Array]:
    """The distances that a file keeps, and weights of the cells that show the part."""
    kept = metadata.left_out
    if kept is None:
        raise InputError(
            "the model file does not hold what the threshold is computed from again where a place "
            "counts more or less: export it again."
        )
    if weights.shape != (kept.rows * kept.columns,):
        raise InputError(
            f"the weights are of shape {list(weights.shape)}, and the map has "
            f"{kept.rows} x {kept.columns} cells: give one number for each."
        )
    weights = weights * default_weights(metadata.locator, kept.rows, kept.columns)
    if why_not := why_no_weights(weights):
        raise InputError(f"{why_not}.")
    return kept, weights


def patch_threshold(metadata: Metadata, weights: Float32Array) -> Threshold:
    """The threshold of the patch score under weights, from the distances that a file keeps.

    Arguments and errors are as of :func:`threshold_under`.
    """
    kept, weights = _checked(metadata, weights)
    weighted = kept.maps * weights
    scores = worst_of(weighted)
    limited = np.minimum(weighted, scores[:, None])  # as the graph's maps are
    settings = CalibrationSettings(
        false_alarm_rate=metadata.threshold.false_alarm_rate, outliers=kept.outliers
    )
    scores = scores_of_new_parts(scores, kept.shots)
    return threshold_of(scores, counted_distances(limited, weights), kept.shots, settings)
