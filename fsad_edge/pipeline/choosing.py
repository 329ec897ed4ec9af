"""``finetune`` chooses where to look, the encoder, the image size, the strides and the turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fsad_edge.calibration.calibrate import CalibrationSettings
from fsad_edge.calibration.locating import FoundParts, find_locator
from fsad_edge.calibration.selection import (
    SLOW_SIZE,
    Trial,
    best_trial,
    can_win,
    choose_turning,
    is_worth_a_trial,
)
from fsad_edge.calibration.synthetic_task import SyntheticTask, TaskResult, draw_on
from fsad_edge.errors import ImageError
from fsad_edge.options import BundledEncoder, Locate, ScoreKind, Turning
from fsad_edge.pipeline.candidates import (
    SIZES,
    Shape,
    encoders_to_try,
    shapes_to_try,
    size_for_whole_objects,
    sizes_to_try,
)
from fsad_edge.pipeline.events import Progress
from fsad_edge.pipeline.finetune_job import FinetuneJob
from fsad_edge.pipeline.part_encoder import PartEncoder, strides_of
from fsad_edge.pipeline.time_budget import ALIGNMENT, FIRST, FITTING
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.encoder_names import bundled_kind
from fsad_edge.runtime.files import read_bytes
from fsad_edge.runtime.image_scale import ImageScale
from fsad_edge.runtime.images import load_image
from fsad_edge.runtime.steps import Steps
from fsad_edge.scoring.tiles import is_tiled
from fsad_edge.synthesis import DrawnDefect, Shot

#: A part that is found may be enlarged so much, as a factor of its sides. With the bundled encoder
#: the AUROC on rendered pins, whose rectangle is 590 pixels long, was 0.64 at 400 pixels, 0.69 at
#: 576 and 0.80 at 800.
PART_ENLARGED = 3.0

#: The stage in which sizes and encoders are tried.
CHOOSING = "choosing for the part"


@dataclass(frozen=True)
class Candidate:
    """A trial with all that it was made of.

    Attributes:
        trial: what was tried and what came out.
        backbone: timm's name of the encoder, or what stands for it.
        shape: the input and the strides.
        encoder: the encoder, as pretrained.
        session: its graph.
        shots: the shots at that size.
        task: these and the defects drawn onto them; None where there was no time for that.
    """

    trial: Trial
    backbone: str
    shape: Shape
    encoder: PartEncoder
    session: OnnxSession
    shots: Sequence[Shot]
    task: SyntheticTask | None


@dataclass
class _Search:
    """What was tried so far, and the best of it.

    Attributes:
        job: the run.
        files: the shots.
        settings: of the calibration.
        drawn: what is drawn onto each shot.
        steps: how many trials there are at most.
        best: the best so far, at first the first model.
        trials: what came out, each with its place among all that may be tried, from the fastest to
            the slowest.
        too_slow: what was over the budget of milliseconds.
        no_time: what there was no time for.
    """

    job: FinetuneJob
    files: Sequence[Path]
    settings: CalibrationSettings
    drawn: list[list[DrawnDefect]]
    steps: int
    best: Candidate
    trials: list[tuple[int, Trial]] = field(default_factory=list)
    too_slow: list[str] = field(default_factory=list)
    no_time: list[str] = field(default_factory=list)

    @property
    def in_order(self) -> list[Trial]:
        """The trials, from the fastest to the slowest."""
        return [trial for _, trial in sorted(self.trials, key=lambda pair: pair[0])]

    @property
    def _within_budget(self) -> list[Trial]:
        """The same without the first, where it is over the budget and another one is not."""
        budget_ms = self.job.options.budget_ms
        kept = [one for one in self.in_order if not budget_ms or one.latency_ms <= budget_ms]
        return kept or self.in_order

    def attempt(self, place: int, backbone: str, shape: Shape) -> None:
        """Try an encoder at a size, unless it is over the budget or can win no more.

        Args:
            place: its place among all that may be tried, from the fastest to the slowest.
            backbone: the encoder.
            shape: the size.
        """
        budget_ms, first = self.job.options.budget_ms, not self.trials
        name = f"{bundled_kind(backbone) or Path(backbone).name} at {shape.side} px"
        slower = [other for other, _ in self.trials if other < place]
        if slower and not can_win(self._kind(backbone), self.best.trial):
            return
        trials = 1 + ALIGNMENT + FITTING
        if not first and not self.job.time.allows(backbone, shape, trials):
            self.no_time.append(name)
            return
        show = self._shown(name)
        show(0.0)
        started, locator, steps = time.perf_counter(), self.settings.locator, Steps(show)
        encoder, session = self.job.pretrained_of(backbone, shape, locator)
        task = self._task(shape, steps.next(0.2))
        timed = steps.next(0.05)
        latency_ms = self.best.trial.latency_ms  # the first model was timed
        if not first:
            latency_ms = self.job.latency_ms(encoder, task.shots[0], locator, timed)
        if not first and budget_ms is not None and latency_ms > budget_ms:
            self.too_slow.append(f"{name} ({latency_ms:.1f} ms)")
            show(1.0)
            return
        solved = task.solve(session, self.settings, steps.next(0.75))
        trial = self._trial(backbone, shape, latency_ms, solved)
        self.trials.append((place, trial))
        self.job.time.note(backbone, shape, time.perf_counter() - started)
        # The others are released: many shots at several sizes would fill the memory.
        if first or best_trial(self._within_budget) is trial:
            self.best = Candidate(trial, backbone, shape, encoder, session, task.shots, task)
        show(1.0)

    def _trial(self, backbone: str, shape: Shape, latency_ms: float, solved: TaskResult) -> Trial:
        return replace(
            untried(self.job, backbone, shape, self.settings, latency_ms),
            drawn_auroc=solved.auroc,
            drawn_found=solved.found,
        )

    def _kind(self, backbone: str) -> BundledEncoder | None:
        return None if self.job.options.weights else bundled_kind(backbone)

    def _shown(self, name: str) -> Callable[[float], None]:
        """What shows the fraction of a trial that is done, with the best of those before it."""
        words, done = f"{name}; best so far: {self.best.trial}", self._done

        def show(fraction: float) -> None:
            share = min(1.0, (done + fraction) / self.steps)
            self.job.on_progress(Progress(CHOOSING, share, words))

        return show

    @property
    def _done(self) -> int:
        return len(self.trials) + len(self.too_slow)

    def _task(self, shape: Shape, on_progress: Callable[[float], None]) -> SyntheticTask:
        if self.best.task is not None and self.best.shape.size == shape.size:
            return self.best.task
        same = self.best.shape.size == shape.size  # as of the first model
        locator = self.settings.locator
        shots = self.best.shots if same else self.job.shots_of(self.files, shape, locator)
        return SyntheticTask(shots, self.settings, self.drawn, self.job.workers, on_progress)


def untried(
    job: FinetuneJob,
    backbone: str,
    shape: Shape,
    settings: CalibrationSettings,
    latency_ms: float,
) -> Trial:
    """A choice before it is tried."""
    return Trial(
        shape.side,
        shape.strides,
        settings.bank_rotations,
        None,
        None,
        latency_ms,
        sides=None if shape.aspect == 1 else shape.size[::-1],
        encoder=None if job.options.weights else bundled_kind(backbone),
    )


@dataclass(frozen=True)
class _Photographs:
    """Photographs that are decoded one at a time: a hundred large ones fill the memory."""

    files: Sequence[Path]
    scale: ImageScale

    def __iter__(self) -> Iterator[UInt8Array]:
        return (load_image(read_bytes(file, ImageError), self.scale) for file in self.files)


def located(job: FinetuneJob, files: Sequence[Path]) -> FoundParts:
    """How the part is found, where the shots say that this can be done and pays."""
    options = job.options
    if options.score is ScoreKind.IMAGE and options.locate is Locate.AUTO:
        return FoundParts(None, "not looked for, because the image score is of the whole image")
    stage = "looking for the part"
    job.on_progress(Progress(stage))
    photographs = _Photographs(files, job.scale)
    names = [file.name for file in files]
    # Who asks for a bank that is turned wants no part to be turned upright before, and a mirrored
    # part does not agree with the template at any angle.
    may_turn = options.rotations is None and not options.flip
    parts = find_locator(photographs, names, options.locate, may_turn)
    job.on_progress(Progress(stage, 1.0))
    return parts


def turned(
    job: FinetuneJob, files: Sequence[Path], settings: CalibrationSettings
) -> tuple[CalibrationSettings, Turning]:
    """The settings with the steps of a full turn in which the shots go into the bank, and why.

    They are chosen at the smallest size, where parts at any angle show as well as at others.
    """
    options = job.options
    if settings.locator is not None and settings.locator.turned:
        return settings, Turning.UPRIGHT
    if options.rotations is not None:
        return replace(settings, bank_rotations=options.rotations), Turning.ASKED
    if job.whole_size is not None:
        return settings, Turning.WHOLE
    if len(files) == 1:
        return settings, Turning.ONE_SHOT
    stage = "looking at which angles parts lie"
    job.on_progress(Progress(stage))
    [fastest, *_] = encoders_to_try(options)
    smallest = min(options.image_size or SIZES[0], SIZES[0])
    offered = strides_of(fastest, options.weights)
    [shape, *_] = shapes_to_try([smallest], options.strides, offered, _aspect(settings))
    _, session = job.pretrained_of(fastest, shape, settings.locator)
    steps, turning = choose_turning(
        session,
        job.shots_of(files, shape, settings.locator),
        lambda done: job.on_progress(Progress(stage, done)),
    )
    return replace(settings, bank_rotations=steps), turning


def choose(
    job: FinetuneJob,
    files: Sequence[Path],
    settings: CalibrationSettings,
    shapes: Sequence[Shape],
    first: Candidate,
) -> tuple[Candidate, list[Trial]]:
    """The image size, strides and encoder that suit the part, and all that was tried.

    Size and strides are chosen with the fastest encoder, and the others are tried with these. What
    the first model has is tried first, so that a search that ends early has looked at it; then the
    others follow, the fastest first.

    Args:
        job: the run.
        files: the shots.
        settings: of the calibration.
        shapes: the inputs to try, from the fastest to the slowest.
        first: the first model.
    """
    options = job.options
    fastest, *others = encoders_to_try(options)
    if not has_time_to_search(job, first):
        if options.budget_s:  # 0 asks for the first model
            suffice = job.time.seconds_for(fastest, first.shape, _LEAST)
            job.warn(_too_short(options.budget_s, suffice))
        return first, [first.trial]
    drawn = _draw(job, files, settings)
    search = _Search(job, files, settings, drawn, len(shapes) + len(others), first)
    for shape in [first.shape, *(shape for shape in shapes if shape != first.shape)]:
        # What is larger than a size over the budget is slower still, and takes long to try.
        over_budget = shape.side >= SLOW_SIZE and bool(search.too_slow)
        if not over_budget and is_worth_a_trial(shape.side, search.in_order):
            search.attempt(shapes.index(shape), fastest, shape)
    best_shape = search.best.shape
    if is_tiled(*best_shape.size) and options.image_size is None:
        others = []  # they would take minutes here, and a second for each photograph
    for place, encoder in enumerate(others, start=len(shapes)):
        search.attempt(place, encoder, best_shape)
    job.on_progress(Progress(CHOOSING, 1.0, f"best: {search.best.trial}"))
    _tell_not_tried(job, search)
    return search.best, search.in_order


#: What the shortest search takes, in trials: one of them, and what follows.
_LEAST = FIRST + ALIGNMENT + FITTING


def has_time_to_search(job: FinetuneJob, first: Candidate) -> bool:
    """Whether there is time to look at drawn defects with the first model at least."""
    return job.time.allows(first.backbone, first.shape, _LEAST)


def _too_short(budget_s: float, suffice: float) -> str:
    return (
        f"nothing was chosen for the part, because the {budget_s:g} seconds of --budget-s are too "
        f"few to look at drawn defects; give {math.ceil(suffice)} seconds "
        "or more, or leave --budget-s out."
    )


def _tell_not_tried(job: FinetuneJob, search: _Search) -> None:
    options, best = job.options, search.best
    if options.budget_ms is not None and best.trial.latency_ms > options.budget_ms:
        job.warn(
            f"the first choice, {best.trial}, takes more than the {options.budget_ms:g} ms of "
            "--budget-ms here, and nothing faster was tried."
        )
    if search.too_slow:
        job.warn(
            f"not tried, because they take more than the {options.budget_ms:g} ms of --budget-ms "
            f"here: {', '.join(search.too_slow)}."
        )
    if search.no_time:
        job.warn(
            f"not tried, because the {options.budget_s:g} seconds of --budget-s did not suffice: "
            f"{', '.join(search.no_time)}."
        )


def _draw(
    job: FinetuneJob, files: Sequence[Path], settings: CalibrationSettings
) -> list[list[DrawnDefect]]:
    """What is drawn onto each shot, at all sizes."""
    stage = "drawing defects"
    job.on_progress(Progress(stage))
    return draw_on(
        files,
        settings.seed,
        job.scale,
        settings.locator,
        job.workers,
        lambda done: job.on_progress(Progress(stage, done)),
    )


def shapes_for(
    job: FinetuneJob, shots: Sequence[Shot], settings: CalibrationSettings
) -> list[Shape]:
    """The inputs to try with the fastest encoder, from the fastest to the slowest.

    Args:
        job: the run.
        shots: the shots, at any size.
        settings: of the calibration.
    """
    options, locator = job.options, settings.locator
    [fastest, *_] = encoders_to_try(options)
    looked_at = [shot.size if locator is None else locator.sides(shot.size) for shot in shots]
    sizes = sizes_to_try(options.image_size, looked_at, 1.0 if locator is None else PART_ENLARGED)
    if job.whole_size is not None and options.image_size is None:
        sizes = [size_for_whole_objects(looked_at, job.whole_size)]
    if options.epochs:  # see check_trainable
        sizes = [size for size in sizes if not is_tiled(size, size)]
    offered = strides_of(fastest, options.weights)
    return shapes_to_try(sizes, options.strides, offered, _aspect(settings))


def _aspect(settings: CalibrationSettings) -> float:
    """Width of the model's input over its height."""
    locator = settings.locator
    return 1.0 if locator is None else locator.width / locator.height
