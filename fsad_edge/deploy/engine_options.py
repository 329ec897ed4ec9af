"""What a user chooses about an engine that is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fsad_edge.deploy.batch_sizes import BatchSizes
from fsad_edge.runtime.engine_file import BuildOptions, Flavour


@dataclass(frozen=True)
class EngineOptions:
    """The options of :func:`~fsad_edge.deploy.engine.build_engine`.

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
