"""The proof of an engine: it scores the golden images as the ONNX file does."""

from __future__ import annotations

from pathlib import Path

from fsad_edge.deploy.engine_source import EngineSource
from fsad_edge.errors import ExportError, GoldenImageError
from fsad_edge.runtime.backends.tensorrt import UnfitGpuError
from fsad_edge.runtime.model import Model


def prove_engine(data: bytes, source: EngineSource, target: Path) -> str | None:
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
