"""An ONNX graph as plain values: read it, put nodes into it, write it.

Only what the graphs of this project hold is understood: nodes with numbers, texts and lists of them
as attributes, and tensors of a few types. The ``onnx`` package is large, and not built for every
board.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fsad_edge.errors import ModelFileError
from fsad_edge.runtime.arrays import AnyArray
from fsad_edge.runtime.protobuf import (
    BYTES,
    VARINT,
    damaged,
    fields,
    float_field,
    message,
    text,
    varint_field,
    varints,
)

#: A dimension in pixels or rows, or the name of one that is not fixed, such as the batch.
Dimension = int | str

#: What an attribute of a node may be.
Attribute = int | float | str | list[int] | list[float]

#: The version of the operators, and of the file format.
OPSET, IR_VERSION = 18, 10

#: ONNX's numbers of the element types that are read and written.
_TYPES: dict[np.dtype[Any], int] = {
    np.dtype("float32"): 1,
    np.dtype("uint8"): 2,
    np.dtype("int8"): 3,
    np.dtype("int32"): 6,
    np.dtype("int64"): 7,
    np.dtype("bool"): 9,
    np.dtype("float16"): 10,
}
_KINDS = {number: kind for kind, number in _TYPES.items()}

# Field numbers of onnx.proto.
_MODEL_IR, _MODEL_PRODUCER, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA = 1, 2, 7, 8, 14
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 2, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = (
    1, 2, 3, 4, 5, 7,
)  # fmt: skip
_ATTRIBUTE_NAME, _ATTRIBUTE_F, _ATTRIBUTE_I, _ATTRIBUTE_S = 1, 2, 3, 4
_ATTRIBUTE_FLOATS, _ATTRIBUTE_INTS, _ATTRIBUTE_TYPE = 7, 8, 20
_FLOAT, _INT, _STRING, _FLOATS, _INTS = 1, 2, 3, 6, 7
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_ELEMENT, _TENSOR_SHAPE = 1, 2, 1, 1, 2
_SHAPE_DIM, _DIM_VALUE, _DIM_NAME = 1, 1, 2
_PAIR_KEY, _PAIR_VALUE = 1, 2


@dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        operator: its name in ONNX.
        inputs: names of the tensors that it takes; an empty name leaves one out.
        outputs: names of the tensors that it makes.
        attributes: its attributes by name.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """An input or an output of a graph.

    Attributes:
        name: its name.
        kind: its element type.
        shape: its dimensions; None where they are not said.
    """

    name: str
    kind: np.dtype[Any]
    shape: tuple[Dimension, ...] | None


@dataclass
class Graph:
    """A graph that nodes can be put into.

    Attributes:
        inputs: what is given to it; one of the same name as a constant has it as a default.
        outputs: what it computes.
        nodes: its operators, each after those that it depends on.
        constants: its constants by name.
        metadata: texts by key.

    Example:
        >>> import numpy as np
        >>> graph = Graph([Value("x", np.dtype("float32"), ("n", 2))], [])
        >>> doubled = graph.add("Mul", "x", graph.constant(np.float32(2)), output="y")
        >>> graph.outputs.append(Value(doubled, np.dtype("float32"), ("n", 2)))
        >>> [node.operator for node in read_graph(graph.to_bytes()).nodes]
        ['Mul']
    """

    inputs: list[Value]
    outputs: list[Value]
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, AnyArray] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Attribute) -> str:
        """Put an operator at the end, and return the name of what it makes.

        Args:
            operator: its name in ONNX.
            inputs: names of the tensors that it takes.
            output: the name of its result; by default a new one.
            attributes: its attributes.
        """
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(Node(operator, inputs, (output,), attributes))
        return output

    def add_two(self, operator: str, *inputs: str, **attributes: Attribute) -> tuple[str, str]:
        """Put an operator with two results at the end, and return their names."""
        names = [f"{operator.lower()}_{len(self.nodes)}_{place}" for place in range(2)]
        self.nodes.append(Node(operator, inputs, tuple(names), attributes))
        return names[0], names[1]

    def constant(self, value: AnyArray | np.generic | Sequence[int]) -> str:
        """The name of a constant; a sequence of whole numbers is an int64 tensor of one axis."""
        array = np.asarray(value if isinstance(value, np.ndarray | np.generic) else list(value))
        for name, known in self.constants.items():
            if known.size <= _SMALL and _same(known, array):
                return name
        name = f"constant_{len(self.constants)}"
        self.constants[name] = array
        return name

    def put_in(self, other: Graph, given: dict[str, str], prefix: str, copy: str = "") -> list[str]:
        """Put another graph's nodes at the end, and return the names of its outputs.

        Args:
            other: the graph; its inputs have no defaults.
            given: for each of its inputs the name of the tensor that takes its place.
            prefix: stands before all of its names.
            copy: follows that in the names of what it computes, where it is put in more than once:
                the copies share their constants.
        """
        self.constants |= {f"{prefix}{name}": value for name, value in other.constants.items()}
        names = given | {name: f"{prefix}{name}" for name in other.constants} | {"": ""}
        for node in other.nodes:
            names |= {name: f"{prefix}{copy}{name}" for name in node.outputs}
            inputs = tuple(names[name] for name in node.inputs)
            outputs = tuple(names[name] for name in node.outputs)
            self.nodes.append(replace(node, inputs=inputs, outputs=outputs))
        return [names[value.name] for value in other.outputs]

    def is_whole(self) -> bool:
        """Whether all that a node or an output takes is there before it."""
        known = {"", *self.constants, *(value.name for value in self.inputs)}
        for node in self.nodes:
            if not known.issuperset(node.inputs):
                return False
            known.update(node.outputs)
        return bool(self.outputs) and known.issuperset(value.name for value in self.outputs)

    def to_bytes(self) -> bytes:
        """The graph as an ONNX file."""
        opset = message(_OPSET_DOMAIN, b"") + varint_field(_OPSET_VERSION, OPSET)
        pieces = [
            varint_field(_MODEL_IR, IR_VERSION),
            message(_MODEL_PRODUCER, b"fsad-edge"),
            message(_MODEL_GRAPH, self._body()),
            message(_MODEL_OPSET, opset),
        ]
        for key, value in self.metadata.items():
            pair = message(_PAIR_KEY, key.encode()) + message(_PAIR_VALUE, value.encode())
            pieces.append(message(_MODEL_METADATA, pair))
        return b"".join(pieces)

    def _body(self) -> bytes:
        pieces = [message(_GRAPH_NODE, _write_node(node)) for node in self.nodes]
        pieces.append(message(_GRAPH_NAME, b"main"))
        pieces += [
            message(_GRAPH_INITIALIZER, _write_tensor(name, value))
            for name, value in self.constants.items()
        ]
        pieces += [message(_GRAPH_INPUT, _write_value(value)) for value in self.inputs]
        pieces += [message(_GRAPH_OUTPUT, _write_value(value)) for value in self.outputs]
        return b"".join(pieces)


#: Constants of at most so many values are stored once, however often they are used.
_SMALL = 8


def _same(known: AnyArray, array: AnyArray) -> bool:
    alike = known.dtype == array.dtype and known.shape == array.shape
    return alike and known.tobytes() == array.tobytes()


def read_graph(data: bytes) -> Graph:
    """The graph of an ONNX file that this module or torch's exporter wrote.

    Raises:
        ModelFileError: the bytes are damaged, or hold what this module does not understand.
    """
    graph = Graph([], [])
    try:
        for number, piece in _messages(memoryview(data)):
            if number == _MODEL_GRAPH:
                _read_body(piece, graph)
            elif number == _MODEL_METADATA:
                pair = {key: text(value) for key, value in _messages(piece)}
                graph.metadata[pair.get(_PAIR_KEY, "")] = pair.get(_PAIR_VALUE, "")
    except (ValueError, struct.error) as error:  # a number or a tensor of another length
        raise damaged() from error
    return graph


def _messages(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of bytes in a message, by number."""
    for one in fields(data):
        if one.wire == BYTES:
            yield one.number, data[one.begin : one.end]


def _read_body(data: memoryview, graph: Graph) -> None:
    for number, piece in _messages(data):
        if number == _GRAPH_NODE:
            graph.nodes.append(_read_node(piece))
        elif number == _GRAPH_INITIALIZER:
            name, value = _read_tensor(piece)
            graph.constants[name] = value
        elif number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
            values = graph.inputs if number == _GRAPH_INPUT else graph.outputs
            values.append(_read_value(piece))


def _read_node(data: memoryview) -> Node:
    inputs, outputs, operator = [], [], ""
    attributes: dict[str, Attribute] = {}
    for number, piece in _messages(data):
        if number == _NODE_INPUT:
            inputs.append(text(piece))
        elif number == _NODE_OUTPUT:
            outputs.append(text(piece))
        elif number == _NODE_OPERATOR:
            operator = text(piece)
        elif number == _NODE_ATTRIBUTE:
            name, value = _read_attribute(piece)
            attributes[name] = value
        elif number == _NODE_DOMAIN and text(piece):
            raise ModelFileError(f"the graph has an operator of another domain, {text(piece)}.")
    return Node(operator, tuple(inputs), tuple(outputs), attributes)


def _read_attribute(data: memoryview) -> tuple[str, Attribute]:
    name, kind, number = "", 0, 0
    real, string = 0.0, ""
    reals: list[float] = []
    numbers: list[int] = []
    for one in fields(data):
        piece = data[one.begin : one.end]
        if one.number == _ATTRIBUTE_NAME:
            name = text(piece)
        elif one.number == _ATTRIBUTE_TYPE:
            kind = one.value
        elif one.number == _ATTRIBUTE_I:
            number = _signed(one.value)
        elif one.number == _ATTRIBUTE_S:
            string = text(piece)
        elif one.number == _ATTRIBUTE_F:
            real = struct.unpack("<f", piece)[0]
        elif one.number == _ATTRIBUTE_FLOATS:
            reals += [value[0] for value in struct.iter_unpack("<f", piece)]
        elif one.number == _ATTRIBUTE_INTS:
            values = [one.value] if one.wire == VARINT else varints(piece)
            numbers += [_signed(value) for value in values]
    found: dict[int, Attribute] = {
        _FLOAT: real, _INT: number, _STRING: string, _FLOATS: reals, _INTS: numbers,
    }  # fmt: skip
    if kind not in found:
        raise ModelFileError(f"the graph has an attribute '{name}' of a kind that is not read.")
    return name, found[kind]


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _read_tensor(data: memoryview) -> tuple[str, AnyArray]:
    name, kind, raw = "", 0, memoryview(b"")
    shape: list[int] = []
    for one in fields(data):
        piece = data[one.begin : one.end]
        if one.number == _TENSOR_DIMS:
            shape += [one.value] if one.wire == VARINT else list(varints(piece))
        elif one.number == _TENSOR_TYPE:
            kind = one.value
        elif one.number == _TENSOR_NAME:
            name = text(piece)
        elif one.number == _TENSOR_RAW:
            raw = piece
    if kind not in _KINDS or math.prod(shape) * _KINDS[kind].itemsize != len(raw):
        raise damaged()
    return name, np.frombuffer(raw, _KINDS[kind]).reshape(shape)


def _read_value(data: memoryview) -> Value:
    name = ""
    kind: np.dtype[Any] = np.dtype("float32")
    shape: tuple[Dimension, ...] | None = None
    for number, piece in _messages(data):
        if number == _VALUE_NAME:
            name = text(piece)
        elif number == _VALUE_TYPE:
            for _, tensor in _messages(piece):
                for one in fields(tensor):
                    if one.number == _TENSOR_ELEMENT:
                        kind = _KINDS.get(one.value, kind)
                    elif one.number == _TENSOR_SHAPE:
                        dims = _messages(tensor[one.begin : one.end])
                        shape = tuple(_read_dimension(dim) for _, dim in dims)
    return Value(name, kind, shape)


def _read_dimension(data: memoryview) -> Dimension:
    found: Dimension = ""
    for one in fields(data):
        if one.number == _DIM_VALUE:
            found = one.value
        elif one.number == _DIM_NAME:
            found = text(data[one.begin : one.end])
    return found


def _write_node(node: Node) -> bytes:
    pieces = [message(_NODE_INPUT, name.encode()) for name in node.inputs]
    pieces += [message(_NODE_OUTPUT, name.encode()) for name in node.outputs]
    # Profilers and error messages name a node, so it has the name of what it makes.
    pieces.append(message(_NODE_NAME, f"node_{node.outputs[0]}".encode()))
    pieces.append(message(_NODE_OPERATOR, node.operator.encode()))
    pieces += [
        message(_NODE_ATTRIBUTE, _write_attribute(name, value))
        for name, value in node.attributes.items()
    ]
    return b"".join(pieces)


def _write_attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, str):
        kind, payload = _STRING, message(_ATTRIBUTE_S, value.encode())
    elif isinstance(value, int):
        kind, payload = _INT, varint_field(_ATTRIBUTE_I, value)
    elif isinstance(value, float):
        kind, payload = _FLOAT, float_field(_ATTRIBUTE_F, value)
    elif all(isinstance(one, int) for one in value):
        kind = _INTS
        payload = b"".join(varint_field(_ATTRIBUTE_INTS, int(one)) for one in value)
    else:
        kind = _FLOATS
        payload = b"".join(float_field(_ATTRIBUTE_FLOATS, one) for one in value)
    return message(_ATTRIBUTE_NAME, name.encode()) + payload + varint_field(_ATTRIBUTE_TYPE, kind)


def _write_tensor(name: str, value: AnyArray) -> bytes:
    pieces = [varint_field(_TENSOR_DIMS, side) for side in value.shape]
    pieces.append(varint_field(_TENSOR_TYPE, _TYPES[value.dtype]))
    pieces.append(message(_TENSOR_NAME, name.encode()))
    pieces.append(message(_TENSOR_RAW, value.tobytes()))
    return b"".join(pieces)


def _write_value(value: Value) -> bytes:
    tensor = varint_field(_TENSOR_ELEMENT, _TYPES[value.kind])
    if value.shape is not None:
        dims = b"".join(message(_SHAPE_DIM, _write_dimension(one)) for one in value.shape)
        tensor += message(_TENSOR_SHAPE, dims)
    return message(_VALUE_NAME, value.name.encode()) + message(
        _VALUE_TYPE, message(_TYPE_TENSOR, tensor)
    )


def _write_dimension(dimension: Dimension) -> bytes:
    if isinstance(dimension, str):
        return message(_DIM_NAME, dimension.encode())
    return varint_field(_DIM_VALUE, dimension)
