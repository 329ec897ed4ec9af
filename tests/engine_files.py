"""Engine files as a build writes them, without the TensorRT that would build them."""

from __future__ import annotations

from pathlib import Path

from fsad_edge.deploy.engine import header_of
from fsad_edge.deploy.engine_source import read_source
from fsad_edge.runtime.backends.cuda import Gpu
from fsad_edge.runtime.engine_file import BuildOptions, Flavour, write_engine

ORIN = Gpu("Orin", "8.7", 16)


def write_fake_engine(
    onnx: Path,
    target: Path | None = None,
    flavour: Flavour = Flavour.TENSORRT,
    options: BuildOptions | None = None,
) -> Path:
    """Write an engine of an ONNX file whose plan is none; the path of it."""
    source = read_source(onnx)
    gpu = None if flavour == Flavour.RTX else ORIN
    header = header_of(source, options or BuildOptions(), "10.3.0", gpu, flavour)
    target = target or onnx.with_suffix(".engine")
    target.write_bytes(write_engine(header, source.reference, b"no plan"))
    return target
