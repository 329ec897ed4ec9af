"""``fsad_edge.finetune``: from a folder of normal images to a model directory."""

from __future__ import annotations

import os
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
from fsad_edge.errors import FsadEdgeError, InputError, needs_extra
from fsad_edge.options import Device, ScoreKind, Turning
from fsad_edge.pipeline.candidates import check_trainable, encoders_to_try
from fsad_edge.pipeline.check_shots import CheckedShots, about_high_score, check_shots
from fsad_edge.pipeline.choosing import (
    Candidate,
    choose,
    has_time_to_search,
    located,
    shapes_for,
    turned,
)
from fsad_edge.pipeline.events import (
    OnProgress,
    OnWarning,
    Progress,
    ignore_progress,
    ignore_warning,
)
from fsad_edge.pipeline.finetune_job import FinetuneJob
from fsad_edge.pipeline.first_model import FirstModel, make_first_model
from fsad_edge.pipeline.model_directory import (
    Manifest,
    TrainingRecord,
    check_replaceable,
    read_manifest,
    write_model_directory,
)
from fsad_edge.pipeline.options import FinetuneOptions, check_options
from fsad_edge.pipeline.part_encoder import (
    import_torch_encoders,
    trained_size_of,
)
from fsad_edge.pipeline.shot_folder import find_shots, reading_shots
from fsad_edge.pipeline.shots_scale import settle_scale
from fsad_edge.pipeline.time_budget import TimeBudget
from fsad_edge.pipeline.training_steps import Learned, learn, untrained
from fsad_edge.pipeline.where_it_ran import where_it_ran
from fsad_edge.runtime.backends.driver import driver_problem
from fsad_edge.runtime.backends.onnxruntime import import_onnxruntime
from fsad_edge.runtime.directories import restore_directory
from fsad_edge.runtime.encoder_names import encoder_words
from fsad_edge.runtime.files import check_output, exists, is_folder
from fsad_edge.runtime.folders import FolderImages, Skipped, describe
from fsad_edge.runtime.given import path_of
from fsad_edge.runtime.image_scale import ImageScale
from fsad_edge.runtime.locator import Locator
from fsad_edge.runtime.metadata import ByPlace, ShotFinding, Threshold
from fsad_edge.runtime.provenance import package_versions, utc_now
from fsad_edge.synthesis import Shot, Views

#: Augmented views of each shot behind the Gaussian. Where the patch score decides, it only tells
#: whether an image shows such a part at all, and so many views of all shots together suffice.
GAUSSIAN_VIEWS = {ScoreKind.PATCH: 8, ScoreKind.IMAGE: 16}
GAUSSIAN_IN_ALL = 80

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
        by_place: whether images are compared with the shots place by place, and why.
        flip: whether mirror images of the shots are in it too.
        training: what fine-tuning did.
        bank_size: most rows of the memory bank.
        bank_rows: rows in use.
        threshold: the decision boundary and what it rests on.
        warnings: a sentence for each finding that the user should know.
        skipped: entries of the folder of shots that were not learned from.
        left_out: how many shots were left out, near-identical to another one or copies of it.
        findings: what was found about the shots as a set, with the names of the files.
        where: what ran on the GPU and what it brings, one sentence without a full stop; empty where
            there is none and none was asked for.
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
    by_place: ByPlace
    flip: bool
    training: TrainingRecord
    bank_size: int
    bank_rows: int
    threshold: Threshold
    warnings: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    left_out: int
    findings: tuple[ShotFinding, ...]
    where: str = ""

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

    Unless an older model directory is there, it holds a first model after seconds. That stays where
    the job is interrupted or fails later.

    Args:
        shots: a folder of 1 to about 50 normal images.
        output: the model directory to write.
        options: the user's choices; the defaults suit most parts.
        on_progress: called with each step.
        on_warning: called with each warning; the result lists them too.

    Raises:
        InputError: the shots, the output or an option cannot be used, or a shot is unlike the rest
            and ``options.keep_outliers`` is not set.
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
    options = FinetuneOptions() if options is None else options
    check_options(options, FinetuneOptions)
    shots, output = path_of(shots, "the shots"), path_of(output, "the output")
    options.check()
    check_trainable(options)
    time = TimeBudget(options.budget_s)
    found = find_shots(shots, options.recursive)
    restore_directory(output)
    check_output(output, options.force)
    check_replaceable(output)
    with reading_shots():
        scale = settle_scale(found.images, options.scale)
    import_onnxruntime()  # if it is missing, say so before the training and not after it
    _check_training(options)
    job, checked = _begin(shots, found, options, scale, on_progress, on_warning, time)
    files = [shot.path for shot in checked.kept]
    parts = located(job, files)
    settings = replace(_settings(job, checked), locator=parts.locator)
    settings, turning = turned(job, files, settings)
    shapes = shapes_for(job, checked.kept, settings)
    first = make_first_model(job, files, settings, shapes)
    written = _write_first(job, output, first, settings, checked)
    best, trials = choose(job, files, settings, shapes, first.candidate)
    learned = learn(job, best, trials, settings)
    fitted, checked = _fit(job, learned, best, first, checked)
    output = _place_for(output, written, job)
    _write(output, learned, fitted, checked, best.shots, scale)
    chosen = _Chosen(best.trial, tuple(trials), turning, parts)
    return _result(output, job, learned, fitted, chosen, checked, found.skipped)


def _write_first(
    job: FinetuneJob,
    output: Path,
    first: FirstModel,
    settings: CalibrationSettings,
    checked: CheckedShots,
) -> Manifest | None:
    """Write the first model, where a search follows and no older model directory is there.

    Returns:
        its manifest; None where nothing is written.
    """
    candidate = first.candidate
    older = is_folder(output) and any(output.iterdir())
    if first.fitted is None or older or not has_time_to_search(job, candidate):
        return None
    as_it_is = untrained(job, candidate, [candidate.trial], settings)
    _write(output, as_it_is, first.fitted, checked, candidate.shots, job.scale, finished=False)
    job.on_progress(Progress("first model", 1.0, f"{output} can be exported; Ctrl-C keeps it"))
    return read_manifest(output)


def _place_for(output: Path, first: Manifest | None, job: FinetuneJob) -> Path:
    """Where the finished model goes: elsewhere, if others put something there in the meantime."""
    try:
        check_replaceable(output)
        if first is None or not exists(output) or read_manifest(output) == first:
            return output
        why = f"{output} holds another model by now"
    except FsadEdgeError:
        why = f"{output} holds other files by now"
    place = output.with_name(f"{output.name}.finished")
    while exists(place):
        place = place.with_name(f"{place.name}_")
    job.warn(f"{why}. It is left alone, and the finished model is written to {place}.")
    return place


def _check_training(options: FinetuneOptions) -> None:
    """Say at once, and not after minutes, that what is asked for cannot be trained here.

    Raises:
        InputError: ``cuda`` is wanted, and there is no driver or torch finds no GPU.
        MissingExtraError: PyTorch is wanted and not installed.
    """
    if options.device is Device.CUDA and (problem := driver_problem()) is not None:
        raise InputError(f"--device cuda needs a GPU, and {problem}: take --device cpu.")
    if options.epochs or options.device is Device.CUDA:
        import_torch_encoders()
        with needs_extra("train"):
            from fsad_edge.training.devices import pick_device
        pick_device(options.device)


def _begin(
    folder: Path,
    found: FolderImages,
    options: FinetuneOptions,
    scale: ImageScale,
    on_progress: OnProgress,
    on_warning: OnWarning,
    time: TimeBudget,
) -> tuple[FinetuneJob, CheckedShots]:
    """What the steps share, with what was found about the shots and the encoder; the shots."""
    on_progress(Progress("checking the shots"))
    with reading_shots():
        checked = check_shots(found.images, options, scale, on_warning)
    on_progress(Progress("checking the shots", 1.0))
    bank_size = options.bank_size or bank_size_for(len(checked.kept))
    job = FinetuneJob(options, scale, bank_size, on_progress, on_warning, time)
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
    learned: Learned,
    fitted: Calibration,
    chosen: _Chosen,
    checked: CheckedShots,
    skipped: Sequence[Skipped],
) -> FinetuneResult:
    encoder = learned.encoder
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
        by_place=fitted.by_place,
        flip=job.options.flip,
        training=learned.record,
        bank_size=job.bank_size,
        bank_rows=fitted.reference.rows,
        threshold=fitted.threshold,
        warnings=tuple(job.warnings),
        skipped=tuple(skipped),
        left_out=len(checked.left_out),
        findings=checked.findings,
        where=where_it_ran(job.options, learned.session, learned.record),
    )


def _settings(job: FinetuneJob, checked: CheckedShots) -> CalibrationSettings:
    options = job.options
    views = GAUSSIAN_VIEWS[options.score]
    if options.score is ScoreKind.PATCH:
        views = min(views, max(1, GAUSSIAN_IN_ALL // len(checked.kept)))
    return CalibrationSettings(
        views=Views(flip=options.flip),
        bank_size=job.bank_size,
        align=False,  # until it is known to do no harm
        gaussian_views=views,
        false_alarm_rate=options.false_alarm_rate,
        score=options.score,
        seed=options.seed,
        outliers=checked.outliers,
        place=options.place,
        full_depth=job.whole_size is not None,
    )


def _fit(
    job: FinetuneJob,
    learned: Learned,
    best: Candidate,
    first: FirstModel,
    checked: CheckedShots,
) -> tuple[Calibration, CheckedShots]:
    """The reference model and the threshold, and what the scores say of the shots."""
    stage = "memory bank and threshold"
    if best is first.candidate and first.fitted is not None:  # there was no time for more
        fitted = first.fitted
    else:
        fitted = calibrate(
            learned.session,
            best.shots,
            learned.settings,
            lambda done: job.on_progress(Progress(stage, done)),
        )
    high = about_high_score(best.shots, fitted)
    for finding in high:
        job.warn(finding.text)
    return fitted, replace(checked, findings=(*checked.findings, *high))


def _write(
    output: Path,
    learned: Learned,
    fitted: Calibration,
    checked: CheckedShots,
    shots: Sequence[Shot],
    scale: ImageScale,
    finished: bool = True,
) -> None:
    manifest = Manifest(
        name=output.absolute().name,
        created=utc_now(),
        encoder=learned.encoder.spec,
        training=learned.record,
        calibration=replace(learned.settings, by_place=replace(fitted.by_place, scores=[])),
        shots=[],
        left_out=[shot.sha256 for shot in checked.left_out],
        findings=list(checked.findings),
        files={},
        threshold=fitted.threshold,
        map_threshold=fitted.map_threshold,
        bank_rows=fitted.reference.rows,
        versions=package_versions(*PACKAGES),
        scale=scale,
        finished=finished,
    )
    write_model_directory(output, manifest, learned.encoder, fitted.reference, shots)
