"""Report of the profile: groups, peaks and the floor as tables and a plot."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.profile.nodes import CONVOLUTIONS, GROUPS, LARGE, Node
from fsad_edge.bench.latency import Run, is_noisy, noise
from fsad_edge.runtime.backends.onnxruntime import import_onnxruntime

COLOURS = ("#e69f00", "#0072b2", "#009e73", "#cc79a7", "#9aa3ad")

#: Nodes below this share of the total time are one row of the table.
MIN_SHARE = 0.01


@dataclass(frozen=True)
class GroupReport:
    """The nodes of one of ``GROUPS``; ``rate`` is billions of operations a second."""

    name: str
    nodes: int
    ms: float
    share: float
    operations: int
    rate: float
    floor_ms: float


@dataclass(frozen=True)
class ProfileReport:
    """What the profile found: times in milliseconds, rates in billions of operations a second.

    Attributes:
        p50: median of each callable.
        peaks: rate of the large products, by precision.
        sum_of_nodes: sum of the medians of all nodes.
        floor: time of all operations at the peak rates.
        uncounted: convolutions whose operations could not be found.
    """

    machine: dict[str, str]
    repetitions: int
    p50: dict[str, float]
    noise: dict[str, float | None]
    noisy: bool
    other_load: float | None
    peaks: dict[str, float]
    sum_of_nodes: float
    floor: float
    uncounted: list[str]
    groups: list[GroupReport]
    nodes: list[Node]


def summarise(nodes: Sequence[Node], run: Run, machine: Mapping[str, str]) -> ProfileReport:
    """Summarise the nodes and the run in which they were measured."""
    # A peak is what the machine can do, so it is the fastest repetition. Long calls are disturbed
    # more often than short ones, and the medians of the products would flatter the nodes.
    best = {name: float(samples.total.min()) for name, samples in run.samples.items()}
    peaks = {kind: 2 * LARGE**3 / best[f"{kind} product"] / 1e6 for kind in ("fp32", "int8")}
    moved = {name: noise(samples.total) for name, samples in run.samples.items()}
    groups = [
        _report_group(group, members, peaks)
        for group in GROUPS
        if (members := [node for node in nodes if node.group == group])
    ]
    return ProfileReport(
        machine={**machine, "engine": f"onnxruntime {import_onnxruntime().__version__}"},
        repetitions=len(run.reference.total),
        p50={name: float(np.median(samples.total)) for name, samples in run.samples.items()},
        noise=moved,
        noisy=run.noisy or any(is_noisy(samples.total) for samples in run.samples.values()),
        other_load=run.other_load,
        peaks=peaks,
        sum_of_nodes=sum(node.microseconds for node in nodes) / 1e3,
        floor=_floor_ms(nodes, peaks),
        uncounted=[n.name for n in nodes if n.kind in CONVOLUTIONS and n.operations is None],
        groups=groups,
        nodes=list(nodes),
    )


def _report_group(name: str, nodes: Sequence[Node], peaks: Mapping[str, float]) -> GroupReport:
    microseconds = sum(node.microseconds for node in nodes)
    operations = sum(node.operations or 0 for node in nodes)
    return GroupReport(
        name=name,
        nodes=len(nodes),
        ms=microseconds / 1e3,
        share=sum(node.share for node in nodes),
        operations=operations,
        rate=operations / microseconds / 1e3,
        floor_ms=_floor_ms(nodes, peaks),
    )


def _floor_ms(nodes: Sequence[Node], peaks: Mapping[str, float]) -> float:
    return sum((node.operations or 0) / peaks[node.precision] / 1e6 for node in nodes)


def markdown(name: str, report: ProfileReport) -> str:
    """The tables and how to read them."""
    head = "ms | share | Mop | Gop/s | floor, ms | of peak |"
    lines = [*_facts(name, report), "", f"| group | nodes | {head}", "|---" * 8 + "|"]
    for group in report.groups:
        floor = f"{group.floor_ms:.2f} | {group.floor_ms / group.ms:.0%}"
        lines.append(
            f"| {group.name} | {group.nodes} | {group.ms:.3f} | {group.share:.1%} "
            f"| {_cells(group.operations, group.rate)} | {floor if group.operations else '– | –'} |"
        )
    lines += ["", "| node | operator | output | group | µs | share | Mop | Gop/s | of peak |"]
    lines.append("|---" * 9 + "|")
    for node in report.nodes:
        if node.share >= MIN_SHARE:
            rate = f"{node.rate / report.peaks[node.precision]:.0%}" if node.rate else "–"
            lines.append(
                f"| {node.name} | {node.kind} | {'×'.join(map(str, node.output))} | {node.group} "
                f"| {node.microseconds:.0f} | {node.share:.1%} "
                f"| {_cells(node.operations, node.rate)} | {rate} |"
            )
    rest = [node for node in report.nodes if node.share < MIN_SHARE]
    microseconds, share = sum(node.microseconds for node in rest), sum(node.share for node in rest)
    lines += [
        f"| {len(rest)} more | | | | {microseconds:.0f} | {share:.1%} | | | |",
        "",
        "A multiplication and an addition are two operations; a group's rate is over all of its "
        "time. The profiler adds a few µs to the time of each node. int8 nodes are compared with "
        "the int8 peak, others with the fp32 peak.",
    ]
    return "\n".join(lines) + "\n"


def _facts(name: str, report: ProfileReport) -> list[str]:
    peaks, alone = report.peaks, report.p50["model alone"]
    facts = ("engine", "cpu", "cores", "system")
    machine = [report.machine[fact] for fact in facts if report.machine.get(fact)]
    moved = ", ".join(
        f"{call} {'?' if value is None else f'{value:.1%}'}" for call, value in report.noise.items()
    )
    if report.other_load is not None:
        moved += f"; other processes used {report.other_load:.1%} of the cores"
    lines = [
        f"{name}: {'; '.join(machine)}; {report.repetitions} repetitions.",
        "",
        f"The machine was {'**too noisy to tell**' if report.noisy else 'steady'} "
        f"(p50 moved: {moved}).",
        "",
        f"- Model alone, p50: {alone:.2f} ms; with the profiler "
        f"{report.p50['with the profiler']:.2f}; sum of the nodes {report.sum_of_nodes:.2f}.",
        f"- Peak, the fastest of the {LARGE}×{LARGE}×{LARGE} products in the same run: fp32 "
        f"{peaks['fp32']:.0f} GFLOP/s, int8 {peaks['int8']:.0f} Gop/s "
        f"({peaks['int8'] / peaks['fp32']:.1f}×).",
        f"- Floor, operations over those peaks: {report.floor:.2f} ms, "
        f"{report.floor / alone:.0%} of the model alone.",
    ]
    if report.uncounted:
        lines.append(f"- Convolutions without a count, not in the floor: {len(report.uncounted)}.")
    return lines


def _cells(operations: int | None, rate: float | None) -> str:
    return f"{operations / 1e6:.2f} | {rate:.0f}" if operations and rate else "– | –"


def plot(name: str, report: ProfileReport) -> bytes:
    """A bar for each larger node, in the order in which they ran, with its floor; PNG."""
    from matplotlib.figure import Figure

    nodes = [node for node in report.nodes if node.share >= MIN_SHARE]
    figure = Figure(figsize=(10, 1.9 + 0.3 * len(nodes)), dpi=110, layout="constrained")
    axes = figure.subplots()
    labels = {
        group.name: f"{group.name}: {group.ms:.2f} ms, {group.share:.0%}" for group in report.groups
    }
    for place, node in enumerate(nodes):
        colour, label = COLOURS[GROUPS.index(node.group)], labels.pop(node.group, None)
        axes.barh(place, node.microseconds, color=colour, label=label)
        note = f" {node.microseconds:.0f}"
        if node.operations and node.rate:
            peak = report.peaks[node.precision]
            floor = node.operations / peak / 1e3
            axes.plot([floor, floor], [place - 0.4, place + 0.4], color="#1c2026", linewidth=1.6)
            note += f"  ({node.rate / peak:.0%} of peak)"
        axes.text(node.microseconds, place, note, va="center", fontsize=8.5)
    axes.plot([], [], color="#1c2026", linewidth=1.6, label="floor: operations over peak")
    axes.set_yticks(range(len(nodes)), [f"{node.name}  {node.kind}" for node in nodes])
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set(xlabel="microseconds, median")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(-0.2, 1), ncols=3)
    noisy = "; the machine was too noisy to tell" if report.noisy else ""
    figure.suptitle(
        f"{name}: {report.p50['model alone']:.2f} ms alone, floor {report.floor:.2f} ms; nodes "
        f"from {MIN_SHARE:.0%} of the time{noisy}",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
