"""Read and replace tensors and metadata of an ONNX file with numpy alone.

A device that learned something can write a file with another reference model. The ``onnx`` package
is large, and not built for every board. The file is a protocol buffer (``onnx.proto``): only the
fields named here are understood, all others are copied byte for byte.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from fsad_edge.errors import ModelFileError
from fsad_edge.runtime.arrays import AnyArray, Float32Array
from fsad_edge.runtime.protobuf import BYTES, VARINT, Field, damaged, fields, message, text, varints
from fsad_edge.runtime.seal import KEY as SEAL
from fsad_edge.runtime.seal import REMARK, check_seal, sealed

# Field numbers of onnx.proto.
_MODEL_REMARK, _MODEL_GRAPH, _MODEL_METADATA = 6, 7, 14
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_VALUE_INFO = 1, 5, 13
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_INTS = 1, 2, 4, 5
_TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 8, 9, 13, 14
_PAIR_KEY, _PAIR_VALUE = 1, 2

# Fields that do not change what is computed: producer, documentation, metadata.
_MODEL_REMARKS = frozenset({2, 3, _MODEL_REMARK, _MODEL_METADATA})
_GRAPH_REMARKS = frozenset({10, 16})
_REMARKS = {_GRAPH_NODE: frozenset({6, 9}), _GRAPH_VALUE_INFO: frozenset({3, 4})}

#: Element types that are read, by ONNX's numbers.
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 10: np.dtype("<f2")}

#: The most bytes of a protocol buffer.
_LARGEST = 2**31 - 1


def read_metadata(data: bytes) -> dict[str, str]:
    """The file's metadata by key.

    Raises:
        ModelFileError: the bytes are damaged.

    Example:
        >>> from pathlib import Path
        >>> sorted(read_metadata(Path(part_file).read_bytes()))
        ['fsad_edge', 'fsad_edge_seal']
    """
    view = memoryview(data)
    return dict(
        _read_pair(view[field.begin : field.end])
        for field in fields(view)
        if field.number == _MODEL_METADATA
    )


def read_initializers(data: bytes, names: Collection[str] | None = None) -> dict[str, Float32Array]:
    """The graph's floating-point initializers, by name, as float32.

    Initializers of other types (shapes, indices) are left out.

    Args:
        data: the bytes of the file.
        names: names of the initializers to read; all by default.

    Raises:
        ModelFileError: the bytes are damaged, or a tensor is stored in another file.
    """
    _, inner = _graph(memoryview(data))
    found = {}
    for field in fields(inner):
        if field.number == _GRAPH_INITIALIZER:
            tensor = _Tensor(inner[field.begin : field.end])
            if tensor.type in _TYPES and (names is None or tensor.name in names):
                found[tensor.name] = tensor.array().astype(np.float32, copy=False)
    return found


def graph_key(data: bytes, without: Collection[str]) -> str:
    """SHA-256, in hexadecimal, of what a file computes: files with equal keys can share a session.

    It covers nodes, constants, inputs and outputs with their shapes. It does not cover metadata and
    remarks, such as the source lines that torch's exporter adds to each node.

    Args:
        data: the bytes of the file.
        without: names of initializers that are defaults of inputs. Their types and shapes are
            covered, their values are not.

    Raises:
        ModelFileError: the bytes are damaged.
    """
    view = memoryview(data)
    outer, inner = _graph(view)
    hashed = hashlib.sha256()
    for field in fields(inner):
        piece: bytes | memoryview = inner[field.start : field.end]
        if field.number == _GRAPH_INITIALIZER:
            tensor = _Tensor(inner[field.begin : field.end])
            if tensor.name in without:
                piece = repr((tensor.name, tensor.type, tensor.shape)).encode()
        elif field.number in _REMARKS:
            remarks = _REMARKS[field.number]
            piece = message(field.number, _without(inner[field.begin : field.end], remarks))
        elif field.number in _GRAPH_REMARKS:
            continue
        hashed.update(piece)
    rest = [view[: outer.start], view[outer.end :]]
    hashed.update(message(_MODEL_GRAPH, b"".join(_without(one, _MODEL_REMARKS) for one in rest)))
    return hashed.hexdigest()


def replace(
    data: bytes, initializers: Mapping[str, Float32Array], metadata: Mapping[str, str]
) -> bytes:
    """The file with some tensors and metadata replaced; everything else is copied byte for byte.

    The seal of a sealed file is checked, and the result is sealed anew. A file without a seal stays
    without one: see :func:`~fsad_edge.runtime.seal.sealed`.

    Args:
        data: the bytes of the file.
        initializers: the new values by name. They have the shape of the old ones, and are stored in
            the type of the old ones.
        metadata: the new values by key; a new key is added.

    Raises:
        ModelFileError: the bytes are damaged, or have no such tensor of such a shape.
    """
    has_seal = check_seal(data, "the model")
    view = memoryview(data)
    outer, inner = _graph(view)

    def replaced(tensor: _Tensor) -> bytes:
        return message(_GRAPH_INITIALIZER, tensor.replaced(initializers[tensor.name]))

    graph = _rewrite(inner, initializers, replaced)
    model: list[bytes | memoryview] = []
    for field in fields(view):
        if field.start == outer.start:
            model.append(message(_MODEL_GRAPH, graph))
        elif not (has_seal and _is_of_seal(view, field)) and (
            field.number != _MODEL_METADATA
            or _read_pair(view[field.begin : field.end])[0] not in metadata
        ):
            model.append(view[field.start : field.end])
    for key, value in metadata.items():
        pair = message(_PAIR_KEY, key.encode()) + message(_PAIR_VALUE, value.encode())
        model.append(message(_MODEL_METADATA, pair))
    result = b"".join(model)
    if has_seal:
        result = sealed(result)
    if len(result) > _LARGEST:
        raise ModelFileError("the model would be larger than the 2 GB that an ONNX file can have.")
    return result


def without_initializers(data: bytes, names: Collection[str]) -> bytes:
    """The file without some tensors, so that inputs of the same name lose their defaults.

    TensorRT's parser takes an initializer for a constant even where it is an input's default.

    Raises:
        ModelFileError: the bytes are damaged, or have no such tensors.
    """
    view = memoryview(data)
    outer, inner = _graph(view)
    graph = message(_MODEL_GRAPH, _rewrite(inner, names, lambda tensor: b""))
    return b"".join([view[: outer.start], graph, view[outer.end :]])


class _Tensor:
    """A TensorProto message."""

    def __init__(self, data: memoryview) -> None:
        self.name, self.type = "", 0
        self.shape: list[int] = []
        self._values: list[tuple[int, memoryview]] = []
        self._other: list[memoryview] = []
        for field in fields(data):
            piece = data[field.begin : field.end]
            if field.number == _TENSOR_DIMS:
                self.shape += [field.value] if field.wire == VARINT else list(varints(piece))
            elif field.number == _TENSOR_TYPE:
                self.type = field.value
            elif field.number == _TENSOR_NAME:
                self.name = text(piece)
            elif field.number in (_TENSOR_RAW, _TENSOR_FLOATS, _TENSOR_INTS):
                self._values.append((field.number, piece))
                continue
            elif field.number == _TENSOR_EXTERNAL or (
                field.number == _TENSOR_LOCATION and field.value
            ):
                raise ModelFileError("the model keeps tensors in another file: export it again.")
            self._other.append(data[field.start : field.end])

    def array(self) -> AnyArray:
        """The values, in the type that is stored.

        Raises:
            ModelFileError: they are not as many as the shape asks for.
        """
        stored = _TYPES[self.type]
        parts: list[AnyArray] = []
        for number, piece in self._values:
            if number == _TENSOR_INTS:  # fp16 values, each stored as a whole number of its bits
                bits = np.fromiter(varints(piece), np.uint64)
                parts.append(bits.astype("<u2").view("<f2"))
            else:
                kind = stored if number == _TENSOR_RAW else _TYPES[1]
                if len(piece) % kind.itemsize:
                    raise damaged()
                parts.append(np.frombuffer(piece, kind))
        values = np.concatenate(parts) if parts else np.zeros(0, stored)
        if min(self.shape, default=1) < 0 or math.prod(self.shape) != values.size:
            raise damaged()
        return values.reshape(self.shape)

    def replaced(self, values: Float32Array) -> bytes:
        """The message with other values, stored as raw bytes in the type of the old ones."""
        if self.type not in _TYPES or list(values.shape) != self.shape:
            raise ModelFileError(
                f"the model's tensor '{self.name}' is of another type or shape: export it again."
            )
        raw = np.ascontiguousarray(values, _TYPES[self.type]).tobytes()
        return b"".join(self._other) + message(_TENSOR_RAW, raw)


def _graph(view: memoryview) -> tuple[Field, memoryview]:
    graphs = [field for field in fields(view) if field.number == _MODEL_GRAPH]
    if len(graphs) != 1 or graphs[0].wire != BYTES:
        raise damaged()
    return graphs[0], view[graphs[0].begin : graphs[0].end]


def _is_of_seal(view: memoryview, field: Field) -> bool:
    """Whether a field of the model belongs to its seal."""
    piece = view[field.begin : field.end]
    if field.number == _MODEL_METADATA:
        return _read_pair(piece)[0] == SEAL
    return field.number == _MODEL_REMARK and piece == REMARK.encode()


def _rewrite(
    graph: memoryview, names: Collection[str], replacement: Callable[[_Tensor], bytes]
) -> bytes:
    """A graph in which ``replacement`` stands for each of the named initializers."""
    pieces: list[bytes | memoryview] = []
    missing = set(names)
    for field in fields(graph):
        piece: bytes | memoryview = graph[field.start : field.end]
        if field.number == _GRAPH_INITIALIZER:
            tensor = _Tensor(graph[field.begin : field.end])
            if tensor.name in names:
                missing.discard(tensor.name)
                piece = replacement(tensor)
        pieces.append(piece)
    if missing:
        raise ModelFileError(f"the model holds no tensor '{min(missing)}': export it again.")
    return b"".join(pieces)


def _without(data: memoryview, numbers: Collection[int]) -> bytes:
    """A message without some of its fields."""
    kept = (data[field.start : field.end] for field in fields(data) if field.number not in numbers)
    return b"".join(kept)


def _read_pair(data: memoryview) -> tuple[str, str]:
    pair = {field.number: text(data[field.begin : field.end]) for field in fields(data)}
    return pair.get(_PAIR_KEY, ""), pair.get(_PAIR_VALUE, "")
