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

from fsad_edge.deploy.batch_sizes import check_batch_sizes
from fsad_edge.deploy.build_machine import check_machine
from fsad_edge.deploy.engine_options import EngineOptions
from fsad_edge.deploy.engine_proof import prove_engine
from fsad_edge.deploy.engine_source import EngineSource, read_source
from fsad_edge.deploy.tensorrt_plan import OnProgress, build_plan
from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.runtime.backends.cuda import Gpu
from fsad_edge.runtime.engine_file import (
    BuildOptions,
    EngineHeader,
    Flavour,
    gpu_words,
    is_engine,
    read_engine,
    write_engine,
)
from fsad_edge.runtime.files import (
    check_no_input,
    check_output,
    is_file,
    read_bytes,
    sha256,
    write_bytes,
)
from fsad_edge.runtime.model_file import ALL_REFERENCE_INPUTS
from fsad_edge.runtime.model_output import check_engine_output
from fsad_edge.runtime.onnx_file import graph_key


@dataclass(frozen=True)
class EngineResult(os.PathLike[str]):
    """An engine that is built. It can be given wherever the path of the file can.

    Attributes:
        path: the engine file.
        source: the ONNX file that it was built from.
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
    source: Path
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

    @property
    def runs_on(self) -> str:
        """The machines that the engine runs on, in words."""
        if self.flavour == Flavour.RTX:
            return f"a PC with a GPU of compute capability {gpu_words(self.options)}"
        return f"a machine with {self.gpu}"

    @property
    def next(self) -> str:
        """The command that scores an image on this machine: by the ONNX file where only it runs."""
        file = self.path if self.unproved is None else self.source
        return f"fsad-edge score {file} IMAGE"

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
            "runs_on": self.runs_on,
            "next": self.next,
        }


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
    _check_paths(source, target, cache)
    machine = check_machine(options)
    header = header_of(
        source, options.build_options, machine.trt.__version__, machine.gpu, machine.flavour
    )
    start = time.monotonic()
    data = None if options.force else _read_built(target, header)
    built = data is None
    if data is None:
        check_output(target, options.force)
        plan = build_plan(
            machine.trt, machine.flavour, source, options.build_options, cache, on_progress
        )
        data = write_engine(header, source.reference, plan)
    unproved = machine.no_gpu
    if unproved is None and (built or machine.flavour == Flavour.RTX):  # it may come from elsewhere
        unproved = prove_engine(data, source, target)
    if built:
        write_bytes(target, data)
    warnings = _warnings_about(source)
    for sentence in warnings:
        on_warning(sentence)
    return EngineResult(
        path=target,
        source=source.path,
        built=built,
        seconds=round(time.monotonic() - start, 1),
        size=len(data),
        tensorrt=header.tensorrt,
        flavour=header.flavour,
        builder=header.builder,
        gpu=machine.gpu,
        precision=header.precision,
        options=header.options,
        key=header.key,
        golden_images=0 if unproved else len(source.metadata.golden),
        unproved=unproved,
        warnings=warnings,
    )


def _check_paths(source: EngineSource, target: Path, cache: Path) -> None:
    """Refuse files to write that are read, or whose names stand for something else.

    Whether an older engine may be replaced is asked where it would be.

    Raises:
        InputError: names what to give instead.
    """
    check_no_input(target, [source.path, cache])
    check_no_input(cache, [source.path])
    check_engine_output(target)
    check_output(cache, force=True)
    # Whoever serves a folder takes an engine in place of the ONNX file of its name.
    beside = target.with_suffix(".onnx")
    if is_file(beside) and sha256(read_bytes(beside)) != sha256(source.data):
        own = target.with_name(f"{source.path.stem}.engine")
        raise InputError(
            f"{target} would take the name of {beside}, which is another file than {source.path}: "
            f"name the engine otherwise, such as {own}."
        )


def _warnings_about(source: EngineSource) -> tuple[str, ...]:
    unsealed = () if source.unsealed is None else (source.unsealed,)
    if source.metadata.golden:
        return unsealed
    return (*unsealed, "the file has no golden images: the engine's scores are unproved.")


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
        graph=graph_key(source.data, ALL_REFERENCE_INPUTS),
        flavour=flavour,
    )


def _read_built(target: Path, header: EngineHeader) -> bytes | None:
    """The bytes of a file that is this engine: same ONNX file, TensorRT, GPU and options."""
    with contextlib.suppress(ModelFileError):
        data = read_bytes(target, ModelFileError)
        if is_engine(data) and read_engine(data, str(target)).header.key == header.key:
            return data
    return None
