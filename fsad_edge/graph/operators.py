"""The operators that an exported graph may hold: all engines that this project supports have them.

A graph with another operator would load here and fail on the device.
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
        "ReduceSumSquare",
        "Relu",
        "Reshape",
        "Resize",
        "Shape",  # a ViT repeats its class token for each image of the batch
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
    """Refuse a graph with an operator that is not on the list or is from another domain.

    Raises:
        ExportError: names the operators.
    """
    refused = sorted(
        {
            f"{node.domain}.{node.op_type}" if node.domain not in {"", "ai.onnx"} else node.op_type
            for node in model.graph.node
            if node.op_type not in ALLOWED or node.domain not in {"", "ai.onnx"}
        }
    )
    if refused or model.functions:
        raise ExportError(
            f"the graph holds operators that not every engine has ({', '.join(refused)}): "
            "take another --backbone."
        )
