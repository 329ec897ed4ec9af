"""``fsad_edge.finetune``: from a folder of normal images to a model directory."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from fsad_edge.calibration.calibrate import (
    Calibration,
    CalibrationSettings,
    bank_size_for,
    calibrate,
)
from fsad_edge.calibration.selection import Trial, best_trial, choose_turning
from fsad_edge.calibration.synthetic_task import SyntheticTask, draw_on
from fsad_edge.graph.scoring_graph import ScoringGraph, build_graph
from fsad_edge.options import Turning
from fsad_edge.pipeline.candidates import Shape, shapes_to_try, sizes_to_try
from fsad_edge.pipeline.check_shots import CheckedShots, about_high_score, check_shots
from fsad_edge.pipeline.events import (
    OnProgress,
    OnWarning,
    Progress,
    ignore_progress,
    ignore_warning,
)
from fsad_edge.pipeline.model_directory import (
    Manifest,
    TrainingRecord,
    check_replaceable,
    write_model_directory,
)
from fsad_edge.pipeline.options import FinetuneOptions
from fsad_edge.pipeline.shot_folder import find_shots
from fsad_edge.pipeline.shots_scale import settle_scale
from fsad_edge.runtime.backends.onnxruntime import OnnxSession, import_onnxruntime
from fsad_edge.runtime.files import check_output
from fsad_edge.runtime.folders import Skipped, describe
from fsad_edge.runtime.image_scale import ImageScale
from fsad_edge.runtime.metadata import ShotFinding, Threshold
from fsad_edge.runtime.provenance import package_versions, utc_now
from fsad_edge.synthesis import Shot, Views, load_shot
from fsad_edge.training.encoder import Encoder, check_finite, pretrained_encoder, strides_of
from fsad_edge.training.loop import (
    Losses,
    TrainingSettings,
    limit_threads,
    pick_device,
    train_contrastively,
)

#: AUROC on drawn defects that alignment may cost: less is noise, because the task compares 60
#: normal views with 120 others.
ALIGNMENT_MAY_COST = 0.05

#: Packages whose versions are stored with what they made.
PACKAGES = ("torch", "timm", "onnx", "onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True)
class FinetuneResult(os.PathLike[str]):
    """What :func:`finetune` made. It can be given wherever the path of the model directory can.

    Attributes:
        path: the model directory.
        shots: how many distinct normal images it was made from.
        backbone: where the pretrained weights came from.
        channels: length of a patch's features.
        stride: pixels from one patch to the next.
        chosen: the image size, strides and rotations that were chosen.
        trials: all that was tried.
        turning: why the shots are in the memory bank turned, or as photographed.
        flip: whether mirror images of the shots are in it too.
        training: what fine-tuning did.
        bank_size: most rows of the memory bank.
        bank_rows: rows in use.
        threshold: the decision boundary and what it rests on.
        warnings: a sentence for each finding that the user should know.
        skipped: entries of the folder of shots that were not learned from.
        left_out: how many shots were left out, near-identical to another one or copies of it.
        findings: what was found about the shots as a set, with the names of the files.
    """

    path: Path
    shots: int
    backbone: str
    channels: int
    stride: int
    chosen: Trial
    trials: tuple[Trial, ...]
    turning: Turning
    flip: bool
    training: TrainingRecord
    bank_size: int
    bank_rows: int
    threshold: Threshold
    warnings: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    left_out: int
    findings: tuple[ShotFinding, ...]

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def aligned(self) -> bool:
        """Whether features were made steady against light."""
        return self.training.aligned


@dataclass
class _Job:
    """What the steps of one run share."""

    options: FinetuneOptions
    scale: ImageScale
    bank_size: int
    device: torch.device
    on_progress: OnProgress
    on_warning: OnWarning
    warnings: list[str] = field(default_factory=list)

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)
        self.on_warning(sentence)

    def session_of(self, encoder: Encoder) -> OnnxSession:
        """The encoder's scoring graph in ONNX Runtime: calibration never scores in torch."""
        model = build_graph(ScoringGraph(encoder, self.options.score), self.bank_size)
        return OnnxSession(
            model.SerializeToString(), "the graph just built", threads=self.options.threads
        )


@dataclass(frozen=True)
class _Chosen:
    """What was chosen for the part, and all that was tried."""

    trial: Trial
    trials: tuple[Trial, ...]
    turning: Turning


@dataclass(frozen=True)
class _Candidate:
    """A trial with all that it was made of."""

    trial: Trial
    encoder: Encoder
    session: OnnxSession
    task: SyntheticTask


def finetune(
    shots: str | os.PathLike[str],
    output: str | os.PathLike[str] = "part",
    options: FinetuneOptions | None = None,
    *,
    on_progress: OnProgress = ignore_progress,
    on_warning: OnWarning = ignore_warning,
) -> FinetuneResult:
    """Learn what normal parts look like, and write a model directory.

    The encoder is fine-tuned contrastively where ``options.epochs`` asks for it (COFT-AD,
    arXiv 2402.18998). Image size and strides are chosen on defects drawn onto the shots; memory
    bank, Gaussian and threshold come from the shots alone. How many real defects will be found
    cannot be known from good parts: measure it with :func:`fsad_edge.evaluate`.

    Args:
        shots: a folder of 1 to about 50 normal images.
        output: the model directory to write.
        options: the user's choices; the defaults suit most parts.
        on_progress: called with each step.
        on_warning: called with each warning; the result lists them too.

    Raises:
        InputError: the shots, the output or an option cannot be used, or a shot is unlike the rest
            and ``options.keep_outliers`` is not set; nothing is written.
        WeightsError: the pretrained weights are not available.
        MissingExtraError: ONNX Runtime is not installed.

    Example:
        >>> import fsad_edge
        >>> from fsad_edge import FinetuneOptions
        >>> part = fsad_edge.finetune(shots, folder / "part", FinetuneOptions(image_size=64))
        >>> part.shots, part.chosen.image_size
        (5, 64)
    """
    options = options or FinetuneOptions()
    options.check()
    output = Path(output)
    found = find_shots(Path(shots), options.recursive)
    check_output(output, options.force)
    check_replaceable(output)
    scale = settle_scale(found.images, options.scale)
    import_onnxruntime()  # if it is missing, say so before the training and not after it
    limit_threads(options.threads)
    on_progress(Progress("checking the shots"))
    checked = check_shots(found.images, options, scale, on_warning)
    on_progress(Progress("checking the shots", 1.0))
    bank_size = options.bank_size or bank_size_for(len(checked.kept))
    job = _Job(options, scale, bank_size, pick_device(options.device), on_progress, on_warning)
    job.warnings += [finding.text for finding in checked.findings]
    if unseen := [one for one in found.skipped if one.unseen]:
        job.warn(f"some files in {shots} were not learned from: {describe(unseen)}.")
    settings = _settings(job, checked.outliers)
    files = [shot.path for shot in checked.kept]
    settings, turning = _turned(job, files, settings)
    best, trials = _choose(job, files, settings)
    encoder, session, record = _train(job, best, settings)
    record, settings = _align(job, best.task, session, replace(record, trials=trials), settings)
    loaded = list(best.task.shots)
    fitted = calibrate(
        session,
        loaded,
        settings,
        lambda done: on_progress(Progress("memory bank and threshold", done)),
    )
    high = about_high_score(loaded, fitted)
    for finding in high:
        job.warn(finding.text)
    checked = replace(checked, findings=(*checked.findings, *high))
    manifest = _manifest(output, encoder, record, settings, fitted, scale, checked)
    write_model_directory(output, manifest, encoder, fitted.reference, loaded)
    chosen = _Chosen(best.trial, tuple(trials), turning)
    return _result(output, job, encoder, record, fitted, chosen, checked, found.skipped)


def _result(
    output: Path,
    job: _Job,
    encoder: Encoder,
    record: TrainingRecord,
    fitted: Calibration,
    chosen: _Chosen,
    checked: CheckedShots,
    skipped: Sequence[Skipped],
) -> FinetuneResult:
    return FinetuneResult(
        path=output,
        shots=len(checked.kept),
        backbone=encoder.spec.source,
        channels=encoder.channels,
        stride=encoder.stride,
        chosen=chosen.trial,
        trials=chosen.trials,
        turning=chosen.turning,
        flip=job.options.flip,
        training=record,
        bank_size=job.bank_size,
        bank_rows=fitted.reference.rows,
        threshold=fitted.threshold,
        warnings=tuple(job.warnings),
        skipped=tuple(skipped),
        left_out=len(checked.left_out),
        findings=checked.findings,
    )


def _settings(job: _Job, outliers: int) -> CalibrationSettings:
    options = job.options
    return CalibrationSettings(
        views=Views(flip=options.flip),
        bank_size=job.bank_size,
        align=False,  # until it is known to do no harm
        false_alarm_rate=options.false_alarm_rate,
        score=options.score,
        seed=options.seed,
        outliers=outliers,
    )


def _turned(
    job: _Job, files: Sequence[Path], settings: CalibrationSettings
) -> tuple[CalibrationSettings, Turning]:
    """The settings with the steps of a full turn in which the shots go into the bank, and why.

    They are chosen at the smallest size, where parts at any angle show as well as at others.
    """
    options = job.options
    if options.rotations is not None:
        return replace(settings, bank_rotations=options.rotations), Turning.ASKED
    if len(files) == 1:
        return settings, Turning.ONE_SHOT
    stage = "looking at which angles parts lie"
    job.on_progress(Progress(stage))
    offered = strides_of(options.backbone, options.weights)
    [smallest, *_] = sizes_to_try(options.image_size, [(0, 0)])
    [shape, *_] = shapes_to_try([smallest], options.strides, offered)
    encoder = _encoder(options, shape)
    shots = _load_shots(files, shape.side, job.scale)
    steps, turning = choose_turning(
        job.session_of(encoder), shots, lambda done: job.on_progress(Progress(stage, done))
    )
    return replace(settings, bank_rotations=steps), turning


def _choose(
    job: _Job, files: Sequence[Path], settings: CalibrationSettings
) -> tuple[_Candidate, list[Trial]]:
    """The image size and strides that suit the part, and all that was tried."""
    options = job.options
    job.on_progress(Progress("reading the shots"))
    offered = strides_of(options.backbone, options.weights)
    drawn = draw_on(files, settings.seed, job.scale)
    [smallest, *_] = sizes_to_try(options.image_size, [(0, 0)])
    shots = _load_shots(files, smallest, job.scale)
    job.on_progress(Progress("reading the shots", 1.0))
    sizes = sizes_to_try(options.image_size, [shot.size for shot in shots])
    shapes = shapes_to_try(sizes, options.strides, offered)
    trials: list[Trial] = []
    best: _Candidate | None = None
    task: SyntheticTask | None = None
    for place, shape in enumerate(shapes):
        stage = "choosing for the part"
        job.on_progress(Progress(stage, place / len(shapes), f"{shape.side} px"))
        encoder = _encoder(options, shape)
        session = job.session_of(encoder)
        if task is None or shape.side != task.side:
            if shape.side != shots[0].image.shape[0]:
                shots = _load_shots(files, shape.side, job.scale)
            task = SyntheticTask(shots, settings, drawn)
        latency_ms = task.latency_ms(session)
        if best is None or options.budget_ms is None or latency_ms <= options.budget_ms:
            solved = task.solve(session, settings)
            tried = shape.side, shape.strides, settings.bank_rotations
            trials.append(Trial(*tried, solved.auroc, solved.found, latency_ms))
            # The others are released: many shots at several sizes would fill the memory.
            if best is None or best_trial([best.trial, trials[-1]]) is trials[-1]:
                best = _Candidate(trials[-1], encoder, session, task)
        job.on_progress(Progress(stage, (place + 1) / len(shapes), f"{shape.side} px"))
    assert best is not None  # the first shape is tried whatever time it takes
    if options.budget_ms is not None and best.trial.latency_ms > options.budget_ms:
        job.warn(
            f"the fastest choice takes {best.trial.latency_ms:.1f} ms here, more than the "
            f"{options.budget_ms:g} ms of --budget-ms."
        )
    return best, trials


def _encoder(options: FinetuneOptions, shape: Shape) -> Encoder:
    return pretrained_encoder(
        options.backbone, options.weights, shape.side, shape.side, list(shape.strides)
    )


def _load_shots(files: Sequence[Path], side: int, scale: ImageScale) -> list[Shot]:
    return [load_shot(file, side, side, scale) for file in files]


def _train(
    job: _Job, best: _Candidate, settings: CalibrationSettings
) -> tuple[Encoder, OnnxSession, TrainingRecord]:
    """The encoder that is kept, its graph and what training did; fine-tuned where that helps."""
    options = job.options
    training = TrainingSettings(
        options.epochs,
        options.lambda_con,
        options.lambda_pp,
        options.lambda_np,
        learning_rate=options.learning_rate,
        views=settings.part_views,
        seed=options.seed,
    )
    record = TrainingRecord(
        settings=training,
        device=job.device.type,
        seconds=0.0,
        weights_kept=False,
        drawn_pretrained=best.trial.drawn_auroc,
        drawn_finetuned=None,
        drawn_aligned=None,
        aligned=False,
        trials=[],
    )
    if not options.epochs:
        return best.encoder, best.session, record

    def show(step: int, steps: int, losses: Losses) -> None:
        note = f"loss {losses.total:.3f} = con {losses.con:.3f}, pp {losses.pp:.3f}, "
        job.on_progress(Progress("fine-tuning", step / steps, f"{note}np {losses.np:.3f}"))

    encoder = copy.deepcopy(best.encoder)
    started = time.perf_counter()
    train_contrastively(encoder, best.task.shots, training, job.device, show)
    seconds = round(time.perf_counter() - started, 1)
    check_finite(encoder, best.task.shots[0].image)
    session = job.session_of(encoder)
    auroc = best.task.solve(session, settings).auroc
    # Training must not leave a worse model than it was given.
    kept = auroc > best.trial.drawn_auroc + options.keep_gain
    record = replace(record, seconds=seconds, drawn_finetuned=auroc, weights_kept=kept)
    return (encoder, session, record) if kept else (best.encoder, best.session, record)


def _align(
    job: _Job,
    task: SyntheticTask,
    session: OnnxSession,
    record: TrainingRecord,
    settings: CalibrationSettings,
) -> tuple[TrainingRecord, CalibrationSettings]:
    """Make features steady against light, unless that costs accuracy or is not asked for."""
    if not job.options.align:
        return record, settings
    job.on_progress(Progress("alignment"))
    aligned = replace(settings, align=True)
    auroc = task.solve(session, aligned).auroc
    job.on_progress(Progress("alignment", 1.0))
    good = auroc >= record.drawn_unaligned - ALIGNMENT_MAY_COST
    return replace(record, drawn_aligned=auroc, aligned=good), aligned if good else settings


def _manifest(
    output: Path,
    encoder: Encoder,
    record: TrainingRecord,
    settings: CalibrationSettings,
    fitted: Calibration,
    scale: ImageScale,
    checked: CheckedShots,
) -> Manifest:
    return Manifest(
        name=output.absolute().name,
        created=utc_now(),
        encoder=encoder.spec,
        training=record,
        calibration=settings,
        shots=[],
        left_out=[shot.sha256 for shot in checked.left_out],
        findings=list(checked.findings),
        files={},
        threshold=fitted.threshold,
        map_threshold=fitted.map_threshold,
        bank_rows=fitted.reference.rows,
        versions=package_versions(*PACKAGES),
        scale=scale,
    )
