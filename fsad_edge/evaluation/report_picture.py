"""The report as one picture: verdict, figures, histogram, ROC curve and the closest calls."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fsad_edge.evaluation.best_threshold import Operating
from fsad_edge.evaluation.figures import Evaluation
from fsad_edge.evaluation.rate import rate
from fsad_edge.evaluation.report_charts import bar_edges
from fsad_edge.evaluation.report_mistakes import Case, Group, closest
from fsad_edge.evaluation.report_tiles import pair
from fsad_edge.evaluation.report_words import About, certainty, hardest_first, percent, verdict
from fsad_edge.evaluation.roc import ROC_MARGIN, roc_points
from fsad_edge.runtime.arrays import BoolArray, Float64Array, UInt8Array
from fsad_edge.runtime.files import folder_and_name
from fsad_edge.runtime.heatmap import LEGENDS, colour_scale
from fsad_edge.runtime.image_scale import ImageScale
from fsad_edge.runtime.own_pictures import MARK
from fsad_edge.runtime.plain_text import printable

# A matplotlib Figure that is created without pyplot draws with Agg and changes no global state.

_INK, _FAINT, _RULE = "#1c2026", "#68707a", "#d5d9de"
_GOOD, _DEFECT, _WRONG = "#2a6fb0", "#d9730d", "#be1e2d"
_BEST = "#1d7a4c"

# Lengths in inches. The height of the picture follows from the shapes of the photographs in it.
_WIDTH, _LEFT, _RIGHT, _CHARTS = 15.0, 0.7, 14.7, 3.6
_TILES, _TILE_GAP, _TILE_HEIGHT = 4, 0.22, 3.2  # tiles in a row, gap between them, largest height
_TILE_SIDE = 300  # longer side of a photograph in a tile, in pixels; a tile can show no more
_MAX_ROWS = 11  # kinds of defects in the table


def picture(
    evaluation: Evaluation, cases: Sequence[Case], about: About, scale: ImageScale
) -> bytes:
    """The report as a PNG.

    Args:
        evaluation: the figures.
        cases: all images with what was said of them.
        about: the title.
        scale: the model's, for images of more than 8 bits.

    Raises:
        InputError: an image or a mask can no longer be read.
    """
    scores = np.array([case.result.score for case in cases])
    ratios = scores / evaluation.threshold
    defective = np.array([case.sample.defect is not None for case in cases])
    groups = [group for group in closest(cases, right_only=False) if group.cases]
    rows = {
        group.heading: [
            _Tile(case, pair(case, scale, group.colours, _TILE_SIDE))
            for case in group.cases[:_TILES]
        ]
        for group in groups
    }
    heights = {
        heading: min(_TILE_HEIGHT, max(_tile_width() / tile.aspect for tile in tiles))
        for heading, tiles in rows.items()
    }
    page = _Page(height=1.75 + _CHARTS + 1.0 + sum(height + 1.2 for height in heights.values()))
    _draw_header(page.place(_LEFT, 0.3, _RIGHT - _LEFT, 1.25), evaluation, about.title)
    top = 2.15
    _draw_histogram(page.place(_LEFT, top, 4.7, _CHARTS), ratios, defective, evaluation)
    _draw_roc(page.place(6.1, top, _CHARTS, _CHARTS), ratios, defective, evaluation)
    _draw_table(page.place(10.2, top, _RIGHT - 10.2, _CHARTS), evaluation)
    top += _CHARTS + 0.85
    for group in groups:
        tiles = rows[group.heading]
        _draw_heading(page, top, group)
        for index, tile in enumerate(tiles):
            left = _LEFT + index * (_tile_width() + _TILE_GAP)
            tile.draw(page.place(left, top + 0.56, _tile_width(), heights[group.heading]))
        top += heights[group.heading] + 1.2
    buffer = io.BytesIO()
    page.figure.savefig(buffer, format="png", metadata={"Software": MARK})
    return buffer.getvalue()


class _Page:
    """A figure on which axes are placed in inches from the upper left corner."""

    def __init__(self, height: float) -> None:
        self._height = height
        self.figure = Figure(figsize=(_WIDTH, height), dpi=120, facecolor="white")

    def place(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self._height - top - height
        return self.figure.add_axes(
            (left / _WIDTH, bottom / self._height, width / _WIDTH, height / self._height)
        )


class _Tile:
    """One image of the report: photograph, overlay and decision."""

    def __init__(self, case: Case, pixels: UInt8Array) -> None:
        self._case, self._pixels = case, pixels

    @property
    def aspect(self) -> float:
        """Width over height."""
        height, width = self._pixels.shape[:2]
        return float(width / height)

    def draw(self, axes: Axes) -> None:
        axes.imshow(self._pixels, interpolation="antialiased")
        axes.set_anchor("NW")
        axes.set_axis_off()
        axes.set_title(
            f"{self._case.ratio:.2f} x threshold: {_cut(self._case.words, 28)}",
            size=10.5,
            color=_WRONG if self._case.wrong else _INK,
            loc="left",
            pad=5,
            parse_math=False,
        )
        axes.annotate(
            _cut(folder_and_name(self._case.sample.path), 42),
            (0, 0),
            xycoords="axes fraction",
            xytext=(0, -5),
            textcoords="offset points",
            size=9,
            color=_FAINT,
            va="top",
            parse_math=False,
        )


def _tile_width() -> float:
    return (_RIGHT - _LEFT - (_TILES - 1) * _TILE_GAP) / _TILES


def _draw_heading(page: _Page, top: float, group: Group) -> None:
    """Draw the heading of a row of tiles, the legend and the colour scale."""
    axes = page.place(_LEFT, top, _RIGHT - _LEFT, 0.2)
    axes.set_axis_off()
    axes.text(0, 0.5, group.heading, size=11.5, weight="bold", color=_INK, va="center")
    marked = any(case.sample.mask is not None for case in group.cases[:_TILES])
    cyan = " (cyan: the marked defect)" if marked else ""
    legend = f"photograph{cyan} and anomaly map (white: where it crosses 1.0)"
    axes.text(0.2, 0.5, legend, size=10, color=_FAINT, va="center")
    axes.text(0.823, 0.5, "x threshold", size=9, color=_FAINT, va="center", ha="right")
    scale = page.place(_RIGHT - 2.4, top + 0.03, 2.35, 0.12)
    labels = LEGENDS[group.colours]
    scale.imshow(
        colour_scale(280, 14, group.colours), extent=(labels[0], labels[-1], 0, 1), aspect="auto"
    )
    scale.axvline(1.0, color=_INK, linewidth=1.5)
    scale.set_yticks([])
    scale.set_xticks(labels)
    scale.tick_params(length=0, labelsize=8.5, colors=_FAINT, pad=2)
    scale.spines[:].set_visible(False)


def _draw_header(axes: Axes, evaluation: Evaluation, title: str) -> None:
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    # parse_math=False: a file name with two dollar signs is not a formula.
    axes.text(
        0, 1.0, _cut(title, 60), size=17, weight="bold", color=_INK, va="top", parse_math=False
    )
    counts = f"{evaluation.n_good} good and {evaluation.n_defective} defective images"
    if evaluation.n_masked:
        counts += f", {evaluation.n_masked} with masks"
    told = f"{verdict(evaluation)} {certainty(evaluation)}"
    lines = f"{counts}; threshold {evaluation.threshold:.4g}\n{textwrap.fill(told, 160)}"
    axes.text(0, 0.58, lines, size=10.5, color=_FAINT, va="top", linespacing=1.5)
    alarms = rate(evaluation.false_alarms, evaluation.n_good)
    figures = [("false alarms", percent(alarms.share))]
    if evaluation.miss_rate is not None:
        figures.append(("missed defects", percent(evaluation.miss_rate)))
    areas = (
        ("image AUROC", evaluation.image_auroc),
        ("pixel AUROC", evaluation.pixel_auroc),
        ("AUPRO (30 %)", evaluation.aupro),
    )
    # What was not measured is left out.
    figures += [(name, f"{value:.3f}") for name, value in areas if value is not None]
    for index, (name, value) in enumerate(reversed(figures)):
        x = 0.95 - 0.111 * index
        axes.text(x, 0.82, value, size=20, weight="bold", color=_INK, va="bottom", ha="center")
        axes.text(x, 0.74, name, size=10.5, color=_FAINT, va="top", ha="center")
    axes.axhline(0, color=_RULE, linewidth=1)


def _draw_histogram(
    axes: Axes, ratios: Float64Array, defective: BoolArray, evaluation: Evaluation
) -> None:
    edges = bar_edges(ratios)
    shown = ratios.clip(edges[0], edges[-1])
    for chosen, colour, name in (
        (~defective, _GOOD, "good"),
        (defective, _DEFECT, "defective"),
    ):
        count = int(chosen.sum())
        if count:
            share = np.full(count, 100.0 / count)
            axes.hist(
                shown[chosen],
                edges.tolist(),
                weights=share.tolist(),
                color=colour,
                alpha=0.62,
                label=f"{name} ({count})",
            )
    axes.axvline(1.0, color=_INK, linewidth=1.4)
    axes.annotate(
        "threshold",
        (1.0, 1.0),
        xycoords=axes.get_xaxis_transform(),
        xytext=(5, -2),
        textcoords="offset points",
        size=10,
        color=_INK,
        va="top",
    )
    if evaluation.best is not None:
        best = evaluation.best.within.threshold / evaluation.threshold
        if edges[0] <= best <= edges[-1] and abs(best - 1) > 0.01:
            axes.axvline(best, color=_BEST, linewidth=1.4, linestyle=(0, (4, 3)))
    axes.set_xlabel(
        "score / threshold" + (" (last bar: all above)" if ratios.max() > edges[-1] else "")
    )
    axes.set_ylabel("share of the images, %")
    axes.set_title("Scores", loc="left", weight="bold", size=11.5, color=_INK)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.02, 0.98), ncols=2)
    axes.set_xlim(edges[0], edges[-1])
    _style(axes)


def _draw_roc(
    axes: Axes,
    ratios: Float64Array,
    defective: BoolArray,
    evaluation: Evaluation,
) -> None:
    axes.set_title("ROC", loc="left", weight="bold", size=11.5, color=_INK)
    axes.plot([0, 1], [0, 1], color=_RULE, linewidth=1, zorder=1)
    if evaluation.miss_rate is None:
        axes.text(0.5, 0.5, "no defective images", ha="center", color=_FAINT)
    else:
        false_positive, true_positive = roc_points(ratios, defective)
        axes.plot(false_positive, true_positive, color=_INK, linewidth=2.2, zorder=2.5)
        axes.fill_between(false_positive, true_positive, color=_INK, alpha=0.05, linewidth=0)
        unjudged = evaluation.not_judged_defective / evaluation.n_defective
        x, y = evaluation.false_alarm_rate, 1 - evaluation.miss_rate - unjudged
        label = f"at the threshold:\n{percent(x)} false alarms\n{percent(y)} found"
        if unjudged:
            label += f"\n{percent(unjudged)} not judged"
        axes.plot(x, y, "o", color=_WRONG, markersize=9, zorder=4, clip_on=False, label=label)
        if evaluation.best is not None:
            _mark_best(axes, evaluation, evaluation.best.within)
        axes.legend(frameon=False, loc="lower right", labelcolor=_INK)
    # Beyond 0 and 1, so that a perfect curve is not hidden on the axes.
    reach = (-ROC_MARGIN, 1 + ROC_MARGIN)
    axes.set(xlim=reach, ylim=reach, aspect="equal", anchor="C")
    axes.set_xlabel("false alarm rate")
    axes.set_ylabel("share of defects found")
    _style(axes)


def _mark_best(axes: Axes, evaluation: Evaluation, best: Operating) -> None:
    """Mark the best threshold for these images on the curve; shares are of the judged ones."""
    x, y = best.false_alarm_rate, 1 - best.miss_rate
    label = (
        f"best for these images,\n{best.threshold!r}:\n{percent(x)} false alarms\n"
        f"{percent(y)} found"
    )
    axes.plot(
        x, y, "D", color=_BEST, markersize=8, zorder=3, clip_on=False, label=label, fillstyle="none"
    )


def _draw_table(axes: Axes, evaluation: Evaluation) -> None:
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_title("By defect", loc="left", weight="bold", size=11.5, color=_INK)
    columns = (
        ("defect", 0.0), ("images", 0.4), ("AUROC", 0.54), ("missed", 0.79), ("not judged", 1.0),
    )  # fmt: skip
    hardest = hardest_first(evaluation)
    rows = [
        (
            printable(row.defect),
            f"{row.n}",
            f"{row.image_auroc:.3f}",
            f"{row.missed} ({percent(row.miss_rate)})",
            f"{row.not_judged}",
        )
        for row in hardest[:_MAX_ROWS]
    ]
    if evaluation.miss_rate is not None:
        missed = f"{evaluation.missed} ({percent(evaluation.miss_rate)})"
        auroc, not_judged = f"{evaluation.image_auroc:.3f}", f"{evaluation.not_judged_defective}"
        rows.append(("all", f"{evaluation.n_defective}", auroc, missed, not_judged))
    step = min(0.095, 0.94 / (_MAX_ROWS + 2))
    for line, cells in enumerate([tuple(name for name, _ in columns), *rows]):
        y = 0.96 - step * line
        last = line == len(rows) and line > 0
        for cell, (_, x) in zip(cells, columns, strict=True):
            axes.text(
                x,
                y,
                _cut(cell, 18),
                ha="left" if x == 0.0 else "right",
                va="center",
                size=10.5,
                color=_FAINT if line == 0 else _INK,
                weight="bold" if last else "normal",
                parse_math=False,
            )
        if line == 0 or line == len(rows) - 1:
            axes.axhline(y - step / 2, color=_RULE, linewidth=1)
    y = 0.96 - step * (len(rows) + 1.2)
    alarms = f"{evaluation.false_alarms} of {evaluation.n_good} good images raise a false alarm"
    if evaluation.not_judged_good:
        alarms += f", {evaluation.not_judged_good} not judged"
    unlisted = len(hardest) - _MAX_ROWS
    if unlisted > 0:
        alarms += f";\n{unlisted} kinds of which fewer are missed are not listed"
    axes.text(0, y, alarms + ".", size=10, color=_FAINT, va="top")


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_RULE)
    axes.tick_params(colors=_FAINT, labelsize=9.5)
    axes.xaxis.label.set_color(_FAINT)
    axes.yaxis.label.set_color(_FAINT)


def _cut(text: str, most: int) -> str:
    text = printable(text)  # fonts have no glyphs for what is escaped, and some refuse it
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"
