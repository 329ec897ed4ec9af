"""Through the model: what an image that is taught adds to either memory bank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsad_edge.calibration.batches import stacked
from fsad_edge.calibration.calibrate import bank_views
from fsad_edge.errors import InputError
from fsad_edge.learning.novelty import Novelty, find_novelty
from fsad_edge.learning.rejected import Place, marked_patches, shares_of_box, telling_patches
from fsad_edge.learning.zones_in_effect import ZonesInEffect, zones_in_effect
from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.bank import patch_distances
from fsad_edge.runtime.images import check_content, decode
from fsad_edge.runtime.locator import default_weights
from fsad_edge.runtime.metadata import Metadata
from fsad_edge.runtime.model import Model, Result, ScoringState
from fsad_edge.runtime.photograph import fingerprint

#: Left, top, right and bottom of a place, in pixels of the photograph.
Box = tuple[int, int, int, int]


def prepare(model: Model, image: bytes) -> UInt8Array:
    """An encoded image at the model's size, uint8 ``[H, W, 3]``.

    Raises:
        ImageError: it cannot be decoded or shows nothing.
    """
    prepared = model.metadata.preparation.load(image).pixels
    check_content(prepared)
    return prepared


def score_images(
    model: Model, images: Sequence[bytes], state: ScoringState | None = None
) -> list[Result]:
    """Score encoded images as :meth:`Model.score` does, the photographs' own sizes included.

    Args:
        model: the model.
        images: encoded.
        state: what to score with; the model's own by default.

    Raises:
        ImageError: one of them cannot be decoded or shows nothing.
    """
    prepared = [model.metadata.preparation.load(image) for image in images]
    for one in prepared:
        check_content(one.pixels)
    return model.score_prepared(
        np.stack([one.pixels for one in prepared]),
        state=state,
        sizes=[one.size for one in prepared],
        places=[one.located for one in prepared],
        full_sizes=[one.full_size for one in prepared],
    )


def novelty_of(model: Model, prepared: UInt8Array, zones: ZonesInEffect | None = None) -> Novelty:
    """What a good image adds to the memory bank of the file.

    Args:
        model: the model.
        prepared: what :func:`prepare` gave.
        zones: those that count; the file's own by default.
    """
    metadata, zones = model.metadata, zones or zones_in_effect(model, [])
    views = bank_views(prepared, metadata.bank_rotations, metadata.bank_flip)
    embedded = [model.embed(batch) for batch in stacked(views)]
    patches = np.concatenate([batch["patches"] for batch in embedded])
    distances = patch_distances(patches, model.reference)
    rows, columns = embedded[0]["anomaly_map"].shape[1:]
    weights = _weights_of_views(metadata, zones, (rows, columns))
    return find_novelty(
        patches, distances, zones.map_threshold, fingerprint(prepared), weights, zones.mask
    )


def telling_of(
    model: Model, prepared: UInt8Array, zones: ZonesInEffect | None = None
) -> Float32Array:
    """The patches of a good image that rejected rows are to leave alone, float32 ``[G, D + 1]``.

    Args:
        model: the model.
        prepared: what :func:`prepare` gave.
        zones: those that count; the file's own by default.
    """
    zones = zones or zones_in_effect(model, [])
    found = model.embed(prepared[None])
    patches = found["patches"][0]
    distances = _distances(model, patches, found["anomaly_map"].shape[1:], zones)
    return telling_patches(patches, distances, zones.map_threshold)


def rejected_of(
    model: Model, image: bytes, box: Box | None, zones: ZonesInEffect | None = None
) -> Float32Array:
    """The patches of a bad image that the second bank takes, float32 ``[R, D + 1]``.

    Args:
        model: the model.
        image: encoded.
        box: the bad place in pixels of the photograph; None takes the worst region of the heat map.
        zones: those that count; the file's own by default.

    Raises:
        ImageError: the image cannot be decoded or shows nothing.
        InputError: the box is not within it, or nothing in it counts.
    """
    zones = zones or zones_in_effect(model, [])
    place: Place | None
    place = None if box is None else box_fractions(photograph_size(model, image), box)
    prepared = model.metadata.preparation.load(image)
    check_content(prepared.pixels)
    found = model.embed(prepared.pixels[None])
    patches = found["patches"][0]
    rows, columns = found["anomaly_map"].shape[1:]
    distances = _distances(model, patches, (rows, columns), zones)
    weights = _weights(model.metadata, zones, (rows, columns))
    if place is not None:
        shift = model.metadata.cell_shift
        if prepared.located is not None:
            place = prepared.located.placement.cells_in_box(place, rows, columns, shift)
        else:
            place = shares_of_box((rows, columns), place, shift)
        place = place * (weights > 0)
    return marked_patches(patches, distances, (rows, columns), place)


def _distances(
    model: Model, patches: Float32Array, grid: tuple[int, ...], zones: ZonesInEffect
) -> Float32Array:
    """The distances of the patches of one image, weighted; 0 for those that do not count."""
    weights = _weights(model.metadata, zones, grid)
    weighted: Float32Array = patch_distances(patches, model.reference) * weights.ravel()
    return weighted


def _weights(metadata: Metadata, zones: ZonesInEffect, grid: tuple[int, ...]) -> Float32Array:
    """The weights of a map's cells, float32 ``[h, w]``."""
    rows, columns = grid
    if zones.weights is None:
        return default_weights(metadata.locator, rows, columns).reshape(rows, columns)
    return zones.weights.reshape(rows, columns)


def _weights_of_views(
    metadata: Metadata, zones: ZonesInEffect, grid: tuple[int, int]
) -> Float32Array:
    """The weights of the cells of the views that the bank holds, float32 ``[V, P]``."""
    weights, rotations = _weights(metadata, zones, grid), metadata.bank_rotations
    most = float(weights.max())
    picture = np.repeat(np.rint(weights * (255 / most))[..., None], 3, axis=2).astype(np.uint8)
    views = np.stack([one[..., 0] for one in bank_views(picture, rotations, metadata.bank_flip)])
    views = views.reshape(len(views), -1)
    if not ((weights == 0) | (weights == 1)).all():
        weighted: Float32Array = views.astype(np.float32) * np.float32(most / 255)
        return weighted
    return (views > 127).astype(np.float32)  # no cell of another view counts in part


def photograph_size(model: Model, image: bytes) -> tuple[int, int]:
    """Width and height of an encoded photograph as it is shown, in pixels.

    Raises:
        ImageError: it cannot be decoded.
    """
    return decode(image, scale=model.metadata.scale).size


def box_fractions(size: tuple[int, int], box: Box) -> tuple[float, float, float, float]:
    """A box as fractions of the photograph.

    Args:
        size: width and height of the photograph in pixels.
        box: in pixels.

    Raises:
        InputError: the box is empty, or not within the photograph.
    """
    width, height = size
    left, top, right, bottom = box
    if left >= right or top >= bottom:
        raise InputError(
            f"the box {left},{top},{right},{bottom} is empty or inverted: give left, top, right "
            "and bottom; right is larger than left, and bottom than top."
        )
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InputError(
            f"the box {left},{top},{right},{bottom} is not within the photograph of "
            f"{width} x {height} pixels: give left, top, right and bottom."
        )
    return left / width, top / height, right / width, bottom / height
