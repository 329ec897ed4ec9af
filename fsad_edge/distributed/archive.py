"""Score an archive of images with Ray: the work of ``fsad-edge archive``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fsad_edge.errors import InputError, needs_extra
from fsad_edge.learning.learner import Learner
from fsad_edge.learning.summary import TaughtSummary
from fsad_edge.options import Provider
from fsad_edge.pipeline.events import (
    OnProgress,
    OnWarning,
    Progress,
    ignore_progress,
    ignore_warning,
)
from fsad_edge.runtime.files import check_output, read_bytes
from fsad_edge.runtime.folders import Skipped
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.real_scale import check_mm_per_px

if TYPE_CHECKING:
    from fsad_edge.distributed.score_folder import ScoreFolder
    from fsad_edge.distributed.source import Source
    from fsad_edge.distributed.worker import PortableModel, ScoredChunk


@dataclass(frozen=True)
class ArchiveOptions:
    """The options of :func:`score_archive`.

    Attributes:
        address: address of a Ray cluster, such as ``auto`` or ``HOST:6379``; None starts Ray on
            this machine.
        workers: number of workers at a time; 0 takes as many as cores or GPUs allow.
        threads: threads of each worker.
        provider: what runs the model.
        strict: refuse to run on the CPU instead of the GPU.
        learned: use what the model was taught on this device.
        retry_errors: score images again that could not be read in an earlier run.
        mm_per_px: millimetres that a pixel of the photographs shows, at the full resolution of
            their files; None where it is not known.
    """

    address: str | None = None
    workers: int = 0
    threads: int = 1
    provider: Provider = Provider.AUTO
    strict: bool = False
    learned: bool = True
    retry_errors: bool = False
    mm_per_px: float | None = None


@dataclass(frozen=True)
class ArchiveReport:
    """The result of :func:`score_archive`.

    Attributes:
        output: the folder of scores.
        images: number of images with a row in it.
        good: number of good images among them.
        anomalies: number of anomalies among them.
        not_judged: number of images among them that are not judged.
        errors: number of images among them that could not be read.
        scored: number of images that this run scored.
        scored_before: number of images that earlier runs scored.
        learned: number of images learned on this device that the scores rest on.
        taught: the same with what else was taught that they rest on, in words; None where nothing
            was.
        workers: number of workers at a time.
        threads: threads of each worker.
        seconds: time from the start of the first chunk to the end of the last one.
        skipped: entries of the archive's folder that were not taken for images.
    """

    output: str
    images: int
    good: int
    anomalies: int
    not_judged: int
    errors: int
    scored: int
    scored_before: int
    learned: int
    taught: str | None
    workers: int
    threads: int
    seconds: float
    skipped: tuple[Skipped, ...]


def score_archive(
    model: str | os.PathLike[str],
    archive: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: ArchiveOptions | None = None,
    *,
    on_progress: OnProgress = ignore_progress,
    on_warning: OnWarning = ignore_warning,
) -> ArchiveReport:
    """Score all images of an archive that have no row in the output folder yet.

    A run that was stopped is continued by another call with the same arguments.

    Args:
        model: the exported file.
        archive: a folder of images, a Parquet file, or a folder of Parquet files.
        output: the folder of scores; created if it does not exist.
        options: how to score; the defaults use all cores of this machine.
        on_progress: called with each step.
        on_warning: called with each warning.

    Raises:
        InputError: the archive or the output folder cannot be used, Ray cannot be reached or has
            too few cores, or another run has taken over the output folder.
        ModelFileError: the model file cannot be used.
        MissingExtraError: Ray is not installed.
    """
    options = options or ArchiveOptions()
    if options.threads < 1 or options.workers < 0:
        raise InputError("a worker needs at least 1 thread, and the workers are 0 or more.")
    if options.mm_per_px is not None:
        check_mm_per_px(options.mm_per_px)
    with needs_extra("ray"):
        from fsad_edge.distributed.score_folder import ScoreFolder, ScoreManifest
        from fsad_edge.distributed.source import read_source
    check_output(Path(output), force=True)
    portable, taught = _load(Path(model), options, on_warning)
    on_progress(Progress("listing images"))
    source = read_source(Path(archive))
    manifest = ScoreManifest(
        portable.name, portable.sha256, source.path, mm_per_px=options.mm_per_px
    )
    scores = ScoreFolder.open(Path(output), manifest)
    if options.retry_errors:
        scores.forget_errors()
    keys, before = scores.read_keys(source.key)
    workers, chunks = _score(source.without(keys), scores, portable, options, on_progress)
    keys, total = scores.read_keys(source.key)
    missing = source.without(keys).rows.num_rows
    if missing:
        raise InputError(f"{missing} images have no row in {output}: run the same command again.")
    starts, ends = [chunk.started for chunk in chunks], [chunk.ended for chunk in chunks]
    return ArchiveReport(
        output=os.fspath(output),
        images=total.images,
        **vars(total),
        scored=sum(chunk.counts.images for chunk in chunks),
        scored_before=before.images,
        learned=taught.learned,
        taught=taught.sentence,
        workers=workers,
        threads=options.threads,
        seconds=round(max(ends) - min(starts), 3) if chunks else 0.0,
        skipped=source.skipped,
    )


def _load(
    path: Path, options: ArchiveOptions, on_warning: OnWarning
) -> tuple[PortableModel, TaughtSummary]:
    """The model for the workers, and what it was taught.

    It is loaded here first, so that a file that cannot be loaded is refused before Ray starts.
    """
    from fsad_edge.distributed.worker import PortableModel

    # The machine that gives the command may lack the GPU that the workers have.
    here = Provider.AUTO if path.suffix == ".engine" else Provider.CPU
    state, taught = None, TaughtSummary()
    with Model.load(path, here, options.threads) as model:
        if model.unsealed:
            on_warning(model.unsealed)
        if options.learned:
            with Learner.open(path, model, write=False) as learner:
                if learner.notice:
                    on_warning(learner.notice)
                taught, state = learner.summary, learner.state
    portable = PortableModel(
        read_bytes(path), str(path), options.provider, options.strict, options.threads, state
    )
    return portable, taught


def _score(
    source: Source,
    scores: ScoreFolder,
    model: PortableModel,
    options: ArchiveOptions,
    on_progress: OnProgress,
) -> tuple[int, list[ScoredChunk]]:
    """Score images: the number of workers, and the chunks that they wrote."""
    from fsad_edge.distributed.cluster import cluster
    from fsad_edge.distributed.score_folder import DecisionCounts
    from fsad_edge.distributed.worker import plan_workers, score_chunks

    number = source.rows.num_rows
    if not number:
        return options.workers, []
    gpu_providers = {Provider.CUDA, Provider.TENSORRT}
    gpu = options.provider in gpu_providers or model.name.endswith(".engine")
    chunks: list[ScoredChunk] = []
    counts = DecisionCounts()
    with cluster(options.address) as ray:
        workers = plan_workers(ray, options.workers, options.threads, gpu)
        on_progress(Progress("scoring", 0.0, f"starting {workers} workers"))
        for chunk in score_chunks(ray, source, scores, model, workers, gpu, options.mm_per_px):
            chunks.append(chunk)
            counts += chunk.counts
            note = (
                f"{counts.anomalies} anomalies, {counts.not_judged} not judged, "
                f"{counts.errors} unreadable"
            )
            on_progress(Progress("scoring", counts.images / number, note))
    return workers, chunks
