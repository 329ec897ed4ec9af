"""The ONNX file that a TensorRT engine is built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fsad_edge.errors import InputError
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.files import is_folder, read_bytes
from fsad_edge.runtime.metadata import Metadata
from fsad_edge.runtime.model_file import read_model_file
from fsad_edge.runtime.seal import without_seal


@dataclass(frozen=True)
class EngineSource:
    """An ONNX file, read and checked.

    Attributes:
        path: the file.
        data: its bytes.
        document: the JSON document in it.
        metadata: the same document, parsed.
        reference: the reference model: the defaults of the graph's inputs, by name.
        unsealed: a sentence for the user where it cannot be checked for damage, else None.
    """

    path: Path
    data: bytes
    document: str
    metadata: Metadata
    reference: dict[str, Float32Array]
    unsealed: str | None = None


def read_source(path: Path) -> EngineSource:
    """Read an ONNX file, and refuse one that TensorRT cannot use.

    Raises:
        InputError: it cannot be read, or holds int8 for a CPU.
        ModelFileError: it is damaged, or was not written by this project.
    """
    if is_folder(path):
        raise InputError(
            f"{path} is a model directory: run  fsad-edge export {path}  first, and give the ONNX "
            "file that it writes."
        )
    data = read_bytes(path)
    file = read_model_file(data, str(path))
    metadata = file.metadata
    if metadata.precision == "int8 (cpu)":
        raise InputError(
            f"{path} holds int8 for a CPU, which TensorRT cannot build: export the model with  "
            "--precision int8 --target tensorrt  or with  --precision fp16."
        )
    unsealed = None if file.sealed else without_seal(str(path))
    return EngineSource(path, data, file.document, metadata, file.reference.as_inputs(), unsealed)
