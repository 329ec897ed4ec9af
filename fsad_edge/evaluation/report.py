"""One picture of an evaluation: figures, histogram, ROC curve and the worst mistakes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import roc_curve

from fsad_edge.evaluation.best_threshold import Operating
from fsad_edge.evaluation.dataset import Sample
from fsad_edge.evaluation.figures import Evaluation, Scored, decide
from fsad_edge.evaluation.masks import Mask
from fsad_edge.options import Decision, HeatScale
from fsad_edge.runtime.arrays import BoolArray, Float64Array, UInt8Array
from fsad_edge.runtime.files import folder_and_name, write_bytes
from fsad_edge.runtime.heatmap import LEGENDS, colour_scale, overlay, shrink, upsample
from fsad_edge.runtime.image_scale import UNASKED, ImageScale
from fsad_edge.runtime.images import load_image
from fsad_edge.runtime.own_pictures import MARK
from fsad_edge.runtime.plain_text import printable

# A matplotlib Figure that is created without pyplot draws with Agg and changes no global state.

_INK, _FAINT, _RULE = "#1c2026", "#68707a", "#d5d9de"
_GOOD, _DEFECT, _WRONG = "#2a6fb0", "#d9730d", "#be1e2d"
_MASK, _BEST = "#35e0e8", "#1d7a4c"

# Lengths in inches. The height of the picture follows from the shapes of the photographs in it.
_WIDTH, _LEFT, _RIGHT, _CHARTS = 15.0, 0.7, 14.7, 3.6
_TILES, _TILE_GAP, _TILE_HEIGHT = 4, 0.22, 3.2  # tiles in a row, gap between them, largest height
_TILE_SIDE = 300  # longer side of a photograph in a tile, in pixels; a tile can show no more
_MAX_ROWS = 11  # kinds of defects in the table
_MAX_RATIO = 4.0  # end of the histogram; higher ratios to the threshold count in its last bin


#: The headings of the rows of images, and their colours: a defect that was missed shows nothing
#: near the threshold, but perhaps something below it.
HIGHEST_GOOD, LOWEST_DEFECTS = "Good parts that score highest", "Defects that score lowest"
COLOURS = {HIGHEST_GOOD: HeatScale.THRESHOLD, LOWEST_DEFECTS: HeatScale.NEAR}


def write_report(
    evaluation: Evaluation,
    samples: Sequence[Sample],
    results: Sequence[Scored],
    path: Path,
    title: str = "Evaluation",
    scale: ImageScale = UNASKED,
) -> None:
    """Write the report as a PNG. The file is complete or is not written at all.

    Args:
        evaluation: the figures of these samples and results.
        samples: the samples given to :func:`fsad_edge.evaluation.evaluate_results`.
        results: one result for each sample, in the same order.
        path: the PNG to write; an existing file is replaced.
        title: the headline: which model was evaluated on which dataset.
        scale: the model's, for images of more than 8 bits.

    Raises:
        InputError: the file cannot be written, or an image or a mask can no longer be read.
    """
    ratios = np.array([result.score for result in results]) / evaluation.threshold
    defective = np.array([sample.defect is not None for sample in samples])
    worst_first = np.argsort(-ratios, kind="stable")
    chosen = {
        HIGHEST_GOOD: worst_first[~defective[worst_first]][:_TILES],
        LOWEST_DEFECTS: worst_first[defective[worst_first]][::-1][:_TILES],
    }
    rows = {
        heading: [
            _Tile(samples[i], results[i], evaluation.threshold, scale, COLOURS[heading])
            for i in indices
        ]
        for heading, indices in chosen.items()
        if len(indices)
    }
    heights = {
        heading: min(_TILE_HEIGHT, max(_tile_width() / tile.aspect for tile in tiles))
        for heading, tiles in rows.items()
    }
    page = _Page(height=1.35 + _CHARTS + 1.0 + sum(height + 1.2 for height in heights.values()))
    _draw_header(page.place(_LEFT, 0.3, _RIGHT - _LEFT, 0.85), evaluation, title)
    top = 1.75
    _draw_histogram(page.place(_LEFT, top, 4.7, _CHARTS), ratios, defective, evaluation)
    _draw_roc(page.place(6.1, top, _CHARTS, _CHARTS), ratios, defective, evaluation)
    _draw_table(page.place(10.2, top, _RIGHT - 10.2, _CHARTS), evaluation)
    top += _CHARTS + 0.85
    for heading, tiles in rows.items():
        marked = any(tile.marked for tile in tiles)
        _draw_heading(page, top, heading, marked, COLOURS[heading])
        for index, tile in enumerate(tiles):
            left = _LEFT + index * (_tile_width() + _TILE_GAP)
            tile.draw(page.place(left, top + 0.56, _tile_width(), heights[heading]))
        top += heights[heading] + 1.2
    buffer = io.BytesIO()
    page.figure.savefig(buffer, format="png", metadata={"Software": MARK})
    write_bytes(path, buffer.getvalue())


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

    def __init__(
        self,
        sample: Sample,
        result: Scored,
        threshold: float,
        scale: ImageScale,
        colours: HeatScale,
    ) -> None:
        self._sample = sample
        self._ratio = result.score / threshold
        self._decision = decide(result, threshold)
        self._image = shrink(load_image(sample.path, scale), _TILE_SIDE)
        self._pair = _pair(
            self._image, overlay(self._image, result.anomaly_map, result.map_threshold, colours)
        )

    @property
    def aspect(self) -> float:
        """Width over height."""
        height, width = self._pair.shape[:2]
        return float(width / height)

    @property
    def marked(self) -> bool:
        """Whether a mask marks the defect."""
        return self._sample.mask is not None

    def draw(self, axes: Axes) -> None:
        axes.imshow(self._pair, interpolation="antialiased")
        axes.set_anchor("NW")
        axes.set_axis_off()
        if self._sample.mask is not None:
            _outline(axes, self._sample.mask, *self._image.shape[:2])
        wrong, verdict = self._verdict()
        axes.set_title(
            f"{self._ratio:.2f} x threshold: {_cut(verdict, 28)}",
            size=10.5,
            color=_WRONG if wrong else _INK,
            loc="left",
            pad=5,
            parse_math=False,
        )
        axes.annotate(
            _cut(folder_and_name(self._sample.path), 42),
            (0, 0),
            xycoords="axes fraction",
            xytext=(0, -5),
            textcoords="offset points",
            size=9,
            color=_FAINT,
            va="top",
            parse_math=False,
        )

    def _verdict(self) -> tuple[bool, str]:
        """Whether the decision is wrong, and what it is in words."""
        defect, decision = self._sample.defect, self._decision
        if decision is Decision.NOT_JUDGED:
            return False, decision.words if defect is None else f"{defect}, {decision.words}"
        alarm = decision is Decision.ANOMALY
        if defect is None:
            return alarm, "false alarm" if alarm else "passed"
        return not alarm, f"{defect}, {'found' if alarm else 'missed'}"


def _tile_width() -> float:
    return (_RIGHT - _LEFT - (_TILES - 1) * _TILE_GAP) / _TILES


def _draw_heading(page: _Page, top: float, heading: str, marked: bool, colours: HeatScale) -> None:
    """Draw the heading of a row of tiles, the legend and the colour scale."""
    axes = page.place(_LEFT, top, _RIGHT - _LEFT, 0.2)
    axes.set_axis_off()
    axes.text(0, 0.5, heading, size=11.5, weight="bold", color=_INK, va="center")
    cyan = " (cyan: the marked defect)" if marked else ""
    legend = f"photograph{cyan} and anomaly map (white: where it crosses 1.0)"
    axes.text(0.2, 0.5, legend, size=10, color=_FAINT, va="center")
    axes.text(0.823, 0.5, "x threshold", size=9, color=_FAINT, va="center", ha="right")
    scale = page.place(_RIGHT - 2.4, top + 0.03, 2.35, 0.12)
    labels = LEGENDS[colours]
    scale.imshow(
        colour_scale(280, 14, colours), extent=(labels[0], labels[-1], 0, 1), aspect="auto"
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
    threshold = f"threshold {evaluation.threshold:.4g}"
    not_judged = evaluation.not_judged_good, evaluation.not_judged_defective
    if any(not_judged):
        threshold += f"; not judged: {not_judged[0]} good and {not_judged[1]} defective"
    axes.text(0, 0.55, f"{counts}\n{threshold}", size=10.5, color=_FAINT, va="top", linespacing=1.5)
    figures = [
        ("image AUROC", _number(evaluation.image_auroc)),
        ("pixel AUROC", _number(evaluation.pixel_auroc)),
        ("AUPRO (30 %)", _number(evaluation.aupro)),
        ("false alarms", _percent(evaluation.false_alarm_rate)),
        ("missed defects", _percent(evaluation.miss_rate)),
    ]
    for index, (name, value) in enumerate(figures):
        x = 0.50 + 0.111 * index
        axes.text(x, 0.52, value, size=20, weight="bold", color=_INK, va="bottom", ha="center")
        axes.text(x, 0.42, name, size=10.5, color=_FAINT, va="top", ha="center")
    axes.axhline(0, color=_RULE, linewidth=1)


def _draw_histogram(
    axes: Axes, ratios: Float64Array, defective: BoolArray, evaluation: Evaluation
) -> None:
    highest = min(_MAX_RATIO, max(1.25, float(ratios.max()) * 1.02))
    lowest = max(0.0, min(0.9, float(ratios.min()) * 0.97))
    # One edge is at 1.0, so that no bar contains scores from both sides of the threshold.
    width = (highest - lowest) / 44
    below = np.arange(1.0, lowest - width, -width)[::-1]
    edges = np.concatenate([below, np.arange(1.0 + width, highest + width, width)])
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
        "score / threshold" + (" (last bar: all above)" if ratios.max() > highest else "")
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
        false_positive, true_positive, _ = roc_curve(defective, ratios)
        axes.plot(false_positive, true_positive, color=_INK, linewidth=1.8)
        axes.fill_between(false_positive, true_positive, color=_INK, alpha=0.05, linewidth=0)
        unjudged = evaluation.not_judged_defective / evaluation.n_defective
        x, y = evaluation.false_alarm_rate, 1 - evaluation.miss_rate - unjudged
        label = f"at the threshold:\n{_percent(x)} false alarms\n{_percent(y)} found"
        if unjudged:
            label += f"\n{_percent(unjudged)} not judged"
        axes.plot(x, y, "o", color=_WRONG, markersize=9, zorder=4, clip_on=False, label=label)
        if evaluation.best is not None:
            _mark_best(axes, evaluation, evaluation.best.within)
        axes.legend(frameon=False, loc="lower right", labelcolor=_INK)
    axes.set(xlim=(0, 1), ylim=(0, 1.0), aspect="equal", anchor="C")
    axes.set_xlabel("false alarm rate")
    axes.set_ylabel("share of defects found")
    _style(axes)


def _mark_best(axes: Axes, evaluation: Evaluation, best: Operating) -> None:
    """Mark the best threshold for these images on the curve; shares are of the judged ones."""
    x, y = best.false_alarm_rate, 1 - best.miss_rate
    label = (
        f"best for these images,\n{best.threshold!r}:\n{_percent(x)} false alarms\n"
        f"{_percent(y)} found"
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
    hardest = sorted(evaluation.by_defect, key=lambda row: row.image_auroc)
    rows = [
        (
            printable(row.defect),
            f"{row.n}",
            f"{row.image_auroc:.3f}",
            f"{row.missed} ({_percent(row.miss_rate)})",
            f"{row.not_judged}",
        )
        for row in hardest[:_MAX_ROWS]
    ]
    if evaluation.miss_rate is not None:
        missed = f"{evaluation.missed} ({_percent(evaluation.miss_rate)})"
        auroc, not_judged = _number(evaluation.image_auroc), f"{evaluation.not_judged_defective}"
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
        alarms += f";\n{unlisted} kinds that are easier to find are not listed"
    axes.text(0, y, alarms + ".", size=10, color=_FAINT, va="top")


def _pair(image: UInt8Array, marked: UInt8Array) -> UInt8Array:
    """Image and overlay on white: wide images are stacked, others are side by side."""
    height, width = image.shape[:2]
    axis = 0 if width > 1.8 * height else 1
    gap = max(2, max(height, width) // 50)
    shape = (gap, width, 3) if axis == 0 else (height, gap, 3)
    return np.concatenate([image, np.full(shape, 255, dtype=np.uint8), marked], axis=axis)


def _outline(axes: Axes, mask: Mask, height: int, width: int) -> None:
    """Outline the defect on an image of ``height`` x ``width`` pixels at the origin."""
    marked = mask.read()
    if not marked.any():
        return
    fitted = upsample(marked.astype(np.float32), height, width, Image.Resampling.BILINEAR)
    # The border closes the outline at the image's edge. The level is half of the peak, so that a
    # defect of a few pixels is still outlined after shrinking.
    bordered = np.pad(fitted, 1)
    axes.contour(
        np.arange(-1, width + 1).clip(0, width - 1),
        np.arange(-1, height + 1).clip(0, height - 1),
        bordered,
        levels=[float(fitted.max()) / 2],
        colors=[_MASK],
        linewidths=1.1,
    )


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_RULE)
    axes.tick_params(colors=_FAINT, labelsize=9.5)
    axes.xaxis.label.set_color(_FAINT)
    axes.yaxis.label.set_color(_FAINT)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _percent(rate: float | None) -> str:
    return "n/a" if rate is None else f"{100 * rate:.1f} %"


def _cut(text: str, most: int) -> str:
    text = printable(text)  # fonts have no glyphs for what is escaped, and some refuse it
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"
