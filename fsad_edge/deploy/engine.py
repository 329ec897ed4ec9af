"""From an ONNX file to a TensorRT engine, on the device: needs numpy and ``tensorrt``, no torch.

The network is strongly typed: it computes in the types that the ONNX file holds, so that fp16 and
int8 are the host's choice, proved there. TF32, in which TensorRT would else compute fp32, is off: a
distance is a difference of numbers near one, of which it keeps three digits.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fsad_edge.errors import ExportError, GoldenImageError, InputError, ModelFileError
from fsad_edge.runtime.backends.cuda import Gpu, find_gpu
from fsad_edge.runtime.backends.tensorrt import TEGRA, import_tensorrt, new_logger, why
from fsad_edge.runtime.engine_file import (
    BuildOptions,
    EngineHeader,
    is_engine,
    read_engine,
    write_engine,
)
from fsad_edge.runtime.files import sha256, write_bytes
from fsad_edge.runtime.metadata import KEY, Metadata
from fsad_edge.runtime.model import REFERENCE_INPUTS, Model
from fsad_edge.runtime.onnx_file import (
    graph_key,
    read_initializers,
    read_metadata,
    without_initializers,
)

#: Told the name of what TensorRT is at, and the fraction of all that is done.
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Source:
    """An ONNX file that an engine can be built from.

    Attributes:
        path: of the file.
        data: its bytes.
        document: the JSON document in it.
        metadata: the same, read.
        normals: the defaults of its inputs.
    """

    path: Path
    data: bytes
    document: str
    metadata: Metadata
    reference: dict[str, npt.NDArray[np.float32]]


def read_source(path: Path) -> Source:
    """Read an ONNX file, and refuse one that is not for TensorRT.

    Raises:
        InputError: it cannot be read, or holds int8 for a CPU.
        ModelFileError: it is damaged, or not a file of this project.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    document = read_metadata(data).get(KEY)
    if document is None:
        raise ModelFileError(f"{path} is not a file that  fsad-edge export  wrote.")
    metadata = Metadata.from_json(document, str(path))
    if metadata.precision == "int8 (cpu)":
        raise InputError(
            f"{path} holds int8 for a CPU, which TensorRT does not take: export the model with  "
            "--precision int8 --target tensorrt , or with  --precision fp16."
        )
    tensors = read_initializers(data, REFERENCE_INPUTS)
    missing = [name for name in REFERENCE_INPUTS if name not in tensors]
    if missing:
        raise ModelFileError(f"{path} holds no '{missing[0]}': export it again.")
    return Source(
        path, data, document, metadata, {name: tensors[name] for name in REFERENCE_INPUTS}
    )


def check_machine(options: BuildOptions) -> tuple[Any, Gpu]:
    """TensorRT and the GPU here, before anything takes its time.

    Raises:
        MissingExtraError: TensorRT is not installed.
        InputError: there is no GPU, or the options are not for this machine.
    """
    trt = import_tensorrt()
    gpu = find_gpu()
    if options.hardware_compatible and TEGRA.exists():
        raise InputError(
            "--hardware-compatible is not to be had on a Jetson: leave it out, and build on each "
            "kind of board."
        )
    return trt, gpu


def header_of(source: Source, options: BuildOptions, tensorrt: str, gpu: Gpu) -> EngineHeader:
    """What the engine file says of itself; its key tells whether there is one already."""
    return EngineHeader(
        metadata=source.document,
        source_name=source.path.name,
        source_sha256=sha256(source.data),
        tensorrt=tensorrt,
        gpu=gpu,
        precision=source.metadata.precision,
        options=options,
        reference={},
        graph=graph_key(source.data, REFERENCE_INPUTS),
    )


def is_built(target: Path, header: EngineHeader) -> bool:
    """Whether a file is that engine already: same ONNX file, TensorRT, GPU, precision, options."""
    with contextlib.suppress(OSError, ModelFileError):
        data = target.read_bytes()
        return is_engine(data) and read_engine(data, str(target)).header.key == header.key
    return False


def build(
    source: Source,
    target: Path,
    options: BuildOptions,
    timing_cache: Path,
    progress: Progress,
    stopped: Callable[[], bool],
) -> EngineHeader:
    """Build an engine, prove it on the golden images, and write it.

    Args:
        source: the ONNX file.
        target: the file to write; not touched where the proof fails.
        options: see there.
        timing_cache: read if it is there, and written: it shortens the next build.
        progress: called from threads of TensorRT's.
        stopped: asked after each step; True ends the build.

    Raises:
        MissingExtraError: TensorRT is not installed.
        InputError: there is no GPU, or no room.
        ExportError: TensorRT does not build it, or it scores its golden images otherwise.
    """
    trt, gpu = check_machine(options)
    plan = _plan(trt, source, options, timing_cache, Phases(progress, stopped))
    header = header_of(source, options, trt.__version__, gpu)
    data = write_engine(header, source.reference, plan)
    _prove(data, source, target)
    write_bytes(target, data)
    return header


def instead(precision: str) -> str:
    """Which export to take where TensorRT computes a precision wrongly."""
    if precision.startswith("int8"):
        return "export with  --precision fp16  and build that"
    if precision == "fp16":
        return (
            "export with  --precision fp32  and build that (TensorRT 10.3 is known to compute some "
            "transformers wrongly in fp16: NVIDIA/TensorRT issue 4723)"
        )
    return "score with the ONNX file, and report this"


def _prove(data: bytes, source: Source, target: Path) -> None:
    try:
        with Model.from_bytes(data, str(target)) as model:
            model.check_golden()
    except GoldenImageError as error:
        raise ExportError(
            f"the engine does not score as the model does ({str(error).partition(':')[0]}): it was "
            f"not kept; {instead(source.metadata.precision)}."
        ) from error


def _plan(
    trt: Any, source: Source, options: BuildOptions, timing_cache: Path, phases: Phases
) -> bytes:
    logger = new_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(without_initializers(source.data, REFERENCE_INPUTS)):
        reason = why(logger)
        if parser.num_errors:
            complaint = parser.get_error(0)
            reason = f"{complaint.node_operator()}: {' '.join(complaint.desc().split())}"
        raise ExportError(
            f"TensorRT {trt.__version__} does not take {source.path} ({reason}): export "
            "the model again with this version of fsad-edge, or with another --backbone."
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    profile = builder.create_optimization_profile()
    height, width = source.metadata.height, source.metadata.width
    profile.set_shape("image", *((batch, height, width, 3) for batch in options.batch))
    config.add_optimization_profile(profile)
    _use_timing_cache(config, timing_cache)
    monitor = new_monitor(trt, phases)  # has to outlive the build
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if phases.stopped():
        raise KeyboardInterrupt
    if plan is None:
        raise ExportError(
            f"TensorRT {trt.__version__} cannot build {source.path} ({why(logger)}): try a larger "
            "--workspace, or another --precision at export."
        )
    cache = config.get_timing_cache()
    if cache is not None:
        write_bytes(timing_cache, bytes(cache.serialize()))
    return bytes(plan)


def _use_timing_cache(config: Any, file: Path) -> None:
    """Give TensorRT what it measured before; a file of another GPU or version is not taken."""
    data = b""
    with contextlib.suppress(OSError):
        data = file.read_bytes()
    cache = config.create_timing_cache(data)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


class Phases:
    """TensorRT's phases, which lie within one another, as one fraction.

    Called from several threads.

    Args:
        progress: told the innermost phase and the fraction of all that is done.
        stopped: whether to end the build.
    """

    def __init__(self, progress: Progress, stopped: Callable[[], bool]) -> None:
        self._progress, self.stopped = progress, stopped
        self._lock = threading.Lock()
        self._steps: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._parents: dict[str, str | None] = {}

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._steps[name], self._done[name], self._parents[name] = max(steps, 1), 0, parent
            self._tell(name)

    def step(self, name: str, step: int) -> bool:
        """A step is done; whether to go on."""
        with self._lock:
            if name in self._steps:
                self._done[name] = min(step + 1, self._steps[name])
                self._tell(name)
        return not self.stopped()

    def finish(self, name: str) -> None:
        """It can come before all of its steps are done."""
        with self._lock:
            self._steps.pop(name, None)
            self._done.pop(name, None)
            self._parents.pop(name, None)

    def _tell(self, name: str) -> None:
        """The fraction of the outermost phase, the steps of those within it as parts of its own."""
        fraction, at, seen = 0.0, name, set[str]()
        while at in self._steps and at not in seen:
            seen.add(at)
            fraction = min((self._done[at] + fraction) / self._steps[at], 1.0)
            at = self._parents[at] or ""
        self._progress(name, fraction)


def new_monitor(trt: Any, phases: Phases) -> Any:
    """An ``IProgressMonitor`` that tells :class:`Phases`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()
