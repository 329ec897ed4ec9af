"""The operators an exported graph may hold: what every engine this project aims at takes.

A graph with anything else would load here and fail on the device.
"""

from __future__ import annotations

import onnx

from fsad_edge.errors import ExportError

ALLOWED = frozenset(
    [
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "Conv",
        "DequantizeLinear",
        "Div",
        "Erf",
        "Expand",
        "Flatten",
        "GatherND",
        "Gather",
        "Gelu",
        "Gemm",
        "GlobalAveragePool",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LayerNormalization",
        "LeakyRelu",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mul",
        "Neg",
        "Pad",
        "Pow",
        "PRelu",
        "QuantizeLinear",
        "ReduceL2",
        "ReduceMax",
        "ReduceMean",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Resize",
        "Shape",  # of the batch, to which a ViT's class token is repeated
        "Sigmoid",
        "Slice",
        "Softmax",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "TopK",
        "Transpose",
        "Unsqueeze",
    ]
)


def check_operators(model: onnx.ModelProto) -> None:
    """Refuse a graph with an operator that is not on the list, or of another domain.

    Raises:
        ExportError: names the operators.
    """
    foreign = sorted(
        {
            f"{node.domain}.{node.op_type}" if node.domain not in {"", "ai.onnx"} else node.op_type
            for node in model.graph.node
            if node.op_type not in ALLOWED or node.domain not in {"", "ai.onnx"}
        }
    )
    if foreign or model.functions:
        raise ExportError(
            f"the graph holds operators that not every engine takes ({', '.join(foreign)}): "
            "take another --backbone."
        )
