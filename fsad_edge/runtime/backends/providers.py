"""ONNX Runtime's execution providers: their options, and why one is not available."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from fsad_edge.errors import ModelFileError
from fsad_edge.options import Provider
from fsad_edge.runtime.backends.driver import driver_problem
from fsad_edge.runtime.metadata import KEY, Metadata
from fsad_edge.runtime.onnx_file import read_metadata

#: ONNX Runtime's names of the providers.
PROVIDERS: dict[str, str] = {
    Provider.CPU: "CPUExecutionProvider",
    Provider.CUDA: "CUDAExecutionProvider",
    Provider.TENSORRT: "TensorrtExecutionProvider",
}

#: Images in a run that TensorRT's engines inside ONNX Runtime are built for at least.
_LEAST_PROFILE = 8

#: A provider's library in the package of ONNX Runtime.
_LIBRARIES: dict[str, str] = {
    Provider.CUDA: "libonnxruntime_providers_cuda.so",
    Provider.TENSORRT: "libonnxruntime_providers_tensorrt.so",
}


def available(ort: Any) -> list[str]:
    """The providers that ONNX Runtime was built with; their libraries may still be missing."""
    names: list[str] = ort.get_available_providers()
    return names


def first_line(error: Exception) -> str:
    """The first line of an error's message, without the full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def options_of(provider: str, source: str) -> dict[str, str]:
    """The options of a provider for ONNX Runtime.

    Args:
        provider: ``cpu``, ``cuda`` or ``tensorrt``.
        source: the file it came from; TensorRT's engines are kept next to it.
    """
    if provider == Provider.CUDA:
        # A distance is a difference of numbers near one, of which TF32 keeps three digits.
        # What is asked for is taken, because each batch size has memory of its own.
        return {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
    if provider != Provider.TENSORRT:
        return {}
    # TensorRT inside ONNX Runtime has no other switch for TF32 than this one of NVIDIA's libraries.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    cache = str(Path(source).absolute().with_suffix(".tensorrt"))
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": cache,
    }


def batch_profile(graph: bytes, most: int) -> dict[str, str]:
    """TensorRT's options for runs of 1 to so many images, so that no run builds another engine.

    Args:
        graph: the serialised model.
        most: the most images in a run; an engine for eight takes all that are fewer.
    """
    try:
        metadata = Metadata.from_json(read_metadata(graph).get(KEY, ""), "the model")
    except ModelFileError:
        return {}  # not a file of this project, which the caller reports
    size = f"{metadata.height}x{metadata.width}x3"
    shapes = {"min": 1, "opt": 1, "max": max(most, _LEAST_PROFILE)}
    return {f"trt_profile_{end}_shapes": f"image:{batch}x{size}" for end, batch in shapes.items()}


def reason_unavailable(ort: Any, provider: str) -> str:
    """Why ONNX Runtime does not offer a provider, and what to do, for an error's sentence."""
    built_with = available(ort)
    if PROVIDERS[provider] not in built_with:
        here = ", ".join(name.removesuffix("ExecutionProvider") for name in built_with)
        return (
            f"the installed onnxruntime has {here} only: run  pip uninstall onnxruntime , then  "
            "pip install 'fsad-edge[gpu]' , or on a Jetson install the wheel of docs/jetson.md"
        )
    library = Path(ort.__file__).parent / "capi" / _LIBRARIES[provider]
    try:
        ctypes.CDLL(str(library))
    except OSError as error:  # names the library that is missing
        return f"{error}: see  fsad-edge doctor"
    return driver_problem() or "its libraries load, so it is the GPU or its driver: see  nvidia-smi"
