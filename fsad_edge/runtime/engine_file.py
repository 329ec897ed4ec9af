"""The ``.engine`` file: a TensorRT plan together with all that a device needs to run it.

    8 bytes     FSADTRT1
    32 bytes    SHA-256 of all that follows
    8 bytes     length of the header, little-endian, at most 64 MiB
    header      one JSON object in UTF-8, see :class:`EngineHeader`
    reference   the tensors that the header lists, in its order, float32, little-endian
    plan        what TensorRT made, to the end of the file

The hash reveals a torn or damaged file before TensorRT reads it. It is no signature: **a plan is
code that the GPU runs, and a version-compatible plan holds code for the CPU too; load only what you
built.**

The reference model is the default of the graph's inputs. ONNX stores those defaults as
initializers, which TensorRT would build in as constants. As plain inputs they can be replaced, so
that a device learns without building its engine again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any

import numpy as np

from fsad_edge.errors import ModelFileError
from fsad_edge.options import Choice
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.backends.cuda import Gpu
from fsad_edge.runtime.documents import (
    FileName,
    Matches,
    Range,
    Sha256,
    read_document,
    write_document,
)

MAGIC = b"FSADTRT1"

_HASH_BYTES = hashlib.sha256().digest_size
_LENGTH = struct.Struct("<Q")
_BODY = len(MAGIC) + _HASH_BYTES
_LARGEST_HEADER = 64 << 20

#: What to do about a damaged file, for the end of an error's sentence.
CURE = "build it again from the ONNX file with  fsad-edge build FILE.onnx --force"

#: The GPUs that an engine of TensorRT for RTX runs on where none were named, by compute capability.
#: Source: NVIDIA, TensorRT-RTX documentation, "CPU-Only AOT and TensorRT-RTX Engines".
RTX_GPUS = "8.0, 8.6, 8.9, 12.0 and later"

Batch = Annotated[int, Range(1, 1 << 16)]
Word = Annotated[str, Range(0, 200)]
ComputeCapability = Annotated[str, Matches(r"[0-9]{1,3}\.[0-9]", "a compute capability")]


class Flavour(Choice):
    """The two TensorRTs, whose engines differ. The words are those of their Python modules.

    TensorRT measures on the GPU that will run the engine. TensorRT for RTX needs no GPU to build,
    and the engine is compiled for the card where it is loaded.
    """

    TENSORRT = "tensorrt"
    RTX = "tensorrt_rtx"

    @property
    def words(self) -> str:
        """Its name in a sentence."""
        return "TensorRT for RTX" if self == Flavour.RTX else "TensorRT"


@dataclass(frozen=True)
class BuildOptions:
    """How a plan is built, apart from what the ONNX file holds.

    Attributes:
        batch: smallest, usual and largest number of images in a run. Where all are the same, a run
            is one CUDA graph.
        workspace_mb: MiB of memory that TensorRT may try layers with.
        version_compatible: later TensorRT versions can load the plan too.
        hardware_compatible: other GPUs from Ampere on can load the plan too; not on a Jetson.
        gpus: compute capabilities of the GPUs that a plan of TensorRT for RTX is for; empty stands
            for all that it supports.
    """

    batch: tuple[Batch, Batch, Batch] = (1, 1, 1)
    workspace_mb: Annotated[int, Range(0, 1 << 31)] = 1024
    version_compatible: bool = False
    hardware_compatible: bool = False
    gpus: Annotated[tuple[ComputeCapability, ...], Range(0, 32)] = ()


@dataclass(frozen=True)
class EngineHeader:
    """What an engine file says of itself.

    Attributes:
        metadata: the JSON document of the ONNX file, word for word.
        source_name: file name of the ONNX file.
        source_sha256: SHA-256 of the ONNX file.
        tensorrt: version of TensorRT that built the plan.
        gpu: the GPU that it was built on and for; None where TensorRT for RTX built it ahead of
            time, for every GPU of ``options.gpus``.
        precision: number format of the graph.
        options: how it was built.
        reference: shapes of the tensors that follow, by name.
        graph: :func:`~fsad_edge.runtime.onnx_file.graph_key` of the ONNX file. The engine also runs
            for other files of that graph.
        flavour: which TensorRT built the plan, and runs it.
    """

    metadata: str
    source_name: FileName
    source_sha256: Sha256
    tensorrt: Word
    gpu: Gpu | None
    precision: Word
    options: BuildOptions
    reference: dict[str, Annotated[list[Annotated[int, Range(0, 1 << 31)]], Range(0, 8)]]
    graph: Sha256
    flavour: Flavour = Flavour.TENSORRT

    @property
    def builder(self) -> str:
        """What built it and for which GPUs, in words."""
        name = f"{self.flavour.words} {self.tensorrt}"
        if self.flavour == Flavour.TENSORRT:
            return f"{name} on {self.gpu}"
        return f"{name}, for GPUs of compute capability {gpu_words(self.options)}"

    @property
    def key(self) -> str:
        """SHA-256 of all that decides what plan is built: engines of one key are the same."""
        return cache_key(
            *(self.source_sha256, self.tensorrt, self.gpu, self.precision, self.options),
            self.flavour,
        )


@dataclass(frozen=True)
class EngineFile:
    """An engine file after it was read and checked."""

    header: EngineHeader
    reference: dict[str, Float32Array]
    plan: bytes


def gpu_words(options: BuildOptions) -> str:
    """The compute capabilities that an engine of TensorRT for RTX is for, in words."""
    return ", ".join(options.gpus) or RTX_GPUS


def cache_key(
    source_sha256: str,
    tensorrt: str,
    gpu: Gpu | None,
    precision: str,
    options: BuildOptions,
    flavour: Flavour,
) -> str:
    """SHA-256 of ONNX file, TensorRT, GPU, precision and options, in hexadecimal."""
    parts: dict[str, Any] = {
        "source": source_sha256,
        "tensorrt": tensorrt,
        "gpu": gpu and dataclasses.asdict(gpu),
        "precision": precision,
        "options": dataclasses.asdict(options),
    }
    if flavour == Flavour.TENSORRT:
        del parts["options"]["gpus"]  # engines that were built before there was a choice stay known
    else:
        parts["flavour"] = flavour.value
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cure_of(source: str) -> str:
    """What to do about a damaged engine, for the end of an error's sentence.

    Args:
        source: its path.
    """
    onnx = PurePath(source).with_suffix(".onnx") if PurePath(source).suffix else "FILE.onnx"
    return f"build it again from the ONNX file with  fsad-edge build {onnx} --force"


def is_engine(data: bytes) -> bool:
    """Whether bytes claim to be an engine file, be it damaged where they do."""
    return sum(map(int.__eq__, data[: len(MAGIC)], MAGIC)) > len(MAGIC) // 2


def write_engine(header: EngineHeader, reference: Mapping[str, Float32Array], plan: bytes) -> bytes:
    """The bytes of a file; the shapes in the header are taken from ``reference``."""
    shapes = {name: list(value.shape) for name, value in reference.items()}
    text = write_document(dataclasses.replace(header, reference=shapes)).encode()
    tensors = b"".join(np.ascontiguousarray(value, "<f4").tobytes() for value in reference.values())
    body = _LENGTH.pack(len(text)) + text + tensors + plan
    return MAGIC + hashlib.sha256(body).digest() + body


def read_engine(data: bytes, source: str) -> EngineFile:
    """Read and check the bytes of a file.

    Args:
        data: all of the file.
        source: where it came from, for the error's sentence.

    Raises:
        ModelFileError: the file is damaged, or newer than this version.
    """

    def damaged(reason: str) -> ModelFileError:
        return ModelFileError(f"{source} is a damaged engine file ({reason}): {cure_of(source)}.")

    body = memoryview(data)[_BODY:]
    if not data.startswith(MAGIC) or len(body) < _LENGTH.size:
        raise damaged("its beginning is missing")
    if hashlib.sha256(body).digest() != data[len(MAGIC) : _BODY]:
        raise damaged("it was altered or cut off")
    (length,) = _LENGTH.unpack(body[: _LENGTH.size])
    text, rest = bytes(body[_LENGTH.size :][:length]), body[_LENGTH.size :][length:]
    if length > min(_LARGEST_HEADER, len(body) - _LENGTH.size):
        raise damaged("its header is longer than the file")
    header = read_document(EngineHeader, text, f"the header of {source}", CURE)
    if (header.gpu is None) != (header.flavour == Flavour.RTX):
        word = "no" if header.gpu is None else "a"
        raise damaged(f"it names {word} GPU, and is of {header.flavour.words}")
    least, usual, most = header.options.batch
    if not least <= usual <= most:
        raise damaged("its batch sizes are not in ascending order")
    reference = {}
    for name, shape in header.reference.items():
        size = 4 * math.prod(shape)
        try:
            values = np.frombuffer(rest[:size], "<f4").reshape(shape)
        except ValueError:
            raise damaged("the values of a tensor do not fit its shape") from None
        reference[name] = values.astype(np.float32)
        rest = rest[size:]
    return EngineFile(header, reference, bytes(rest))
