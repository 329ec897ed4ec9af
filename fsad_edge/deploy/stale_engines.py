"""Engines that a new ONNX file leaves behind: they were built from the file before it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from fsad_edge.errors import FsadEdgeError
from fsad_edge.runtime.backends.tensorrt import rebuild_command
from fsad_edge.runtime.engine_file import is_engine, read_engine
from fsad_edge.runtime.files import read_bytes, sha256


def find_stale_engines(onnx: Path, data: bytes) -> tuple[Path, ...]:
    """The engines in the folder of an ONNX file that were built from another file of its name.

    Args:
        onnx: the ONNX file.
        data: its bytes.
    """
    new = sha256(data)
    beside = sorted(onnx.absolute().parent.glob("*.engine"))
    return tuple(onnx.with_name(one.name) for one in beside if _is_stale(one, onnx.name, new))


def _is_stale(engine: Path, source: str, new: str) -> bool:
    with contextlib.suppress(FsadEdgeError):  # a damaged one says so wherever it is used
        data = read_bytes(engine)
        if is_engine(data):
            header = read_engine(data, str(engine)).header
            return header.source_name == source and header.source_sha256 != new
    return False


def stale_sentence(engine: Path, onnx: Path) -> str:
    """What to say of one of them, and what builds it again."""
    return (
        f"{engine} was built from the {onnx.name} before this one, and is refused until it is "
        f"built again: run  {rebuild_command(engine)} ."
    )
