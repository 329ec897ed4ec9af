"""The GPUs that TensorRT for RTX builds an engine for, by compute capability.

Only its library has these names, so that they stand apart from what both TensorRTs share.
"""

from __future__ import annotations

import re
from typing import Any

from fsad_edge.errors import InputError
from fsad_edge.runtime.engine_file import RTX_GPUS

#: Turing. Its matrix products are of halves alone there, and the distances to the memory bank are
#: computed in fp32: the builder says "FP32 GEMM is not supported" of every graph of this project.
_TURING = "7.5"


def parse_gpus(text: str) -> tuple[str, ...]:
    """Read compute capabilities such as ``8.9`` or ``8.6,12.0``; nothing stands for all.

    Raises:
        InputError: the text is something else.

    Example:
        >>> parse_gpus("8.6, 12.0")
        ('8.6', '12.0')
    """
    found = tuple(dict.fromkeys(one.strip() for one in text.split(","))) if text.strip() else ()
    for one in found:
        if not re.fullmatch(r"[1-9][0-9]{0,2}\.[0-9]", one, re.ASCII):
            raise InputError(
                f"--gpu {text} is not understood: give compute capabilities, such as  --gpu 8.9  "
                "or  --gpu 8.6,12.0  (nvidia-smi --query-gpu=compute_cap --format=csv  prints that "
                "of a GPU)."
            )
    return found


def check_gpus(trt: Any, gpus: tuple[str, ...]) -> None:
    """Refuse a GPU that TensorRT for RTX cannot build an engine for.

    Args:
        trt: the module of TensorRT for RTX.
        gpus: compute capabilities, such as ``8.9``.

    Raises:
        InputError: names the GPU, and those that can be given.
    """
    known = {_name(one): one for one in _supported(trt)}
    for one in gpus:
        if _name(one) not in known:
            why = " (its matrix products in fp32 are missing there)" if one == _TURING else ""
            raise InputError(
                f"TensorRT for RTX {trt.__version__} builds no engine of these models for GPUs of "
                f"compute capability {one}{why}: --gpu takes {', '.join(known.values())} (without "
                f"--gpu an engine is for {RTX_GPUS}); on that GPU score the ONNX file with  "
                "--provider cuda."
            )


def aim_at(trt: Any, config: Any, gpus: tuple[str, ...]) -> None:
    """Set what GPUs an engine is built for; without any, the library takes all but Turing.

    Args:
        trt: the module of TensorRT for RTX.
        config: its ``IBuilderConfig``.
        gpus: compute capabilities that :func:`check_gpus` passed.
    """
    if gpus:
        config.num_compute_capabilities = len(gpus)
        for place, one in enumerate(gpus):
            config.set_compute_capability(getattr(trt.ComputeCapability, _name(one)), place)


def _name(compute_capability: str) -> str:
    """The library's name of a compute capability: ``SM89`` for ``8.9``."""
    return f"SM{compute_capability.replace('.', '')}"


def _supported(trt: Any) -> list[str]:
    """The compute capabilities that the library has names for, but for Turing's, ascending."""
    numbers = [
        int(name.removeprefix("SM"))
        for name in trt.ComputeCapability.__members__
        if name.startswith("SM")
    ]
    found = [f"{number // 10}.{number % 10}" for number in sorted(numbers)]
    return [one for one in found if one != _TURING]
