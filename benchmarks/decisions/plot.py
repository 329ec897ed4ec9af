"""A plot of false alarms and misses: a line for each data set, a mark for each threshold."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.accuracy.cells import summary
from benchmarks.accuracy.rows import Row
from benchmarks.accuracy.table import group_of
from fsad_edge.runtime.files import write_bytes

_INK, _FAINT, _RULE = "#1c2026", "#68707a", "#d5d9de"

#: Marks: what they stand for, the figures behind both panels, colour (Okabe and Ito) and shape.
_MARKS = (
    ("threshold from the shots", "false_alarms", "misses", "#0072b2", "o"),
    ("with 3 good and 3 bad examples", "examples_false_alarms", "examples_misses", "#d55e00", "D"),
    ("best threshold at ≤ 2 % false alarms", None, "best_misses", "#68707a", "|"),
)


def write_plot(rows: Sequence[Row], path: Path) -> None:
    """Write the plot as a PNG; an existing file is replaced.

    Raises:
        InputError: it cannot be written.
    """
    groups = list(dict.fromkeys(map(group_of, rows)))[::-1]
    with mpl.rc_context({"font.size": 10, "text.color": _INK, "axes.edgecolor": _FAINT}):
        figure = Figure(figsize=(10.5, 0.42 * len(groups) + 1.9), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for label, alarms, misses, colour, shape in _MARKS:
            style: dict[str, Any] = {
                "color": colour,
                "marker": shape,
                "ms": 9 if shape == "|" else 6,
                "mew": 2,
            }
            if alarms is not None:
                _draw(left, rows, groups, alarms, label, style)
            _draw(right, rows, groups, misses, label, style)
        left.set_yticks(range(len(groups)), groups)
        left.axvspan(0.5, 2, color="#009e73", alpha=0.12, lw=0)
        for place, title in ((left, "false alarms, %"), (right, "misses, %")):
            place.set_title(title, loc="left", fontweight="bold")
            place.grid(axis="x", color=_RULE, lw=0.6)
            place.spines[["top", "right", "left"]].set_visible(False)
            place.tick_params(axis="y", length=0)
            place.set_xlim(left=-0.2 if place is left else -2)
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=140)
    write_bytes(path, stream.getvalue())


def _draw(
    place: Axes,
    rows: Sequence[Row],
    groups: Sequence[str],
    figure: str,
    label: str,
    style: dict[str, Any],
) -> None:
    """The means over the seeds as marks, and faint ones of each seed."""
    shown = []
    for line, group in enumerate(groups):
        of_group = [row for row in rows if group_of(row) == group]
        each = [100 * row[figure] for row in of_group]
        place.plot(each, [line] * len(each), "o", color=style["color"], ms=2.5, alpha=0.35)
        value = summary(of_group, figure)
        shown.append(float("nan") if value is None else 100 * value.mean)
    place.plot(shown, range(len(groups)), ls="none", label=label, **style)
