"""A plot of AUROC against shots: one panel for each data set, one line for each system.

Error bars show the standard deviation over seeds.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.accuracy.cells import Value, summary
from benchmarks.accuracy.rows import Row
from benchmarks.accuracy.systems import BASELINES
from benchmarks.accuracy.table import group_of, named
from fsad_edge.runtime.files import write_bytes

_INK, _FAINT, _RULE = "#1c2026", "#68707a", "#d5d9de"
#: Colours that colour-blind people can tell apart (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKERS = ("o", "D", "^")  # the second and third system of the same colour get another one
_DASHES = ((0, (4, 2)), (0, (1, 1.5)))
_COLUMNS = 3
_APART = 1.025  # horizontal factor between the points of two systems, so that bars do not overlap

Points = dict[int, Value]


def write_plot(rows: Sequence[Row], path: Path) -> None:
    """Write the plot as a PNG; an existing file is replaced.

    Raises:
        InputError: it cannot be written.
    """
    rows = [row for row in rows if row.get("image_auroc") is not None]
    systems = named(rows)
    styles = _styles(systems)
    panels = {
        group: {name: _points(of_system, group) for name, of_system in systems.items()}
        for group in dict.fromkeys(map(group_of, rows))
    }
    means = [
        value.mean
        for lines in panels.values()
        for points in lines.values()
        for value in points.values()
    ]
    columns = min(_COLUMNS, max(1, len(panels)))
    height = max(1, -(-len(panels) // columns))
    with mpl.rc_context({"font.size": 10, "text.color": _INK, "axes.edgecolor": _FAINT}):
        figure = Figure(figsize=(max(6.0, 4.2 * columns), 3.5 * height + 0.8), layout="constrained")
        axes = figure.subplots(height, columns, squeeze=False, sharey=True).ravel()
        for place in axes[len(panels) :]:
            place.set_visible(False)
        for index, (group, lines) in enumerate(panels.items()):
            _draw(axes[index], lines, styles)
            axes[index].set_title(group, loc="left", fontweight="bold")
            if index % columns == 0:
                axes[index].set_ylabel("image AUROC")
        axes[0].set_ylim(min([0.5, *means]) - 0.04, 1.0)
        handles = [axes[0].plot([], [], label=name, **style)[0] for name, style in styles.items()]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False
        )
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=140)
    write_bytes(path, stream.getvalue())


def _points(rows: Sequence[Row], group: str) -> Points:
    """AUROC of one system on one data set by number of shots."""
    by_shots: dict[int, list[Row]] = {}
    for row in rows:
        if group_of(row) == group:
            by_shots.setdefault(row["shots"], []).append(row)
    found = {shots: summary(by_shots[shots], "image_auroc") for shots in sorted(by_shots)}
    return {shots: value for shots, value in found.items() if value is not None}


def _styles(systems: dict[str, list[Row]]) -> dict[str, dict[str, Any]]:
    """The look of each system, the same in all panels; baselines are grey and dashed."""
    baselines = [name for name, rows in systems.items() if rows[0]["system"] in BASELINES]
    others = [name for name in systems if name not in baselines]
    return {
        name: {
            "color": _COLOURS[index % len(_COLOURS)],
            "marker": _MARKERS[index // len(_COLOURS) % len(_MARKERS)],
            "ms": 5,
            "lw": 1.6,
        }
        for index, name in enumerate(others)
    } | {
        name: {"color": _FAINT, "linestyle": _DASHES[index % len(_DASHES)], "lw": 1.3}
        for index, name in enumerate(baselines)
    }


def _draw(place: Axes, lines: dict[str, Points], styles: dict[str, dict[str, Any]]) -> None:
    lines = {name: points for name, points in lines.items() if points}
    ticks = sorted({shots for points in lines.values() for shots in points})
    for index, (name, points) in enumerate(lines.items()):
        x = [shots * _APART ** (index - (len(lines) - 1) / 2) for shots in points]
        means = [value.mean for value in points.values()]
        stds = [value.std or 0.0 for value in points.values()]
        place.errorbar(x, means, stds, elinewidth=1.0, capsize=2, **styles[name])
    place.set_xscale("log")
    place.set_xlim(ticks[0] / 1.4, ticks[-1] * 1.4)
    place.set_xticks(ticks, [str(shots) for shots in ticks])
    place.minorticks_off()
    place.set_xlabel("shots")
    place.grid(axis="y", color=_RULE, lw=0.6)
    place.axhline(0.5, color=_FAINT, lw=0.8, zorder=0)  # chance
    place.spines[["top", "right"]].set_visible(False)
