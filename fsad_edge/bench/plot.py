"""A plot of a benchmark: the distribution of the times and their steps. Needs matplotlib."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fsad_edge.bench.report import BenchmarkReport, ConfigurationReport
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.own_pictures import MARK
from fsad_edge.runtime.plain_text import printable

# A matplotlib Figure made without pyplot draws with Agg and leaves no global state.

_INK, _FAINT, _RULE = "#1c2026", "#68707a", "#d5d9de"
# Colours that also differ in lightness, after Okabe and Ito.
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_STEPS = ("#e69f00", "#f4cf7c", "#0072b2", "#9aa3ad")
_STYLES = ("-", "--", ":", "-.")
_LOG_RATIO = 6.0  # p50s further apart than this factor are drawn on a logarithmic axis


def write_plot(report: BenchmarkReport, path: Path) -> None:
    """Draw a report as a PNG.

    The upper panel shows for each configuration the share of calls that were done within a time,
    with p50 and p99 marked. The lower panel shows the p50 of each step.

    Raises:
        InputError: the file cannot be written.
    """
    # A file's name is neither a formula, nor is it broken into lines.
    rows = [replace(row, label=printable(row.label)) for row in report.configurations]
    with rc_context({"text.parse_math": False}):
        figure = _draw(report, rows)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": MARK})
    write_bytes(path, buffer.getvalue())


def _draw(report: BenchmarkReport, rows: list[ConfigurationReport]) -> Figure:
    height = 5.2 + 0.7 * len(rows)  # a line in the legend and a bar for each
    figure = Figure(figsize=(10, height), dpi=120, facecolor="white", layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[4.2, 0.9 + 0.42 * len(rows)])
    _draw_distributions(upper, rows)
    _draw_steps(lower, rows)
    machine = report.machine
    steadiness = "too noisy to tell" if report.noise.noisy else "steady"
    figure.suptitle(
        f"{machine.get('cpu', 'unknown CPU')}, {machine.get('cores', '?')} cores; "
        f"{report.repetitions} repetitions; the machine was {steadiness}",
        fontsize=10, color=_FAINT, x=0.01, ha="left",
    )  # fmt: skip
    return figure


def _draw_distributions(axes: Axes, rows: list[ConfigurationReport]) -> None:
    for place, row in enumerate(rows):
        times = np.sort(row.times)
        share = np.arange(1, len(times) + 1) / len(times) * 100
        total, colour = row.total, _LINES[place % len(_LINES)]
        label = f"{row.label}:  p50 {total.p50:.2f}   p99 {total.p99:.2f}   max {total.max:.2f} ms"
        axes.step(
            times, share, where="post", color=colour, label=label, linewidth=1.8,
            linestyle=_STYLES[place // len(_LINES) % len(_STYLES)],
        )  # fmt: skip
        axes.plot(total.p50, 50, "o", color=colour, markersize=7, markeredgecolor="white")
        axes.plot(total.p99, 99, "D", color=colour, markersize=7, markeredgecolor="white")
    for level, name in ((50, "p50"), (99, "p99")):
        axes.axhline(level, color=_RULE, linewidth=1, zorder=0)
        axes.text(
            1.005, level, name, transform=axes.get_yaxis_transform(), va="center", color=_FAINT
        )
    medians = [row.total.p50 for row in rows]
    left = min(min(row.times) for row in rows)
    right = max(row.total.p99 for row in rows)
    if max(medians) > _LOG_RATIO * min(medians):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlim(left * 0.9, right * 1.2)
    else:
        room = max(right - left, 0.01 * right)  # a single time has no width
        axes.set_xlim(left - 0.03 * room, right + 0.1 * room)
    axes.set_ylim(0, 101.5)
    axes.set_yticks([0, 25, 75, 100, 50, 90])
    axes.set_xlabel("milliseconds a call, from encoded image to decision", color=_INK)
    axes.set_ylabel("calls done within that time, %", color=_INK)
    # Below the axes, because any corner of a distribution may be in use.
    axes.legend(
        loc="upper left", bbox_to_anchor=(0, -0.13), frameon=False, fontsize=9, borderaxespad=0
    )
    _tidy(axes)


def _draw_steps(axes: Axes, rows: list[ConfigurationReport]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row.steps))
    left = np.zeros(len(rows))
    for place, name in enumerate(names):
        widths = np.array(
            [row.steps[name].p50 / row.batch if name in row.steps else 0.0 for row in rows]
        )
        axes.barh(
            range(len(rows)), widths, left=left, label=name, height=0.62,
            color=_STEPS[place % len(_STEPS)],
        )  # fmt: skip
        left += widths
    for place, value in enumerate(left):
        axes.text(value, place, f" {value:.2f}", va="center", fontsize=9, color=_INK)
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.set_xlabel("milliseconds an image: p50 of each step", color=_INK)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=max(1, len(names)), frameon=False, fontsize=9
    )
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_RULE)
    axes.tick_params(colors=_FAINT)
