"""A model before anything is chosen for the part, so that there is one after seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fsad_edge.calibration.calibrate import Calibration, CalibrationSettings, calibrate
from fsad_edge.pipeline.candidates import Shape, encoders_to_try
from fsad_edge.pipeline.choosing import Candidate, untried
from fsad_edge.pipeline.events import Progress
from fsad_edge.pipeline.finetune_job import FinetuneJob
from fsad_edge.pipeline.time_budget import FITTING

#: The largest image size of a first model, pixels. It takes about two seconds for five shots on two
#: cores, and is the size that is chosen most.
FIRST_SIZE = 448


@dataclass(frozen=True)
class FirstModel:
    """The first model.

    Attributes:
        candidate: what it was made of.
        fitted: its reference model and threshold; None where every size that may be taken is
            larger than ``FIRST_SIZE``, so that it would take as long as the search.
    """

    candidate: Candidate
    fitted: Calibration | None


def make_first_model(
    job: FinetuneJob,
    files: Sequence[Path],
    settings: CalibrationSettings,
    shapes: Sequence[Shape],
) -> FirstModel:
    """A model with the fastest encoder at the largest size up to ``FIRST_SIZE``.

    With a limit of milliseconds it is the largest of those that keep it, and the smallest where
    none does.

    Args:
        job: the run.
        files: the shots.
        settings: of the calibration.
        shapes: the inputs that may be taken, from the fastest to the slowest.
    """
    stage = "first model"
    job.on_progress(Progress(stage))
    started = time.perf_counter()
    candidate = _candidate(job, files, settings, shapes)
    if candidate.shape.side > FIRST_SIZE:
        return FirstModel(candidate, None)
    fitted = calibrate(
        candidate.session,
        candidate.shots,
        settings,
        lambda done: job.on_progress(Progress(stage, done)),
    )
    seconds = time.perf_counter() - started
    job.time.note(candidate.backbone, candidate.shape, seconds, FITTING)
    return FirstModel(candidate, fitted)


def _candidate(
    job: FinetuneJob,
    files: Sequence[Path],
    settings: CalibrationSettings,
    shapes: Sequence[Shape],
) -> Candidate:
    [fastest, *_] = encoders_to_try(job.options)
    single = [shape for shape in shapes if len(shape.strides) == len(shapes[0].strides)]
    small = [shape for shape in single if shape.side <= FIRST_SIZE] or single[:1]
    for shape in reversed(small):
        encoder, session = job.pretrained_of(fastest, shape, settings.locator)
        shots = job.shots_of(files, shape, settings.locator)
        latency_ms = job.latency_ms(encoder, shots[0], settings.locator)
        trial = untried(job, fastest, shape, settings, latency_ms)
        made = Candidate(trial, fastest, shape, encoder, session, shots, None)
        if job.options.budget_ms is None or latency_ms <= job.options.budget_ms:
            break
    return made
