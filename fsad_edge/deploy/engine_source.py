"""The ONNX file that a TensorRT engine is built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.files import is_folder, read_bytes
from fsad_edge.runtime.metadata import KEY, Metadata
from fsad_edge.runtime.model import REFERENCE_INPUTS
from fsad_edge.runtime.onnx_file import read_initializers, read_metadata


@dataclass(frozen=True)
class EngineSource:
    """An ONNX file, read and checked.

    Attributes:
        path: the file.
        data: its bytes.
        document: the JSON document in it.
        metadata: the same document, parsed.
        reference: the reference model: the defaults of the graph's inputs, by name.
    """

    path: Path
    data: bytes
    document: str
    metadata: Metadata
    reference: dict[str, Float32Array]


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
    document = read_metadata(data).get(KEY)
    if document is None:
        raise ModelFileError(f"{path} is not a file that  fsad-edge export  wrote.")
    metadata = Metadata.from_json(document, str(path))
    if metadata.precision == "int8 (cpu)":
        raise InputError(
            f"{path} holds int8 for a CPU, which TensorRT cannot build: export the model with  "
            "--precision int8 --target tensorrt  or with  --precision fp16."
        )
    tensors = read_initializers(data, REFERENCE_INPUTS)
    missing = [name for name in REFERENCE_INPUTS if name not in tensors]
    if missing:
        raise ModelFileError(f"{path} holds no '{missing[0]}': export it again.")
    reference = {name: tensors[name] for name in REFERENCE_INPUTS}
    return EngineSource(path, data, document, metadata, reference)
