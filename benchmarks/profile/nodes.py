"""The time of each node from ONNX Runtime's profiler, and the number of its operations."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fsad_edge.bench.latency import Call, Run, interleave
from fsad_edge.runtime.backends.onnxruntime import import_onnxruntime
from fsad_edge.runtime.model import Model

CONVOLUTIONS = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger"})
INT8 = frozenset({"QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger"})
PRODUCTS = frozenset({"Gemm", "FusedGemm", "MatMul", "FusedMatMul", "QGemm", "MatMulInteger"})

GROUPS = ("image normalisation", "encoder", "bank product", "neighbours", "rest")

#: Side of the large matrix products.
LARGE = 2048


@dataclass
class Node:
    """One node as ONNX Runtime ran it.

    Attributes:
        name: name of the node in the optimised graph.
        kind: operator of the node.
        output: shape of its first output.
        width: last axis of its first input, which is the inner one of a matrix product.
        microseconds: median of its time.
        operations: multiplications and additions; None if it is neither a convolution nor a matrix
            product, or could not be found in the file.
        group: one of ``GROUPS``.
        share: its share of the time of all nodes.
    """

    name: str
    kind: str
    output: list[int]
    width: int
    microseconds: float
    operations: int | None = None
    group: str = "rest"
    share: float = 0.0

    @property
    def precision(self) -> str:
        """``int8`` or ``fp32``."""
        return "int8" if self.kind in INT8 else "fp32"

    @property
    def rate(self) -> float | None:
        """Billions of operations a second."""
        return self.operations / self.microseconds / 1e3 if self.operations else None


def convolutions(model: onnx.ModelProto) -> list[tuple[list[int], int]]:
    """Output shape and operations of each convolution for one image, in the file's order."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {array.name: list(array.dims) for array in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        shapes[value.name] = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
    found = []
    for node in graph.node:
        if node.op_type == "Conv":
            output, weight = shapes[node.output[0]], shapes[node.input[1]]
            found.append((output, 2 * math.prod(output) * math.prod(weight[1:])))
    return found


def read_nodes(events: Sequence[Mapping[str, Any]], model: onnx.ModelProto) -> list[Node]:
    """The nodes of ONNX Runtime's trace, in the order they ran."""
    times: dict[str, list[float]] = {}
    nodes: dict[str, Node] = {}
    for event in events:
        name, _, ending = event["name"].rpartition("_kernel_time")
        if event["cat"] != "Node" or ending or not name:
            continue
        details = event["args"]
        times.setdefault(name, []).append(event["dur"])
        first = next(_shapes(details["input_type_shape"]), [])
        output = next(_shapes(details["output_type_shape"]), [])
        nodes[name] = Node(name, details["op_name"], output, first[-1] if first else 1, 0.0)
    for name, node in nodes.items():
        node.microseconds = float(np.median(times[name]))
        if node.kind in PRODUCTS:
            node.operations = 2 * math.prod(node.output) * node.width
    ran = [node for node in nodes.values() if node.kind in CONVOLUTIONS]
    written = convolutions(model)
    # Engines keep the order of a chain. They pad channels, so only height and width show whether
    # two convolutions are the same. Padding is no work of the model and is not counted.
    if len(ran) == len(written):
        for node, (output, operations) in zip(ran, written, strict=True):
            if set(output[2:]) <= set(node.output):
                node.operations = operations
    _group(list(nodes.values()))
    total = sum(node.microseconds for node in nodes.values())
    for node in nodes.values():
        node.share = node.microseconds / total
    return list(nodes.values())


def _shapes(tensors: Sequence[Mapping[str, list[int]]]) -> Iterator[list[int]]:
    for tensor in tensors:
        yield from tensor.values()


def _group(nodes: Sequence[Node]) -> None:
    places = [place for place, node in enumerate(nodes) if node.kind in CONVOLUTIONS]
    products = [node for node in nodes if node.kind in PRODUCTS]
    bank = max(products, key=lambda node: node.operations or 0, default=None)
    for place, node in enumerate(nodes):
        if places and place < places[0]:
            node.group = "image normalisation"
        elif places and place <= places[-1]:
            node.group = "encoder"
        elif node is bank:
            node.group = "bank product"
        elif bank and node.kind == "TopK" and node.width == bank.output[-1]:
            node.group = "neighbours"


def measure(file: Path, threads: int, seconds: float) -> tuple[list[Node], Run]:
    """Profile a file; returns its nodes and the run in which everything was interleaved.

    Args:
        file: a file that ``fsad-edge export`` wrote.
        threads: threads for one image; 0 leaves the choice to the engine.
        seconds: time for all measurements together.

    Raises:
        FsadEdgeError: the file cannot be used.
    """
    metadata = Model.load(file, "cpu").metadata
    rng = np.random.default_rng(0)
    shape = (1, metadata.height, metadata.width, 3)
    image = {"image": rng.integers(0, 256, shape, np.uint8)}
    outputs = ["score", "anomaly_map"]
    with tempfile.TemporaryDirectory() as folder:
        profiled = _session(file.read_bytes(), threads, f"{folder}/profile")
        calls = {
            "model alone": _call(_session(file.read_bytes(), threads), outputs, image),
            "with the profiler": _call(profiled, outputs, image),
            "fp32 product": _large_product(TensorProto.FLOAT, threads),
            "int8 product": _large_product(TensorProto.UINT8, threads),
        }
        run = interleave(calls, seconds=seconds / len(calls))
        events = json.loads(Path(profiled.end_profiling()).read_text())
    return read_nodes(events, onnx.load_from_string(file.read_bytes())), run


def _session(graph: bytes, threads: int, profile: str | None = None) -> Any:
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _call(session: Any, outputs: list[str], feeds: dict[str, Any]) -> Call:
    def call(repetition: int) -> Mapping[str, float]:
        session.run(outputs, feeds)
        return {}

    return call


def _large_product(kind: int, threads: int) -> Call:
    """A product of two large matrices; the second is a constant, as weights are."""
    rng = np.random.default_rng(0)
    shape = (LARGE, LARGE)
    if kind == TensorProto.FLOAT:
        left, right = (rng.standard_normal(shape, np.float32) for _ in range(2))
        operator, result = "MatMul", TensorProto.FLOAT
    else:
        left, right = rng.integers(0, 128, shape, np.uint8), rng.integers(-64, 64, shape, np.int8)
        operator, result = "MatMulInteger", TensorProto.INT32
    graph = helper.make_graph(
        [helper.make_node(operator, ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", kind, shape)],
        [helper.make_tensor_value_info("product", result, shape)],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )  # which every ONNX Runtime in use reads
    return _call(_session(model.SerializeToString(), threads), ["product"], {"left": left})
