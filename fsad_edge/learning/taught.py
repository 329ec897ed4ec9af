"""What a model scores with after all that it was taught; a change is tried on a copy of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fsad_edge.learning.journal import Setting
from fsad_edge.learning.novelty import MemoryBank, Novelty, in_coreset_order
from fsad_edge.learning.rejected import unlike_good_parts, with_rejected
from fsad_edge.learning.shown_places import with_shown_places
from fsad_edge.learning.threshold import learned_threshold, set_threshold
from fsad_edge.learning.zones_in_effect import ZonesInEffect, zones_in_effect
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.bank import ReferenceModel
from fsad_edge.runtime.metadata import Threshold
from fsad_edge.runtime.model import Model

#: Gives the patches of a learned image that rejected rows are to leave alone, ``[G, D + 1]``.
GoodPatches = Callable[[], Float32Array]

#: Gives what a learned image shows at each place of the part, ``[Q, D]``.
ShownPlaces = Callable[[], Float32Array]


class Taught:
    """The memory bank with learned rows, the rejected rows, and the threshold.

    The rejected rows are kept as they are marked, and how far they reach is found when all is
    known: what is learned later may resemble one.

    Args:
        model: the model; what the file holds is where this starts.
        zones: those that count; the file's own by default.

    Attributes:
        zones: those that count.
        bank: the memory bank.
        setting: the threshold that a person set; None leaves what was learned.
    """

    def __init__(self, model: Model, zones: ZonesInEffect | None = None) -> None:
        self._model = model
        self.zones = zones or zones_in_effect(model, [])
        self._rejected: list[Float32Array] = []
        self._good: list[GoodPatches] = []
        self._places: list[ShownPlaces] = []
        reference = in_coreset_order(model.reference)
        if self.zones.here and self.zones.weights is not None:
            reference = _under(
                self.zones.weights,
                reference,
                self.zones.threshold.value / model.metadata.threshold.value,
            )
        self.bank = MemoryBank(reference, self.zones.map_threshold)
        self.setting: Setting | None = None

    def copy(self) -> Taught:
        """A copy that can be changed without this one."""
        other = copy.copy(self)
        other.bank, other._rejected = self.bank.copy(), [*self._rejected]
        other._good, other._places = [*self._good], [*self._places]
        return other

    def bank_is(self, other: Taught) -> bool:
        """Whether both give every image the same score: only their thresholds may differ."""
        mine, theirs = self.bank.learned_rows, other.bank.learned_rows
        same = mine.shape == theirs.shape and bool((mine == theirs).all())
        same = same and self.zones.key == other.zones.key
        # A learned image that adds no row may still set bounds to the rejected ones.
        rejects = bool(self._rejected) or len(self._model.reference.rejected_patches) > 0
        same = same and (not rejects or len(self._good) == len(other._good))
        same = same and len(self._places) == len(other._places)
        return same and len(self._rejected) == len(other._rejected)

    def learn(
        self,
        novelty: Novelty,
        rows: Float32Array,
        counts: bool,
        good: GoodPatches,
        places: ShownPlaces | None = None,
    ) -> None:
        """Learn a good image.

        Args:
            novelty: this and the following are as of :meth:`MemoryBank.add`.
            rows: what it adds to the memory bank.
            counts: its score is one of those behind the threshold.
            good: gives its patches; it is only called where something is rejected.
            places: gives what it shows at each place; None where the model does not compare them.
        """
        self.bank.add(novelty, rows, counts)
        self._good.append(good)
        if places is not None:
            self._places.append(places)

    def reject(self, rows: Float32Array) -> None:
        """Take rows of a bad image into the second bank: float32 ``[R, D + 1]``."""
        self._rejected.append(rows)

    def reaching(self, rows: Float32Array) -> int:
        """How many rows of a bad image are unlike good parts, so that the second bank takes them.

        Args:
            rows: float32 ``[R, D + 1]``.
        """
        good = (patches() for patches in self._good)
        return len(unlike_good_parts(rows, self.bank.reference(), good))

    @property
    def left_out(self) -> bool:
        """Whether the scores behind the threshold are of left-out images, and not of views."""
        return self._model.metadata.shots.count > 1 or len(self.bank.scores()) > 1

    @property
    def learned_threshold(self) -> Threshold:
        """The threshold without what a person set."""
        shots = self._model.metadata.shots.count
        return learned_threshold(self.zones.threshold, shots > 1, self.bank.scores())

    @property
    def threshold(self) -> Threshold:
        """The threshold in effect."""
        found = self.learned_threshold
        return found if self.setting is None else set_threshold(found, self.left_out, self.setting)

    def reference(self) -> ReferenceModel:
        """The reference model to score with."""
        reference = with_shown_places(self.bank.reference(), [shown() for shown in self._places])
        rows = np.concatenate([reference.rejected_patches, *self._rejected])
        if not len(rows):
            return reference
        return with_rejected(reference, rows, (patches() for patches in self._good))


def _under(weights: Float32Array, reference: ReferenceModel, moved: float) -> ReferenceModel:
    """A reference model under other weights, which moved its threshold by a factor."""
    reference = reference.with_weights(weights)
    if reference.place_scale is None:
        return reference
    # Place scores are told in the units of the threshold: what a place may differ by does not
    # depend on what a zone makes of the threshold.
    return replace(reference, place_scale=reference.place_scale * np.float32(moved))
