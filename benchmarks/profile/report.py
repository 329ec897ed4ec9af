"""What the profile comes to: groups, peaks, the floor; tables and picture."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.profile.nodes import CONVOLUTIONS, GROUPS, LARGE, Node
from fsad_edge.bench.latency import Run, is_noisy, noise
from fsad_edge.runtime.backends.onnxruntime import import_onnxruntime

INT8 = frozenset({"QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger"})
COLOURS = ("#e69f00", "#0072b2", "#009e73", "#cc79a7", "#9aa3ad")

#: Nodes below this share of the whole are one row of the table.
LEAST_SHARE = 0.01


def summarise(nodes: Sequence[Node], run: Run, machine: Mapping[str, str]) -> dict[str, Any]:
    """All that was found, for ``json``; times in milliseconds, rates in GFLOP/s (or Gop/s)."""
    p50 = {name: float(np.median(samples.total)) for name, samples in run.samples.items()}
    # The fastest of their repetitions: a peak is what the machine can do. What runs long is seldom
    # left undisturbed, what runs short often is, so that their medians would flatter the nodes.
    best = {name: float(samples.total.min()) for name, samples in run.samples.items()}
    peaks = {kind: 2 * LARGE**3 / best[f"{kind} product"] / 1e6 for kind in ("fp32", "int8")}
    whole = sum(node.microseconds for node in nodes)

    def floor(some: Sequence[Node]) -> float:
        return sum(
            (node.operations or 0) / peaks["int8" if node.kind in INT8 else "fp32"] / 1e6
            for node in some
        )

    groups = []
    for group in GROUPS:
        some = [node for node in nodes if node.group == group]
        if not some:  # int8 convolutions take pixels as they are
            continue
        spent = sum(node.microseconds for node in some)
        counted = sum(node.operations or 0 for node in some)
        groups.append(
            {
                "name": group,
                "nodes": len(some),
                "ms": spent / 1e3,
                "share": spent / whole,
                "operations": counted,
                "rate": counted / spent / 1e3,
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
        f"- Peak, {LARGE}×{LARGE}×{LARGE} products in the same run, the fastest: fp32 "
        f"{peaks['fp32']:.0f} GFLOP/s, int8 {peaks['int8']:.0f} Gop/s "
        f"({peaks['int8'] / peaks['fp32']:.1f}×).",
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
