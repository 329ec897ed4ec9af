"""A task made from the shots alone: tell drawn defects from normal images."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fsad_edge.calibration.calibrate import (
    CalibrationSettings,
    embed_shot,
    leave_one_out,
    left_out_images,
    run_batches,
    threshold_of,
)
from fsad_edge.calibration.threshold import scores_of_new_parts
from fsad_edge.errors import ImageError
from fsad_edge.options import ScoreKind
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.files import read_bytes
from fsad_edge.runtime.image_scale import UNASKED, ImageScale
from fsad_edge.runtime.images import load_image
from fsad_edge.synthesis import DrawnDefect, Shot, draw_defects, exposed_again, random_view

#: Images in all, divided among the shots.
NORMAL_IMAGES, DEFECTIVE_IMAGES = 60, 200

#: Runs behind a model's latency.
TIMED_RUNS = 15


@dataclass(frozen=True)
class TaskResult:
    """How well a graph solves the task.

    Attributes:
        auroc: the probability that a defective view scores higher than a normal one, 0 to 1.
        found: the share of the defective views that score above the threshold.
    """

    auroc: float
    found: float


def draw_on(
    files: Sequence[Path], seed: int, scale: ImageScale = UNASKED
) -> list[list[DrawnDefect]]:
    """The task's defects, drawn once for all image sizes that are compared.

    Args:
        files: the photographs of the shots.
        seed: random seed.
        scale: black and white in files of more than 8 bits.
    """
    count = max(1, DEFECTIVE_IMAGES // len(files))
    return [
        draw_defects(
            load_image(read_bytes(file, ImageError), scale),
            count,
            np.random.default_rng([seed, 3, index]),
        )
        for index, file in enumerate(files)
    ]


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
    """

    def __init__(
        self,
        shots: Sequence[Shot],
        settings: CalibrationSettings,
        drawn: Sequence[Sequence[DrawnDefect]],
    ) -> None:
        rng = np.random.default_rng([settings.seed, 1])
        self.shots = shots

        def view(shot: Shot, defect: DrawnDefect | None) -> UInt8Array:
            whole = shot.image if len(shots) > 1 else shot.canvas
            image = whole if defect is None else defect.onto(whole)
            if len(shots) > 1:
                return exposed_again(image, settings.views, rng)
            height, width = shot.image.shape[:2]
            return random_view(image, height, width, settings.views, rng)

        count = max(1, NORMAL_IMAGES // len(shots))
        self.normal = [[view(shot, None) for _ in range(count)] for shot in shots]
        self.defective = [
            [view(shot, defect) for defect in defects]
            for shot, defects in zip(shots, drawn, strict=True)
        ]

    @property
    def side(self) -> int:
        """Side of its images, pixels."""
        return int(self.shots[0].image.shape[0])

    def latency_ms(self, session: OnnxSession) -> float:
        """Milliseconds of the model alone for one image: median, on this machine at this time."""
        image = self.shots[0].image[None]
        times = []
        for _ in range(TIMED_RUNS):
            start = time.perf_counter()
            session.run(["score", "anomaly_map"], {"image": image})
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times)

    def solve(self, session: OnnxSession, settings: CalibrationSettings) -> TaskResult:
        """Score each shot's views with the reference model of the other shots.

        Args:
            session: the graph; its own defaults for the reference model are not used.
            settings: as for the calibration.
        """
        rng = np.random.default_rng([settings.seed, 2])
        if settings.score == ScoreKind.PATCH:
            settings = replace(settings, gaussian_views=0)
        embedded = [
            embed_shot(session, shot, settings, len(self.shots), rng) for shot in self.shots
        ]
        output = [f"{settings.score}_score"]
        left_out, normal, defective = [], [], []
        for index, others in enumerate(leave_one_out(embedded, settings.bank_size)):
            inputs, still = others.as_inputs(), left_out_images(self.shots, index)
            left_out.append(run_batches(session, still, [*output, "anomaly_map"], inputs))
            normal.append(run_batches(session, self.normal[index], output, inputs)[0])
            defective.append(run_batches(session, self.defective[index], output, inputs)[0])
        good, bad = np.concatenate(normal), np.concatenate(defective)
        scores, maps = (np.concatenate(values) for values in zip(*left_out, strict=True))
        if settings.score == ScoreKind.PATCH:
            scores = scores_of_new_parts(scores, len(self.shots))
        threshold = threshold_of(scores, maps, len(self.shots), settings).value
        higher, equal = bad[:, None] > good, bad[:, None] == good
        return TaskResult(
            auroc=float(higher.mean() + equal.mean() / 2),
            found=float((bad > threshold).mean()),
        )
