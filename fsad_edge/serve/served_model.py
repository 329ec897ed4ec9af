"""A model in service: what it has learned here, its p-values and its drift."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from fsad_edge.calibration.left_out import left_out_scores
from fsad_edge.calibration.p_value import PValue
from fsad_edge.learning.journal import Entry
from fsad_edge.learning.learner import Learner
from fsad_edge.monitoring.rejections import Rejections
from fsad_edge.monitoring.score_drift import ScoreDrift
from fsad_edge.runtime.model import Model
from fsad_edge.serve.image_preparation import Recipe
from fsad_edge.serve.schemas import DriftStatus, RejectionStatus, timestamp

Taught = TypeVar("Taught")


class ServedModel:
    """One version of a model file in service, whose golden images scored as they must.

    Args:
        name: the name by which requests call it.
        version: SHA-256 of the file.
        model: the loaded model.
        learner: images learned on this device, applied to the model.

    Attributes:
        p_value: gives a score's p-value; None where the threshold came by another rule.
        learned: number of images that were learned as normal and count.
        rejected: number of images that were called bad and count.
        zones: number of zones that were set here and count.
        zones_key: differs where scores are measured under other zones; empty where none were set.
        entries: all images that were ever taught, oldest first, with those that were undone; as of
            the last change, so that reading them does not wait for the one that is being made.
        gone: a sentence where images that counted are gone from disk; None where they are not.
        recipe: how images are prepared for it; and the same as bytes for another process.
        loaded: when it was loaded, UTC.
    """

    def __init__(self, name: str, version: str, model: Model, learner: Learner) -> None:
        self.name = name
        self.version = version
        self.model = model
        self.learner = learner
        self.loaded = timestamp()
        self.recipe = Recipe.of(model.metadata)
        self.pickled_recipe = pickle.dumps(self.recipe)
        self._drift = self._new_drift()
        self._rejections = Rejections()
        self._lock = threading.Lock()  # of the two above
        self._counted: set[str] = set()
        self.gone: str | None = None
        self.entries: tuple[Entry, ...] = ()
        self._update_learned()

    def teach(self, change: Callable[[Learner], Taught]) -> Taught:
        """Change what was taught; raises what the change raises.

        Args:
            change: makes the change.
        """
        images, zones = self.learner.active, self.learner.in_effect.key
        try:
            done = change(self.learner)
        finally:  # what another process taught may have been applied all the same
            self._update_learned()
        if (self.learner.active, self.learner.in_effect.key) != (images, zones):
            self.reset_drift()  # a threshold alone leaves the scores as they are
        with self._lock:
            self._rejections.reset()
        return done

    def refresh_learned(self) -> bool:
        """Apply what another process taught; whether it did. Raises as :meth:`Learner.refresh`."""
        if not self.learner.refresh():
            return False
        self._update_learned()
        self.reset_drift()
        return True

    def observe(self, score: float, rejected: bool) -> None:
        """Add an image that is judged to the drift test and to the count of what is rejected."""
        with self._lock:
            self._drift.update(score)
            self._rejections.update(rejected)

    def drift(self) -> DriftStatus:
        """Whether the scores are still distributed as they were."""
        with self._lock:
            return DriftStatus(
                images=self._drift.images,
                drifted=self._drift.drifted,
                evidence=self._drift.evidence,
                unlike_shots=self._drift.unlike_shots(),
                ratio_to_shots=self._drift.ratio_to_shots,
            )

    def rejections(self) -> RejectionStatus:
        """What was rejected of the newest images."""
        with self._lock:
            return RejectionStatus(
                images=self._rejections.images,
                rejected=self._rejections.rejected,
                many=self._rejections.many(self.learner.threshold.false_alarm_rate),
            )

    def reset_drift(self) -> None:
        """Start the drift test and the count of what is rejected again."""
        with self._lock:
            self._drift = self._new_drift()
            self._rejections.reset()

    def _new_drift(self) -> ScoreDrift:
        """A drift test against the scores of the shots, under the zones that count."""
        zones, metadata = self.learner.in_effect, self.model.metadata
        shots = metadata.normal_scores(zones.threshold)
        if zones.here and zones.weights is not None and metadata.left_out is not None:
            # Where zones are stricter, good parts score higher, too.
            stricter = np.sort(left_out_scores(metadata, zones.weights))
            if len(stricter) == len(shots):  # a file that learned before has scores of other images
                shots = np.maximum(shots, stricter).tolist()
        # The scores of a single shot are those of its own views and say nothing of other parts.
        return ScoreDrift(
            shots if metadata.shots.count > 1 else [], prior_std=zones.threshold.prior_std
        )

    def _update_learned(self) -> None:
        self.p_value = PValue.behind(self.learner.threshold)
        summary = self.learner.summary
        self.learned, self.rejected = summary.learned, summary.rejected
        self.zones, self.zones_key = summary.zones, self.learner.in_effect.key[:16]
        # What is undone is still in the journal; what is not there was taken away.
        self.entries = tuple(self.learner.entries())
        there = {entry.sha256 for entry in self.entries}
        gone = self._counted - there
        self._counted = gone | {entry.sha256 for entry in self.learner.active}
        if not gone:
            self.gone, self._folder = None, self.learner.folder
            return
        self.gone = (
            f"{len(gone)} images that were learned in {self._folder} are gone from there and do "
            "not count now: put that folder back, or start the service again to go on without them."
        )
