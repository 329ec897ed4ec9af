"""fp16: the encoder of a graph in half precision, for GPUs.

The normalisation of features and the distances to the memory bank stay in fp32: a distance is a
difference of numbers near one, of which fp16 keeps three digits. The layer normalisations of a
transformer stay in fp32 too, because their sums of squares can overflow fp16.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from fsad_edge.scoring.onnx_graph import Node, read_graph
from fsad_edge.scoring.quantize import encoder_nodes


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an fp32 graph with its encoder in fp16; inputs and outputs keep their types."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = encoder_nodes(read_graph(model.SerializeToString()))
    encoder = {node.outputs[0] for node in nodes}
    for place, node in enumerate(copy.graph.node):
        node.name = node.name or f"node_{place}"
    head = [node.name for node in copy.graph.node if node.output[0] not in encoder]
    # Pixels are as large as 255, and scaling them in fp32 takes hardly any time.
    scaling = _pixel_scaling(nodes)
    head += [node.name for node in copy.graph.node if node.output[0] in scaling]
    head += [node.name for node in copy.graph.node if node.op_type == "LayerNormalization"]
    converted: onnx.ModelProto = convert_float_to_float16(
        copy, keep_io_types=True, node_block_list=head
    )
    del converted.graph.value_info[:]  # the converter does not update the types in it
    _drop_round_trips(converted)
    return converted


def _drop_round_trips(model: onnx.ModelProto) -> None:
    """Remove, in place, casts to fp16 and back to fp32, which round the values between them.

    The converter inserts them between any two nodes that it leaves in fp32.
    """
    outputs = {value.name for value in model.graph.output}
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    # The converter casts nothing but fp32 to fp16.
    source = {
        node.output[0]: node.input[0]
        for node in casts
        if node.attribute[0].i == TensorProto.FLOAT16
    }
    back = [node for node in casts if node.input[0] in source]
    restored = {node.output[0]: source[node.input[0]] for node in back}
    for node in back:
        node.input[0] = source[node.input[0]]  # a cast that makes an output stays
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = restored.get(name, name)
    read = {name for node in model.graph.node for name in node.input} | outputs
    kept = [node for node in model.graph.node if node.op_type != "Cast" or node.output[0] in read]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    OnnxModel.graph_topological_sort(model.graph)  # the converter appends its casts


def _pixel_scaling(encoder: Sequence[Node]) -> set[str]:
    """What the encoder's first nodes make, which only shift and scale pixels."""
    names = set()
    for node in encoder:
        if node.operator not in {"Transpose", "Cast", "BatchNormalization"}:
            break
        names.add(node.outputs[0])
    return names
