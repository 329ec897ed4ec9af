"""From an ONNX file to TensorRT's plan, and the progress of that.

The network is strongly typed: it computes in the types that the ONNX file holds, so that the host
chooses fp16 or int8 and proves it there. TF32, in which TensorRT would compute fp32 by default, is
off: a distance is a difference of numbers near one, of which TF32 keeps three digits.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsad_edge.deploy.engine_source import EngineSource
from fsad_edge.deploy.rtx_gpus import aim_at
from fsad_edge.errors import ExportError, InputError
from fsad_edge.runtime.backends.tensorrt_module import last_message, logger_of
from fsad_edge.runtime.engine_file import BuildOptions, Flavour
from fsad_edge.runtime.files import read_bytes, write_bytes
from fsad_edge.runtime.model_file import ALL_REFERENCE_INPUTS
from fsad_edge.runtime.onnx_file import read_initializers, without_initializers

#: Called with what is being done and the fraction of all that is done, from several threads. An
#: exception that it raises stops the build.
OnProgress = Callable[[str, float], None]


def build_plan(
    trt: Any,
    flavour: Flavour,
    source: EngineSource,
    options: BuildOptions,
    timing_cache: Path,
    on_progress: OnProgress,
) -> bytes:
    """Build the plan of an ONNX file.

    Args:
        trt: the module of a TensorRT.
        flavour: which one it is.
        source: the ONNX file.
        options: how to build it.
        timing_cache: read if it exists, and written: it makes the next build faster. TensorRT for
            RTX measures nothing and has none.
        on_progress: called with each step.

    Raises:
        ExportError: TensorRT refuses the graph or cannot build it.
    """
    name = f"{flavour.words} {trt.__version__}"
    logger = logger_of(trt)
    logger.messages.clear()
    builder = trt.Builder(logger)
    network, complaint = _parse(trt, builder, without_initializers(source.data, source.reference))
    if complaint is not None:
        raise ExportError(
            f"{name} does not take {source.path} ({complaint}): export the model again with this "
            "version of fsad-edge, or with another --backbone."
        )
    config = _configure(trt, builder, options)
    if flavour == Flavour.RTX:
        aim_at(trt, config, options.gpus)
    profile = builder.create_optimization_profile()
    height, width = source.metadata.height, source.metadata.width
    profile.set_shape("image", *((batch, height, width, 3) for batch in options.batch))
    config.add_optimization_profile(profile)
    if flavour == Flavour.TENSORRT:
        _use_timing_cache(config, timing_cache)
    progress = BuildProgress(on_progress, flavour.words)
    monitor = new_monitor(trt, progress)  # TensorRT holds no reference: it must outlive the build
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    progress.finish_build()
    if plan is None:
        raise ExportError(
            f"{name} cannot build {source.path} ({last_message(logger)}): take a larger "
            "--workspace, or export with another --precision."
        )
    cache = config.get_timing_cache() if flavour == Flavour.TENSORRT else None
    if cache is not None:
        write_bytes(timing_cache, bytes(cache.serialize()))
    return bytes(plan)


def find_complaint(trt: Any, data: bytes) -> str | None:
    """What NVIDIA's parser says against an exported graph, with the node; None where it takes it.

    Args:
        trt: the module of TensorRT for RTX, which parses without a GPU.
        data: the ONNX file; it may hold a reference model.
    """
    logger_of(trt).messages.clear()
    defaults = [name for name in ALL_REFERENCE_INPUTS if name in read_initializers(data)]
    return _parse(trt, trt.Builder(logger_of(trt)), without_initializers(data, defaults))[1]


def _parse(trt: Any, builder: Any, data: bytes) -> tuple[Any, str | None]:
    """TensorRT's network of a graph, and the parser's complaint where it refuses it."""
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    logger = logger_of(trt)
    parser = trt.OnnxParser(network, logger)
    if parser.parse(data):
        return network, None
    if not parser.num_errors:
        return network, last_message(logger)
    complaint = parser.get_error(0)
    node = " ".join(filter(None, [complaint.node_operator(), complaint.node_name()]))
    return network, f"{node}: {' '.join(complaint.desc().split())}"


def _configure(trt: Any, builder: Any, options: BuildOptions) -> Any:
    """TensorRT's ``IBuilderConfig`` for these options."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    return config


def _use_timing_cache(config: Any, file: Path) -> None:
    """Give TensorRT its earlier measurements. It ignores those of another GPU or version."""
    data = b""
    with contextlib.suppress(InputError):
        data = read_bytes(file)
    cache = config.create_timing_cache(data)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


class BuildProgress:
    """The progress of a build as one fraction, computed from TensorRT's nested phases.

    TensorRT calls it from several threads and loses exceptions: the first one that ``on_progress``
    raises is kept, the build is stopped, and :meth:`finish_build` raises it again.

    Args:
        on_progress: called with the innermost phase and the fraction of all that is done.
        name: what builds, the last phase that is told.
    """

    def __init__(self, on_progress: OnProgress, name: str = "TensorRT") -> None:
        self._on_progress, self._name = on_progress, name
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._steps: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._parents: dict[str, str | None] = {}

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins, inside another one unless ``parent`` is None."""
        with self._lock:
            self._steps[name], self._done[name], self._parents[name] = max(steps, 1), 0, parent
            self._report(name)

    def step(self, name: str, step: int) -> bool:
        """A step of a phase is done; returns whether TensorRT shall go on."""
        with self._lock:
            if name in self._steps:
                self._done[name] = min(step + 1, self._steps[name])
                self._report(name)
        return self._error is None

    def finish(self, name: str) -> None:
        """A phase ends, perhaps before all of its steps are done."""
        with self._lock:
            self._steps.pop(name, None)
            self._done.pop(name, None)
            self._parents.pop(name, None)

    def finish_build(self) -> None:
        """The build ended; raises what stopped it."""
        if self._error is None:
            self._call(self._name, 1.0)
        if self._error is not None:
            raise self._error

    def _report(self, name: str) -> None:
        """Compute the outermost phase's fraction, in which an inner phase is a part of a step."""
        fraction, at, seen = 0.0, name, set[str]()
        while at in self._steps and at not in seen:
            seen.add(at)
            fraction = min((self._done[at] + fraction) / self._steps[at], 1.0)
            at = self._parents[at] or ""
        self._call(name, fraction)

    def _call(self, name: str, fraction: float) -> None:
        try:
            self._on_progress(name, fraction)
        except BaseException as error:
            self._error = self._error or error


def new_monitor(trt: Any, progress: BuildProgress) -> Any:
    """An ``IProgressMonitor`` of TensorRT that reports to :class:`BuildProgress`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()
