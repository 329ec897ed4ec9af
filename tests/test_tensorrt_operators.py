"""The host refuses a graph that TensorRT on a device could not build."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fsad_edge.errors import ExportError
from fsad_edge.graph.fp16 import to_fp16
from fsad_edge.graph.operators import ALLOWED
from fsad_edge.graph.scoring_graph import ScoringGraph, build_graph
from fsad_edge.graph.tensorrt_operators import CONSTANTS, TABLE, check_tensorrt, find_problems
from fsad_edge.options import ScoreKind, Target
from fsad_edge.scoring.onnx_graph import read_graph
from fsad_edge.scoring.quantize import quantised_names, quantize
from fsad_edge.training.encoder import BUNDLED, pretrained_encoder
from tests.conftest import SIZE

#: Encoders, each with the strides of its feature maps.
KINDS = {"bundled": [16], "conv": [8, 16], "vit": [16]}

Graphs = Callable[[str], onnx.ModelProto]


@pytest.fixture(scope="module")
def graphs(backbones: dict[str, str]) -> Graphs:
    """An fp32 graph of each kind of encoder."""

    @functools.cache
    def build(kind: str) -> onnx.ModelProto:
        name = BUNDLED if kind == "bundled" else backbones[kind]
        encoder = pretrained_encoder(name, None, SIZE, SIZE, KINDS[kind])
        return build_graph(ScoringGraph(encoder, ScoreKind.PATCH), 50)

    return build


def quantised(model: onnx.ModelProto, target: Target) -> onnx.ModelProto:
    graph = read_graph(model.SerializeToString())
    ranges = dict.fromkeys(quantised_names(graph, target), (-3.0, 3.0))
    rewritten = quantize(graph, ranges, [0.5] * 3, [0.2] * 3, target)
    return onnx.load_from_string(rewritten.to_bytes())


@pytest.mark.parametrize("kind", KINDS)
def test_every_precision_for_tensorrt_can_be_built(graphs: Graphs, kind: str) -> None:
    graph = graphs(kind)
    check_tensorrt(graph)
    check_tensorrt(to_fp16(graph))
    try:
        int8 = quantised(graph, Target.TENSORRT)
    except ExportError:  # int8 does not speed up a transformer
        assert any(node.op_type == "MatMul" for node in graph.graph.node)
        return
    assert any(node.op_type == "QuantizeLinear" for node in int8.graph.node)
    check_tensorrt(int8)


def test_an_fp16_transformer_normalises_in_fp32(graphs: Graphs) -> None:
    half = to_fp16(graphs("vit"))
    made = {node.output[0]: node for node in half.graph.node}
    norms = [node for node in half.graph.node if node.op_type == "LayerNormalization"]
    kinds = {one.name: one.data_type for one in half.graph.initializer}
    singles = {name: kind == TensorProto.FLOAT for name, kind in kinds.items()}
    assert norms
    for node in norms:
        for name in node.input:
            if not singles.get(name):
                assert made[name].op_type == "Cast"
                assert made[name].attribute[0].i == TensorProto.FLOAT
    halves = [one for one in half.graph.initializer if one.data_type == TensorProto.FLOAT16]
    assert sum(numpy_helper.to_array(one).size for one in halves) > 10_000


def test_int8_for_a_cpu_is_refused(graphs: Graphs) -> None:
    cpu = quantised(graphs("bundled"), Target.CPU)
    found = find_problems(cpu)
    assert "a quantised bias" in found
    assert found[0].startswith("Transpose node_image_planes of UINT8")
    with pytest.raises(ExportError, match=r"TensorRT 10\.3 cannot build .* take another"):
        check_tensorrt(cpu)


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str]]],
    constants: Mapping[str, np.generic | np.ndarray] | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    """A model of a few nodes; its output is ``out``."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in (constants or {}).items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


FLOAT = (TensorProto.FLOAT, [1, 4, 8, 8])
SCALES = {
    "scale": np.float32(0.1),
    "scales": np.full(4, 0.1, np.float32),
    "zero": np.int8(0),
    "zeros": np.zeros(4, np.int8),
    "three": np.int8(3),
    "weight": np.ones((4, 4, 1, 1), np.int8),
    "bias": np.ones(4, np.int8),
    "zero_f": np.zeros(4, np.float32),
}


def qdq(zero: str, scale: str = "scale") -> onnx.ModelProto:
    return model_of(
        [
            helper.make_node("QuantizeLinear", ["x", scale, zero], ["q"], axis=1),
            helper.make_node("DequantizeLinear", ["q", scale, zero], ["out"], axis=1),
        ],
        {"x": FLOAT},
        SCALES,
    )


RESIZED = {"s": np.array([1, 1, 0.5, 0.5], np.float32)}


def quantised_conv(weight_scale: str, weight_zero: str, bias: bool) -> onnx.ModelProto:
    nodes = [
        helper.make_node("DequantizeLinear", ["weight", weight_scale, weight_zero], ["w"], axis=0)
    ]
    if bias:
        nodes.append(helper.make_node("DequantizeLinear", ["bias", "scale", "zero"], ["b"]))
    inputs = ["x", "w", "b" if bias else "zero_f"]
    nodes.append(helper.make_node("Conv", inputs, ["out"], kernel_shape=[1, 1]))
    return model_of(nodes, {"x": FLOAT}, SCALES)


def node(kind: str, *inputs: str, **attributes: Any) -> list[onnx.NodeProto]:
    return [helper.make_node(kind, list(inputs), ["out"], **attributes)]


BAD: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "bytes": (
        lambda: model_of(
            [
                helper.make_node("Transpose", ["image"], ["t"], perm=[0, 3, 1, 2]),
                helper.make_node("Cast", ["t"], ["out"], to=TensorProto.FLOAT),
            ],
            {"image": (TensorProto.UINT8, ["n", 8, 8, 3])},
        ),
        "Transpose of UINT8",
    ),
    "operator": (lambda: model_of(node("NonZero", "x"), {"x": FLOAT}), "operator NonZero"),
    "domain": (
        lambda: model_of(node("Relu", "x", domain="com.microsoft"), {"x": FLOAT}),
        "operator Relu",
    ),
    "double": (
        lambda: model_of(node("Relu", "x"), {"x": (TensorProto.DOUBLE, [1])}),
        "Relu of DOUBLE",
    ),
    "unsorted": (
        lambda: model_of(
            [helper.make_node("TopK", ["x", "k"], ["out", "i"], sorted=0)],
            {"x": FLOAT},
            {"k": np.array([3])},
        ),
        "TopK that is unsorted",
    ),
    "large k": (
        lambda: model_of(
            [helper.make_node("TopK", ["x", "k"], ["out", "i"])],
            {"x": (TensorProto.FLOAT, [1, 5000])},
            {"k": np.array([4000])},
        ),
        "of 3840 and more",
    ),
    "computed k": (
        lambda: model_of(
            [helper.make_node("TopK", ["x", "k"], ["out", "i"])],
            {"x": FLOAT, "k": (TensorProto.INT64, [1])},
        ),
        "TopK with an input 1 that is no constant",
    ),
    "pool of a line": (
        lambda: model_of(
            node("AveragePool", "x", kernel_shape=[3]), {"x": (TensorProto.FLOAT, [1, 4, 8])}
        ),
        "AveragePool of 1 dimensions",
    ),
    "cubic": (
        lambda: model_of(node("Resize", "x", "", "s", mode="cubic"), {"x": FLOAT}, RESIZED),
        "Resize with mode cubic",
    ),
    "Gelu": (lambda: model_of(node("Gelu", "x"), {"x": FLOAT}, opset=20), "operator Gelu"),
    "another dynamic dimension": (
        lambda: model_of(node("Relu", "image"), {"image": (TensorProto.FLOAT, ["n", "h", 8, 3])}),
        "dimension 1 of input 'image'",
    ),
    "opset": (lambda: model_of(node("Relu", "x"), {"x": FLOAT}, opset=21), "opset 21"),
    "no zero point": (
        lambda: model_of(node("QuantizeLinear", "x", "scale"), {"x": FLOAT}, SCALES),
        "QuantizeLinear without a zero point",
    ),
    "a scale per channel": (lambda: qdq("zeros", "scales"), "activations with more than one scale"),
    "a scale for all weights": (
        lambda: quantised_conv("scale", "zero", bias=False),
        "weights without a scale per output channel",
    ),
    "a quantised bias": (lambda: quantised_conv("scales", "zeros", bias=True), "a quantised bias"),
}

#: What NVIDIA's newer parser refuses by itself, so that the list of operators leaves it to that.
TOLD: dict[str, Callable[[], onnx.ModelProto]] = {
    "asymmetric": lambda: qdq("three"),
    "computed axes": lambda: model_of(
        node("ReduceSum", "x", "axes"), {"x": FLOAT, "axes": (TensorProto.INT64, [1])}
    ),
    "dilations": lambda: model_of(
        node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 2]), {"x": FLOAT}
    ),
    "antialias": lambda: model_of(
        node("Resize", "x", "", "s", mode="linear", antialias=1), {"x": FLOAT}, RESIZED
    ),
    "aspect ratio": lambda: model_of(
        node("Resize", "x", "", "s", mode="linear", keep_aspect_ratio_policy="not_larger"),
        {"x": FLOAT},
        RESIZED,
    ),
    "places of the largest": lambda: model_of(
        [helper.make_node("MaxPool", ["x"], ["out", "i"], kernel_shape=[2, 2])], {"x": FLOAT}
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_each_limit_is_found(name: str) -> None:
    make, sentence = BAD[name]
    found = find_problems(make())
    assert any(sentence in problem for problem in found), found


def test_graphs_without_a_fault_pass() -> None:
    assert not find_problems(qdq("zero"))
    assert not find_problems(quantised_conv("scales", "zeros", bias=False))
    cast_first = [
        helper.make_node("Cast", ["image"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["c"], ["out"], perm=[0, 3, 1, 2]),
    ]
    inputs: dict[str, tuple[int, list[int | str]]] = {"image": (TensorProto.UINT8, ["n", 8, 8, 3])}
    assert not find_problems(model_of(cast_first, inputs))


def test_the_table_holds_the_operators_that_export_may_write() -> None:
    assert set(TABLE) <= ALLOWED
    assert set(CONSTANTS) <= set(TABLE)
    assert ALLOWED - set(TABLE) == {"Gelu"}  # in 10.15, not in 9.2
