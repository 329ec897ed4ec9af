"""What the zones that people set make of a model: its weights, and its thresholds under them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsad_edge.calibration.left_out import left_out_scores, threshold_where_looked
from fsad_edge.errors import InputError
from fsad_edge.options import ScoreKind
from fsad_edge.runtime.arrays import BoolArray, Float32Array
from fsad_edge.runtime.bank import WORST_PATCHES
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.locator import OUTLINE, Locator, default_weights
from fsad_edge.runtime.metadata import Metadata, Threshold
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.zones import MARGINS, Zone, ZoneEntry, counted_share, mask_of, weights_of


@dataclass(frozen=True)
class ZonesInEffect:
    """A model under its zones, before anything is learned.

    Attributes:
        here: the zones that were set on this device and are not undone, oldest first.
        weights: float32 ``[P]``, of the map's cells; None where the file takes none.
        mask: float32 ``[P]``, the same where no zone counts more or less.
        threshold: the file's threshold, computed again under this mask.
        map_threshold: that of the map.
        recomputed: whether these are computed again; False where the file does not keep what that
            takes, so that they are the file's own.
        share: the share of the part that counts at all, 0 to 1.
        beside: the share that does not count because it is beside what is ignored, 0 to 1.
    """

    here: tuple[ZoneEntry, ...]
    weights: Float32Array | None
    mask: Float32Array | None
    threshold: Threshold
    map_threshold: float
    recomputed: bool
    share: float
    beside: float

    def weights_on(self, rows: int, columns: int) -> Float32Array:
        """The weights on the map's grid, float32 ``[rows, columns]``; 1 where the file has none."""
        if self.weights is None:
            return np.ones((rows, columns), np.float32)
        return self.weights.reshape(rows, columns)

    @functools.cached_property
    def key(self) -> str:
        """Differs where the weights that were set here do; empty where none were."""
        if not self.here or self.weights is None or self.mask is None:
            return ""
        return sha256(self.weights.tobytes() + self.mask.tobytes())


def zones_in_effect(model: Model, here: Sequence[ZoneEntry]) -> ZonesInEffect:
    """A model under the zones of its file and those that were set here.

    Args:
        model: the model.
        here: the zones that were set here and are not undone, oldest first.

    Raises:
        InputError: the file takes no zones, or they would leave nothing to look at.
    """
    metadata, own = model.metadata, model.reference.weights
    if not here and not metadata.zones:
        threshold, map_threshold = metadata.threshold, metadata.map_threshold
        return ZonesInEffect((), own, own, threshold, map_threshold, True, 1.0, 0.0)
    own = check_takes_zones(model)
    zones, grid = all_zones(metadata, here), grid_of(model)
    part = default_weights(metadata.locator, *grid)
    weights = weights_of(zones, *grid, metadata.cell_shift) * part if here else own
    check_something_left(weights)
    of_file, looked = (_mask(metadata, some, grid) for some in ((), here))
    threshold, map_threshold = metadata.threshold, metadata.map_threshold
    recomputed = metadata.left_out is not None or np.array_equal(looked, of_file)
    if metadata.left_out is not None:
        threshold, map_threshold = threshold_where_looked(metadata, of_file, looked)
    share, beside = shares_of(metadata, here)
    return ZonesInEffect(
        tuple(here), weights, looked, threshold, map_threshold, recomputed, share, beside
    )


def shots_threshold(metadata: Metadata, here: Sequence[ZoneEntry]) -> float:
    """What zones that were set here make of a file's threshold.

    Raises:
        InputError: they would leave nothing to look at.
    """
    kept = metadata.left_out
    if kept is None or metadata.score is not ScoreKind.PATCH:
        return metadata.threshold.value
    of_file, looked = (_mask(metadata, some, (kept.rows, kept.columns)) for some in ((), here))
    return threshold_where_looked(metadata, of_file, looked)[0].value


def _mask(metadata: Metadata, here: Sequence[ZoneEntry], grid: tuple[int, int]) -> Float32Array:
    """Which cells count at all under the zones of a file and others, float32 ``[P]``."""
    mask = mask_of(all_zones(metadata, here), *grid, metadata.cell_shift)
    return mask * default_weights(metadata.locator, *grid)


def left_out_rejected(
    metadata: Metadata, zones: ZonesInEffect, threshold: float
) -> tuple[int, int] | None:
    """How many left-out shots a model rejects under its zones, and of how many.

    Args:
        metadata: of the model.
        zones: those that count.
        threshold: the threshold in effect.

    Returns:
        None where the file does not keep how far its shots are from one another.
    """
    if metadata.left_out is None or zones.weights is None:
        return None
    scores = left_out_scores(metadata, zones.weights)
    return int((scores > threshold).sum()), len(scores)


def all_zones(metadata: Metadata, here: Sequence[ZoneEntry]) -> list[Zone]:
    """The zones of a file and those that were set here, oldest first."""
    return [entry.zone for entry in (*metadata.zones, *here)]


def shares_of(metadata: Metadata, here: Sequence[ZoneEntry]) -> tuple[float, float]:
    """The share of the part that counts, and that which does not because it is beside what is
    ignored, each 0 to 1, under the zones of a file and those that were set here.
    """
    zones, part, kept = all_zones(metadata, here), part_of(metadata.locator), metadata.left_out
    if not zones:
        return 1.0, 0.0
    # Files without left-out distances have large maps, whose cells the bundled encoders' resemble.
    grid = (metadata.height // 16, metadata.width // 16)
    if kept is not None:
        grid = (kept.rows, kept.columns)
    share, without = (counted_share(zones, part, grid, margin) for margin in (MARGINS, (0.0,)))
    return share, without - share


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
