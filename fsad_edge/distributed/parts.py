"""Fine-tune a model for each of many parts with Ray: the work of ``fsad-edge finetune --ray``."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import itertools
import operator
import os
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsad_edge
from fsad_edge.distributed.cluster import cluster
from fsad_edge.errors import FsadEdgeError, InputError, needs_extra
from fsad_edge.options import Choice
from fsad_edge.pipeline.events import (
    OnProgress,
    OnWarning,
    Progress,
    ignore_progress,
    ignore_warning,
)
from fsad_edge.pipeline.options import ExportOptions, FinetuneOptions
from fsad_edge.pipeline.shot_folder import check_no_data_set, find_shots
from fsad_edge.runtime.files import open_regular, read_bytes, sha256, write_bytes, writing
from fsad_edge.runtime.folders import Reason, Skipped, describe, find_images, walk
from fsad_edge.runtime.opening import open_image

#: The stage that ``on_progress`` reports.
STAGE = "fine-tuning parts"

#: The table that is written next to the models, a row for each part.
TABLE = "parts.csv"

#: Bytes of memory that Ray reserves for each part, which limits how many run at a time. The largest
#: measured uses were 1.73 GB (encoder fast, five shots, image sizes up to 640 pixels) and 1.81 GB
#: (accurate, up to 448 pixels).
MEMORY = 3 << 30

#: The same where 2,048 pixels a side are tried, as of photographs with as many pixels: 4.3 GB were
#: measured with five shots.
MEMORY_OF_LARGE, LARGE = 5 << 30, 2048


class PartState(Choice):
    """What became of a part."""

    MADE = "made"
    KEPT = "there already"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class PartRow:
    """A row of the table of parts; a value is None if it is not known.

    Attributes:
        part: name of the part: the name of its folder of shots.
        shots: number of normal images.
        encoder: the encoder in its user's words: ``fast``, ``accurate`` or a backbone.
        image_size: side of the square input, or of a square of about as many pixels.
        fine_tuned: whether fine-tuned features were kept.
        threshold: the decision boundary.
        seconds: time that the part took.
        state: whether the model was made, was there already, or could not be made.
        reliability: how far the threshold can be relied on, in one sentence.
        error: why the model could not be made; None if it was.
    """

    part: str
    shots: int | None = None
    encoder: str | None = None
    image_size: int | None = None
    fine_tuned: bool | None = None
    threshold: float | None = None
    seconds: float | None = None
    state: PartState
    reliability: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class PartsReport:
    """The result of :func:`finetune_parts`.

    Attributes:
        output: the folder of models.
        table: the CSV file with the rows.
        rows: a row for each part, sorted by name.
    """

    output: Path
    table: Path
    rows: tuple[PartRow, ...]

    @property
    def failed(self) -> int:
        """Number of parts whose model could not be made."""
        return sum(row.state is PartState.FAILED for row in self.rows)


@dataclass(frozen=True)
class PartJob:
    """The arguments for one part, as they are sent to a worker.

    Attributes:
        shots: folder of the part's normal images.
        model: model directory to write.
        options: how to fine-tune.
        export: also write the ONNX file.
    """

    shots: Path
    model: Path
    options: FinetuneOptions
    export: bool

    @property
    def file(self) -> Path:
        """The ONNX file of the part."""
        return self.model.with_name(f"{self.model.name}.onnx")

    @property
    def memory(self) -> int:
        """Bytes of memory to reserve."""
        size = self.options.image_size
        large = _has_large_photographs(self.shots) if size is None else size > 1024
        return MEMORY_OF_LARGE if large else MEMORY


def finetune_parts(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: FinetuneOptions | None = None,
    *,
    export: bool = False,
    address: str | None = None,
    workers: int = 0,
    on_progress: OnProgress = ignore_progress,
    on_warning: OnWarning = ignore_warning,
) -> PartsReport:
    """Make a model for each part in a folder, many at a time.

    A part that fails does not stop the others. A part whose model was made from the same shots is
    not made again, unless ``options.force`` is set.

    Args:
        folder: holds a folder of normal images for each part.
        output: the folder of models; created if it does not exist.
        options: how to fine-tune, for all parts.
        export: also write each part's ONNX file.
        address: address of a Ray cluster, such as ``auto`` or ``HOST:6379``; None starts Ray on
            this machine.
        workers: largest number of parts at a time; 0 takes as many as cores and memory allow.
        on_progress: called when a part is done.
        on_warning: called with each warning and with the error of each part that failed.

    Raises:
        InputError: the folder holds no folders, the output cannot be written, or Ray cannot be
            reached or has too few cores or too little memory for one part.
        MissingExtraError: Ray or torch is not installed.
    """
    options = options or FinetuneOptions()
    options.check()
    parts, beside = _find_parts(Path(folder))
    if beside:
        on_warning(f"only the folders in {folder} are parts; {beside}.")
    output = Path(output).absolute()
    with writing(output):
        output.mkdir(exist_ok=True)
    # The working directory of a worker may be another one.
    weights = options.weights and options.weights.absolute()
    options = dataclasses.replace(options, threads=options.threads or 1, weights=weights)
    jobs = [PartJob(shots, output / shots.name, options, export) for shots in parts]
    rows = [] if options.force else [row for job in jobs if (row := _kept_row(job)) is not None]
    kept = {row.part for row in rows}
    rest = [job for job in jobs if job.shots.name not in kept]
    # Closing ends Ray at once if a callback raises.
    with contextlib.closing(_run(rest, address, workers, on_progress)) as made:
        for done, (row, warnings) in enumerate(made, 1):
            rows.append(row)
            _write_table(output / TABLE, rows)
            for sentence in warnings if row.error is None else (*warnings, row.error):
                on_warning(f"{row.part}: {sentence}")
            on_progress(Progress(STAGE, done / len(rest), row.part))
    _write_table(output / TABLE, rows)
    return PartsReport(output, output / TABLE, tuple(sorted(rows, key=operator.attrgetter("part"))))


def _find_parts(folder: Path) -> tuple[list[Path], str]:
    """The folders of shots, and a count of what else is there; empty if nothing is."""
    entries = list(walk(folder, recursive=False))
    check_no_data_set(folder)
    skipped = [entry for entry in entries if isinstance(entry, Skipped)]
    parts = sorted(one.path.absolute() for one in skipped if one.reason is Reason.SUBFOLDER)
    if not parts:
        raise InputError(
            f"{folder} holds no folder: create one for each part, with its normal images inside."
        )
    others = [one for one in skipped if one.reason is not Reason.SUBFOLDER]
    images = len(entries) - len(skipped)
    beside = [f"images beside them are not learned from: {images}"] if images else []
    return parts, "; ".join(beside + ([describe(others)] if others else []))


def _kept_row(job: PartJob) -> PartRow | None:
    """The row of a part whose model was made from the same shots; None if it must be made."""
    with needs_extra("train"):
        from fsad_edge.pipeline.model_directory import (
            MANIFEST,
            read_encoder,
            read_manifest,
            read_reference,
        )
        from fsad_edge.runtime.encoder_names import encoder_words
    if not job.model.exists():
        return None
    try:
        if job.export and job.file.stat().st_mtime < (job.model / MANIFEST).stat().st_mtime:
            return None  # the file was exported from an earlier model
        manifest = read_manifest(job.model)
        if not manifest.finished:
            return None  # stopped in its search
        read_encoder(job.model, manifest)
        read_reference(job.model, manifest)
        hashes = sorted(
            sha256(read_bytes(path)) for path in find_shots(job.shots, job.options.recursive).images
        )
    except (FsadEdgeError, OSError):
        return None
    if hashes != sorted([*(shot.sha256 for shot in manifest.shots), *manifest.left_out]):
        return None
    return PartRow(
        part=job.shots.name,
        shots=len(hashes),
        encoder=encoder_words(manifest.encoder.source),
        image_size=manifest.image_size,
        fine_tuned=manifest.training.features_kept,
        threshold=manifest.threshold.value,
        state=PartState.KEPT,
        reliability=manifest.threshold.reliability,
    )


def _has_large_photographs(shots: Path) -> bool:
    """Whether the first image of a folder has the pixels for an image size that takes tiles."""
    # What cannot be read is reported by the part's own run.
    with contextlib.suppress(FsadEdgeError, OSError, ValueError):
        first = find_images(shots).images[0]
        with open_regular(first) as file, open_image(file, str(first)) as image:
            return bool(image.width * image.height >= LARGE**2)
    return False


def _run(
    jobs: Sequence[PartJob], address: str | None, workers: int, on_progress: OnProgress
) -> Generator[tuple[PartRow, tuple[str, ...]], None, None]:
    """Make the parts; yields each part's row and warnings when it is done."""
    if not jobs:
        return
    threads, memory = jobs[0].options.threads, max(job.memory for job in jobs)
    with cluster(address) as ray:
        resources = ray.cluster_resources()
        if resources.get("CPU", 0) < threads or resources.get("memory", 0) < memory:
            raise InputError(
                f"a part needs {threads} cores and {memory >> 30} GB of memory, more than Ray has: "
                "use fewer --threads, an --image-size of at most 1024, or a larger machine."
            )
        on_progress(Progress(STAGE, 0.0))
        task = ray.remote(num_cpus=threads, memory=memory, max_retries=1)(make_part)
        waiting = iter(jobs)
        running = {task.remote(job): job for job in itertools.islice(waiting, workers or None)}
        while running:
            [reference] = ray.wait(list(running), num_returns=1)[0]
            job = running.pop(reference)
            yield _result(ray, reference, job)
            running.update({task.remote(job): job for job in itertools.islice(waiting, 1)})


def _result(ray: Any, reference: Any, job: PartJob) -> tuple[PartRow, tuple[str, ...]]:
    try:
        result: tuple[PartRow, tuple[str, ...]] = ray.get(reference)
        return result
    except ray.exceptions.RayTaskError as error:
        reason = f"{type(error.cause).__name__}: {error.cause}"
    except ray.exceptions.RayError as error:
        reason = f"its process died, perhaps because memory was short ({type(error).__name__})"
    sentence = f"{reason.splitlines()[0]}: run the same command again."
    return PartRow(part=job.shots.name, state=PartState.FAILED, error=sentence), ()


def make_part(job: PartJob) -> tuple[PartRow, tuple[str, ...]]:
    """Make one part, in a worker of Ray's: its row and its warnings.

    An error that is raised on purpose becomes the row's ``error``.
    """
    started = time.perf_counter()
    warnings: list[str] = []
    part = job.shots.name
    try:
        # An older model directory is replaced: only parts that must be made come here.
        options = dataclasses.replace(job.options, force=True)
        made = fsad_edge.finetune(job.shots, job.model, options, on_warning=warnings.append)
        if job.export:
            fsad_edge.export(made, job.file, ExportOptions(force=True), on_warning=warnings.append)
    except FsadEdgeError as error:
        row = PartRow(part=part, state=PartState.FAILED, error=str(error))
    else:
        row = PartRow(
            part=part,
            shots=made.shots,
            encoder=made.encoder,
            image_size=made.chosen.image_size,
            fine_tuned=made.training.features_kept,
            threshold=made.threshold.value,
            state=PartState.MADE,
            reliability=made.threshold.reliability,
        )
    seconds = round(time.perf_counter() - started, 1)
    return dataclasses.replace(row, seconds=seconds), tuple(warnings)


def _write_table(path: Path, rows: Sequence[PartRow]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [field.name for field in dataclasses.fields(PartRow)])
    writer.writeheader()
    writer.writerows(
        dataclasses.asdict(row) for row in sorted(rows, key=operator.attrgetter("part"))
    )
    write_bytes(path, buffer.getvalue().encode("utf-8", "backslashreplace"))
