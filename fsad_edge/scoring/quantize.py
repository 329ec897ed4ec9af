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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fsad_edge.errors import ExportError
from fsad_edge.options import Target
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.scoring.onnx_graph import Attribute, Graph, Node, Value

#: Activations that engines fuse with the convolution before them.
FUSED = {"Relu", "Clip"}

#: The largest quantised weight. Processors with AVX2 but without VNNI add pairs of products in 16
#: bits, which 8-bit weights overflow, so weights have seven bits on the CPU. Those of depthwise
#: convolutions have eight: they are computed differently, and need the eighth bit most.
LARGEST, LARGEST_PAIRED = 127, 63

Ranges = Mapping[str, tuple[float, float]]


def features_name(graph: Graph) -> str:
    """The name of the encoder's output, which the graph averages over neighbourhoods."""
    pools = [node for node in graph.nodes if node.operator == "AveragePool"]
    return pools[-1].inputs[0]


def encoder_nodes(graph: Graph) -> list[Node]:
    """The nodes that compute the features and, in a graph of full depth, what is beyond them.

    The last of those are the last convolution and what it is computed from: pooling and classifier
    are cheap, and keep their digits.
    """
    convolutions = [node.outputs[0] for node in graph.nodes if node.operator == "Conv"]
    return _nodes_before(graph, [features_name(graph), *convolutions])


def _nodes_before(graph: Graph, names: Sequence[str]) -> list[Node]:
    """The nodes that compute some tensors, in order."""
    made_by = {name: node for node in graph.nodes for name in node.outputs}
    wanted, waiting = set(), list(names)
    while waiting:
        node = made_by.get(waiting.pop())
        if node is not None and node.outputs[0] not in wanted:
            wanted.add(node.outputs[0])
            waiting.extend(node.inputs)
    return [node for node in graph.nodes if node.outputs[0] in wanted]


def quantised_names(graph: Graph, target: Target = Target.CPU) -> list[str]:
    """The names of the tensors that become eight bits, whose ranges :func:`quantize` needs.

    Raises:
        ExportError: int8 does not speed up this kind of encoder.
    """
    return list(_Plan(graph, target).tensors)


def with_outputs(graph: Graph, names: Iterable[str]) -> Graph:
    """The same graph with these float tensors as further outputs."""
    further = [Value(name, np.dtype("float32"), None) for name in names]
    return replace(graph, outputs=[*graph.outputs, *further])


def quantize(
    graph: Graph,
    ranges: Ranges,
    mean: Sequence[float],
    std: Sequence[float],
    target: Target = Target.CPU,
) -> Graph:
    """A copy of a graph with its encoder in eight bits.

    Args:
        graph: an fp32 graph of :func:`fsad_edge.scoring.scoring_graph.build_scoring_graph`.
        ranges: smallest and largest value of each of :func:`quantised_names` on normal images.
        mean: mean of each channel, of pixels in 0 to 1.
        std: standard deviation of each channel, of pixels in 0 to 1.
        target: the engine that the graph is for, which decides where the Q/DQ are.

    Raises:
        ExportError: int8 does not speed up this kind of encoder.
    """
    return _Rewrite(graph, _Plan(graph, target), ranges).run(mean, std)


class _Plan:
    """Which convolutions and which tensors become eight bits."""

    def __init__(self, graph: Graph, target: Target) -> None:
        nodes = encoder_nodes(graph)
        features = features_name(graph)
        before = {node.outputs[0] for node in _nodes_before(graph, [features])}
        beyond = [
            node for node in nodes if node.operator == "Conv" and node.outputs[0] not in before
        ]
        self.target = target
        self.encoder = {node.outputs[0] for node in nodes}
        self.convs = [
            # The last one of the full depth makes the embedding, and keeps its digits, too.
            node
            for node in _convolutions(nodes, features, set(graph.constants))
            if node not in beyond[-1:]
        ]
        if not self.convs or any(node.operator in {"MatMul", "Gemm"} for node in nodes):
            raise ExportError(
                "int8 speeds up convolutional encoders, and this one is another kind: "
                "take --precision fp16 for a GPU, or another --backbone."
            )
        self.image = self.convs[0].inputs[0]
        names = [node.inputs[0] for node in self.convs]
        results = [_result(node, nodes) for node in self.convs]
        if target == Target.CPU:
            names += results
        else:
            adds = [
                node for node in nodes if node.operator == "Add" and features not in node.outputs
            ]
            names += [name for node in adds for name in node.inputs if name in results]
        self.tensors = dict.fromkeys(names)


def _convolutions(nodes: Sequence[Node], features: str, constants: set[str]) -> list[Node]:
    """The convolutions that become eight bits: all but the last one.

    The last one makes the features, which keep their digits because distances are computed of them.
    """
    last = [node for node in nodes if features in node.outputs]
    while last[-1].operator in {"Add", *FUSED}:
        last.append(next(node for node in nodes if last[-1].inputs[0] in node.outputs))
    kept = {name for node in last for name in node.outputs}
    return [
        node
        for node in nodes
        if node.operator == "Conv" and node.inputs[1] in constants and node.outputs[0] not in kept
    ]


def _result(conv: Node, nodes: Sequence[Node]) -> str:
    """The name of a convolution's output, or of its activation's where engines fuse the two."""
    users = [node for node in nodes if conv.outputs[0] in node.inputs]
    fused = len(users) == 1 and users[0].operator in FUSED
    return users[0].outputs[0] if fused else conv.outputs[0]


class _Rewrite:
    """A graph with Q/DQ put in."""

    def __init__(self, graph: Graph, plan: _Plan, ranges: Ranges) -> None:
        self.graph = graph
        self.plan = plan
        self.ranges = ranges
        self.values = dict(graph.constants)
        self.scales: dict[str, float] = {}
        self.nodes: list[Node] = []

    def run(self, mean: Sequence[float], std: Sequence[float]) -> Graph:
        convs = {node.outputs[0] for node in self.plan.convs}
        first = self.plan.convs[0].outputs[0]
        waiting = set(self.plan.tensors)
        renamed: dict[str, str] = {}
        for node in self.graph.nodes:
            if node.outputs[0] == first and self.plan.target == Target.CPU:
                waiting.discard(self.plan.image)
                node, renamed[self.plan.image] = self._read_image_bytes(node, mean, std)
            if (
                node.outputs[0] in self.plan.encoder
            ):  # what is computed of features keeps its digits
                inputs = tuple(renamed.get(name, name) for name in node.inputs)
                node = replace(node, inputs=inputs)
            if node.outputs[0] in convs:
                node = self._quantise_weights(node)
            self.nodes.append(node)
            for name in node.outputs:
                if name in waiting:
                    renamed[name] = self._quantise_activation(name)
        nodes = _used(self.nodes, {value.name for value in self.graph.outputs})
        read = {name for node in nodes for name in node.inputs}
        read |= {value.name for value in self.graph.inputs}
        kept = {name: value for name, value in self.values.items() if name in read}
        return replace(self.graph, nodes=nodes, constants=kept)

    def _add(
        self, operator: str, inputs: Sequence[str], output: str, **attributes: Attribute
    ) -> str:
        self.nodes.append(Node(operator, tuple(inputs), (output,), attributes))
        return output

    def _constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self.values[name] = value
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
        quantised = self._add("QuantizeLinear", [name, *parameters], f"{name}_quantised")
        back = self._add("DequantizeLinear", [quantised, *parameters], f"{name}_dequantised")
        self.scales[back] = scale
        return back

    def _read_image_bytes(
        self, conv: Node, mean: Sequence[float], std: Sequence[float]
    ) -> tuple[Node, str]:
        """Let the first convolution read the bytes, and put the normalisation into its weights.

        This is exact except at the borders, where the padding is one grey level for all channels.
        """
        weight = self.values[conv.inputs[1]]
        zero = round(255 * float(np.mean(mean)))
        gain = 1 / (255 * np.asarray(std)).reshape(1, -1, 1, 1)
        offset = (zero / 255 - np.asarray(mean)) / np.asarray(std)
        bias = np.zeros(len(weight))
        if len(conv.inputs) > 2:
            bias = bias + self.values[conv.inputs[2]]
        bias = bias + (weight * offset.reshape(1, -1, 1, 1)).sum(axis=(1, 2, 3))
        constants = [
            self._constant("image_weight", (weight * gain).astype(np.float32)),
            self._constant("image_bias", bias.astype(np.float32)),
        ]
        parameters = [
            self._constant("image_scale", np.asarray(1.0, np.float32)),
            self._constant("image_zero", np.asarray(zero, np.uint8)),
        ]
        planes = self._add("Transpose", ["image"], "image_planes", perm=[0, 3, 1, 2])
        read = self._add("DequantizeLinear", [planes, *parameters], "image_dequantised")
        self.scales[read] = 1.0
        return replace(conv, inputs=(conv.inputs[0], *constants)), read

    def _quantise_weights(self, conv: Node) -> Node:
        source, name, *biases = conv.inputs
        weight = self.values[name]
        paired = self.plan.target == Target.CPU and weight.shape[1] > 1
        largest = LARGEST_PAIRED if paired else LARGEST
        scale = np.maximum(np.abs(weight).reshape(len(weight), -1).max(axis=1), 1e-8) / largest
        step = self.scales[source]
        if biases:
            bias = self.values[biases[0]]
            # The bias of a channel with tiny weights would not fit into 32 bits.
            scale = np.maximum(scale, np.abs(bias) / (step * 2**30))
        scale = scale.astype(np.float32)
        quantised = np.round(weight / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
        inputs = [source, self._dequantised(name, quantised, scale), *biases]
        if biases and self.plan.target == Target.CPU:
            scale = (scale * step).astype(np.float32)
            rounded = np.round(bias / scale).astype(np.int32)
            inputs[2] = self._dequantised(biases[0], rounded, scale)
        return replace(conv, inputs=tuple(inputs))

    def _dequantised(self, name: str, value: npt.NDArray[np.generic], scale: Float32Array) -> str:
        inputs = [
            self._constant(f"{name}_quantised", value),
            self._constant(f"{name}_scale", scale),
            self._constant(f"{name}_zero", np.zeros(len(scale), value.dtype)),
        ]
        return self._add("DequantizeLinear", inputs, f"{name}_dequantised", axis=0)


def _used(nodes: Sequence[Node], outputs: set[str]) -> list[Node]:
    """The nodes that the outputs depend on, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.outputs):
            wanted |= set(node.inputs)
            kept.append(node)
    return kept[::-1]
