"""Whether an engine of TensorRT for RTX runs on this machine; it is not loaded for that."""

from __future__ import annotations

from pathlib import Path

from fsad_edge.errors import FsadEdgeError
from fsad_edge.runtime.backends.tensorrt import gpu_for, import_tensorrt, logger_of
from fsad_edge.runtime.engine_file import Flavour, is_engine, read_engine
from fsad_edge.runtime.files import read_bytes


def why_not_here(file: Path) -> str | None:
    """Why an engine of TensorRT for RTX does not run here, one sentence.

    Such an engine is built on any machine, also on one that cannot run it. None stands for one that
    may run here, and for every other file: whoever loads it finds out.
    """
    try:
        data = read_bytes(file)
        if not is_engine(data):
            return None
        engine = read_engine(data, str(file))
    except FsadEdgeError:
        return None
    if engine.header.flavour != Flavour.RTX:
        return None
    try:
        trt, gpu = import_tensorrt(Flavour.RTX), gpu_for(engine.header, str(file))
    except FsadEdgeError as error:
        return str(error)
    validity, _ = trt.Runtime(logger_of(trt)).get_engine_validity(engine.plan)
    if validity == trt.EngineValidity.INVALID:
        return f"{file} does not run on {gpu} with TensorRT for RTX {trt.__version__}."
    return None
