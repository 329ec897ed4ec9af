"""ONNX Runtime's execution providers: their options, and why one is not to be had."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from typing import Any

from fsad_edge.runtime.metadata import KEY
from fsad_edge.runtime.onnx_file import read_metadata

#: Names a user gives to ONNX Runtime's providers.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}

#: Images in a run that TensorRT's engines are built for, inside ONNX Runtime.
_LARGEST_BATCH = 8

#: Where a provider's library lies in the package.
_LIBRARIES = {
    "cuda": "libonnxruntime_providers_cuda.so",
    "tensorrt": "libonnxruntime_providers_tensorrt.so",
}


def available(ort: Any) -> list[str]:
    """What ONNX Runtime was built with; its libraries may still be missing."""
    names: list[str] = ort.get_available_providers()
    return names


def first_line(error: Exception) -> str:
    """Of what an error says, without the full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def options_of(provider: str, graph: bytes, source: str) -> dict[str, str]:
    """Options for ``cpu``, ``cuda`` or ``tensorrt``.

    Args:
        provider: by the user's name.
        graph: the serialised model.
        source: the file it came from; TensorRT's engines are kept beside it.
    """
    if provider == "cuda":
        # A distance is a difference of numbers near one: TF32 keeps three digits of these.
        return {"use_tf32": "0"}
    if provider != "tensorrt":
        return {}
    # TensorRT inside ONNX Runtime has no switch for TF32 but this one of NVIDIA's libraries.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    cache = str(Path(source).absolute().with_suffix(".tensorrt"))
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": cache,
        **_profile(graph),
    }


def _profile(graph: bytes) -> dict[str, str]:
    """Batch sizes that an engine is built for, so that a request of another does not build one."""
    try:
        document = json.loads(read_metadata(graph)[KEY])
        size = f"{int(document['height'])}x{int(document['width'])}x3"
    except (KeyError, TypeError, ValueError):
        return {}  # not a file of this project, which is said later
    shapes = {"min": 1, "opt": 1, "max": _LARGEST_BATCH}
    return {f"trt_profile_{end}_shapes": f"image:{batch}x{size}" for end, batch in shapes.items()}


def why_not(ort: Any, provider: str) -> str:
    """Why ONNX Runtime does not give a provider, and what to do, for an error's sentence."""
    built_with = available(ort)
    if PROVIDERS[provider] not in built_with:
        here = ", ".join(name.removesuffix("ExecutionProvider") for name in built_with)
        return (
            f"the onnxruntime that is installed has {here} alone: run  pip uninstall onnxruntime , "
            "pip install 'fsad-edge[gpu]' , or on a Jetson take the wheel of docs/jetson.md"
        )
    library = Path(ort.__file__).parent / "capi" / _LIBRARIES[provider]
    try:
        ctypes.CDLL(str(library))
    except OSError as error:  # names the library that is missing
        return f"{error}: see  fsad-edge doctor"
    return "its libraries load, so it is the GPU or its driver: see  nvidia-smi"
