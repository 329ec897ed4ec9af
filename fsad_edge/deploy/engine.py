"""Build a TensorRT engine of an ONNX file: on the device that runs it, or for RTX cards anywhere.

This needs numpy and a TensorRT; no torch and no onnx. ``tensorrt`` needs the GPU that is to run the
engine. TensorRT for RTX builds ahead of time, and needs none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsad_edge.deploy.batch_sizes import BatchSizes, check_batch_sizes
from fsad_edge.deploy.engine_source import EngineSource, read_source
from fsad_edge.deploy.rtx_gpus import check_gpus
from fsad_edge.deploy.tensorrt_plan import OnProgress, build_plan
from fsad_edge.errors import ExportError, GoldenImageError, InputError, ModelFileError
from fsad_edge.runtime.backends.cuda import Gpu, find_gpu
from fsad_edge.runtime.backends.tensorrt import (
    TEGRA,
    UnfitGpuError,
    find_flavour,
    import_tensorrt,
)
from fsad_edge.runtime.engine_file import (
    BuildOptions,
    EngineHeader,
    Flavour,
    is_engine,
    read_engine,
    write_engine,
)
from fsad_edge.runtime.environment import has_modules
from fsad_edge.runtime.files import (
    check_no_input,
    check_output,
    is_file,
    read_bytes,
    sha256,
    write_bytes,
)
from fsad_edge.runtime.model import REFERENCE_INPUTS, Model
from fsad_edge.runtime.model_output import check_model_output
from fsad_edge.runtime.onnx_file import graph_key


@dataclass(frozen=True)
class EngineOptions:
    """The options of :func:`build_engine`.

    Attributes:
        batch: smallest, usual and largest number of images in a run, up to 256. Where all three are
            the same, a run is one CUDA graph.
        workspace_mb: MiB of memory that TensorRT may use to try layers.
        version_compatible: later versions of TensorRT can run the engine too.
        hardware_compatible: other GPUs from Ampere on can run the engine too; not on a Jetson.
        gpus: compute capabilities, such as ``("8.6", "8.9")``, of the RTX cards that the engine is
            for; empty stands for all that TensorRT for RTX supports.
        flavour: the TensorRT that builds the engine. By default ``tensorrt`` where it is installed,
            else TensorRT for RTX, which ``gpus`` asks for too.
        timing_cache: the file of TensorRT's measurements, which makes the next build faster; by
            default the engine's name with ``.timing``.
        force: build it even where it is built already, and replace another file.
    """

    batch: BatchSizes = (1, 1, 1)
    workspace_mb: int = 1024
    version_compatible: bool = False
    hardware_compatible: bool = False
    gpus: tuple[str, ...] = ()
    flavour: Flavour | None = None
    timing_cache: Path | None = None
    force: bool = False

    @property
    def build_options(self) -> BuildOptions:
        """The options that decide what is built; the engine file stores them."""
        return BuildOptions(
            *(self.batch, self.workspace_mb, self.version_compatible, self.hardware_compatible),
            self.gpus,
        )


@dataclass(frozen=True)
class EngineResult(os.PathLike[str]):
    """An engine that is built. It can be given wherever the path of the file can.

    Attributes:
        path: the engine file.
        built: False where it was built already, and nothing was written.
        seconds: duration of the build.
        size: length of the file in bytes.
        tensorrt: the version of TensorRT that built it.
        flavour: which TensorRT that is.
        builder: what built it and for which GPUs, in words.
        gpu: the GPU of this machine; None where there is none, and TensorRT for RTX built it.
        precision: number format of the graph, such as ``fp16``.
        options: how it was built.
        key: SHA-256 of everything that decides what is built.
        golden_images: how many golden images the engine scored right here.
        unproved: why the golden images were not scored here; None where they were. Each load scores
            them in any case.
        warnings: a sentence for each finding that the user should know.
    """

    path: Path
    built: bool
    seconds: float
    size: int
    tensorrt: str
    flavour: Flavour
    builder: str
    gpu: Gpu | None
    precision: str
    options: BuildOptions
    key: str
    golden_images: int
    unproved: str | None
    warnings: tuple[str, ...]

    def __fspath__(self) -> str:
        return str(self.path)

    def to_json(self) -> dict[str, Any]:
        """What ``fsad-edge build --json`` prints."""
        return {
            "output": str(self.path),
            "built": self.built,
            "seconds": self.seconds,
            "bytes": self.size,
            "tensorrt": self.tensorrt,
            "flavour": self.flavour,
            "builder": self.builder,
            "gpu": self.gpu and dataclasses.asdict(self.gpu),
            "precision": self.precision,
            "options": dataclasses.asdict(self.options),
            "key": self.key,
            "golden_images": self.golden_images,
            "unproved": self.unproved,
            "warnings": self.warnings,
            "next": f"fsad-edge score {self.path} IMAGE",
        }


@dataclass(frozen=True)
class BuildMachine:
    """What this machine builds engines with.

    Attributes:
        flavour: which TensorRT.
        trt: its module.
        gpu: the GPU; None where there is none, which TensorRT for RTX does not mind.
        no_gpu: why there is none.
    """

    flavour: Flavour
    trt: Any
    gpu: Gpu | None
    no_gpu: str | None = None


def check_machine(options: EngineOptions) -> BuildMachine:
    """Find TensorRT and the GPU. This is quick, so that it can be done before other work.

    Raises:
        MissingExtraError: TensorRT is not installed.
        InputError: there is no GPU where one is needed, or the options do not fit this machine.
    """
    flavour = options.flavour or (Flavour.RTX if options.gpus else find_flavour())
    trt = import_tensorrt(flavour)
    if flavour == Flavour.RTX:
        _check_rtx_options(trt, options)
        try:
            return BuildMachine(flavour, trt, find_gpu())
        except InputError as error:
            return BuildMachine(flavour, trt, None, str(error).rstrip("."))
    if options.gpus:
        raise InputError(
            "--gpu is for TensorRT for RTX: tensorrt builds an engine for the GPU it runs on."
        )
    try:
        gpu = find_gpu()
    except InputError as error:
        if not has_modules("tensorrt_rtx_bindings"):
            raise
        raise InputError(
            f"{error} For RTX cards an engine is built without a GPU, with  --gpu 8.6,8.9,12.0 ."
        ) from error
    if options.hardware_compatible and TEGRA.exists():
        raise InputError(
            "--hardware-compatible is not available on a Jetson: leave it out, and build the "
            "engine on each kind of board."
        )
    return BuildMachine(flavour, trt, gpu)


def _check_rtx_options(trt: Any, options: EngineOptions) -> None:
    """Refuse what TensorRT for RTX does not have, and would ignore."""
    if options.version_compatible:
        raise InputError(
            "--version-compatible is not available in TensorRT for RTX, whose engines run on the "
            "version that built them: leave it out, and build the engine again after an update."
        )
    if options.hardware_compatible:
        raise InputError(
            "--hardware-compatible changes nothing in TensorRT for RTX, whose engines run on all "
            "its cards: leave it out, or name cards with --gpu."
        )
    if options.timing_cache is not None:
        raise InputError(
            "--timing-cache changes nothing in TensorRT for RTX, which measures nothing while it "
            "builds: leave it out."
        )
    check_gpus(trt, options.gpus)


def build_engine(
    onnx_file: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    options: EngineOptions | None = None,
    *,
    on_progress: OnProgress = lambda phase, fraction: None,
    on_warning: Callable[[str], None] = lambda sentence: None,
) -> EngineResult:
    """Build a TensorRT engine and prove on the golden images that it scores as the model does.

    Nothing is built where ``output`` is that engine already: the same ONNX file, TensorRT, GPU and
    options.

    Args:
        onnx_file: the file that ``fsad-edge export`` wrote.
        output: the file to write; by default the ONNX file's name with ``.engine``.
        options: the user's choices.
        on_progress: called with what is being done and the fraction of all that is done. TensorRT
            calls it from several threads. An exception that it raises stops the build.
        on_warning: called with each warning; the result lists them too.

    Raises:
        MissingExtraError: TensorRT is not installed.
        InputError: ``tensorrt`` has no GPU, or the file, the output or an option cannot be used.
        ModelFileError: the ONNX file is damaged.
        ExportError: TensorRT cannot build the engine, or it does not score as the model does; the
            output was not touched.
    """
    options = options or EngineOptions()
    check_batch_sizes(options.batch)
    source = read_source(Path(onnx_file))
    target = source.path.with_suffix(".engine") if output is None else Path(output)
    cache = options.timing_cache or target.with_suffix(".timing")
    check_output(target, force=True)  # whether it may be replaced is asked where it would be
    check_no_input(target, [source.path, cache])
    check_no_input(cache, [source.path])
    check_model_output(target, force=True)
    check_output(cache, force=True)
    machine = check_machine(options)
    trt, flavour = machine.trt, machine.flavour
    header = header_of(source, options.build_options, trt.__version__, machine.gpu, flavour)
    unproved = machine.no_gpu
    start = time.monotonic()
    built = options.force or not is_built(target, header)
    if built:
        check_output(target, options.force)
        plan = build_plan(trt, flavour, source, options.build_options, cache, on_progress)
        data = write_engine(header, source.reference, plan)
    else:
        data = read_bytes(target)
    if unproved is None and (built or flavour == Flavour.RTX):  # that may come from elsewhere
        unproved = _check_scores(data, source, target)
    if built:
        write_bytes(target, data)
    golden = len(source.metadata.golden)
    warnings: tuple[str, ...] = () if source.unsealed is None else (source.unsealed,)
    if not golden:
        warnings += ("the file has no golden images: the engine's scores are unproved.",)
    for sentence in warnings:
        on_warning(sentence)
    return EngineResult(
        path=target,
        built=built,
        seconds=round(time.monotonic() - start, 1),
        size=target.stat().st_size,
        tensorrt=header.tensorrt,
        flavour=flavour,
        builder=header.builder,
        gpu=machine.gpu,
        precision=header.precision,
        options=header.options,
        key=header.key,
        golden_images=0 if unproved else golden,
        unproved=unproved,
        warnings=warnings,
    )


def rebuild_engine(
    engine_file: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    timing_cache: Path | None = None,
    *,
    on_progress: OnProgress = lambda phase, fraction: None,
    on_warning: Callable[[str], None] = lambda sentence: None,
) -> EngineResult:
    """Build an engine again, with its own options, from the ONNX file next to it.

    This is for another GPU, or after an update of TensorRT.

    Args:
        engine_file: the engine.
        output: the file to write; by default the engine is replaced.
        timing_cache: see :class:`EngineOptions`.
        on_progress: see :func:`build_engine`.
        on_warning: see :func:`build_engine`.

    Raises:
        FsadEdgeError: as :func:`build_engine`; also where the ONNX file is missing or the engine
            file is damaged.
    """
    file = Path(engine_file)
    header = read_engine(read_bytes(file), str(file)).header
    onnx_file = file.with_name(header.source_name)
    if not is_file(onnx_file):
        raise InputError(
            f"{file} is built again from {onnx_file.name}, which is not in its folder: copy it "
            "there."
        )
    options = EngineOptions(
        **vars(header.options), flavour=header.flavour, timing_cache=timing_cache, force=True
    )
    return build_engine(
        onnx_file, output or file, options, on_progress=on_progress, on_warning=on_warning
    )


def header_of(
    source: EngineSource,
    options: BuildOptions,
    tensorrt: str,
    gpu: Gpu | None,
    flavour: Flavour = Flavour.TENSORRT,
) -> EngineHeader:
    """The header of the engine file; its key tells whether the engine is built already.

    An engine of TensorRT for RTX is the same whatever GPU is there while it is built.
    """
    return EngineHeader(
        metadata=source.document,
        source_name=source.path.name,
        source_sha256=sha256(source.data),
        tensorrt=tensorrt,
        gpu=None if flavour == Flavour.RTX else gpu,
        precision=source.metadata.precision,
        options=options,
        reference={},
        graph=graph_key(source.data, REFERENCE_INPUTS),
        flavour=flavour,
    )


def is_built(target: Path, header: EngineHeader) -> bool:
    """Whether a file is this engine: same ONNX file, TensorRT, GPU, precision and options."""
    with contextlib.suppress(ModelFileError):
        data = read_bytes(target, ModelFileError)
        return is_engine(data) and read_engine(data, str(target)).header.key == header.key
    return False


def _check_scores(data: bytes, source: EngineSource, target: Path) -> str | None:
    """Score the golden images by the engine; returns why that is not possible here.

    Raises:
        ExportError: their scores differ.
    """
    try:
        with Model.from_bytes(data, str(target)) as model:
            model.check_golden()
    except UnfitGpuError as error:
        return str(error).rstrip(".")
    except GoldenImageError as error:
        raise ExportError(
            f"the engine does not score as the model does ({str(error).partition(':')[0]}): it was "
            f"not kept; {_cure(source.metadata.precision)}."
        ) from error
    return None


def _cure(precision: str) -> str:
    """What to do where TensorRT computes a precision wrongly."""
    if precision.startswith("int8"):
        return "export with  --precision fp16  and build that file"
    if precision == "fp16":
        return (
            "export with  --precision fp32  and build that file (TensorRT 10.3 is known to compute "
            "some transformers wrongly in fp16: NVIDIA/TensorRT issue 4723)"
        )
    return "score with the ONNX file, and report this"
