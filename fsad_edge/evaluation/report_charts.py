"""The charts of a report's page, as SVG that takes its colours from the page."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fsad_edge.evaluation.best_threshold import Operating
from fsad_edge.evaluation.figures import Evaluation
from fsad_edge.evaluation.report_words import in_use, percent
from fsad_edge.evaluation.roc import ROC_MARGIN, roc_points
from fsad_edge.runtime.arrays import BoolArray, Float64Array

#: The plotted area in units of the drawing: left, top, right, bottom.
_LEFT, _TOP, _RIGHT, _BOTTOM = 46.0, 24.0, 410.0, 284.0
_WIDTH, _HEIGHT = 420, 332
_MAX_RATIO = 4.0  # end of the histogram; higher ratios to the threshold count in its last bar
_BARS = 40


def roc_chart(scores: Float64Array, defective: BoolArray, figures: Evaluation) -> str:
    """The ROC curve with the threshold in use and the best one; needs both kinds of images."""
    alarms, found = roc_points(scores, defective)

    def place(x: float, y: float) -> tuple[float, float]:
        reach = 1 + 2 * ROC_MARGIN
        return (
            _LEFT + (x + ROC_MARGIN) / reach * (_RIGHT - _LEFT),
            _BOTTOM - (y + ROC_MARGIN) / reach * (_BOTTOM - _TOP),
        )

    corners = _points(place(x, y) for x, y in zip(alarms, found, strict=True))
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    across = [(place(tick, 0)[0], f"{100 * tick:.0f} %") for tick in ticks]
    up = [(place(0, tick)[1], f"{100 * tick:.0f} %") for tick in ticks]
    inside = _points([*(place(x, y) for x, y in zip(alarms, found, strict=True)), place(1, 0)])
    now = in_use(figures)
    parts = [
        _frame(across, up, "good parts rejected", "defects rejected"),
        f'<polyline class="chance" points="{_points([place(0, 0), place(1, 1)])}"/>',
        f'<polygon class="under" points="{_points([place(0, 0)])} {inside}"/>',
        f'<polyline class="curve" points="{corners}"/>',
    ]
    if figures.best is not None:
        x, y = place(*_rates(figures.best.within))
        parts.append(
            f'<rect class="best" x="{x - 7:.1f}" y="{y - 7:.1f}" width="14" height="14" '
            f'transform="rotate(45 {x:.1f} {y:.1f})"/>'
        )
    x, y = place(*_rates(now))
    parts.append(f'<circle class="now" cx="{x:.1f}" cy="{y:.1f}" r="6"/>')
    label = (
        f"ROC curve. At the threshold in use {percent(now.false_alarm_rate)} of the good parts and "
        f"{percent(1 - now.miss_rate)} of the defective ones are rejected."
    )
    return _drawing(label, parts)


def _rates(one: Operating) -> tuple[float, float]:
    return one.false_alarm_rate, 1 - one.miss_rate


def histogram(scores: Float64Array, defective: BoolArray, figures: Evaluation) -> str:
    """The scores of good and of defective images, with the threshold and the best one."""
    ratios = scores / figures.threshold
    edges = bar_edges(ratios)
    lowest, highest = float(edges[0]), float(edges[-1])
    shown = ratios.clip(edges[0], edges[-1])
    shares = [
        np.histogram(shown[kind], edges)[0] * (100.0 / max(1, int(kind.sum())))
        for kind in (~defective, defective)
    ]
    top = max(1.0, float(max(share.max() for share in shares)) * 1.05)

    def across(ratio: float) -> float:
        return _LEFT + (ratio - lowest) / (highest - lowest) * (_RIGHT - _LEFT)

    def up(share: float) -> float:
        return _BOTTOM - share / top * (_BOTTOM - _TOP)

    step = _step(edges[-1] - edges[0], 6)
    first = np.ceil(edges[0] / step) * step
    marks = np.arange(first, edges[-1] + 1e-9, step)
    height = _step(top, 5)
    name = "score / threshold" + (" (last bar: all above)" if ratios.max() > edges[-1] else "")
    parts = [
        _frame(
            [(across(float(mark)), f"{mark:.10g}") for mark in marks],
            [(up(float(mark)), f"{mark:.10g} %") for mark in np.arange(0, top, height)],
            name,
            "share of the images",
        )
    ]
    for share, kind in zip(shares, ("good", "bad"), strict=True):
        bars = "".join(
            f"M{across(left):.1f} {_BOTTOM}V{up(value):.1f}H{across(right):.1f}V{_BOTTOM}Z"
            for value, left, right in zip(share, edges, edges[1:], strict=False)
            if value
        )
        parts.append(f'<path class="{kind}" d="{bars}"/>')
    if figures.best is not None:
        best = figures.best.within.threshold / figures.threshold
        if edges[0] <= best <= edges[-1] and abs(best - 1) > 0.01:
            parts.append(_upright("other", across(best)))
    parts.append(_upright("threshold", across(1.0)))
    good, bad = int((~defective).sum()), int(defective.sum())
    return _drawing(f"Scores of {good} good and {bad} defective images.", parts)


def bar_edges(ratios: Float64Array) -> Float64Array:
    """The edges of the histogram's bars. One is at 1.0, so that no bar holds scores from both sides
    of the threshold."""
    highest = min(_MAX_RATIO, max(1.25, float(ratios.max()) * 1.02))
    lowest = max(0.0, min(0.9, float(ratios.min()) * 0.97))
    width = (highest - lowest) / _BARS
    below = np.arange(1.0, lowest - width, -width)[::-1]
    return np.concatenate([below, np.arange(1.0 + width, highest + width, width)])


def _drawing(label: str, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg>"
    )


def _frame(
    across: list[tuple[float, str]], up: list[tuple[float, str]], below: str, beside: str
) -> str:
    """Both axes with their marks and names."""
    parts = [
        f'<path class="axes" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>',
        *(
            f'<text x="{x:.1f}" y="{_BOTTOM + 17}" text-anchor="middle">{mark}</text>'
            for x, mark in across
        ),
        *(
            f'<path class="rule" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>'
            f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{mark}</text>'
            for y, mark in up
        ),
        f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_BOTTOM + 38}" text-anchor="middle">{below}</text>',
        f'<text x="0" y="{_TOP - 10}">{beside}</text>',
    ]
    return "".join(parts)


def _upright(kind: str, x: float) -> str:
    return f'<path class="{kind}" d="M{x:.1f} {_TOP}V{_BOTTOM}"/>'


def _points(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _step(reach: float, most: int) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that divides a range into few parts."""
    power = 10.0 ** np.floor(np.log10(reach / most))
    return float(next(power * one for one in (1, 2, 5, 10) if power * one * most >= reach))
