"""What ``finetune`` learns of the features once the encoder is chosen: alignment and training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fsad_edge.calibration.calibrate import CalibrationSettings
from fsad_edge.calibration.selection import Trial
from fsad_edge.calibration.synthetic_task import SyntheticTask
from fsad_edge.options import ScoreKind
from fsad_edge.pipeline.choosing import Candidate
from fsad_edge.pipeline.events import Progress
from fsad_edge.pipeline.fine_tuning import fine_tuned
from fsad_edge.pipeline.finetune_job import FinetuneJob
from fsad_edge.pipeline.model_directory import TrainingRecord
from fsad_edge.pipeline.options import FEWEST_TO_TRAIN
from fsad_edge.pipeline.part_encoder import PartEncoder, of_network, trainable
from fsad_edge.pipeline.time_budget import ALIGNMENT, FINE_TUNING, FITTING, TRAINING_SECONDS
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.environment import has_modules
from fsad_edge.training.settings import LossWeights, TrainingSettings

#: AUROC on drawn defects that alignment may cost: less is noise, because the task compares 60
#: normal views with 120 others.
ALIGNMENT_MAY_COST = 0.05


@dataclass(frozen=True)
class Learned:
    """An encoder and what was learned of its features.

    Attributes:
        encoder: the encoder that is kept.
        session: its graph.
        record: what was done.
        settings: of the calibration, with what was learned.
    """

    encoder: PartEncoder
    session: OnnxSession
    record: TrainingRecord
    settings: CalibrationSettings


def untrained(
    job: FinetuneJob, best: Candidate, trials: Sequence[Trial], settings: CalibrationSettings
) -> Learned:
    """A candidate as it is."""
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
        trials=list(trials),
    )
    return Learned(best.encoder, best.session, record, settings)


def learn(
    job: FinetuneJob, best: Candidate, trials: Sequence[Trial], settings: CalibrationSettings
) -> Learned:
    """Train the encoder where that is asked for, align its features and fine-tune them.

    Each of these is kept where it helps, or does no harm, on drawn defects.
    """
    learned = untrained(job, best, trials, settings)
    if best.task is None:
        return learned
    if job.options.epochs:
        learned = _train(job, best.task, learned)
    return _fine_tune(job, best, best.task, _align(job, best, best.task, learned))


def _train(job: FinetuneJob, task: SyntheticTask, learned: Learned) -> Learned:
    """The encoder trained, where that helps."""
    options, record, settings = job.options, learned.record, learned.settings
    started = time.perf_counter()
    encoder, device = _trained(job, learned.encoder, task, record.settings)
    seconds = round(time.perf_counter() - started, 1)
    session = job.session_of(encoder, settings.locator)
    auroc = task.solve(session, settings).auroc
    # Training must not leave a worse model than it was given.
    kept = auroc > (record.drawn_pretrained or 0.0) + options.keep_gain
    record = replace(
        record, device=device, seconds=seconds, drawn_finetuned=auroc, weights_kept=kept
    )
    if not kept:
        return replace(learned, record=record)
    return Learned(encoder, session, record, settings)


def _trained(
    job: FinetuneJob, encoder: PartEncoder, task: SyntheticTask, training: TrainingSettings
) -> tuple[PartEncoder, str]:
    """The encoder with all its weights trained, and the device that it was trained on."""
    network = trainable(encoder)
    from fsad_edge.training.devices import limit_threads, pick_device
    from fsad_edge.training.encoder import check_finite
    from fsad_edge.training.loop import Losses, train_contrastively

    def show(step: int, steps: int, losses: Losses) -> None:
        note = f"loss {losses.total:.3f} = con {losses.con:.3f}, pp {losses.pp:.3f}, "
        job.on_progress(Progress("fine-tuning", step / steps, f"{note}np {losses.np:.3f}"))

    limit_threads(job.options.threads)
    device = pick_device(job.options.device)
    train_contrastively(network, task.shots, training, device, show)
    check_finite(network, task.shots[0].image)
    return of_network(network), device.type


def _align(job: FinetuneJob, best: Candidate, task: SyntheticTask, learned: Learned) -> Learned:
    """Make features steady against light, unless that costs accuracy or is not asked for."""
    unaligned = learned.record.drawn_unaligned
    if not job.options.align or job.whole_size is not None or unaligned is None:
        return learned  # the embedding of full depth is not projected
    if not job.time.allows(best.backbone, best.shape, ALIGNMENT + FITTING):
        job.warn(_no_time(job, "the features were not made steady against light"))
        return learned
    stage, aligned = "alignment", replace(learned.settings, align=True)
    job.on_progress(Progress(stage))
    solved = task.solve(
        learned.session, aligned, lambda done: job.on_progress(Progress(stage, done))
    )
    job.on_progress(Progress(stage, 1.0))
    good = solved.auroc >= unaligned - ALIGNMENT_MAY_COST
    record = replace(learned.record, drawn_aligned=solved.auroc, aligned=good)
    return replace(learned, record=record, settings=aligned if good else learned.settings)


def _fine_tune(job: FinetuneJob, best: Candidate, task: SyntheticTask, learned: Learned) -> Learned:
    """Train a projection of the features; kept where shots that it has not seen confirm it."""
    options = job.options
    if options.epochs is not None or job.whole_size is not None:
        return learned
    weights = LossWeights(options.lambda_con, options.lambda_pp, options.lambda_np)
    too_few = len(task.shots) < FEWEST_TO_TRAIN
    if options.score is ScoreKind.IMAGE or too_few or not weights.any or not has_modules("torch"):
        return learned
    if not job.time.allows(best.backbone, best.shape, FINE_TUNING + FITTING, TRAINING_SECONDS):
        job.warn(_no_time(job, "the features were not fine-tuned"))
        return learned
    stage = "fine-tuning"
    job.on_progress(Progress(stage))
    settings, features = fine_tuned(
        learned.session,
        task,
        learned.settings,
        weights,
        lambda done: job.on_progress(Progress(stage, done)),
        options.device,
    )
    from fsad_edge.training.devices import pick_device

    record = replace(learned.record, features=features, device=pick_device(options.device).type)
    return replace(learned, record=record, settings=settings)


def _no_time(job: FinetuneJob, what: str) -> str:
    return f"{what}, because the {job.options.budget_s:g} seconds of --budget-s did not suffice."
