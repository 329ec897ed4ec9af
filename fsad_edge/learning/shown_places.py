"""What learned images show at each place of the part, in the rows of the places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.bank import ReferenceModel
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.places import place_features, spread_rows


def compares_places(model: Model) -> bool:
    """Whether a model compares images with the shots place by place."""
    return model.reference.place_bank is not None


def shown_places(model: Model, prepared: UInt8Array) -> Float32Array:
    """What an image shows at each place, float32 ``[Q, D]``.

    Args:
        model: one that compares places.
        prepared: uint8 ``[H, W, 3]`` at the model's size.
    """
    projection = model.reference.place_projection
    assert projection is not None
    found = model.embed(prepared[None])
    rows, columns = found["anomaly_map"].shape[1:]
    shown: Float32Array = place_features(found["patches"], rows, columns, projection)[0]
    return shown


def with_shown_places(reference: ReferenceModel, shown: Sequence[Float32Array]) -> ReferenceModel:
    """The same reference model, which also knows what learned images show at each place.

    They go into the slots that are free, and each of them then shows nothing that is far from its
    place. Where they are more, the rows that are farthest apart are kept, of the shots and of them.

    Args:
        reference: the reference model.
        shown: of each learned image float32 ``[Q, D]``; none where places are not compared.
    """
    bank = reference.place_bank
    if bank is None or not shown:
        return reference
    used = bank.any(axis=(0, 2))
    known = np.concatenate([bank[:, used], np.stack(shown, axis=1)], axis=1)
    return replace(reference, place_bank=spread_rows(known, bank.shape[1]))
