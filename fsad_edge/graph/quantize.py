"""int8: the encoder of a graph rewritten with QuantizeLinear and DequantizeLinear (Q/DQ).

The bank's distances stay in fp32: they are differences of numbers near one, which eight bits
don't have. Two placements, because engines fuse different ones:

- ``cpu``: activations uint8 with a zero point, so that a ReLU falls together with the step that
  quantises; Q/DQ on both sides of every convolution; biases int32. ONNX Runtime then runs the
  encoder as QLinearConv in channels-last order without a step in between. The image's own bytes
  are the first activation.
- ``tensorrt``: activations int8, symmetric; Q/DQ at the inputs of convolutions and of residual
  additions only; biases stay fp32 (TensorRT, "Working with Quantized Types", explicit
  quantisation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from fsad_edge.errors import ExportError

#: Activations that engines fuse with the convolution before them.
FUSED = {"Relu", "Clip"}

#: Largest weight. Processors with AVX2 and no VNNI add pairs of products in 16 bits, which weights
#: of eight bits overflow; so they have seven on the CPU, but for depthwise convolutions, which are
#: computed otherwise and need them most.
LARGEST, LARGEST_PAIRED = 127, 63

TARGETS = ("cpu", "tensorrt")

Ranges = Mapping[str, tuple[float, float]]


def features_name(model: onnx.ModelProto) -> str:
    """The encoder's last tensor: what the neighbourhood is averaged over."""
    pools = [node for node in model.graph.node if node.op_type == "AveragePool"]
    return str(pools[-1].input[0])


def encoder_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that the features come from, in order."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    wanted, names = set(), [features_name(model)]
    while names:
        node = made_by.get(names.pop())
        if node is not None and node.output[0] not in wanted:
            wanted.add(node.output[0])
            names.extend(node.input)
    return [node for node in model.graph.node if node.output[0] in wanted]


def quantised_names(model: onnx.ModelProto, target: str = "cpu") -> list[str]:
    """The tensors that become eight bits, whose ranges :func:`quantize` needs.

    Raises:
        ExportError: the encoder is not one that int8 speeds up.
    """
    plan = _Plan(model, target)
    return list(plan.tensors)


def expose(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy that has these tensors as outputs too."""
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
    target: str = "cpu",
) -> onnx.ModelProto:
    """A copy with its encoder in eight bits.

    Args:
        model: an fp32 graph as :func:`fsad_edge.graph.scoring_graph.build_graph` makes it.
        ranges: smallest and largest value of each of :func:`quantised_names`, on normal images.
        mean: per channel, of pixels in 0 to 1.
        std: per channel, of pixels in 0 to 1.
        target: ``cpu`` or ``tensorrt``, where the Q/DQ go.

    Raises:
        ExportError: the encoder is not one that int8 speeds up.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _Rewrite(copy, _Plan(copy, target), ranges).run(mean, std)
    onnx.checker.check_model(copy)
    return copy


class _Plan:
    """Which convolutions and which tensors become eight bits."""

    def __init__(self, model: onnx.ModelProto, target: str) -> None:
        nodes = encoder_nodes(model)
        features = features_name(model)
        constants = {tensor.name for tensor in model.graph.initializer}
        users: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                users.setdefault(name, []).append(node)
        # What gives the features keeps its digits: the distances are made of them.
        last = [node for node in nodes if features in node.output]
        while last[-1].op_type in {"Add", *FUSED}:
            last.append(next(node for node in nodes if last[-1].input[0] in node.output))
        self.target = target
        self.convs = [
            node
            for node in nodes
            if node.op_type == "Conv"
            and node.input[1] in constants
            and node.output[0] not in {name for late in last for name in late.output}
        ]
        if not self.convs or any(node.op_type in {"MatMul", "Gemm"} for node in nodes):
            raise ExportError(
                "int8 speeds up convolutional encoders, and this one is another kind: "
                "take --precision fp16 for a GPU, or another --backbone."
            )
        quantised = {node.output[0] for node in self.convs}
        ends = {}  # of a convolution: its activation's output where that is fused with it
        for node in self.convs:
            after = users.get(node.output[0], [])
            fused = len(after) == 1 and after[0].op_type in FUSED
            ends[node.output[0]] = after[0].output[0] if fused else node.output[0]
        self.image = self.convs[0].input[0]
        names = [node.input[0] for node in self.convs]
        adds = [node for node in nodes if node.op_type == "Add" and features not in node.output]
        residual = [name for node in adds for name in node.input if name not in constants]
        made = {ends[name] for name in quantised}
        if target == "cpu":
            names += [ends[name] for name in quantised]
        else:
            names += [name for name in residual if name in made]
        self.tensors = dict.fromkeys(names)


class _Rewrite:
    """Puts Q/DQ into a graph, in place."""

    def __init__(self, model: onnx.ModelProto, plan: _Plan, ranges: Ranges) -> None:
        self.graph = model.graph
        self.plan = plan
        self.ranges = ranges
        self.values = {tensor.name: tensor for tensor in model.graph.initializer}
        self.scales: dict[str, float] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self, mean: Sequence[float], std: Sequence[float]) -> None:
        convs = {node.output[0] for node in self.plan.convs}
        waiting = set(self.plan.tensors)
        renamed: dict[str, str] = {}
        for node in self.graph.node:
            if node.output[0] == self.plan.convs[0].output[0] and self.plan.target == "cpu":
                waiting.discard(self.plan.image)
                renamed[self.plan.image] = self._bytes_of_the_image(node, mean, std)
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
        if self.plan.target == "cpu":
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

    def _bytes_of_the_image(
        self, conv: onnx.NodeProto, mean: Sequence[float], std: Sequence[float]
    ) -> str:
        """Let the first convolution read the bytes; its weights take over the normalisation.

        Exact but for the borders, where what is padded is a grey that is the same in all channels.
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
        paired = self.plan.target == "cpu" and weight.shape[1] > 1
        largest = LARGEST_PAIRED if paired else LARGEST
        scale = np.maximum(np.abs(weight).reshape(len(weight), -1).max(axis=1), 1e-8) / largest
        step = self.scales[conv.input[0]]
        bias = np.zeros(len(weight), np.float32)
        if len(conv.input) > 2:
            bias = numpy_helper.to_array(self.values[conv.input[2]])
            # A channel of hardly any weight has a bias that would not fit into 32 bits.
            scale = np.maximum(scale, np.abs(bias) / (step * 2**30))
        scale = scale.astype(np.float32)
        eight = np.round(weight / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
        conv.input[1] = self._dequantised(name, eight, scale)
        if len(conv.input) > 2 and self.plan.target == "cpu":
            scale = (scale * step).astype(np.float32)
            whole = np.round(bias / scale).astype(np.int32)
            conv.input[2] = self._dequantised(conv.input[2], whole, scale)

    def _dequantised(
        self, name: str, value: npt.NDArray[np.generic], scale: npt.NDArray[np.float32]
    ) -> str:
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
    """The nodes that an output depends on, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]
