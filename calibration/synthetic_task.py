"""A task made from the shots alone: tell drawn defects from normal images."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fsad_edge.calibration.batches import run_batches
from fsad_edge.calibration.calibrate import (
    CalibrationSettings,
    Embedded,
    counted_distances,
    embed_shot,
    fit_shots,
    leave_one_out,
    left_out_images,
    threshold_of,
)
from fsad_edge.calibration.kept_patches import KeptPatches, may_be_kept
from fsad_edge.calibration.threshold import scores_of_new_parts
from fsad_edge.errors import ImageError
from fsad_edge.options import ScoreKind
from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.files import read_bytes
from fsad_edge.runtime.image_scale import UNASKED, ImageScale
from fsad_edge.runtime.images import load_image
from fsad_edge.runtime.locator import Locator
from fsad_edge.runtime.side_by_side import fraction_of, side_by_side
from fsad_edge.runtime.steps import Steps
from fsad_edge.synthesis import (
    DrawnDefect,
    Shot,
    draw_defects,
    exposed_again,
    generators,
    random_view,
)

#: Images in all, divided among the shots; fewer of those that have more pixels than a square of
#: ``FULL_SIDE``, because all are kept in memory.
NORMAL_IMAGES, DEFECTIVE_IMAGES, FULL_SIDE = 60, 200, 1448

#: Graphs whose patches are kept: one encoder is tried, and another one is taken after all.
GRAPHS = 2

#: The fractions of the work, roughly, to embed the shots and to look at the views.
EMBEDDING, VIEWS = 0.15, 0.75


@dataclass(frozen=True)
class TaskResult:
    """How well a graph solves the task.

    Attributes:
        auroc: the probability that a defective view scores higher than a normal one, 0 to 1.
        found: the share of the defective views that score above the threshold.
    """

    auroc: float
    found: float


def affordable_share(height: int, width: int) -> float:
    """The share, 0 to 1, of the images that a task of this size in pixels has.

    Example:
        >>> affordable_share(1024, 1024), round(affordable_share(2048, 2048), 2)
        (1.0, 0.5)
    """
    return min(1.0, FULL_SIDE**2 / (height * width))


def draw_on(
    files: Sequence[Path],
    seed: int,
    scale: ImageScale = UNASKED,
    locator: Locator | None = None,
    workers: int = 0,
    on_progress: Callable[[float], None] = lambda done: None,
) -> list[list[DrawnDefect]]:
    """The task's defects, drawn once for all image sizes that are compared.

    Args:
        files: the photographs of the shots.
        seed: random seed.
        scale: black and white in files of more than 8 bits.
        locator: how the part is found, on which they are drawn alone.
        workers: how many are drawn at a time; 0 takes as many as this process has cores.
        on_progress: called with the fraction that is done.
    """
    count, steps = max(1, DEFECTIVE_IMAGES // len(files)), Steps(on_progress)
    drawn = []
    for index, file in enumerate(files):
        photograph = _part_of(load_image(read_bytes(file, ImageError), scale), locator)
        rng = np.random.default_rng([seed, 3, index])
        drawn.append(draw_defects(photograph, count, rng, workers, steps.next(1 / len(files))))
    return drawn


def _part_of(photograph: UInt8Array, locator: Locator | None) -> UInt8Array:
    """What a model looks at, at the photograph's own resolution."""
    if locator is None:
        return photograph
    return locator.locate(photograph).cut_out(photograph)


class SyntheticTask:
    """Views of the shots, with and without a drawn defect.

    Views are neither shifted nor rotated: that would show a mirrored border and resampled texture,
    which no photograph has. Only those of a single shot are, as no other part shows how parts
    differ.

    Args:
        shots: at least one.
        settings: how far views may differ, and the random seed: the same seed makes the same
            images, so that two graphs can be compared on them.
        drawn: the defects of each shot, from :func:`draw_on`.
        workers: how many views are made at a time; 0 takes as many as this process has cores.
        on_progress: called with the fraction that is done.
    """

    def __init__(
        self,
        shots: Sequence[Shot],
        settings: CalibrationSettings,
        drawn: Sequence[Sequence[DrawnDefect]],
        workers: int = 0,
        on_progress: Callable[[float], None] = lambda done: None,
    ) -> None:
        self.shots = shots

        def view(asked: tuple[Shot, DrawnDefect | None, np.random.Generator]) -> UInt8Array:
            shot, defect, rng = asked
            whole = shot.image if len(shots) > 1 else shot.canvas
            image = whole if defect is None else defect.onto(whole)
            if len(shots) > 1:
                return exposed_again(image, settings.views, rng)
            height, width = shot.image.shape[:2]
            return random_view(image, height, width, settings.views, rng)

        share = affordable_share(*shots[0].image.shape[:2])
        count = max(1, int(share * NORMAL_IMAGES) // len(shots))
        nothing: list[DrawnDefect | None] = [None] * count
        groups = [nothing for _ in shots]
        groups += [list(defects[: max(1, int(share * len(defects)))]) for defects in drawn]
        own = iter(generators(np.random.default_rng([settings.seed, 1]), sum(map(len, groups))))
        steps = Steps(on_progress)
        views = [
            side_by_side(
                view,
                [(shot, defect, next(own)) for defect in group],
                workers,
                fraction_of(steps.next(1 / len(groups)), len(group)),
            )
            for shot, group in zip([*shots, *shots], groups, strict=True)
        ]
        self.normal, self.defective = views[: len(shots)], views[len(shots) :]
        self._kept: list[tuple[tuple[object, ...], KeptPatches | None]] = []

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its images, pixels."""
        height, width = self.shots[0].image.shape[:2]
        return height, width

    def solve(
        self,
        session: OnnxSession,
        settings: CalibrationSettings,
        on_progress: Callable[[float], None] = lambda done: None,
    ) -> TaskResult:
        """Score each shot's views with the reference model of the other shots.

        Args:
            session: the graph; its own defaults for the reference model are not used.
            settings: as for the calibration.
            on_progress: called with the fraction that is done.
        """
        rng = np.random.default_rng([settings.seed, 2])
        if settings.score == ScoreKind.PATCH:
            settings = replace(settings, gaussian_views=0)
        embedded = []
        steps = Steps(on_progress)
        for shot in self.shots:
            step = steps.next(EMBEDDING / len(self.shots))
            embedded.append(embed_shot(session, shot, settings, len(self.shots), rng, step))
        self._keep(session, settings, steps.next(VIEWS))
        output = [f"{settings.score}_score"]
        left_out, normal, defective = [], [], []
        for index, others in enumerate(leave_one_out(embedded, settings.bank_size)):
            inputs, still = others.as_inputs(), left_out_images(self.shots, index)
            left_out.append(run_batches(session, still, [*output, "anomaly_map"], inputs))
            good_scores, bad_scores = self._scores(session, settings, index, inputs)
            normal.append(good_scores)
            defective.append(bad_scores)
            steps.next((1 - EMBEDDING - VIEWS) / len(embedded))(1.0)
        good, bad = np.concatenate(normal), np.concatenate(defective)
        scores, maps = (np.concatenate(values) for values in zip(*left_out, strict=True))
        maps = counted_distances(maps, embedded[0].weights)
        if settings.score == ScoreKind.PATCH:
            scores = scores_of_new_parts(scores, len(self.shots))
        threshold = threshold_of(scores, maps, len(self.shots), settings).value
        return TaskResult(auroc=_auroc(good, bad), found=float((bad > threshold).mean()))

    def solve_others(
        self,
        session: OnnxSession,
        known: Sequence[Embedded],
        others: Sequence[int],
        settings: CalibrationSettings,
    ) -> float:
        """AUROC, 0 to 1, of the views of some shots with the reference model of other ones.

        Args:
            session: the graph.
            known: the shots of the reference model, embedded.
            others: places of the shots whose views are scored.
            settings: as for the calibration.
        """
        reference = fit_shots(known, settings.bank_size).as_inputs()
        pairs = [self._scores(session, settings, index, reference) for index in others]
        good, bad = (np.concatenate(scores) for scores in zip(*pairs, strict=True))
        return _auroc(good, bad)

    def scores(
        self,
        session: OnnxSession,
        settings: CalibrationSettings,
        reference: dict[str, Float32Array],
    ) -> tuple[Float32Array, Float32Array]:
        """Scores of all normal and of all defective views, float32 ``[n]`` each.

        Args:
            session: the graph.
            settings: as for the calibration.
            reference: the reference model, by the names of the graph's inputs.
        """
        pairs = [
            self._scores(session, settings, index, reference) for index in range(len(self.shots))
        ]
        good, bad = zip(*pairs, strict=True)
        return np.concatenate(good), np.concatenate(bad)

    def _scores(
        self,
        session: OnnxSession,
        settings: CalibrationSettings,
        index: int,
        reference: dict[str, Float32Array],
    ) -> tuple[Float32Array, Float32Array]:
        """Scores of a shot's normal and defective views, float32 ``[n]`` each."""
        if kept := self._keep(session, settings):
            bad = kept.scores(len(self.normal) + index, reference)
            return kept.scores(index, reference), bad
        output = [f"{settings.score}_score"]
        good, bad = (
            run_batches(session, views[index], output, reference)[0]
            for views in (self.normal, self.defective)
        )
        return good, bad

    def _keep(
        self,
        session: OnnxSession,
        settings: CalibrationSettings,
        on_progress: Callable[[float], None] = lambda done: None,
    ) -> KeptPatches | None:
        """The patches of all views through a graph: the same views are scored several times.

        None where they would fill the memory, and for the image score.
        """
        asked = (session, settings.locator, self.normal, self.defective)
        for known, kept in self._kept:
            if all(map(operator.is_, known, asked)):
                return kept
        groups = [*self.normal, *self.defective]
        kept, count = None, sum(map(len, groups))
        if settings.score == ScoreKind.PATCH and may_be_kept(session, count, self.shots[0].image):
            kept = KeptPatches(session, settings.locator, groups, on_progress)
        self._kept = [*self._kept, (asked, kept)][-GRAPHS:]
        return kept


def _auroc(good: Float32Array, bad: Float32Array) -> float:
    """The probability that a defective view scores higher than a normal one."""
    higher, equal = bad[:, None] > good, bad[:, None] == good
    return float(higher.mean() + equal.mean() / 2)
