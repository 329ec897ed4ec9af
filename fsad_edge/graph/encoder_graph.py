"""An encoder of PyTorch as an ONNX graph."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from fsad_edge.scoring.bundled import bundled_encoder
from fsad_edge.scoring.encoder_graph import EMBEDDING, FEATURES, PLANES, EncoderGraph
from fsad_edge.scoring.onnx_graph import OPSET, Attribute, Graph, Node, Value
from fsad_edge.scoring.tiles import tile_size
from fsad_edge.training.encoder import Encoder

_FLOAT = np.dtype("float32")


def encoder_graph(encoder: Encoder) -> EncoderGraph:
    """An encoder as a graph, for images of the size in its specification.

    Those of a bundled architecture are in the package as graphs, which only take the weights. All
    others are traced.
    """
    bundled = bundled_encoder(encoder.spec.architecture)
    if bundled is None or bundled.full_depth != encoder.spec.full_depth:
        return trace(encoder, *tile_size(encoder.spec.height, encoder.spec.width, encoder.step))
    state = encoder.network.state_dict()
    weights = {_name(name): value.cpu().numpy() for name, value in state.items()}
    constants = {name: weights.get(name, value) for name, value in bundled.graph.constants.items()}
    return replace(bundled, graph=replace(bundled.graph, constants=constants))


def trace(encoder: Encoder, height: int, width: int, any_size: bool = False) -> EncoderGraph:
    """An encoder as a graph, made by torch's exporter.

    Args:
        encoder: the encoder; it is switched to evaluation mode.
        height: height of what goes through the network at once, pixels.
        width: likewise.
        any_size: let the graph take any height and width. Only convolutions can do that.
    """
    for module in encoder.modules():
        if hasattr(module, "fused_attn"):
            # timm's switch: the fused form is exported as shape arithmetic.
            cast(Any, module).fused_attn = False
    free = {0: torch.export.Dim("batch", min=1)}
    if any_size:
        free |= dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC)
    names = [FEATURES, EMBEDDING] if encoder.spec.full_depth else [FEATURES]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's deprecations, not about this graph
        program = torch.onnx.export(
            _Network(encoder).eval().cpu(),
            (torch.zeros(2, 3, height, width),),
            input_names=[PLANES],
            output_names=names,
            dynamic_shapes=(free,),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # the exporter without dynamo returns None
    graph = _plain(program.model_proto)
    graph.inputs = [Value(PLANES, _FLOAT, ("batch", 3, "height", "width"))]
    shapes = [("batch", encoder.channels, "rows", "columns"), ("batch", encoder.embedding_channels)]
    graph.outputs = [Value(*value) for value in zip(names, [_FLOAT] * 2, shapes, strict=False)]
    return EncoderGraph(
        graph,
        encoder.spec.mean,
        encoder.spec.std,
        encoder.channels,
        encoder.embedding_channels,
        encoder.stride,
        encoder.step,
    )


class _Network(nn.Module):
    """What is traced: from planes to the features and, with full depth, the embedding."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, planes: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return self.encoder.of_planes(planes)


def _plain(model: onnx.ModelProto) -> Graph:
    """The nodes and constants of a traced graph."""
    constants = {
        _name(tensor.name): numpy_helper.to_array(tensor) for tensor in model.graph.initializer
    }
    nodes: list[Node] = []
    for node in model.graph.node:
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
            continue
        taken = tuple(_name(name) for name in node.input)
        plain = {name: _attribute(value) for name, value in attributes.items()}
        nodes.append(Node(node.op_type, taken, tuple(node.output), plain))
    return Graph([], [], nodes, constants)


def _name(name: str) -> str:
    """A tensor's name in the network's own state."""
    return name.removeprefix("encoder.network.").removeprefix("model.")


def _attribute(value: Any) -> Attribute:
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, int | float) else list(value)
