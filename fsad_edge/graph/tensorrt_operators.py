"""What TensorRT's ONNX parser takes at 10.3 (JetPack 6), so that a graph is refused on the host.

Source: onnx-tensorrt, docs/operators.md. The releases at hand on either side of 10.3 are 9.2 and
10.15; a row stands here where both have it, with the types and the limits of both, so that it holds
for what lies between. Types of 9.2 that 10.15 calls quantised, reached by Q/DQ alone, are left out.
Opsets 9 to 20: TensorRT 10.0 release notes. Placement of Q/DQ: TensorRT's "Working with Quantized
Types": symmetric, a scale per tensor for activations and per output channel for weights, none on a
bias, which is fused into its layer.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fsad_edge.errors import ExportError

#: The version of TensorRT that the table is for.
VERSION = "10.3"

OPSETS = range(9, 21)

FLOATS = frozenset({"FLOAT", "FLOAT16"})
NUMBERS = FLOATS | {"INT32", "INT64"}
ALL = NUMBERS | {"BOOL"}

#: Types of an operator's first input and of its first output.
TABLE: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        [
            "AveragePool",
            "BatchNormalization",
            "Clip",
            "Conv",
            "Erf",
            "Gemm",
            "GlobalAveragePool",
            "HardSigmoid",
            "HardSwish",
            "LayerNormalization",
            "LeakyRelu",
            "MatMul",
            "MaxPool",
            "Pow",
            "PRelu",
            "Resize",
            "Sigmoid",
            "Softmax",
            "Sqrt",
            "Tanh",
        ],
        FLOATS,
    ),
    **dict.fromkeys(
        [
            "Add",
            "Div",
            "Max",
            "Min",
            "Mul",
            "Neg",
            "Pad",
            "ReduceL2",
            "ReduceMax",
            "ReduceMean",
            "ReduceSum",
            "Relu",
            "Sub",
            "TopK",
        ],
        NUMBERS,
    ),
    **dict.fromkeys(
        [
            "Concat",
            "Constant",
            "Expand",
            "Flatten",
            "Gather",
            "GatherND",
            "Identity",
            "Reshape",
            "Shape",
            "Slice",
            "Split",
            "Squeeze",
            "Transpose",
            "Unsqueeze",
        ],
        ALL,
    ),
    "Cast": ALL | {"UINT8"},  # bytes are for inputs and outputs of the network alone
    "QuantizeLinear": FLOATS | {"INT8"},
    "DequantizeLinear": FLOATS | {"INT8"},
}

#: Inputs that must be constants, by place.
CONSTANTS = {
    "ReduceL2": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceSum": (1,),
    "Slice": (3,),
    "Squeeze": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
}

_LARGEST_K = 3840
_RESIZES: dict[str, set[str] | set[int]] = {
    "mode": {"nearest", "linear"},
    "coordinate_transformation_mode": {
        "half_pixel",
        "pytorch_half_pixel",
        "tf_half_pixel_for_nn",
        "asymmetric",
        "align_corners",
    },
    "antialias": {0},
    "keep_aspect_ratio_policy": {"stretch"},
}


def verdict(model: onnx.ModelProto) -> str:
    """Whether TensorRT can build a graph, in words."""
    found = problems(model)
    if not found:
        return f"{VERSION} can build it: its operators, types and Q/DQ are such as the parser takes"
    return f"{VERSION} cannot build it: {'; '.join(found[:3])}"


def check_tensorrt(model: onnx.ModelProto) -> None:
    """Refuse a graph that TensorRT 10.3 would not build.

    Raises:
        ExportError: names what it would stumble over.
    """
    found = problems(model)
    if found:
        more = f", and {len(found) - 3} more" if len(found) > 3 else ""
        raise ExportError(
            f"TensorRT {VERSION} cannot build this graph ({'; '.join(found[:3])}{more}): no file "
            "was written; take another --backbone or --precision."
        )


def problems(model: onnx.ModelProto) -> list[str]:
    """What of a graph TensorRT 10.3 does not take, in words; empty where it takes all of it."""
    unknown = {
        f"operator {node.op_type} is not in its parser": None
        for node in model.graph.node
        if node.domain not in {"", "ai.onnx"} or node.op_type not in TABLE
    }
    if unknown:  # whose types nothing is known of
        return list(unknown)
    return list(dict.fromkeys([*_inputs(model), *_Graph(model).problems()]))


def _inputs(model: onnx.ModelProto) -> Iterator[str]:
    """Opset and shapes: static, but for one dimension, the batch."""
    for opset in model.opset_import:
        if opset.domain in {"", "ai.onnx"} and opset.version not in OPSETS:
            yield f"opset {opset.version} is not one of {OPSETS[0]} to {OPSETS[-1]}"
    for value in model.graph.input:
        for place, side in enumerate(value.type.tensor_type.shape.dim):
            if not side.HasField("dim_value") and (value.name, place) != ("image", 0):
                yield f"dimension {place} of input '{value.name}' is not fixed"


class _Graph:
    """A graph with the types of its tensors."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = onnx.shape_inference.infer_shapes(model).graph
        inputs = {value.name for value in graph.input}
        self.nodes = list(graph.node)
        # An input's default is no constant: it can be replaced.
        self.constants = {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in graph.initializer
            if tensor.name not in inputs
        }
        self.types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        for value in (*graph.value_info, *graph.input, *graph.output):
            self.types[value.name] = value.type.tensor_type.elem_type
        for node in self.nodes:
            for attribute in node.attribute if node.op_type == "Constant" else ():
                if attribute.name == "value":
                    self.constants[node.output[0]] = numpy_helper.to_array(attribute.t)
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def problems(self) -> Iterator[str]:
        for node in self.nodes:
            yield from self._types(node)
            yield from self._limits(node)
            if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
                yield from self._placement(node)

    def _types(self, node: onnx.NodeProto) -> Iterator[str]:
        for name in (*node.input[:1], *node.output[:1]):
            kind = onnx.TensorProto.DataType.Name(self.types.get(name, 0))
            if kind not in TABLE[node.op_type] | {"UNDEFINED"}:
                yield f"{node.op_type} of {kind}"

    def _limits(self, node: onnx.NodeProto) -> Iterator[str]:
        kind = node.op_type
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        for place in CONSTANTS.get(kind, ()):
            name = node.input[place] if len(node.input) > place else ""
            if name and name not in self.constants:
                yield f"{kind} with an input {place} that is no constant"
        if kind in {"AveragePool", "MaxPool"}:
            if len(given["kernel_shape"]) not in (2, 3):
                yield f"{kind} of {len(given['kernel_shape'])} dimensions"
            if set(given.get("dilations", [])) - {1}:
                yield f"{kind} with dilations"
        if kind in {"MaxPool", "LayerNormalization", "BatchNormalization"} and any(node.output[1:]):
            yield f"{kind} with more than one output"
        if kind == "TopK":
            largest = max(np.ravel(self.constants.get(node.input[1], 0)))
            if given.get("sorted", 1) != 1 or largest >= _LARGEST_K:
                yield f"TopK that is unsorted, or of {_LARGEST_K} and more"
        if kind == "Resize":
            for name, allowed in _RESIZES.items():
                value = given.get(name)
                value = value.decode() if isinstance(value, bytes) else value
                if value is not None and value not in allowed:
                    yield f"Resize with {name} {value}"

    def _placement(self, node: onnx.NodeProto) -> Iterator[str]:
        """Where Q/DQ may stand, and how they must scale."""
        kind = node.op_type
        if len(node.input) < 3 or not node.input[2]:
            yield f"{kind} without a zero point, which {VERSION} wants to be given"
            return
        zero, scale = (self.constants.get(node.input[place]) for place in (2, 1))
        if zero is not None and (zero.dtype != np.int8 or np.any(zero)):
            yield f"{kind} with zero points other than 0 in int8"
        weight = self.constants.get(node.input[0])
        if weight is None and scale is not None and scale.size != 1:
            yield f"{kind} of activations with more than one scale"
        for user in self.users.get(node.output[0], []):
            if kind == "QuantizeLinear" and user.op_type != "DequantizeLinear":
                yield f"QuantizeLinear before {user.op_type}"
            if kind == "DequantizeLinear" and user.op_type == "Conv":
                place = list(user.input).index(node.output[0])
                if place == 2:
                    yield "a quantised bias"
                whole = scale is None or weight is None or scale.size == len(weight)
                if place == 1 and not whole:
                    yield "weights without a scale per output channel"
