"""Read and replace tensors and metadata of an ONNX file with numpy alone.

A device that learns writes a file with other normal parts; the ``onnx`` package is large, and not
built for every board. The file is a protocol buffer (``onnx.proto``): of its fields only those
named here are understood, all others are copied byte for byte.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fsad_edge.errors import ModelFileError

Float32Array = npt.NDArray[np.float32]

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_GRAPH_INITIALIZER = 5
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_INTS = 1, 2, 4, 5
_TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 8, 9, 13, 14
_PAIR_KEY, _PAIR_VALUE = 1, 2

# Wire types of protocol buffers.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

#: Element types that are read, by ONNX's numbers.
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 10: np.dtype("<f2")}

#: Protocol buffers cannot be larger.
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class _Field:
    """One field of a message: ``data[start:end]`` with its tag, ``data[begin:end]`` without."""

    number: int
    wire: int
    start: int
    begin: int
    end: int
    value: int


def read_metadata(data: bytes) -> dict[str, str]:
    """The file's metadata, key by key.

    Raises:
        ModelFileError: the bytes are damaged.
    """
    view = memoryview(data)
    return dict(
        _read_pair(view[field.begin : field.end])
        for field in _fields(view)
        if field.number == _MODEL_METADATA
    )


def read_initializers(data: bytes) -> dict[str, Float32Array]:
    """The graph's initializers of floating point, by name, as float32.

    Those of other types (shapes, indices) are left out.

    Raises:
        ModelFileError: the bytes are damaged, or a tensor lies in another file.
    """
    _, inner = _graph(memoryview(data))
    found = {}
    for field in _fields(inner):
        if field.number == _GRAPH_INITIALIZER:
            tensor = _Tensor(inner[field.begin : field.end])
            if tensor.type in _TYPES:
                found[tensor.name] = tensor.array().astype(np.float32)
    return found


def replace(
    data: bytes, initializers: Mapping[str, Float32Array], metadata: Mapping[str, str]
) -> bytes:
    """The file with some tensors and metadata replaced; all else is copied byte for byte.

    Args:
        data: the file.
        initializers: by name, of the shape that is there; stored in the type that is there.
        metadata: by key; a new key is added.

    Raises:
        ModelFileError: the bytes are damaged, or have no such tensor of such a shape.
    """
    view = memoryview(data)
    outer, inner = _graph(view)
    graph, missing = [], set(initializers)
    for field in _fields(inner):
        piece: bytes | memoryview = inner[field.start : field.end]
        if field.number == _GRAPH_INITIALIZER:
            tensor = _Tensor(inner[field.begin : field.end])
            if tensor.name in initializers:
                missing.discard(tensor.name)
                piece = _message(_GRAPH_INITIALIZER, tensor.replaced(initializers[tensor.name]))
        graph.append(piece)
    if missing:
        raise ModelFileError(f"the model holds no tensor '{min(missing)}': export it again.")
    model: list[bytes | memoryview] = []
    for field in _fields(view):
        if field.start == outer.start:
            model.append(_message(_MODEL_GRAPH, b"".join(graph)))
        elif field.number != _MODEL_METADATA or (
            _read_pair(view[field.begin : field.end])[0] not in metadata
        ):
            model.append(view[field.start : field.end])
    for key, value in metadata.items():
        pair = _message(_PAIR_KEY, key.encode()) + _message(_PAIR_VALUE, value.encode())
        model.append(_message(_MODEL_METADATA, pair))
    result = b"".join(model)
    if len(result) > _LARGEST:
        raise ModelFileError("the model would be larger than 2 GB, which no ONNX file can be.")
    return result


def without_initializers(data: bytes, names: Collection[str]) -> bytes:
    """The file without some tensors: inputs of the graph that had them as defaults have none then.

    TensorRT's parser takes an initializer for a constant even where it is an input's default.

    Raises:
        ModelFileError: the bytes are damaged, or have no such tensors.
    """
    view = memoryview(data)
    outer, inner = _graph(view)
    graph, missing = [], set(names)
    for field in _fields(inner):
        if field.number == _GRAPH_INITIALIZER:
            name = _Tensor(inner[field.begin : field.end]).name
            if name in names:
                missing.discard(name)
                continue
        graph.append(inner[field.start : field.end])
    if missing:
        raise ModelFileError(f"the model holds no tensor '{min(missing)}': export it again.")
    rest = view[: outer.start], view[outer.end :]
    return b"".join([rest[0], _message(_MODEL_GRAPH, b"".join(graph)), rest[1]])


class _Tensor:
    """A TensorProto."""

    def __init__(self, data: memoryview) -> None:
        self.name, self.type = "", 0
        self._shape: list[int] = []
        self._values: list[tuple[int, memoryview]] = []
        self._other: list[memoryview] = []
        for field in _fields(data):
            piece = data[field.begin : field.end]
            if field.number == _TENSOR_DIMS:
                self._shape += [field.value] if field.wire == _VARINT else list(_varints(piece))
            elif field.number == _TENSOR_TYPE:
                self.type = field.value
            elif field.number == _TENSOR_NAME:
                self.name = _text(piece)
            elif field.number in (_TENSOR_RAW, _TENSOR_FLOATS, _TENSOR_INTS):
                self._values.append((field.number, piece))
                continue
            elif field.number == _TENSOR_EXTERNAL or (
                field.number == _TENSOR_LOCATION and field.value
            ):
                raise ModelFileError("the model keeps tensors in another file: export it again.")
            self._other.append(data[field.start : field.end])

    def array(self) -> npt.NDArray[Any]:
        """The values, in the type that is stored.

        Raises:
            ModelFileError: they are not as many as the shape asks for.
        """
        stored = _TYPES[self.type]
        parts: list[npt.NDArray[Any]] = []
        for number, piece in self._values:
            if number == _TENSOR_INTS:  # fp16, each as the bits of a whole number
                bits = np.fromiter(_varints(piece), np.uint64)
                parts.append(bits.astype("<u2").view("<f2"))
            else:
                kind = stored if number == _TENSOR_RAW else _TYPES[1]
                if len(piece) % kind.itemsize:
                    raise _damaged()
                parts.append(np.frombuffer(piece, kind))
        values = np.concatenate(parts) if parts else np.zeros(0, stored)
        if min(self._shape, default=1) < 0 or _product(self._shape) != values.size:
            raise _damaged()
        return values.reshape(self._shape)

    def replaced(self, values: Float32Array) -> bytes:
        """The message with other values, as raw bytes of the stored type."""
        if self.type not in _TYPES or list(values.shape) != self._shape:
            raise ModelFileError(
                f"the model's tensor '{self.name}' is of another type or shape: export it again."
            )
        raw = np.ascontiguousarray(values, _TYPES[self.type]).tobytes()
        return b"".join(self._other) + _message(_TENSOR_RAW, raw)


def _graph(view: memoryview) -> tuple[_Field, memoryview]:
    graphs = [field for field in _fields(view) if field.number == _MODEL_GRAPH]
    if len(graphs) != 1 or graphs[0].wire != _BYTES:
        raise _damaged()
    return graphs[0], view[graphs[0].begin : graphs[0].end]


def _fields(data: memoryview) -> Iterator[_Field]:
    """The fields of a message, in order; every one lies within ``data``."""
    place = 0
    while place < len(data):
        start = place
        tag, place = _varint(data, place)
        number, wire = tag >> 3, tag & 7
        value = 0
        begin = place
        if wire == _VARINT:
            value, place = _varint(data, place)
        elif wire == _BYTES:
            length, begin = _varint(data, place)
            place = begin + length
        elif wire in (_FIXED32, _FIXED64):
            place += 4 if wire == _FIXED32 else 8
        else:
            raise _damaged()
        if number == 0 or place > len(data):
            raise _damaged()
        yield _Field(number, wire, start, begin, place, value)


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), place
    raise _damaged()


def _varints(data: memoryview) -> Iterator[int]:
    place = 0
    while place < len(data):
        value, place = _varint(data, place)
        yield value


def _read_pair(data: memoryview) -> tuple[str, str]:
    pair = {field.number: _text(data[field.begin : field.end]) for field in _fields(data)}
    return pair.get(_PAIR_KEY, ""), pair.get(_PAIR_VALUE, "")


def _message(number: int, payload: bytes) -> bytes:
    """A field of bytes, with its tag and length."""
    return _encoded(number << 3 | _BYTES) + _encoded(len(payload)) + payload


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _product(shape: list[int]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _text(data: memoryview) -> str:
    try:
        return bytes(data).decode()
    except UnicodeDecodeError:
        raise _damaged() from None


def _damaged() -> ModelFileError:
    return ModelFileError("the model's bytes are damaged: copy it again, or export it again.")
