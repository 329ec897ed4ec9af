"""``finetune`` chooses where to look, the encoder, the image size, the strides and the turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fsad_edge.calibration.calibrate import CalibrationSettings
from fsad_edge.calibration.locating import FoundParts, find_locator
from fsad_edge.calibration.selection import (
    SLOW_SIZE,
    Trial,
    best_trial,
    choose_turning,
    is_worth_a_trial,
)
from fsad_edge.calibration.synthetic_task import SyntheticTask, draw_on
from fsad_edge.errors import ImageError
from fsad_edge.options import Locate, ScoreKind, Turning
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
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.encoder_names import bundled_kind
from fsad_edge.runtime.files import read_bytes
from fsad_edge.runtime.image_scale import ImageScale
from fsad_edge.runtime.images import load_image
from fsad_edge.runtime.steps import Steps
from fsad_edge.scoring.tiles import is_tiled
from fsad_edge.synthesis import DrawnDefect

#: A part that is found may be enlarged so much, as a factor of its sides. With the bundled encoder
#: the AUROC on rendered pins, whose rectangle is 590 pixels long, was 0.64 at 400 pixels, 0.69 at
#: 576 and 0.80 at 800.
PART_ENLARGED = 3.0


@dataclass(frozen=True)
class Candidate:
    """A trial with all that it was made of.

    Attributes:
        trial: what was tried and what came out.
        shape: the input and the strides.
        encoder: the encoder, as pretrained.
        session: its graph.
        task: the shots and the defects drawn onto them.
    """

    trial: Trial
    shape: Shape
    encoder: PartEncoder
    session: OnnxSession
    task: SyntheticTask


@dataclass
class _Search:
    """What was tried so far, and the best of it."""

    job: FinetuneJob
    files: Sequence[Path]
    settings: CalibrationSettings
    drawn: list[list[DrawnDefect]]
    steps: int
    trials: list[Trial] = field(default_factory=list)
    best: Candidate | None = None
    too_slow: list[str] = field(default_factory=list)
    done: int = 0

    def attempt(self, backbone: str, shape: Shape) -> None:
        """Try an encoder at a size; only the first is tried where it is over the budget."""
        show = self._shown(backbone, shape)
        show(0.0)
        locator, steps = self.settings.locator, Steps(show)
        encoder, session = self.job.pretrained_of(backbone, shape, locator)
        task = self._task(shape, steps.next(0.2))
        latency_ms = self.job.latency_ms(encoder, task.shots[0], locator)
        budget_ms = self.job.options.budget_ms
        if self.best is None or budget_ms is None or latency_ms <= budget_ms:
            solved = task.solve(session, self.settings, steps.next(0.8))
            trial = Trial(
                shape.side,
                shape.strides,
                self.settings.bank_rotations,
                solved.auroc,
                solved.found,
                latency_ms,
                sides=None if shape.aspect == 1 else shape.size[::-1],
                encoder=None if self.job.options.weights else bundled_kind(backbone),
            )
            self.trials.append(trial)
            # The others are released: many shots at several sizes would fill the memory.
            if self.best is None or best_trial([self.best.trial, trial]) is trial:
                self.best = Candidate(trial, shape, encoder, session, task)
        else:
            encoder_name = bundled_kind(backbone) or Path(backbone).name
            self.too_slow.append(f"{encoder_name} at {shape.side} px ({latency_ms:.1f} ms)")
        show(1.0)
        self.done += 1

    def _shown(self, backbone: str, shape: Shape) -> Callable[[float], None]:
        """What shows the fraction of a trial that is done, with the best of those before it."""
        words = f"{bundled_kind(backbone) or Path(backbone).name} at {shape.side} px"
        if self.best is not None:
            words += f"; best so far: {self.best.trial}"

        def show(done: float) -> None:
            share = (self.done + done) / self.steps
            self.job.on_progress(Progress("choosing for the part", share, words))

        return show

    def _task(self, shape: Shape, on_progress: Callable[[float], None]) -> SyntheticTask:
        if self.best is not None and self.best.shape.size == shape.size:
            return self.best.task
        shots = self.job.shots_of(self.files, shape, self.settings.locator)
        return SyntheticTask(shots, self.settings, self.drawn, self.job.workers, on_progress)


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

    They are chosen at the smallest size, where parts at any angle show as well as at others. Where
    the user asks for a size that takes tiles, the smallest of all sizes decides: the other would
    take minutes.
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
    [smallest, *_] = sizes_to_try(options.image_size, [(0, 0)])
    if is_tiled(smallest, smallest):
        smallest = SIZES[0]
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
    job: FinetuneJob, files: Sequence[Path], settings: CalibrationSettings
) -> tuple[Candidate, list[Trial]]:
    """The image size, strides and encoder that suit the part, and all that was tried.

    Size and strides are chosen with the fastest encoder, and the others are tried with these.
    """
    options = job.options
    job.on_progress(Progress("drawing defects"))
    fastest, *others = encoders_to_try(options)
    shapes, drawn = _shapes(job, files, settings, fastest)
    search = _Search(job, files, settings, drawn, steps=len(shapes) + len(others))
    for shape in shapes:
        # What is larger than a size over the budget is slower still, and takes long to try.
        over_budget = shape.side >= SLOW_SIZE and bool(search.too_slow)
        if over_budget or not is_worth_a_trial(shape.side, search.trials):
            break
        search.attempt(fastest, shape)
    assert search.best is not None  # the first shape is tried whatever time it takes
    best_shape = search.best.shape
    if is_tiled(*best_shape.size) and options.image_size is None:
        others = []  # they would take minutes here, and a second for each photograph
    for encoder in others:
        search.attempt(encoder, best_shape)
    best = search.best
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
    return best, search.trials


def _shapes(
    job: FinetuneJob, files: Sequence[Path], settings: CalibrationSettings, backbone: str
) -> tuple[list[Shape], list[list[DrawnDefect]]]:
    """The inputs to try, and what is drawn onto each shot at all of them."""
    options, locator, aspect = job.options, settings.locator, _aspect(settings)
    offered = strides_of(backbone, options.weights)
    stage = "drawing defects"
    drawn = draw_on(
        files,
        settings.seed,
        job.scale,
        locator,
        job.workers,
        lambda done: job.on_progress(Progress(stage, done)),
    )
    [smallest, *_] = sizes_to_try(options.image_size, [(0, 0)])
    [first, *_] = shapes_to_try([smallest], options.strides, offered, aspect)
    shots = job.shots_of(files, first, locator)
    looked_at = [shot.size if locator is None else locator.sides(shot.size) for shot in shots]
    sizes = sizes_to_try(options.image_size, looked_at, 1.0 if locator is None else PART_ENLARGED)
    if job.whole_size is not None and options.image_size is None:
        sizes = [size_for_whole_objects(looked_at, job.whole_size)]
    if options.epochs:  # see check_trainable
        sizes = [size for size in sizes if not is_tiled(size, size)]
    return shapes_to_try(sizes, options.strides, offered, aspect), drawn


def _aspect(settings: CalibrationSettings) -> float:
    """Width of the model's input over its height."""
    locator = settings.locator
    return 1.0 if locator is None else locator.width / locator.height
