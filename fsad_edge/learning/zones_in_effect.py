"""What the zones that people set make of a model: its weights, and its thresholds under them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsad_edge.calibration.left_out import threshold_under
from fsad_edge.errors import InputError
from fsad_edge.options import ScoreKind
from fsad_edge.runtime.arrays import BoolArray, Float32Array
from fsad_edge.runtime.bank import WORST_PATCHES
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.locator import OUTLINE, Locator, default_weights
from fsad_edge.runtime.metadata import Metadata, Threshold
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.zones import Zone, ZoneEntry, counted_share, weights_of


@dataclass(frozen=True)
class ZonesInEffect:
    """A model under its zones, before anything is learned.

    Attributes:
        here: the zones that were set on this device and are not undone, oldest first.
        weights: float32 ``[P]``, of the map's cells; None where the file takes none.
        threshold: the file's threshold, computed again under these weights.
        map_threshold: that of the map.
        recomputed: whether these are computed again; False where the file does not keep what that
            takes, so that they are the file's own.
        share: the share of the part that counts at all, 0 to 1.
    """

    here: tuple[ZoneEntry, ...]
    weights: Float32Array | None
    threshold: Threshold
    map_threshold: float
    recomputed: bool
    share: float

    def weights_on(self, rows: int, columns: int) -> Float32Array:
        """The weights on the map's grid, float32 ``[rows, columns]``; 1 where the file has none."""
        if self.weights is None:
            return np.ones((rows, columns), np.float32)
        return self.weights.reshape(rows, columns)

    @functools.cached_property
    def key(self) -> str:
        """Differs where the weights that were set here do; empty where none were."""
        if not self.here or self.weights is None:
            return ""
        return sha256(self.weights.tobytes())


def zones_in_effect(model: Model, here: Sequence[ZoneEntry]) -> ZonesInEffect:
    """A model under the zones of its file and those that were set here.

    Args:
        model: the model.
        here: the zones that were set here and are not undone, oldest first.

    Raises:
        InputError: the file takes no zones, or they would leave nothing to look at.
    """
    metadata, own = model.metadata, model.reference.weights
    share = share_that_counts(metadata, here)
    if not here:
        threshold, map_threshold = metadata.threshold, metadata.map_threshold
        return ZonesInEffect((), own, threshold, map_threshold, True, share)
    own = check_takes_zones(model)
    rows, columns = grid_of(model)
    zones = all_zones(metadata, here)
    weights = weights_of(zones, rows, columns) * default_weights(metadata.locator, rows, columns)
    check_something_left(weights)
    if metadata.left_out is None:
        threshold, map_threshold, recomputed = metadata.threshold, metadata.map_threshold, False
    else:
        threshold, map_threshold = threshold_under(metadata, own, weights)
        recomputed = True
    return ZonesInEffect(tuple(here), weights, threshold, map_threshold, recomputed, share)


def all_zones(metadata: Metadata, here: Sequence[ZoneEntry]) -> list[Zone]:
    """The zones of a file and those that were set here, oldest first."""
    return [entry.zone for entry in (*metadata.zones, *here)]


def share_that_counts(metadata: Metadata, here: Sequence[ZoneEntry]) -> float:
    """The share of the part, 0 to 1, that counts under the zones of a file and those set here."""
    return counted_share(all_zones(metadata, here), part_of(metadata.locator))


def part_of(locator: Locator | None) -> BoolArray | None:
    """Where in the frame the part is, bool ``[OUTLINE, OUTLINE]``; None for all of it."""
    return None if locator is None else locator.cells(OUTLINE, OUTLINE)


def check_takes_zones(model: Model) -> Float32Array:
    """The weights of a model's file, float32 ``[P]``.

    Raises:
        InputError: it has none, or does not decide by places.
    """
    if model.metadata.score is not ScoreKind.PATCH:
        raise InputError(
            f"{model.metadata.name} decides by the image as a whole and not by its places: zones "
            "change nothing there. Run  fsad-edge finetune  with  --score patch ."
        )
    if model.reference.weights is None:
        raise InputError(
            f"{model.metadata.name} was exported by a version that knew no zones: export it again."
        )
    return model.reference.weights


def check_something_left(weights: Float32Array) -> None:
    """Refuse weights under which there is nothing to look at.

    Raises:
        InputError: fewer cells count than a score is the mean of.
    """
    left = int((weights > 0).sum())
    if left < WORST_PATCHES:
        raise InputError(
            "this would leave nothing to look at: "
            + ("no place" if not left else f"{left} of {len(weights)} places")
            + " of the part would count. Undo a zone, or mark a smaller one."
        )


def grid_of(model: Model) -> tuple[int, int]:
    """Rows and columns of a model's map."""
    metadata = model.metadata
    if metadata.left_out is not None:
        return metadata.left_out.rows, metadata.left_out.columns
    black = np.zeros((1, metadata.height, metadata.width, 3), np.uint8)
    rows, columns = model.embed(black)["anomaly_map"].shape[1:]
    return int(rows), int(columns)
