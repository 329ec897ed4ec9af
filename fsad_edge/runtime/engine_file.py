"""The ``.engine`` file: a TensorRT plan with all that a device needs beside it.

    8 bytes     FSADTRT1
    32 bytes    SHA-256 of all that follows
    8 bytes     length of the header, little-endian, at most 64 MiB
    header      one JSON object in UTF-8, see :class:`EngineHeader`
    normals     the tensors that the header lists, in its order, float32, little-endian
    plan        what TensorRT made, to the end of the file

By the hash a torn or damaged file is refused before TensorRT sees it. It is no signature: **a plan
is code that the GPU runs, and one that is version-compatible holds code for the CPU too; load only
what you built.**

The normal parts are the defaults of the graph's inputs. ONNX has them as initializers, which
TensorRT would build in as constants; as plain inputs they can be replaced, and a device learns with
its engine untouched.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsad_edge.errors import ModelFileError
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.backends.cuda import Gpu

MAGIC = b"FSADTRT1"

#: Raised when a reader of the older form would misread the newer one.
SCHEMA = 1

_LENGTH = struct.Struct("<Q")
_LARGEST_HEADER = 64 << 20

#: Values of one tensor, at most: a bank of 2^19 rows of 512.
_LARGEST_TENSOR = 1 << 28


@dataclass(frozen=True)
class BuildOptions:
    """How a plan is built, beside what the ONNX file holds.

    Attributes:
        batch: smallest, usual and largest number of images in a run. Where all are the same, a run
            is one CUDA graph.
        workspace_mb: memory that TensorRT may try layers with.
        version_compatible: later TensorRT versions can load it too.
        hardware_compatible: other GPUs from Ampere on can load it too; not on a Jetson.
    """

    batch: tuple[int, int, int] = (1, 1, 1)
    workspace_mb: int = 1024
    version_compatible: bool = False
    hardware_compatible: bool = False


@dataclass(frozen=True)
class EngineHeader:
    """What an engine file says of itself.

    Attributes:
        metadata: the JSON document of the ONNX file, word for word.
        source_name: file name of the ONNX file.
        source_sha256: of its bytes.
        tensorrt: version that built the plan.
        gpu: that it was built on.
        precision: of the graph.
        options: that it was built with.
        normals: shapes of the tensors that follow, by name.
        graph: :func:`~fsad_edge.runtime.onnx_file.graph_key` of the ONNX file: the engine also
            runs for other files of that graph. Empty in engines that are older than this.
    """

    metadata: str
    source_name: str
    source_sha256: str
    tensorrt: str
    gpu: Gpu
    precision: str
    options: BuildOptions
    reference: dict[str, list[int]]
    graph: str = ""

    @property
    def key(self) -> str:
        """SHA-256 of all that decides what plan is built: two engines of one key are the same."""
        return cache_key(self.source_sha256, self.tensorrt, self.gpu, self.precision, self.options)


@dataclass(frozen=True)
class EngineFile:
    """An engine file, read whole and checked."""

    header: EngineHeader
    reference: dict[str, Float32Array]
    plan: bytes


def cache_key(
    source_sha256: str, tensorrt: str, gpu: Gpu, precision: str, options: BuildOptions
) -> str:
    """SHA-256 of ONNX file, TensorRT version, GPU, precision and profile, in hexadecimal."""
    parts = {
        "source": source_sha256,
        "tensorrt": tensorrt,
        "gpu": dataclasses.asdict(gpu),
        "precision": precision,
        "options": dataclasses.asdict(options),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def is_engine(data: bytes) -> bool:
    """Whether bytes are meant to be an engine file."""
    return data[: len(MAGIC)] == MAGIC


def write_engine(header: EngineHeader, reference: Mapping[str, Float32Array], plan: bytes) -> bytes:
    """The file's bytes; the shapes in the header are set from what is given."""
    body = b"".join(np.ascontiguousarray(value, "<f4").tobytes() for value in reference.values())
    shapes = {name: list(value.shape) for name, value in reference.items()}
    document = {"schema": SCHEMA, **dataclasses.asdict(header), "normals": shapes}
    text = json.dumps(document).encode()
    rest = _LENGTH.pack(len(text)) + text + body + plan
    return MAGIC + hashlib.sha256(rest).digest() + rest


def read_engine(data: bytes, source: str) -> EngineFile:
    """Read and check the bytes of a file.

    Args:
        data: all of it.
        source: where it came from, for error sentences.

    Raises:
        ModelFileError: it is damaged, or newer than this version.
    """
    try:
        header, end = _read_header(data)
        body = memoryview(data)[end:]
        reference, place = {}, 0
        for name, shape in header.reference.items():
            count = _count(shape)
            values = np.frombuffer(body[place : place + 4 * count], "<f4")
            reference[name] = values.reshape(shape).astype(np.float32)
            place += 4 * count
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(
            f"{source} is a damaged engine file ({error}): build it again from the ONNX file with  "
            "fsad-edge export FILE.onnx --trt --force."
        ) from error
    return EngineFile(header, reference, bytes(body[place:]))


def _read_header(data: bytes) -> tuple[EngineHeader, int]:
    hashed = len(MAGIC) + hashlib.sha256().digest_size
    start = hashed + _LENGTH.size
    if not is_engine(data) or len(data) < start:
        raise ValueError("its beginning is missing")
    if hashlib.sha256(memoryview(data)[hashed:]).digest() != data[len(MAGIC) : hashed]:
        raise ValueError("it was altered or cut off")
    (length,) = _LENGTH.unpack(data[hashed:start])
    if length > min(_LARGEST_HEADER, len(data) - start):
        raise ValueError("its header is longer than the file")
    document = json.loads(data[start : start + length])
    if document["schema"] > SCHEMA:
        raise ModelFileError(
            f"the engine was built by a newer fsad-edge (schema {document['schema']}, this one "
            f"reads up to {SCHEMA}): update fsad-edge, or build it again with this version."
        )
    options, gpu = document["options"], document["gpu"]
    header = EngineHeader(
        gpu=Gpu(_text(gpu["name"]), _text(gpu["compute_capability"]), int(gpu["multiprocessors"])),
        options=BuildOptions(
            batch=_batch(options["batch"]),
            workspace_mb=int(options["workspace_mb"]),
            version_compatible=bool(options["version_compatible"]),
            hardware_compatible=bool(options["hardware_compatible"]),
        ),
        reference={_text(name): list(shape) for name, shape in document["normals"].items()},
        **{
            name: _text(document[name])
            for name in ("metadata", "source_name", "tensorrt", "precision")
        },
        source_sha256=_digest(document["source_sha256"]),
        graph=_digest(document["graph"]) if document.get("graph") else "",
    )
    if header.source_name != header.source_name.replace("/", "").replace("\0", ""):
        raise ValueError("its source is a path")
    return header, start + length


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _digest(value: Any) -> str:
    if not re.fullmatch("[0-9a-f]{64}", _text(value)):
        raise ValueError("a hash in it is none")
    return str(value)


def _batch(value: Any) -> tuple[int, int, int]:
    least, usual, most = (int(number) for number in value)
    if not 1 <= least <= usual <= most:
        raise ValueError("its batch sizes are not in order")
    return least, usual, most


def _count(shape: list[int]) -> int:
    count = 1
    for side in shape:
        if type(side) is not int or side < 0:
            raise ValueError("the shape of a tensor is none")
        count *= side
    if count > _LARGEST_TENSOR:
        raise ValueError("a tensor in it is too large")
    return count
