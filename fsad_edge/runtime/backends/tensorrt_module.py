"""The Python modules of both TensorRTs: which one is here, what is missing, and its messages."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from fsad_edge.errors import InputError, MissingExtraError
from fsad_edge.runtime.engine_file import Flavour
from fsad_edge.runtime.environment import has_modules

#: A file that every Jetson has.
TEGRA = Path("/etc/nv_tegra_release")

#: The module of TensorRT for RTX as its wheels install it, and as NVIDIA's archives do.
_RTX_MODULES = ("tensorrt_rtx_bindings", "tensorrt_rtx")


def find_flavour() -> Flavour:
    """The TensorRT that builds engines here: ``tensorrt`` where it is installed, as on a Jetson.

    Where neither is installed it is ``tensorrt`` too, and importing it says what to install.
    """
    only_rtx = not has_modules("tensorrt") and any(map(has_modules, _RTX_MODULES))
    return Flavour.RTX if only_rtx else Flavour.TENSORRT


def import_tensorrt(flavour: Flavour = Flavour.TENSORRT) -> Any:
    """Import the Python module of a TensorRT.

    Raises:
        MissingExtraError: it is not installed.
        InputError: it is installed, but one of its libraries is missing.
    """
    try:
        if flavour == Flavour.TENSORRT:
            import tensorrt as trt
        elif has_modules(_RTX_MODULES[0]):
            import tensorrt_rtx_bindings as trt
        else:
            import tensorrt_rtx as trt
    except ModuleNotFoundError:
        raise _missing(flavour) from None
    except (ImportError, OSError) as error:
        raise InputError(
            f"{flavour} is installed but does not load ({error}): install its libraries too."
        ) from error
    return trt


def _missing(flavour: Flavour) -> MissingExtraError:
    if flavour == Flavour.RTX:
        return MissingExtraError("tensorrt_rtx", "trt-rtx")
    if TEGRA.exists():  # pip would install a package for other machines
        command = (
            "sudo apt install python3-libnvinfer , make the environment with  "
            "python3 -m venv --system-site-packages"
        )
    else:
        command = (
            "pip install 'fsad-edge[trt]' , or for RTX cards  pip install 'fsad-edge[trt-rtx]'"
        )
    return MissingExtraError("tensorrt", "trt", command)


@functools.cache
def logger_of(trt: Any) -> Any:
    """The logger of a TensorRT: it prints nothing and keeps errors and warnings in ``messages``.

    There is one in a process, because TensorRT takes the first that it is given and no other.
    """

    class Messages(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING):
                self.messages = [*self.messages[-9:], " ".join(msg.split())]

    return Messages()


def last_message(logger: Any) -> str:
    """TensorRT's last message, for an error's sentence. Clear ``messages`` before what may fail."""
    return logger.messages[-1].rstrip(".") if logger.messages else "it does not say why"
