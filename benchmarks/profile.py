"""Where a model's milliseconds go, node by node, and how far that is from the floor.

    python -m benchmarks.profile PART.onnx OUT [--threads N] [--seconds 60]

ONNX Runtime's own profiler times each node of the graph as it runs it (fused, laid out anew); the
model without the profiler and large matrix products, fp32 and int8, take turns with it. The floor is
the operations of convolutions and matrix products over what those products reach. Writes
OUT/profile.md, OUT/profile.json and OUT/profile.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fsad_edge.bench.latency import Call, Run, interleave, is_noisy, noise
from fsad_edge.bench.machine import describe_machine
from fsad_edge.errors import FsadEdgeError, InputError
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.session import import_onnxruntime

CONVOLUTIONS = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger"})
PRODUCTS = frozenset({"Gemm", "FusedGemm", "MatMul", "FusedMatMul", "QGemm", "MatMulInteger"})
INT8 = frozenset({"QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger"})

GROUPS = ("image normalisation", "encoder", "bank product", "neighbours", "rest")
COLOURS = ("#e69f00", "#0072b2", "#009e73", "#cc79a7", "#9aa3ad")

#: Side of the large matrix products.
LARGE = 2048

#: Nodes below this share of the whole are one row of the table.
LEAST_SHARE = 0.01


@dataclass
class Node:
    """One node as ONNX Runtime ran it.

    Attributes:
        name: as the optimised graph calls it.
        kind: its operator.
        output: shape of its first output.
        width: last axis of its first input: the inner one of a matrix product.
        microseconds: median of its time.
        operations: multiplications and additions; None for what is neither a convolution nor a
            matrix product, or could not be found in the file.
        group: of ``GROUPS``.
    """

    name: str
    kind: str
    output: list[int]
    width: int
    microseconds: float
    operations: int | None = None
    group: str = "rest"

    @property
    def rate(self) -> float | None:
        """Billions of operations a second."""
        return self.operations / self.microseconds / 1e3 if self.operations else None


def convolutions(model: onnx.ModelProto) -> list[tuple[list[int], int]]:
    """Output shape and operations of each convolution of a file, in its order, for one image."""
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
        told = event["args"]
        times.setdefault(name, []).append(event["dur"])
        first, *_ = [*_shapes(told["input_type_shape"]), []]
        output, *_ = [*_shapes(told["output_type_shape"]), []]
        nodes[name] = Node(name, told["op_name"], output, first[-1] if first else 1, 0.0)
    for name, node in nodes.items():
        node.microseconds = float(np.median(times[name]))
        if node.kind in PRODUCTS:
            node.operations = 2 * math.prod(node.output) * node.width
    ran = [node for node in nodes.values() if node.kind in CONVOLUTIONS]
    written = convolutions(model)
    # Engines keep the order of a chain; they pad channels, so that only the height and width show
    # whether two are the same. What they pad is no work of the model's and is not counted.
    if len(ran) == len(written):
        for node, (output, operations) in zip(ran, written, strict=True):
            if set(output[2:]) <= set(node.output):
                node.operations = operations
    _group(list(nodes.values()))
    return list(nodes.values())


def _shapes(told: Sequence[Mapping[str, list[int]]]) -> Iterator[list[int]]:
    for tensor in told:
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
    """Profile a file; returns its nodes and the run in which everything took its turn.

    Args:
        file: that ``fsad-edge export`` wrote.
        threads: for one image; 0 leaves the choice to the engine.
        seconds: to measure, all together.

    Raises:
        FsadEdgeError: the file cannot be used.
    """
    told = Model.load(file, "cpu").metadata
    rng = np.random.default_rng(0)
    image = {"image": rng.integers(0, 256, (1, told.height, told.width, 3), np.uint8)}
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
    """A product of two large matrices, the second known beforehand as weights are."""
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
    )  # what every ONNX Runtime in use reads
    return _call(_session(model.SerializeToString(), threads), ["product"], {"left": left})


def summarise(nodes: Sequence[Node], run: Run, machine: Mapping[str, str]) -> dict[str, Any]:
    """All that was found, for ``json``; times in milliseconds, rates in GFLOP/s (or Gop/s)."""
    p50 = {name: float(np.median(samples.total)) for name, samples in run.samples.items()}
    peaks = {kind: 2 * LARGE**3 / p50[f"{kind} product"] / 1e6 for kind in ("fp32", "int8")}
    whole = sum(node.microseconds for node in nodes)

    def floor(some: Sequence[Node]) -> float:
        return sum(
            (node.operations or 0) / peaks["int8" if node.kind in INT8 else "fp32"] / 1e6
            for node in some
        )

    groups = []
    for group in GROUPS:
        some = [node for node in nodes if node.group == group]
        spent = sum(node.microseconds for node in some)
        counted = sum(node.operations or 0 for node in some)
        groups.append(
            {
                "name": group,
                "nodes": len(some),
                "ms": spent / 1e3,
                "share": spent / whole,
                "operations": counted,
                "rate": counted / spent / 1e3 if spent else 0.0,
                "floor_ms": floor(some),
            }
        )
    uncounted = [n.name for n in nodes if n.kind in CONVOLUTIONS and n.operations is None]
    return {
        "machine": {**machine, "engine": f"onnxruntime {import_onnxruntime().__version__}"},
        "repetitions": len(run.reference.total),
        "p50": p50,
        "noise": {name: noise(samples.total) for name, samples in run.samples.items()},
        "noisy": run.noisy or any(is_noisy(samples.total) for samples in run.samples.values()),
        "others": run.others,
        "peaks": peaks,
        "sum_of_nodes": whole / 1e3,
        "floor": floor(nodes),
        "uncounted": uncounted,
        "groups": groups,
        "nodes": [
            {
                **dataclasses.asdict(node),
                "rate": node.rate,
                "int8": node.kind in INT8,
                "share": node.microseconds / whole,
            }
            for node in nodes
        ],
    }


def markdown(name: str, found: Mapping[str, Any]) -> str:
    """The tables and what is to be known of them."""
    machine, peaks, p50 = found["machine"], found["peaks"], found["p50"]
    told = [machine[fact] for fact in ("engine", "cpu", "cores", "system") if machine.get(fact)]
    others = "" if found["others"] is None else f"; others used {found['others']:.1%} of the cores"
    moved = ", ".join(
        f"{name} {'?' if value is None else f'{value:.1%}'}"
        for name, value in found["noise"].items()
    )
    steady = "**too noisy to tell**" if found["noisy"] else "steady"
    lines = [
        f"{name}: {'; '.join(told)}; {found['repetitions']} repetitions.",
        "",
        f"The machine was {steady} (p50 moved: {moved}{others}).",
        "",
        f"- Model alone, p50: {p50['model alone']:.2f} ms; with the profiler "
        f"{p50['with the profiler']:.2f}; sum of the nodes {found['sum_of_nodes']:.2f}.",
        f"- Peak, {LARGE}×{LARGE}×{LARGE} products in the same run: fp32 {peaks['fp32']:.0f} "
        f"GFLOP/s, int8 {peaks['int8']:.0f} Gop/s ({peaks['int8'] / peaks['fp32']:.1f}×).",
        f"- Floor, operations over those peaks: {found['floor']:.2f} ms, "
        f"{found['floor'] / p50['model alone']:.0%} of the model alone.",
    ]
    if found["uncounted"]:
        lines.append(f"- Operations not found, and not in the floor: {len(found['uncounted'])}.")
    head = "ms | share | Mop | Gop/s | floor, ms | of peak |"
    lines += ["", f"| group | nodes | {head}", "|---|---|---|---|---|---|---|---|"]
    for group in found["groups"]:
        rates = _cells(group["operations"], group["rate"])
        part = f"{group['floor_ms']:.2f} | {group['floor_ms'] / group['ms']:.0%}"
        end = part if group["operations"] else "– | –"
        ms = f"{group['ms']:.3f} | {group['share']:.1%}"
        lines.append(f"| {group['name']} | {group['nodes']} | {ms} | {rates} | {end} |")
    lines += ["", "| node | operator | output | group | µs | share | Mop | Gop/s | of peak |"]
    lines.append("|---" * 9 + "|")
    for node in found["nodes"]:
        if node["share"] >= LEAST_SHARE:
            peak = peaks["int8" if node["int8"] else "fp32"]
            rate = f"{node['rate'] / peak:.0%}" if node["rate"] else "–"
            shape = "×".join(map(str, node["output"]))
            lines.append(
                f"| {node['name']} | {node['kind']} | {shape} | {node['group']} "
                f"| {node['microseconds']:.0f} | {node['share']:.1%} "
                f"| {_cells(node['operations'], node['rate'])} | {rate} |"
            )
    rest = [node for node in found["nodes"] if node["share"] < LEAST_SHARE]
    spent, share = (sum(node[key] for node in rest) for key in ("microseconds", "share"))
    lines.append(f"| {len(rest)} more | | | | {spent:.0f} | {share:.1%} | | | |")
    lines += [
        "",
        "A multiplication and an addition are two operations; a group's rate is over all ",
    ]
    lines[-1] += "of its time. A node costs the profiler a few µs, which its time includes. "
    lines[-1] += "int8 nodes are held against the int8 peak, others against the fp32 one."
    return "\n".join(lines) + "\n"


def _cells(operations: int | None, rate: float | None) -> str:
    return f"{operations / 1e6:.2f} | {rate:.0f}" if operations and rate else "– | –"


def plot(name: str, found: Mapping[str, Any]) -> bytes:
    """A bar a node that counts, in the order they ran, with its share of the peak; PNG."""
    from matplotlib.figure import Figure

    nodes = [node for node in found["nodes"] if node["share"] >= LEAST_SHARE]
    figure = Figure(figsize=(10, 1.9 + 0.3 * len(nodes)), dpi=110, layout="constrained")
    axes = figure.subplots()
    drawn = set()
    for place, node in enumerate(nodes):
        group = node["group"]
        colour = COLOURS[GROUPS.index(group)]
        total = next(each for each in found["groups"] if each["name"] == group)
        label = f"{group}: {total['ms']:.2f} ms, {total['share']:.0%}"
        axes.barh(
            place, node["microseconds"], color=colour, label=None if group in drawn else label
        )
        drawn.add(group)
        note = f" {node['microseconds']:.0f}"
        if node["operations"]:
            peak = found["peaks"]["int8" if node["int8"] else "fp32"]
            floor = node["operations"] / peak / 1e3
            axes.plot([floor, floor], [place - 0.4, place + 0.4], color="#1c2026", linewidth=1.6)
            note += f"  ({node['rate'] / peak:.0%} of peak)"
        axes.text(node["microseconds"], place, note, va="center", fontsize=8.5)
    axes.plot([], [], color="#1c2026", linewidth=1.6, label="floor: operations over peak")
    axes.set_yticks(range(len(nodes)), [f"{node['name']}  {node['kind']}" for node in nodes])
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set(xlabel="microseconds, median")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(-0.2, 1), ncols=3)
    noisy = "; the machine was too noisy to tell" if found["noisy"] else ""
    figure.suptitle(
        f"{name}: {found['p50']['model alone']:.2f} ms alone, floor {found['floor']:.2f} ms; nodes "
        f"from {LEAST_SHARE:.0%} of the time{noisy}",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", type=Path, help="file that export wrote")
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves it to the engine")
    parser.add_argument("--seconds", type=float, default=60.0, help="to measure, all together")
    chosen = parser.parse_args(argv)
    if chosen.threads < 0 or not 0 < chosen.seconds < 1e5:
        parser.error("--threads takes 0 or more, --seconds more than 0")
    name, machine = chosen.part.name, describe_machine()
    try:
        try:
            chosen.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{chosen.out} cannot be made: {error.strerror or error}.") from error
        nodes, run = measure(chosen.part, chosen.threads, chosen.seconds)
        found = summarise(nodes, run, machine)
        text = markdown(name, found)
        write_bytes(chosen.out / "profile.json", json.dumps(found, indent=1).encode())
        write_bytes(chosen.out / "profile.md", text.encode())
        write_bytes(chosen.out / "profile.png", plot(name, found))
    except FsadEdgeError as error:
        print(error, file=sys.stderr)
        return 2
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
