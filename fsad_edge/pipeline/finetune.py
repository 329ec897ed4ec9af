"""``fsad_edge.finetune``: from a folder of normal images to a model directory."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fsad_edge.calibration.calibrate import (
    Calibration,
    CalibrationSettings,
    bank_size_for,
    calibrate,
)
from fsad_edge.calibration.locating import FoundParts
from fsad_edge.calibration.selection import Trial
from fsad_edge.calibration.synthetic_task import SyntheticTask
from fsad_edge.errors import needs_extra
from fsad_edge.options import Device, ScoreKind, Turning
from fsad_edge.pipeline.candidates import check_trainable, encoders_to_try
from fsad_edge.pipeline.check_shots import CheckedShots, about_high_score, check_shots
from fsad_edge.pipeline.choosing import Candidate, choose, located, turned
from fsad_edge.pipeline.events import (
    OnProgress,
    OnWarning,
    Progress,
    ignore_progress,
    ignore_warning,
)
from fsad_edge.pipeline.fine_tuning import fine_tuned
from fsad_edge.pipeline.finetune_job import FinetuneJob
from fsad_edge.pipeline.model_directory import (
    Manifest,
    TrainingRecord,
    check_replaceable,
    write_model_directory,
)
from fsad_edge.pipeline.options import FEWEST_TO_TRAIN, FinetuneOptions
from fsad_edge.pipeline.part_encoder import (
    PartEncoder,
    import_torch_encoders,
    of_network,
    trainable,
    trained_size_of,
)
from fsad_edge.pipeline.shot_folder import find_shots, reading_shots
from fsad_edge.pipeline.shots_scale import settle_scale
from fsad_edge.runtime.backends.onnxruntime import OnnxSession, import_onnxruntime
from fsad_edge.runtime.encoder_names import encoder_words
from fsad_edge.runtime.environment import has_modules
from fsad_edge.runtime.files import check_output
from fsad_edge.runtime.folders import FolderImages, Skipped, describe
from fsad_edge.runtime.image_scale import ImageScale
from fsad_edge.runtime.locator import Locator
from fsad_edge.runtime.metadata import ShotFinding, Threshold
from fsad_edge.runtime.provenance import package_versions, utc_now
from fsad_edge.synthesis import Shot, Views
from fsad_edge.training.settings import LossWeights, TrainingSettings

#: AUROC on drawn defects that alignment may cost: less is noise, because the task compares 60
#: normal views with 120 others.
ALIGNMENT_MAY_COST = 0.05

#: Augmented views of each shot behind the Gaussian. Where the patch score decides, it only tells
#: whether an image shows such a part at all.
GAUSSIAN_VIEWS = {ScoreKind.PATCH: 8, ScoreKind.IMAGE: 16}

#: What is said of the image score with the bundled encoder.
MADE_FOR_SURFACES = (
    "the bundled encoder is made for surfaces and tells kinds of objects apart less well than a "
    "network that learned them: for  --score image  give  --backbone tf_efficientnet_lite0  (from "
    "the model hub) or  --backbone local-dir:FOLDER  (timm's layout)."
)

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
        full_depth: whether the score of the whole image is of the encoder's full depth.
        chosen: the image size, strides and rotations that were chosen.
        trials: all that was tried.
        turning: why the shots are in the memory bank turned, or as photographed.
        locator: how the part is found in a photograph; None looks at the whole photograph.
        located: whether the part is looked for, and why, one sentence without a full stop.
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
    full_depth: bool
    chosen: Trial
    trials: tuple[Trial, ...]
    turning: Turning
    locator: Locator | None
    located: str
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
    def encoder(self) -> str:
        """The encoder in its user's words: ``fast``, ``accurate`` or a backbone; its weights."""
        return encoder_words(self.backbone)

    @property
    def aligned(self) -> bool:
        """Whether features were made steady against light."""
        return self.training.aligned


@dataclass(frozen=True)
class _Chosen:
    """What was chosen for the part, and all that was tried."""

    trial: Trial
    trials: tuple[Trial, ...]
    turning: Turning
    parts: FoundParts


def finetune(
    shots: str | os.PathLike[str],
    output: str | os.PathLike[str] = "part",
    options: FinetuneOptions | None = None,
    *,
    on_progress: OnProgress = ignore_progress,
    on_warning: OnWarning = ignore_warning,
) -> FinetuneResult:
    """Learn what normal parts look like, and write a model directory.

    The features are fine-tuned contrastively (COFT-AD, arXiv 2402.18998), and the result is kept
    where shots that the training has not seen confirm it; ``options.epochs`` trains the whole
    encoder instead. Image size and strides are chosen on defects drawn onto the shots; memory
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
        >>> options = FinetuneOptions(encoder="fast", image_size=64)
        >>> part = fsad_edge.finetune(shots, folder / "part", options)
        >>> part.shots, part.chosen.image_size
        (5, 64)
    """
    options = options or FinetuneOptions()
    options.check()
    check_trainable(options)
    output = Path(output)
    found = find_shots(Path(shots), options.recursive)
    check_output(output, options.force)
    check_replaceable(output)
    with reading_shots():
        scale = settle_scale(found.images, options.scale)
    import_onnxruntime()  # if it is missing, say so before the training and not after it
    _check_training(options)
    job, checked = _begin(Path(shots), found, options, scale, on_progress, on_warning)
    files = [shot.path for shot in checked.kept]
    parts = located(job, files)
    settings = replace(_settings(job, checked.outliers), locator=parts.locator)
    settings, turning = turned(job, files, settings)
    best, trials = choose(job, files, settings)
    encoder, session, record = _train(job, best, settings)
    record, settings = _align(job, best.task, session, replace(record, trials=trials), settings)
    record, settings = _fine_tune(job, best.task, session, record, settings)
    fitted, checked = _calibrate(job, session, best.task.shots, settings, checked)
    manifest = _manifest(output, encoder, record, settings, fitted, scale, checked)
    write_model_directory(output, manifest, encoder, fitted.reference, best.task.shots)
    chosen = _Chosen(best.trial, tuple(trials), turning, parts)
    return _result(output, job, encoder, record, fitted, chosen, checked, found.skipped)


def _check_training(options: FinetuneOptions) -> None:
    """Say at once, and not after minutes, that what is asked for cannot be trained here.

    Raises:
        InputError: ``cuda`` is wanted and torch finds no GPU.
        MissingExtraError: PyTorch is wanted and not installed.
    """
    if options.epochs or options.device is Device.CUDA:
        import_torch_encoders()
        with needs_extra("train"):
            from fsad_edge.training.loop import pick_device
        pick_device(options.device)


def _begin(
    folder: Path,
    found: FolderImages,
    options: FinetuneOptions,
    scale: ImageScale,
    on_progress: OnProgress,
    on_warning: OnWarning,
) -> tuple[FinetuneJob, CheckedShots]:
    """What the steps share, with what was found about the shots and the encoder; the shots."""
    on_progress(Progress("checking the shots"))
    with reading_shots():
        checked = check_shots(found.images, options, scale, on_warning)
    on_progress(Progress("checking the shots", 1.0))
    bank_size = options.bank_size or bank_size_for(len(checked.kept))
    job = FinetuneJob(options, scale, bank_size, on_progress, on_warning)
    job.warnings += [finding.text for finding in checked.findings]
    if options.score is ScoreKind.IMAGE:
        job.whole_size = trained_size_of(encoders_to_try(options)[0], options.weights)
        if options.backbone is None:
            job.warn(MADE_FOR_SURFACES)
    if unseen := [one for one in found.skipped if one.unseen]:
        job.warn(f"some files in {folder} were not learned from: {describe(unseen)}.")
    return job, checked


def _result(
    output: Path,
    job: FinetuneJob,
    encoder: PartEncoder,
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
        channels=encoder.graph.channels,
        stride=encoder.graph.stride,
        full_depth=encoder.spec.full_depth,
        chosen=chosen.trial,
        trials=chosen.trials,
        turning=chosen.turning,
        locator=chosen.parts.locator,
        located=chosen.parts.why,
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


def _settings(job: FinetuneJob, outliers: int) -> CalibrationSettings:
    options = job.options
    return CalibrationSettings(
        views=Views(flip=options.flip),
        bank_size=job.bank_size,
        align=False,  # until it is known to do no harm
        gaussian_views=GAUSSIAN_VIEWS[options.score],
        false_alarm_rate=options.false_alarm_rate,
        score=options.score,
        seed=options.seed,
        outliers=outliers,
        full_depth=job.whole_size is not None,
    )


def _train(
    job: FinetuneJob, best: Candidate, settings: CalibrationSettings
) -> tuple[PartEncoder, OnnxSession, TrainingRecord]:
    """The encoder that is kept, its graph and what training did; fine-tuned where that helps."""
    options = job.options
    training = TrainingSettings(
        options.epochs or 0,
        options.lambda_con,
        options.lambda_pp,
        options.lambda_np,
        learning_rate=options.learning_rate,
        views=settings.part_views,
        seed=options.seed,
    )
    record = TrainingRecord(
        settings=training,
        device="cpu",
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

    started = time.perf_counter()
    encoder, device = _trained(job, best, training)
    seconds = round(time.perf_counter() - started, 1)
    session = job.session_of(encoder, settings.locator)
    auroc = best.task.solve(session, settings).auroc
    # Training must not leave a worse model than it was given.
    kept = auroc > best.trial.drawn_auroc + options.keep_gain
    record = replace(
        record, device=device, seconds=seconds, drawn_finetuned=auroc, weights_kept=kept
    )
    return (encoder, session, record) if kept else (best.encoder, best.session, record)


def _trained(
    job: FinetuneJob, best: Candidate, training: TrainingSettings
) -> tuple[PartEncoder, str]:
    """The encoder with all its weights trained, and the device that it was trained on."""
    network = trainable(best.encoder)
    from fsad_edge.training.encoder import check_finite
    from fsad_edge.training.loop import Losses, limit_threads, pick_device, train_contrastively

    def show(step: int, steps: int, losses: Losses) -> None:
        note = f"loss {losses.total:.3f} = con {losses.con:.3f}, pp {losses.pp:.3f}, "
        job.on_progress(Progress("fine-tuning", step / steps, f"{note}np {losses.np:.3f}"))

    limit_threads(job.options.threads)
    device = pick_device(job.options.device)
    train_contrastively(network, best.task.shots, training, device, show)
    check_finite(network, best.task.shots[0].image)
    return of_network(network), device.type


def _align(
    job: FinetuneJob,
    task: SyntheticTask,
    session: OnnxSession,
    record: TrainingRecord,
    settings: CalibrationSettings,
) -> tuple[TrainingRecord, CalibrationSettings]:
    """Make features steady against light, unless that costs accuracy or is not asked for."""
    if not job.options.align or job.whole_size is not None:
        return record, settings  # the embedding of full depth is not projected
    stage, aligned = "alignment", replace(settings, align=True)
    job.on_progress(Progress(stage))
    solved = task.solve(session, aligned, lambda done: job.on_progress(Progress(stage, done)))
    auroc = solved.auroc
    job.on_progress(Progress(stage, 1.0))
    good = auroc >= record.drawn_unaligned - ALIGNMENT_MAY_COST
    return replace(record, drawn_aligned=auroc, aligned=good), aligned if good else settings


def _fine_tune(
    job: FinetuneJob,
    task: SyntheticTask,
    session: OnnxSession,
    record: TrainingRecord,
    settings: CalibrationSettings,
) -> tuple[TrainingRecord, CalibrationSettings]:
    """Train a projection of the features; kept where shots that it has not seen confirm it."""
    options = job.options
    if options.epochs is not None or job.whole_size is not None:
        return record, settings
    weights = LossWeights(options.lambda_con, options.lambda_pp, options.lambda_np)
    too_few = len(task.shots) < FEWEST_TO_TRAIN
    if options.score is ScoreKind.IMAGE or too_few or not weights.any or not has_modules("torch"):
        return record, settings
    stage = "fine-tuning"
    job.on_progress(Progress(stage))
    settings, features = fine_tuned(
        session, task, settings, weights, lambda done: job.on_progress(Progress(stage, done))
    )
    return replace(record, features=features), settings


def _calibrate(
    job: FinetuneJob,
    session: OnnxSession,
    shots: Sequence[Shot],
    settings: CalibrationSettings,
    checked: CheckedShots,
) -> tuple[Calibration, CheckedShots]:
    """The reference model and the threshold, and what the scores say of the shots."""
    stage = "memory bank and threshold"
    fitted = calibrate(
        session, shots, settings, lambda done: job.on_progress(Progress(stage, done))
    )
    high = about_high_score(shots, fitted)
    for finding in high:
        job.warn(finding.text)
    return fitted, replace(checked, findings=(*checked.findings, *high))


def _manifest(
    output: Path,
    encoder: PartEncoder,
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
