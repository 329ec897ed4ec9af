"""What TensorRT 10.3 (JetPack 6) lacks beside TensorRT for RTX 1.7, so that the host refuses it.

NVIDIA's own parser is the judge of a graph: TensorRT for RTX brings it to any machine, and the
tests ask it of all that is exported (``tests/test_tensorrt_rtx.py``). ``export`` asks it too where
the extra ``trt-rtx`` is installed. That parser is newer than a Jetson's, and takes what is here.
Each line names its source:

- *tables*: onnx-tensorrt, docs/operators.md. The nearest releases with such a table are 9.2 and
  10.15: a type is here where both have it, so that it also holds for the versions between them.
  Types of 9.2 that 10.15 lists as quantised, for Q/DQ only, are left out.
- *release notes*: those of TensorRT 10.0.
- *quantisation*: TensorRT, "Working with Quantized Types": symmetric, one scale for a tensor of
  activations and one for each output channel of weights, and none for a bias, which is fused into
  its layer.

One line the newer parser could tell as well, that only Cast takes bytes: by it ``export`` says what
an int8 file for CPUs lacks, with nothing installed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fsad_edge.deploy.tensorrt_plan import find_complaint
from fsad_edge.errors import ExportError, FsadEdgeError
from fsad_edge.runtime.backends.tensorrt_module import import_tensorrt
from fsad_edge.runtime.engine_file import Flavour

#: The version of TensorRT that the table describes.
VERSION = "10.3"

OPSETS = range(9, 21)  # release notes

FLOATS = frozenset({"FLOAT", "FLOAT16"})
NUMBERS = FLOATS | {"INT32", "INT64"}
ALL = NUMBERS | {"BOOL"}

#: The types that an operator's first input and first output can have (tables).
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
            "ReduceSumSquare",
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
    "Cast": ALL | {"UINT8"},  # only inputs and outputs of the network can be bytes
    "QuantizeLinear": FLOATS | {"INT8"},
    "DequantizeLinear": FLOATS | {"INT8"},
}

#: Positions of the inputs that must be constants (tables): the newer parser computes with others.
CONSTANTS = {"Slice": (3,), "TopK": (1,), "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2)}

#: TopK's k must be smaller (tables). The newer builder has the same limit, and its parser none.
_K_LIMIT = 3840

#: The modes of Resize (tables).
_RESIZE_MODES = {"nearest", "linear"}


def describe_support(model: onnx.ModelProto) -> str:
    """Say in words what was looked at of a graph, by what, and what was found."""
    found, parser = _judge(model)
    if found:
        return f"TensorRT {VERSION} does not take the graph: {'; '.join(found[:3])}"
    lacks = f"TensorRT {VERSION} lacks by NVIDIA's operator tables of 9.2 and 10.15"
    if parser is not None:
        return (
            f"the parser of TensorRT for RTX {parser} takes the graph, which holds nothing "
            f"that {lacks}; no engine was built to find out"
        )
    return (
        f"the graph holds nothing that {lacks}; NVIDIA's parser is asked, too, after  pip "
        "install 'fsad-edge[trt-rtx]'"
    )


def check_tensorrt(model: onnx.ModelProto) -> None:
    """Refuse a graph that TensorRT 10.3 cannot build.

    Raises:
        ExportError: names the first problems.
    """
    found, _ = _judge(model)
    if found:
        more = f", and {len(found) - 3} more" if len(found) > 3 else ""
        raise ExportError(
            f"TensorRT {VERSION} cannot build this graph ({'; '.join(found[:3])}{more}): no file "
            "was written; take another --backbone or --precision."
        )


def _judge(model: onnx.ModelProto) -> tuple[list[str], str | None]:
    """What is against a graph, and the version of NVIDIA's parser; None where it was not asked."""
    found = find_problems(model)
    try:
        trt = import_tensorrt(Flavour.RTX)
    except FsadEdgeError:  # it is not installed, or does not load, which doctor says
        return found, None
    complaint = find_complaint(trt, model.SerializeToString())
    return found + ([] if complaint is None else [complaint]), str(trt.__version__)


def find_problems(model: onnx.ModelProto) -> list[str]:
    """What TensorRT 10.3 lacks of a graph, in words; empty where it lacks nothing."""
    unknown = {
        f"operator {node.op_type} is not in its parser": None
        for node in model.graph.node
        if node.domain not in {"", "ai.onnx"} or node.op_type not in TABLE
    }
    if unknown:  # the types behind an unknown operator are unknown too
        return list(unknown)
    return list(dict.fromkeys([*_input_problems(model), *_Graph(model).problems()]))


def _input_problems(model: onnx.ModelProto) -> Iterator[str]:
    """Check the opset, and that only the batch varies, as the profile of an engine says."""
    for opset in model.opset_import:
        if opset.domain in {"", "ai.onnx"} and opset.version not in OPSETS:
            yield f"opset {opset.version} is not one of {OPSETS[0]} to {OPSETS[-1]}"
    for value in model.graph.input:
        for place, side in enumerate(value.type.tensor_type.shape.dim):
            if not side.HasField("dim_value") and (value.name, place) != ("image", 0):
                yield f"dimension {place} of input '{value.name}' is not fixed"


class _Graph:
    """A graph, the types of its tensors, its constants and the users of each tensor."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = onnx.shape_inference.infer_shapes(model).graph
        inputs = {value.name for value in graph.input}
        self.nodes = list(graph.node)
        # The default of an input is no constant, because it can be replaced.
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
        """Everything that TensorRT does not accept, in words."""
        for node in self.nodes:
            yield from self._type_problems(node)
            yield from self._constant_problems(node)
            yield from self._attribute_problems(node)
            if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
                yield from self._scale_problems(node)
                yield from self._placement_problems(node)

    def _type_problems(self, node: onnx.NodeProto) -> Iterator[str]:
        for name in (*node.input[:1], *node.output[:1]):
            kind = onnx.TensorProto.DataType.Name(self.types.get(name, 0))
            if kind not in TABLE[node.op_type] | {"UNDEFINED"}:
                yield f"{_place(node)} of {kind}"

    def _constant_problems(self, node: onnx.NodeProto) -> Iterator[str]:
        for place in CONSTANTS.get(node.op_type, ()):
            name = node.input[place] if len(node.input) > place else ""
            if name and name not in self.constants:
                yield f"{_place(node)} with an input {place} that is no constant"

    def _attribute_problems(self, node: onnx.NodeProto) -> Iterator[str]:
        """Check what the tables say of attributes and outputs."""
        kind = node.op_type
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if kind in {"AveragePool", "MaxPool"} and len(given["kernel_shape"]) not in (2, 3):
            yield f"{_place(node)} of {len(given['kernel_shape'])} dimensions"
        if kind in {"LayerNormalization", "BatchNormalization"} and any(node.output[1:]):
            yield f"{_place(node)} with more than one output"
        if kind == "TopK":
            largest = max(np.ravel(self.constants.get(node.input[1], 0)))
            if given.get("sorted", 1) != 1 or largest >= _K_LIMIT:
                yield f"{_place(node)} that is unsorted, or of {_K_LIMIT} and more"
        mode = given.get("mode", b"nearest")
        if kind == "Resize" and mode.decode() not in _RESIZE_MODES:
            yield f"{_place(node)} with mode {mode.decode()}"

    def _scale_problems(self, node: onnx.NodeProto) -> Iterator[str]:
        """Check the scale and the zero point of Q/DQ (tables, quantisation)."""
        if len(node.input) < 3 or not node.input[2]:
            yield f"{_place(node)} without a zero point, which {VERSION} needs"
            return
        scale = self.constants.get(node.input[1])
        weight = self.constants.get(node.input[0])
        if weight is None and scale is not None and scale.size != 1:
            yield f"{_place(node)} of activations with more than one scale"

    def _placement_problems(self, node: onnx.NodeProto) -> Iterator[str]:
        """Check which nodes use the output of Q/DQ (quantisation)."""
        scale, weight = (self.constants.get(name) for name in (node.input[1], node.input[0]))
        for user in self.users.get(node.output[0], []):
            if node.op_type == "QuantizeLinear" and user.op_type != "DequantizeLinear":
                yield f"QuantizeLinear before {user.op_type}"
            if node.op_type == "DequantizeLinear" and user.op_type == "Conv":
                place = list(user.input).index(node.output[0])
                if place == 2:
                    yield "a quantised bias"
                complete = scale is None or weight is None or scale.size == len(weight)
                if place == 1 and not complete:
                    yield "weights without a scale per output channel"


def _place(node: onnx.NodeProto) -> str:
    """The operator and the name of a node, as NVIDIA's parser names it."""
    return f"{node.op_type} {node.name}".rstrip()
