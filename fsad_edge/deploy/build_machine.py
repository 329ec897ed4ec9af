"""What engines can be built with on this machine: which TensorRT, and for which GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fsad_edge.deploy.engine_options import EngineOptions
from fsad_edge.deploy.rtx_gpus import check_gpus
from fsad_edge.errors import InputError
from fsad_edge.runtime.backends.cuda import Gpu, find_gpu
from fsad_edge.runtime.backends.tensorrt_module import TEGRA, find_flavour, import_tensorrt
from fsad_edge.runtime.engine_file import Flavour
from fsad_edge.runtime.environment import has_modules


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
