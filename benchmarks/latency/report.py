"""Report of the benchmark: JSON document, tables and plot."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.latency.systems import System
from fsad_edge.bench.benchmark import report_noise
from fsad_edge.bench.latency import (
    Percentiles,
    Run,
    Samples,
    block_medians,
    difference,
    is_noisy,
    noise,
    percentiles,
)
from fsad_edge.bench.report import NoiseReport
from fsad_edge.runtime.arrays import Float64Array
from fsad_edge.runtime.backends.onnxruntime import import_onnxruntime
from fsad_edge.runtime.documents import to_document
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.provenance import utc_now

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEPS = ("decode", "resize", "infer", "post")

PEERS_NOTE = (
    "The peers' weights and memory banks are random and have the shapes of trained ones, because "
    "pretrained ones need downloads and the time of a graph does not depend on its values. Pillow "
    "decodes the whole image for them and resizes it with antialiasing, and NumPy converts it to "
    "normalised float32, which counts as resize."
)


@dataclass(frozen=True)
class SpeedUp:
    """How many times faster a system is than another: median, lowest and highest of the blocks."""

    times: float
    low: float
    high: float
    certain: bool


@dataclass(frozen=True)
class TimesReport:
    """Times of one system in milliseconds, and its speed-up over each base.

    The fields are those of :class:`~fsad_edge.bench.report.ConfigurationReport`.
    """

    total: Percentiles
    steps: dict[str, Percentiles]
    noise: float | None
    noisy: bool
    block_p50: list[float]
    times: list[float]
    faster_than: dict[str, SpeedUp]


@dataclass(frozen=True)
class SystemReport:
    """One system: the model alone, and the whole way from JPEG bytes to a decision."""

    name: str
    about: str
    ours: bool
    alone: TimesReport
    whole: TimesReport
    whole_over_alone: float


@dataclass(frozen=True)
class LatencyReport:
    """What the benchmark found; see :func:`make_report`.

    ``bases`` are the names of the systems that the others are compared with. The other fields are
    those of :class:`~fsad_edge.bench.report.BenchmarkReport`.
    """

    created: str
    machine: dict[str, str]
    threads: int
    image: str
    peers: dict[str, str]
    repetitions: int
    calls_per_turn: int
    noise: NoiseReport
    bases: list[str]
    systems: list[SystemReport]


def make_report(
    systems: Sequence[System],
    run: Run,
    machine: Mapping[str, str],
    versions: Mapping[str, str],
    image: str,
    threads: int,
) -> LatencyReport:
    """Summarise a run.

    Args:
        systems: the systems in the order of the tables.
        run: a run with samples under ``alone/NAME`` and ``whole/NAME``.
        machine: facts about the machine by name.
        versions: versions of the peers' packages; empty if no peers were measured.
        image: the JPEG in words.
        threads: threads for one image, as they were asked for.
    """
    peers = [system.name for system in systems if not system.ours]
    bases = list(dict.fromkeys([*peers, systems[0].name]))

    def times(way: str, system: System) -> TimesReport:
        samples = run.samples[f"{way}/{system.name}"]
        speed_ups = {
            base: _speed_up(run.samples[f"{way}/{base}"].total, samples.total)
            for base in bases
            if base != system.name
        }
        return _report_times(samples, speed_ups)

    return LatencyReport(
        created=utc_now(),
        machine={**machine, "engine": f"onnxruntime {import_onnxruntime().__version__}"},
        threads=threads,
        image=image,
        peers=dict(versions),
        repetitions=len(run.reference.total),
        calls_per_turn=run.calls_per_turn,
        noise=report_noise(run),
        bases=bases,
        systems=[
            SystemReport(
                name=system.name,
                about=system.about,
                ours=system.ours,
                alone=times("alone", system),
                whole=times("whole", system),
                whole_over_alone=difference(
                    run.samples[f"alone/{system.name}"].total,
                    run.samples[f"whole/{system.name}"].total,
                ).ratio,
            )
            for system in systems
        ],
    )


def _report_times(samples: Samples, speed_ups: dict[str, SpeedUp]) -> TimesReport:
    return TimesReport(
        total=percentiles(samples.total),
        steps={name: percentiles(taken) for name, taken in samples.steps.items()},
        noise=noise(samples.total),
        noisy=is_noisy(samples.total),
        block_p50=np.round(block_medians(samples.total), 4).tolist(),
        times=np.round(samples.total, 4).tolist(),
        faster_than=speed_ups,
    )


def _speed_up(base: Float64Array, own: Float64Array) -> SpeedUp:
    found = difference(base, own)
    return SpeedUp(1 / found.ratio, 1 / found.high, 1 / found.low, found.certain)


def write_report(out: Path, report: LatencyReport) -> str:
    """Write ``latency.md``, ``latency.json`` and ``latency.png``; returns the first."""
    text = markdown(report)
    write_bytes(out / "latency.json", json.dumps(to_document(report), indent=1).encode())
    write_bytes(out / "latency.md", text.encode())
    write_bytes(out / "latency.png", _plot(report))
    return text


def markdown(report: LatencyReport) -> str:
    """The tables and how to read them."""
    facts = ("engine", "cpu", "cores", "governor", "system")
    machine = [report.machine[name] for name in facts if report.machine.get(name)]
    if report.machine.get("load"):
        machine.append(f"load {report.machine['load']}")
    threads = report.threads or "the engine's choice of"
    lines = [
        f"{'; '.join(machine)}.",
        "",
        f"Batch 1, {threads} threads for every model, {report.repetitions} repetitions interleaved "
        f"in one process, {report.calls_per_turn} in a turn. Image: {report.image}. Milliseconds.",
        "",
        _verdict(report.noise),
    ]
    if report.repetitions < 100:
        lines += ["", "A p99 of fewer than 100 repetitions is little more than their maximum."]
    for title, table in (
        ("Model alone", _table(report, [row.alone for row in report.systems])),
        ("From JPEG bytes to decision", _table(report, [row.whole for row in report.systems])),
    ):
        lines += ["", f"### {title}", "", *table]
    lines += [
        "",
        "Times faster: ratio of the p50s, the median of the blocks, with the lowest and highest "
        "block in brackets. `!`: too noisy to tell. Steps: their p50.",
        "",
        *(f"- **{row.name}**: {row.about}" for row in report.systems),
    ]
    if report.peers:
        versions = ", ".join(f"{name} {version}" for name, version in report.peers.items())
        lines += [
            "",
            f"Peers ({versions}) are ONNX files in plain ONNX Runtime sessions of the same number "
            f"of threads. {PEERS_NOTE}",
        ]
    return "\n".join([*lines, "", report.noise.rule]) + "\n"


def _verdict(noise: NoiseReport) -> str:
    if noise.reference_noise is None:
        return "**Too few repetitions to tell the noise.**"
    facts = f"a fixed computation on all cores moved by {noise.reference_noise:.1%}"
    if noise.other_load is not None:
        facts += f", other processes used {noise.other_load:.1%} of the cores"
    if noise.restless_turns:
        facts += f", {noise.restless_turns} turns began while threads of the turn before still ran"
    if noise.noisy:
        return f"**The machine was too noisy to tell: {facts}.**"
    return f"The machine was steady: {facts}."


def _table(report: LatencyReport, times: Sequence[TimesReport]) -> list[str]:
    """A table of all systems; with steps if they were timed."""
    whole, bases = bool(times[0].steps), report.bases
    heads = ["system", "p50", "p90", "p99", *(f"times faster than {base}" for base in bases)]
    heads += [*STEPS, "over model alone"] if whole else []
    lines = [f"| {' | '.join([*heads, 'noise'])} |", "|---" * (len(heads) + 1) + "|"]
    for row, found in zip(report.systems, times, strict=True):
        total = found.total
        cells = [row.name, *(f"{value:.2f}" for value in (total.p50, total.p90, total.p99))]
        for base in bases:
            speed_up = found.faster_than.get(base)
            cells.append(f"{speed_up.times:.3g}" if speed_up else "1")
            if speed_up and base == bases[0]:
                cells[-1] += f" ({speed_up.low:.3g}–{speed_up.high:.3g})"
        if whole:
            cells += [f"{found.steps[step].p50:.2f}" for step in STEPS]
            cells.append(f"{row.whole_over_alone:.2f}")
        moved = "?" if found.noise is None else f"{found.noise:.1%}"
        lines.append(f"| {' | '.join([*cells, moved + (' !' if found.noisy else '')])} |")
    return lines


def _plot(report: LatencyReport) -> bytes:
    """Left all systems on a logarithmic axis, p50 to p99; right the steps of ours."""
    from matplotlib.figure import Figure

    rows = report.systems
    figure = Figure(figsize=(13, 2.2 + 0.62 * len(rows)), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    _draw_all(left, rows, report.bases[0])
    _draw_steps(right, [row for row in rows if row.ours])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.invert_yaxis()
        axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    figure.suptitle(
        f"{report.machine.get('cpu', 'unknown CPU')}; {report.repetitions} repetitions; "
        f"the machine was {'too noisy to tell' if report.noise.noisy else 'steady'}",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _draw_all(axes: Axes, rows: Sequence[SystemReport], base: str) -> None:
    for index, row in enumerate(rows):
        for title, found, offset, colour in (
            ("Model alone", row.alone, -0.17, "#0072b2"),
            ("From JPEG bytes to decision", row.whole, 0.17, "#d55e00"),
        ):
            p50, p99, y = found.total.p50, found.total.p99, index + offset
            axes.plot([p50, p99], [y, y], color=colour, linewidth=1.4)
            label = f"{title}: p50, line to p99" if index == 0 else None
            axes.plot(p50, y, "o" if row.ours else "D", color=colour, label=label, linestyle="")
            speed_up = found.faster_than.get(base)
            note = f"  ({speed_up.times:.3g}× as fast)" if speed_up else ""
            axes.text(
                p99, y, f"  {p50:{'.0f' if p50 >= 100 else '.3g'}}{note}", va="center", fontsize=8.5
            )
    lowest = min(row.alone.total.p50 for row in rows)
    highest = max(found.total.p99 for row in rows for found in (row.alone, row.whole))
    axes.set(xscale="log", xlabel=f"milliseconds; × as fast: as {base}")
    axes.set_xlim(lowest * 0.8, highest * (highest / lowest) ** 0.35)  # room for the last label
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.grid(axis="x", alpha=0.3)


def _draw_steps(axes: Axes, rows: Sequence[SystemReport]) -> None:
    colours = ("#e69f00", "#f4cf7c", "#0072b2", "#1c2026")
    start = np.zeros(len(rows))
    for step, colour in zip(STEPS, colours, strict=True):
        widths = np.array([row.whole.steps[step].p50 for row in rows])
        axes.barh(range(len(rows)), widths, left=start, color=colour, height=0.6, label=step)
        start += widths
    for index, row in enumerate(rows):
        steps = " + ".join(f"{row.whole.steps[step].p50:.2f}" for step in STEPS)
        axes.text(0, index + 0.33, f" {steps}", va="top", fontsize=8.5)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(-0.5, len(rows) - 0.3)
    axes.set_xlabel("ours: p50 of each step, milliseconds")
