"""``fsad_edge.export``: from a model directory to one ONNX file that is proved to be the same."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fsad_edge.calibration.calibrate import (
    Calibration,
    CalibrationSettings,
    calibrate,
)
from fsad_edge.calibration.cell_shift import cell_shift
from fsad_edge.calibration.synthetic_task import SyntheticTask, draw_on
from fsad_edge.deploy.stale_engines import find_stale_engines
from fsad_edge.errors import FsadEdgeError, InputError, needs_extra
from fsad_edge.learning.places import find_folder
from fsad_edge.options import Precision, ScoreKind, to_choice
from fsad_edge.pipeline.events import (
    OnProgress,
    OnWarning,
    Progress,
    ignore_progress,
    ignore_warning,
)
from fsad_edge.pipeline.finetune import PACKAGES
from fsad_edge.pipeline.graph_proof import check_portable, describe_tensorrt, prove_parity
from fsad_edge.pipeline.model_directory import (
    Manifest,
    read_encoder,
    read_manifest,
    read_network,
    read_reference,
    shot_name,
    shot_paths,
    without_hash,
)
from fsad_edge.pipeline.options import ExportOptions, check_options
from fsad_edge.pipeline.part_encoder import PartEncoder
from fsad_edge.pipeline.precision import (
    CalibratedGraph,
    PrecisionReport,
    check_ranges_file,
    compare_precisions,
    precision_name,
    refuse_tiles,
    rewrite_graph,
)
from fsad_edge.pipeline.regression_sets import RegressionSet, refuse_lost, try_regression_sets
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession, import_onnxruntime
from fsad_edge.runtime.files import (
    check_no_input,
    check_output,
    is_file,
    is_folder,
    sha256,
    write_bytes,
)
from fsad_edge.runtime.given import path_of
from fsad_edge.runtime.golden_images import (
    FP32_TOLERANCE,
    REDUCED_TOLERANCE,
    make_golden_images,
)
from fsad_edge.runtime.metadata import Backbone, Metadata, ShotsRecord, Threshold
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.model_file import write_model_file
from fsad_edge.runtime.model_output import check_model_output
from fsad_edge.runtime.onnx_file import replace as replace_in_file
from fsad_edge.runtime.origins import Origins
from fsad_edge.runtime.photograph import measure_appearance
from fsad_edge.runtime.provenance import package_versions, utc_now
from fsad_edge.synthesis import Shot, load_shot

if TYPE_CHECKING:
    from fsad_edge.graph.parity import Parity
    from fsad_edge.training.encoder import Encoder

#: Runs of the model behind its latency.
TIMED_RUNS = 30


@dataclass(frozen=True)
class ExportResult(os.PathLike[str]):
    """What :func:`export` wrote. It can be given wherever the path of the file can.

    Attributes:
        path: the ONNX file.
        size: its length in bytes.
        precision: such as ``fp32`` or ``int8 (cpu)``.
        parity: the fp32 graph compared with torch; None for a bundled encoder, whose graph is the
            package's own and is not made by torch.
        precision_report: the rewritten graph compared with fp32; None where it is fp32.
        threshold: the decision boundary and what it rests on.
        golden_images: how many the file holds.
        latency_ms: milliseconds of the model alone on this CPU, median.
        tensorrt: whether TensorRT can build an engine of it, in words; None where that was not
            looked at, because onnx is not installed.
        warnings: a sentence for each finding that the user should know.
        regression: for each file of this part beside it what this one makes of the examples that
            the other one was taught.
        stale_engines: the TensorRT engines beside it that were built from the file before it, and
            are refused until ``fsad-edge build`` builds them again.
    """

    path: Path
    size: int
    precision: str
    parity: Parity | None
    precision_report: PrecisionReport | None
    threshold: Threshold
    golden_images: int
    latency_ms: float
    tensorrt: str | None
    warnings: tuple[str, ...]
    regression: tuple[RegressionSet, ...] = ()
    stale_engines: tuple[Path, ...] = ()

    def __fspath__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class _Part:
    """A model directory, read and checked; ``network`` is the encoder in PyTorch, if it has one."""

    path: Path
    manifest: Manifest
    encoder: PartEncoder
    network: Encoder | None
    shot_paths: list[Path]
    shots: list[Shot]

    @property
    def settings(self) -> CalibrationSettings:
        return self.manifest.calibration


@dataclass(frozen=True)
class _Built:
    """A graph with its reference model, and what was found out about it."""

    data: bytes
    calibrated: CalibratedGraph
    parity: Parity | None
    report: PrecisionReport | None = None

    @property
    def fitted(self) -> Calibration:
        return self.calibrated.fitted


@dataclass(frozen=True)
class _Finished:
    """The bytes of the file, the metadata in them, and the milliseconds of the model alone."""

    data: bytes
    metadata: Metadata
    latency_ms: float


def export(
    part: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    options: ExportOptions | None = None,
    *,
    precision: Precision | str | None = None,
    on_progress: OnProgress = ignore_progress,
    on_warning: OnWarning = ignore_warning,
) -> ExportResult:
    """Write one self-contained ONNX file and prove that it scores as the trained model does.

    Where the encoder came from torch, the shots and random images are scored by torch and by ONNX
    Runtime, and no file is written if they differ. Memory bank and threshold are computed through
    the very graph that is written.

    Args:
        part: the model directory that :func:`fsad_edge.finetune` wrote, or its result.
        output: the file to write; by default the model directory's name with ``.onnx``.
        options: the user's choices.
        precision: replaces ``options.precision``: ``fp32``, ``fp16`` or ``int8``.
        on_progress: called with each step.
        on_warning: called with each warning; the result lists them too.

    Raises:
        InputError: the model directory, the output or an option cannot be used.
        ModelFileError: the model directory is damaged.
        ExportError: the graph does not score as the trained model does; no file was written.
        ExamplesLostError: it decides examples wrongly that a file of this part beside it decides
            rightly with what it was taught, and ``allow_lost`` is not set; no file was written.

    Example:
        >>> import fsad_edge
        >>> file = fsad_edge.export(part, folder / "part.onnx", precision="int8")
        >>> file.precision, file.golden_images
        ('int8 (cpu)', 2)
    """
    options = ExportOptions() if options is None else options
    check_options(options, ExportOptions)
    if precision is not None:
        options = replace(options, precision=to_choice(Precision, precision, "precision"))
    folder = path_of(part, "the model directory")
    file = default_file(folder) if output is None else path_of(output, "the output")
    _check_paths(folder, file, options)
    import_onnxruntime()
    if options.precision is Precision.FP16:
        with needs_extra("fp16"):
            import onnx  # noqa: F401  (say so now, and not after a minute)
    read = _read_part(folder, options)
    built = _build(read, file, on_progress)
    if options.precision != Precision.FP32:
        built = _rewrite(read, built, file, options, on_progress)
    done = _finish(read, built, file, options, on_progress)
    regression = try_regression_sets(file, done.data, _stage("examples", on_progress))
    if not options.allow_lost:
        refuse_lost(file, regression)
    told = tuple(one.sentence for one in regression if one.sentence is not None)
    found = _about_directory(read) + _about_search(read) + _warnings_about(read, built)
    warnings = found + told + _left_behind(file, done)
    for sentence in warnings:
        on_warning(sentence)
    write_bytes(file, done.data)  # last: what the callbacks raise leaves no file
    return _result(file, built, done, warnings, regression)


def _result(
    file: Path,
    built: _Built,
    done: _Finished,
    warnings: tuple[str, ...],
    regression: Sequence[RegressionSet],
) -> ExportResult:
    return ExportResult(
        path=file,
        size=len(done.data),
        precision=done.metadata.precision,
        parity=built.parity,
        precision_report=built.report,
        threshold=built.fitted.threshold,
        golden_images=len(done.metadata.golden),
        latency_ms=done.latency_ms,
        tensorrt=describe_tensorrt(built.data),
        warnings=warnings,
        regression=tuple(regression),
        stale_engines=find_stale_engines(file, done.data),
    )


def _check_paths(folder: Path, file: Path, options: ExportOptions) -> None:
    """Refuse what can be no model directory, or no file to write, and an output that is read.

    Raises:
        InputError: names what to give instead.
    """
    if is_file(folder):
        raise InputError(
            f"{folder} is a file, not a model directory: give the folder that  fsad-edge finetune  "
            "wrote; an engine is built of an ONNX file by  fsad-edge build."
        )
    check_output(file, options.force)
    if is_folder(file):
        raise InputError(f"{file} is a folder: name a file, such as part.onnx.")
    read = [] if options.ranges_of is None else [options.ranges_of]
    check_no_input(file, [*folder.rglob("*"), *read])
    check_model_output(file, options.force)


def _left_behind(file: Path, done: _Finished) -> tuple[str, ...]:
    """What the file before this one has learned, if anything, does not count with this one."""
    try:
        find_folder(file, sha256(done.data), done.metadata.contained)
    except FsadEdgeError as error:
        return (str(error),)
    return ()


def default_file(part: Path) -> Path:
    """The file that a model directory is exported to, unless told otherwise: ``part.onnx``."""
    return part.absolute().with_name(part.absolute().name + ".onnx")


def _read_part(folder: Path, options: ExportOptions) -> _Part:
    """The model directory, all of it checked."""
    manifest = read_manifest(folder)
    if options.ranges_of is not None:
        check_ranges_file(options.ranges_of, options, manifest)
    if options.precision is Precision.INT8:
        refuse_tiles(manifest.encoder.height, manifest.encoder.width)
    encoder = read_encoder(folder, manifest)
    read_reference(folder, manifest)
    paths = shot_paths(folder, manifest)
    spec = manifest.encoder
    size, locator = (spec.height, spec.width), manifest.calibration.locator
    shots = [load_shot(path, *size, manifest.scale, locator) for path in paths]
    return _Part(folder, manifest, encoder, read_network(folder, manifest), paths, shots)


def _build(part: _Part, file: Path, on_progress: OnProgress) -> _Built:
    """The fp32 graph with its reference model; compared with torch where torch has the encoder.

    Raises:
        ExportError: it does not score as the trained model does.
    """
    on_progress(Progress("graph"))
    settings = part.settings
    places = settings.by_place is not None and settings.by_place.on
    graph = part.encoder.scoring_graph(settings.score, settings.locator, settings.bank_size, places)
    empty = graph.to_bytes()
    if part.network is not None:
        check_portable(empty)
    on_progress(Progress("graph", 1.0))
    fitted = calibrate(
        OnnxSession(empty, str(part.path), "cpu", side_by_side=True),
        part.shots,
        settings,
        _stage("memory bank and threshold", on_progress),
    )
    data = replace_in_file(empty, fitted.reference.as_inputs(), {})
    session = OnnxSession(data, str(file), "cpu", side_by_side=True)
    parity = None
    if part.network is not None:
        on_progress(Progress("parity with torch"))
        parity = prove_parity(part.network, session, fitted, part.shots, settings)
        on_progress(Progress("parity with torch", 1.0))
    return _Built(data, CalibratedGraph(data, session, fitted), parity)


def _rewrite(
    part: _Part, built: _Built, file: Path, options: ExportOptions, on_progress: OnProgress
) -> _Built:
    """The graph in another precision, calibrated again and compared with fp32.

    Raises:
        ExportError: more decisions change than are allowed.
    """
    settings = part.settings
    stage = _stage(f"{options.precision}: memory bank and threshold", on_progress)
    stage(0.0)
    empty = rewrite_graph(built.data, options, part.manifest.encoder, part.shots, settings)
    session = OnnxSession(empty, str(file), "cpu", side_by_side=True)
    fitted = calibrate(session, part.shots, settings, stage)
    data = replace_in_file(empty, fitted.reference.as_inputs(), {})
    after = CalibratedGraph(data, session, fitted)
    on_progress(Progress("comparison with fp32"))
    drawn = draw_on(part.shot_paths, settings.seed, part.manifest.scale, settings.locator)
    task = SyntheticTask(part.shots, settings, drawn)
    report = compare_precisions(built.calibrated, after, task, settings)
    on_progress(Progress("comparison with fp32", 1.0))
    report.check(options.precision, options.allow_drift)
    return replace(built, data=data, calibrated=after, report=report)


def _finish(
    part: _Part, built: _Built, file: Path, options: ExportOptions, on_progress: OnProgress
) -> _Finished:
    """The file's bytes with metadata and golden images, loaded and checked; its latency."""
    on_progress(Progress("golden images", 0.0))
    metadata = _metadata(part, built, options)
    data = write_model_file(built.data, metadata)
    runtime = Model.from_bytes(data, str(file), "cpu")
    if options.golden:
        golden = make_golden_images(
            part.shot_paths, metadata.preparation, lambda data: runtime.score(data).score
        )
        metadata = replace(metadata, golden=golden)
        data = write_model_file(built.data, metadata)
    Model.from_bytes(data, str(file), "cpu").check_golden()
    latency_ms = _latency_ms(runtime, part.shots[0].image)
    on_progress(Progress("golden images", 1.0))
    return _Finished(data, metadata, latency_ms)


def _metadata(part: _Part, built: _Built, options: ExportOptions) -> Metadata:
    manifest, settings, spec = part.manifest, part.settings, part.manifest.encoder
    return Metadata(
        name=manifest.name,
        created=utc_now(),
        height=spec.height,
        width=spec.width,
        backbone=Backbone(
            spec.architecture,
            spec.source,
            spec.sha256,
            manifest.training.epochs_kept,
            bool(settings.learned),
        ),
        shots=ShotsRecord(
            len(part.shots),
            [shot.sha256 for shot in part.shots],
            len(manifest.left_out),
            manifest.findings if options.golden else [],  # they name the user's files
        ),
        score=settings.score,
        threshold=built.fitted.threshold,
        map_threshold=built.fitted.map_threshold,
        left_out=built.fitted.left_out,
        by_place=built.fitted.by_place,
        bank_rows=built.fitted.reference.rows,
        precision=precision_name(options.precision, options.target),
        golden_tolerance=FP32_TOLERANCE if built.report is None else REDUCED_TOLERANCE,
        golden=[],
        versions=package_versions(*PACKAGES),
        bank_rotations=settings.bank_rotations,
        bank_flip=settings.views.flip,
        judgement=built.fitted.judgement,
        appearance=measure_appearance([shot.image for shot in part.shots]),
        scale=manifest.scale,
        locator=settings.locator,
        origins=_origins(part, built, options),
        cell_shift=cell_shift(
            built.calibrated.session, [shot.image for shot in part.shots], spec.architecture
        ),
    )


def _origins(part: _Part, built: _Built, options: ExportOptions) -> Origins | None:
    """Where the bank's rows come from; with pictures of the shots, unless they are secret."""
    found = built.fitted.origins
    if found is None or not options.golden:
        return found
    names = [shot_name(path) for path in part.shot_paths]
    return found.with_pictures(names, [shot.image for shot in part.shots])


def _about_directory(part: _Part) -> tuple[str, ...]:
    return () if part.manifest.sealed else (without_hash(part.path),)


def _about_search(part: _Part) -> tuple[str, ...]:
    if part.manifest.finished:
        return ()
    return (
        f"{part.path} is the first model of a search that was stopped:  fsad-edge finetune  with "
        "--force looks for a better one.",
    )


def _warnings_about(part: _Part, built: _Built) -> tuple[str, ...]:
    trained, exported = part.manifest.threshold.value, built.fitted.threshold.value
    if built.report is not None and part.manifest.calibration.score is ScoreKind.IMAGE:
        return (
            "what this precision costs the image score is not known: it is compared on drawn "
            "defects, and not on other kinds of objects. Compare  fsad-edge eval  of this file and "
            "of one in fp32.",
        )
    if built.report is not None or abs(exported / trained - 1) <= 0.01:
        return ()
    return (
        f"the threshold is {exported:.4g} here and was {trained:.4g} at training: this version or "
        "its packages differ from those it was trained with; this file holds the value for this "
        "graph.",
    )


def _stage(name: str, on_progress: OnProgress) -> Callable[[float], None]:
    return lambda done: on_progress(Progress(name, done))


def _latency_ms(model: Model, image: UInt8Array) -> float:
    """Median milliseconds of the model alone."""
    times = [model.score(image).timings["infer"] for _ in range(TIMED_RUNS)]
    return round(statistics.median_high(times), 2)
