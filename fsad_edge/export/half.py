"""fp16: the encoder of a graph in half precision, for GPUs.

The normalisation of features and the bank's distances stay in fp32: a distance is a difference of
numbers near one, of which fp16 keeps three digits. So do a transformer's own normalisations, whose
sums of squares fp16 may not hold.
"""

from __future__ import annotations

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from fsad_edge.export.quantize import encoder_nodes


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an fp32 graph with its encoder in fp16; inputs and outputs keep their types."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    encoder = {node.output[0] for node in encoder_nodes(copy)}
    for place, node in enumerate(copy.graph.node):
        node.name = node.name or f"node_{place}"
    head = [node.name for node in copy.graph.node if node.output[0] not in encoder]
    # The pixels are scaled in fp32, being up to 255 and cheap.
    head += _before_the_first_layer(copy)
    head += [node.name for node in copy.graph.node if node.op_type == "LayerNormalization"]
    converted: onnx.ModelProto = convert_float_to_float16(
        copy, keep_io_types=True, node_block_list=head
    )
    del converted.graph.value_info[:]  # the converter leaves the types of before in it
    return converted


def _before_the_first_layer(model: onnx.ModelProto) -> list[str]:
    """Names of the encoder's nodes that only shift and scale pixels."""
    names = []
    for node in encoder_nodes(model):
        if node.op_type not in {"Transpose", "Cast", "Div", "Sub", "Mul", "Add"}:
            break
        names.append(node.name)
    return names
