"""int8: the encoder of a graph rewritten with QuantizeLinear and DequantizeLinear (Q/DQ).

The distances to the memory bank stay in fp32: they are differences of numbers near one, which eight
bits cannot hold. There are two placements of Q/DQ, because engines fuse different ones:

- ``cpu``: activations are uint8 with a zero point, so that quantising them is also their ReLU. Q/DQ
  are on both sides of every convolution, and biases are int32. ONNX Runtime then runs the encoder
  as QLinearConv in channels-last order without other steps. The bytes of the image are the first
  activation.
- ``tensorrt``: activations are int8 and symmetric. Q/DQ are at the inputs of convolutions and of
  residual additions only, and biases stay fp32 (TensorRT, "Working with Quantized Types", explicit
  quantisation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from fsad_edge.errors import ExportError
from fsad_edge.options import Target
from fsad_edge.runtime.arrays import Float32Array

#: Activations that engines fuse with the convolution before them.
FUSED = {"Relu", "Clip"}

#: The largest quantised weight. Processors with AVX2 but without VNNI add pairs of products in 16
#: bits, which 8-bit weights overflow, so weights have seven bits on the CPU. Those of depthwise
#: convolutions have eight: they are computed differently, and need the eighth bit most.
LARGEST, LARGEST_PAIRED = 127, 63

Ranges = Mapping[str, tuple[float, float]]


def features_name(model: onnx.ModelProto) -> str:
    """The name of the encoder's output, which the graph averages over neighbourhoods."""
    pools = [node for node in model.graph.node if node.op_type == "AveragePool"]
    return str(pools[-1].input[0])


def encoder_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that compute the features and, in a graph of full depth, what is beyond them.

    The last of those are the last convolution and what it is computed from: pooling and classifier
    are cheap, and keep their digits.
    """
    convolutions = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    return _nodes_before(model, [features_name(model), *convolutions])


def _nodes_before(model: onnx.ModelProto, names: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that compute some tensors, in order."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    wanted, waiting = set(), list(names)
    while waiting:
        node = made_by.get(waiting.pop())
        if node is not None and node.output[0] not in wanted:
            wanted.add(node.output[0])
            waiting.extend(node.input)
    return [node for node in model.graph.node if node.output[0] in wanted]


def quantised_names(model: onnx.ModelProto, target: Target = Target.CPU) -> list[str]:
    """The names of the tensors that become eight bits, whose ranges :func:`quantize` needs.

    Raises:
        ExportError: int8 does not speed up this kind of encoder.
    """
    plan = _Plan(model, target)
    return list(plan.tensors)


def add_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of a graph that has these float tensors as further outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for name in names:
        copy.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return copy


def quantize(
    model: onnx.ModelProto,
    ranges: Ranges,
    mean: Sequence[float],
    std: Sequence[float],
    target: Target = Target.CPU,
) -> onnx.ModelProto:
    """A copy of a graph with its encoder in eight bits.

    Args:
        model: an fp32 graph of :func:`fsad_edge.graph.scoring_graph.build_graph`.
        ranges: smallest and largest value of each of :func:`quantised_names` on normal images.
        mean: mean of each channel, of pixels in 0 to 1.
        std: standard deviation of each channel, of pixels in 0 to 1.
        target: the engine that the graph is for, which decides where the Q/DQ are.

    Raises:
        ExportError: int8 does not speed up this kind of encoder.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _Rewrite(copy, _Plan(copy, target), ranges).run(mean, std)
    onnx.checker.check_model(copy)
    return copy


class _Plan:
    """Which convolutions and which tensors become eight bits."""

    def __init__(self, model: onnx.ModelProto, target: Target) -> None:
        nodes = encoder_nodes(model)
        features = features_name(model)
        constants = {tensor.name for tensor in model.graph.initializer}
        before = {node.output[0] for node in _nodes_before(model, [features])}
        beyond = [node for node in nodes if node.op_type == "Conv" and node.output[0] not in before]
        self.target = target
        self.encoder = {node.output[0] for node in nodes}
        self.convs = [
            # The last one of the full depth makes the embedding, and keeps its digits, too.
            node
            for node in _convolutions(nodes, features, constants)
            if node not in beyond[-1:]
        ]
        if not self.convs or any(node.op_type in {"MatMul", "Gemm"} for node in nodes):
            raise ExportError(
                "int8 speeds up convolutional encoders, and this one is another kind: "
                "take --precision fp16 for a GPU, or another --backbone."
            )
        self.image = self.convs[0].input[0]
        names = [node.input[0] for node in self.convs]
        results = [_result(node, nodes) for node in self.convs]
        if target == Target.CPU:
            names += results
        else:
            adds = [node for node in nodes if node.op_type == "Add" and features not in node.output]
            names += [name for node in adds for name in node.input if name in results]
        self.tensors = dict.fromkeys(names)


def _convolutions(
    nodes: Sequence[onnx.NodeProto], features: str, constants: set[str]
) -> list[onnx.NodeProto]:
    """The convolutions that become eight bits: all but the last one.

    The last one makes the features, which keep their digits because distances are computed of them.
    """
    last = [node for node in nodes if features in node.output]
    while last[-1].op_type in {"Add", *FUSED}:
        last.append(next(node for node in nodes if last[-1].input[0] in node.output))
    kept = {name for node in last for name in node.output}
    return [
        node
        for node in nodes
        if node.op_type == "Conv" and node.input[1] in constants and node.output[0] not in kept
    ]


def _result(conv: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]) -> str:
    """The name of a convolution's output, or of its activation's where engines fuse the two."""
    users = [node for node in nodes if conv.output[0] in node.input]
    fused = len(users) == 1 and users[0].op_type in FUSED
    return str(users[0].output[0] if fused else conv.output[0])


class _Rewrite:
    """Inserts Q/DQ into a graph, in place."""

    def __init__(self, model: onnx.ModelProto, plan: _Plan, ranges: Ranges) -> None:
        self.graph = model.graph
        self.plan = plan
        self.ranges = ranges
        self.values = {tensor.name: tensor for tensor in model.graph.initializer}
        self.scales: dict[str, float] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self, mean: Sequence[float], std: Sequence[float]) -> None:
        convs = {node.output[0] for node in self.plan.convs}
        first = self.plan.convs[0].output[0]
        waiting = set(self.plan.tensors)
        renamed: dict[str, str] = {}
        for node in self.graph.node:
            if node.output[0] == first and self.plan.target == Target.CPU:
                waiting.discard(self.plan.image)
                renamed[self.plan.image] = self._read_image_bytes(node, mean, std)
            if node.output[0] in self.plan.encoder:  # what is computed of features keeps its digits
                for place, name in enumerate(node.input):
                    node.input[place] = renamed.get(name, name)
            if node.output[0] in convs:
                self._quantise_weights(node)
            self.nodes.append(node)
            for name in node.output:
                if name in waiting:
                    renamed[name] = self._quantise_activation(name)
        del self.graph.node[:]
        self.graph.node.extend(_used(self.nodes, {value.name for value in self.graph.output}))
        read = {name for node in self.graph.node for name in node.input}
        inputs = {value.name for value in self.graph.input}
        kept = [tensor for name, tensor in self.values.items() if name in read | inputs]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
        del self.graph.value_info[:]

    def _constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self.values[name] = numpy_helper.from_array(value, name)
        return name

    def _quantise_activation(self, name: str) -> str:
        low, high = self.ranges[name]
        if self.plan.target == Target.CPU:
            low = min(low, 0.0)
            scale = max(high - low, 1e-8) / 255
            zero: np.generic = np.uint8(round(-low / scale))
        else:
            scale, zero = max(abs(low), abs(high), 1e-8) / 127, np.int8(0)
        parameters = [
            self._constant(f"{name}_scale", np.asarray(scale, np.float32)),
            self._constant(f"{name}_zero", np.asarray(zero)),
        ]
        quantised, back = f"{name}_quantised", f"{name}_dequantised"
        self.nodes += [
            helper.make_node("QuantizeLinear", [name, *parameters], [quantised]),
            helper.make_node("DequantizeLinear", [quantised, *parameters], [back]),
        ]
        self.scales[back] = scale
        return back

    def _read_image_bytes(
        self, conv: onnx.NodeProto, mean: Sequence[float], std: Sequence[float]
    ) -> str:
        """Let the first convolution read the bytes, and put the normalisation into its weights.

        This is exact except at the borders, where the padding is one grey level for all channels.
        """
        weight = numpy_helper.to_array(self.values[conv.input[1]])
        zero = round(255 * float(np.mean(mean)))
        gain = 1 / (255 * np.asarray(std)).reshape(1, -1, 1, 1)
        offset = (zero / 255 - np.asarray(mean)) / np.asarray(std)
        bias = np.zeros(len(weight))
        if len(conv.input) > 2:
            bias = bias + numpy_helper.to_array(self.values[conv.input[2]])
        bias = bias + (weight * offset.reshape(1, -1, 1, 1)).sum(axis=(1, 2, 3))
        del conv.input[1:]
        conv.input.append(self._constant("image_weight", (weight * gain).astype(np.float32)))
        conv.input.append(self._constant("image_bias", bias.astype(np.float32)))
        parameters = [
            self._constant("image_scale", np.asarray(1.0, np.float32)),
            self._constant("image_zero", np.asarray(zero, np.uint8)),
        ]
        self.nodes += [
            helper.make_node("Transpose", ["image"], ["image_planes"], perm=[0, 3, 1, 2]),
            helper.make_node(
                "DequantizeLinear", ["image_planes", *parameters], ["image_dequantised"]
            ),
        ]
        self.scales["image_dequantised"] = 1.0
        return "image_dequantised"

    def _quantise_weights(self, conv: onnx.NodeProto) -> None:
        name = conv.input[1]
        weight = numpy_helper.to_array(self.values[name])
        paired = self.plan.target == Target.CPU and weight.shape[1] > 1
        largest = LARGEST_PAIRED if paired else LARGEST
        scale = np.maximum(np.abs(weight).reshape(len(weight), -1).max(axis=1), 1e-8) / largest
        step = self.scales[conv.input[0]]
        bias = np.zeros(len(weight), np.float32)
        if len(conv.input) > 2:
            bias = numpy_helper.to_array(self.values[conv.input[2]])
            # The bias of a channel with tiny weights would not fit into 32 bits.
            scale = np.maximum(scale, np.abs(bias) / (step * 2**30))
        scale = scale.astype(np.float32)
        quantised = np.round(weight / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
        conv.input[1] = self._dequantised(name, quantised, scale)
        if len(conv.input) > 2 and self.plan.target == Target.CPU:
            scale = (scale * step).astype(np.float32)
            rounded = np.round(bias / scale).astype(np.int32)
            conv.input[2] = self._dequantised(conv.input[2], rounded, scale)

    def _dequantised(self, name: str, value: npt.NDArray[np.generic], scale: Float32Array) -> str:
        inputs = [
            self._constant(f"{name}_quantised", value),
            self._constant(f"{name}_scale", scale),
            self._constant(f"{name}_zero", np.zeros(len(scale), value.dtype)),
        ]
        self.nodes.append(
            helper.make_node("DequantizeLinear", inputs, [f"{name}_dequantised"], axis=0)
        )
        return f"{name}_dequantised"


def _used(nodes: Sequence[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """The nodes that the outputs depend on, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]
