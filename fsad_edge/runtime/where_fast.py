"""Where a model file runs fast, by the number format of its encoder."""

from __future__ import annotations

from fsad_edge.options import Precision, Provider, Target

#: The two kinds of int8 files, as a file names its precision.
INT8_CPU, INT8_TENSORRT = (f"{Precision.INT8} ({target})" for target in Target)

_WORDS = {
    Precision.FP32: "on a CPU and on a GPU",
    Precision.FP16: "on a GPU; a CPU computes it as fp32",
    INT8_CPU: "on a CPU; for a GPU export it with --precision fp16",
    INT8_TENSORRT: "as a TensorRT engine, which  fsad-edge build  makes",
}

_SLOW_ON_CPU = {
    Precision.FP16: "is an fp16 file for a GPU, which a CPU computes as fp32 (for a CPU export it "
    "with --precision fp32 or int8)",
    INT8_TENSORRT: "is an int8 file for TensorRT, which is not written to run fast on a CPU (build "
    "an engine with  fsad-edge build , or for a CPU export it with --precision int8)",
}


def where_fast(precision: str) -> str:
    """Where a file runs fast, in words.

    Args:
        precision: as the file names it, such as ``fp32`` or ``int8 (cpu)``.

    Example:
        >>> where_fast("fp16")
        'on a GPU; a CPU computes it as fp32'
    """
    return _WORDS[precision]


def why_slow(precision: str, provider: Provider) -> str | None:
    """Why a file does not run fast on a provider of ONNX Runtime.

    Args:
        precision: as the file names it.
        provider: ``cpu``, ``cuda`` or ``tensorrt``.

    Returns:
        what the file is, and what to do; None where it runs fast.

    Example:
        >>> why_slow("fp32", Provider.CUDA) is None
        True
    """
    if provider is Provider.CPU:
        return _SLOW_ON_CPU.get(precision)
    if precision == INT8_CPU:
        return (
            "is an int8 file for the CPU, parts of which ONNX Runtime runs on no GPU (take "
            "--provider cpu, or for a GPU export it with --precision fp16)"
        )
    if precision == INT8_TENSORRT and provider is Provider.CUDA:
        return (
            "is an int8 file for TensorRT, parts of which CUDA does not run (build an engine with  "
            "fsad-edge build , or export it with --precision fp16)"
        )
    return None
