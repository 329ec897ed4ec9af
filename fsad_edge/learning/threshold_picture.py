"""A picture of a threshold: what is known of good and bad parts' scores, and where it lies.

This needs numpy and Pillow only.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fsad_edge.calibration.prediction import Prediction
from fsad_edge.calibration.threshold import percent
from fsad_edge.options import Choice
from fsad_edge.runtime.own_pictures import marked
from fsad_edge.runtime.plain_text import printable

#: It is drawn this many times larger and then made smaller, for smooth edges.
_FINE = 2

# Lengths in pixels of the picture.
_WIDTH, _LEFT, _RIGHT = 1180, 210, 1140
_HEAD, _BAND, _CURVE, _AXIS, _LINE = 142, 26, 84, 74, 24
_MARK, _LANES, _ROW_PAD = 5.5, 12, 11

#: The axis ends at these multiples of the threshold; what lies beyond is drawn at its ends.
_FARTHEST = 8.0

Colour = tuple[int, int, int]

_PAPER, _INK, _FAINT, _RULE = (255, 255, 255), (28, 32, 38), (104, 112, 122), (213, 217, 222)
_GOOD, _BAD, _WRONG = (42, 111, 176), (217, 115, 13), (190, 30, 45)
_CURVE_GOOD, _CURVE_WRONG, _BEYOND = (205, 222, 240), (240, 178, 184), (252, 244, 243)


class Shape(Choice):
    """The mark of a score."""

    DOT = "dot"  # a good part
    DIAMOND = "diamond"  # a bad part


@dataclass(frozen=True)
class Mark:
    """One score.

    Attributes:
        score: the score.
        wrong: whether the threshold decides it wrongly.
        counts: whether it says something of other parts; else it is drawn hollow.
    """

    score: float
    wrong: bool = False
    counts: bool = True


@dataclass(frozen=True)
class Row:
    """Scores of one kind.

    Attributes:
        label: what they are of.
        shape: how they are marked.
        marks: the scores; a row without any is left out.
    """

    label: str
    shape: Shape
    marks: Sequence[Mark]


@dataclass(frozen=True)
class ThresholdView:
    """What the picture shows.

    Attributes:
        title: the headline.
        subtitle: where the threshold came from.
        threshold: the threshold, above 0.
        name: what it is called at its line.
        others: other thresholds and what they are called.
        prediction: what is expected of good parts; None where nothing is known.
        rows: the scores.
        notes: sentences below.
    """

    title: str
    subtitle: str
    threshold: float
    name: str
    others: Sequence[tuple[float, str]]
    prediction: Prediction | None
    rows: Sequence[Row]
    notes: Sequence[str]


def draw_threshold(view: ThresholdView) -> bytes:
    """Draw a threshold among scores on one logarithmic axis.

    Returns:
        an encoded PNG.

    Example:
        >>> row = Row("shots", Shape.DOT, [Mark(0.1), Mark(0.12)])
        >>> view = ThresholdView("part", "", 0.2, "threshold", [], None, [row], [])
        >>> draw_threshold(view)[1:4]
        b'PNG'
    """
    picture = _Picture(view).draw()
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **marked("PNG"))
    return buffer.getvalue()


class _Picture:
    """One picture while it is drawn; lengths are pixels of the finished one."""

    def __init__(self, view: ThresholdView) -> None:
        self._view = view
        self._rows = [row for row in view.rows if row.marks]
        self._low, self._high = _ends(view, self._rows)
        self._places = [self._lanes(row) for row in self._rows]
        self._heights = [
            max(34.0, (1 + max(lane for _, lane in places)) * _LANES + 2 * _ROW_PAD)
            for places in self._places
        ]
        curve = _CURVE if view.prediction is not None else 0
        self._bottom = _HEAD + _BAND + curve + sum(self._heights)
        notes = [*view.notes, *self._legend()]
        self._notes = _wrapped(notes, _WIDTH - 60, _font(15))
        height = self._bottom + _AXIS + len(self._notes) * _LINE + 12
        self._image = Image.new("RGB", (_WIDTH * _FINE, round(height) * _FINE), _PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def draw(self) -> Image.Image:
        view, top = self._view, float(_HEAD)
        self._rect(self._x(view.threshold), top, _RIGHT, self._bottom, _BEYOND)
        self._text(30, 30, view.title, 23, _INK)
        self._text(30, 58, view.subtitle, 15, _FAINT)
        edge = self._x(view.threshold)
        self._text(edge - 8, top + 13, "passes", 14, _FAINT, anchor="rm")
        self._text(edge + 8, top + 13, "is rejected", 14, _FAINT)
        top += _BAND
        if view.prediction is not None:
            self._curve(view.prediction, top, top + _CURVE - 10)
            top += _CURVE
        self._axis()
        for row, places, height in zip(self._rows, self._places, self._heights, strict=True):
            self._line(_LEFT, top, _RIGHT, top, _RULE)
            self._row(row, places, top, height)
            top += height
        self._thresholds()
        for number, words in enumerate(self._notes):
            self._text(30, self._bottom + _AXIS + number * _LINE, words, 15, _INK)
        size = (_WIDTH, self._image.height // _FINE)
        return self._image.resize(size, Image.Resampling.LANCZOS)

    def _legend(self) -> list[str]:
        """What red, hollow and outermost marks mean, where there are any."""
        marks = [mark for row in self._rows for mark in row.marks]
        words = []
        if any(mark.wrong for mark in marks):
            words.append("Red marks are decided wrongly.")
        if any(not mark.counts for mark in marks):
            words.append(
                "Hollow marks do not count for the threshold: the model holds such an image, or "
                "does not judge it."
            )
        ends = math.exp(self._low), math.exp(self._high)
        if any(not ends[0] <= mark.score <= ends[1] for mark in marks):
            words.append("Marks at an end of the axis lie farther out.")
        return [" ".join(words)] if words else []

    def _x(self, score: float) -> float:
        """The place of a score on the axis."""
        share = (math.log(max(score, 1e-9)) - self._low) / (self._high - self._low)
        return _LEFT + min(max(share, 0.0), 1.0) * (_RIGHT - _LEFT)

    def _lanes(self, row: Row) -> list[tuple[Mark, int]]:
        """Marks that would hide one another go into lanes; with many, lanes are used again."""
        ends: list[float] = []
        places = []
        for mark in sorted(row.marks, key=lambda mark: mark.score):
            x = self._x(mark.score)
            free = [lane for lane, end in enumerate(ends) if end <= x]
            if free:
                lane = free[0]
            elif len(ends) < 9:
                lane = len(ends)
                ends.append(0.0)
            else:
                lane = int(np.argmin(ends))
            ends[lane] = x + 2 * _MARK + 1
            places.append((mark, lane))
        return places

    def _row(self, row: Row, places: list[tuple[Mark, int]], top: float, height: float) -> None:
        middle = top + height / 2
        self._text(30, middle, f"{row.label} ({len(places)})", 15, _INK, room=_LEFT - 44)
        lanes = 1 + max(lane for _, lane in places)
        for mark, lane in places:
            y = middle + (lane - (lanes - 1) / 2) * _LANES
            colour = _WRONG if mark.wrong else _GOOD if row.shape is Shape.DOT else _BAD
            self._mark(row.shape, self._x(mark.score), y, colour, mark.counts)

    def _mark(self, shape: Shape, x: float, y: float, colour: Colour, filled: bool) -> None:
        fill = colour if filled else _PAPER
        if shape is Shape.DOT:
            box = [(x - _MARK) * _FINE, (y - _MARK) * _FINE, (x + _MARK) * _FINE]
            self._draw.ellipse((*box, (y + _MARK) * _FINE), fill, colour, 3)
            return
        reach = _MARK * 1.25
        corners = [(x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y)]
        points = [(a * _FINE, b * _FINE) for a, b in corners]
        self._draw.polygon(points, fill, colour, 3)

    def _curve(self, prediction: Prediction, top: float, bottom: float) -> None:
        """The distribution of good parts' scores, and the share of it above the threshold."""
        xs = np.linspace(_LEFT, _RIGHT, 2 * (_RIGHT - _LEFT))
        logs = self._low + (xs - _LEFT) / (_RIGHT - _LEFT) * (self._high - self._low)
        shares = (1 + ((logs - prediction.mean) / prediction.width) ** 2 / prediction.dof) ** (
            -(prediction.dof + 1) / 2
        )
        edge = self._x(self._view.threshold)
        for x, share in zip(xs, shares, strict=True):
            colour = _CURVE_GOOD if x <= edge else _CURVE_WRONG
            height = float(share) * (bottom - top)
            self._line(float(x), bottom - height, float(x), bottom, colour)
        above = percent(prediction.share_above(self._view.threshold))
        self._text(30, bottom - 24, "Good parts,", 15, _INK)
        self._text(30, bottom - 6, "as expected", 15, _INK)
        words = f"{above} of good parts are expected here"
        short = _font(14).getlength(words) > _RIGHT - edge - 12
        self._text(edge + 8, bottom - 12, above if short else words, 14, _WRONG)

    def _thresholds(self) -> None:
        """The lines of the thresholds and their names above them."""
        view = self._view
        lines = [(view.threshold, view.name, _INK), *((*one, _FAINT) for one in view.others)]
        taken: list[tuple[float, float, int]] = []
        for score, name, colour in lines:
            x = self._x(score)
            if colour is _INK:
                self._line(x, _HEAD - 8, x, self._bottom, colour, 2)
            else:
                for y in np.arange(_HEAD - 8, self._bottom, 9):
                    self._line(x, float(y), x, min(float(y) + 5, self._bottom), colour, 1.5)
            words = f"{name} {score:.4g}"
            half = _font(14).getlength(words) / 2 + 6
            middle = min(max(x, half), _WIDTH - half)
            level = 0
            while any(
                level == other and middle - half < right and left < middle + half
                for left, right, other in taken
            ):
                level += 1
            taken.append((middle - half, middle + half, level))
            self._text(middle, _HEAD - 18 - 18 * level, words, 14, colour, anchor="mm")

    def _axis(self) -> None:
        """Scores below the rows and, below these, how many times the threshold they are."""
        self._line(_LEFT, self._bottom, _RIGHT, self._bottom, _FAINT)
        for unit, y, words in (
            (1.0, self._bottom + 14, "score"),
            (self._view.threshold, self._bottom + 36, "times the threshold"),
        ):
            self._text(_LEFT - 12, y, words, 13, _FAINT, anchor="rm")
            for tick in _ticks(math.exp(self._low) / unit, math.exp(self._high) / unit):
                x = self._x(tick * unit)
                self._text(x, y, f"{tick:g}", 13, _FAINT, anchor="mm")
                if unit == 1.0:
                    self._line(x, self._bottom, x, self._bottom + 5, _FAINT)

    def _text(
        self,
        x: float,
        y: float,
        words: str,
        size: int,
        colour: Colour,
        anchor: str = "lm",
        room: float | None = None,
    ) -> None:
        font, words = _font(size * _FINE), printable(words)
        if room is not None:
            while len(words) > 4 and font.getlength(words) > room * _FINE:
                words = words[:-4] + "..."
        self._draw.text((x * _FINE, y * _FINE), words, colour, font, anchor)

    def _line(
        self, x: float, y: float, right: float, bottom: float, colour: Colour, width: float = 1
    ) -> None:
        ends = [(x * _FINE, y * _FINE), (right * _FINE, bottom * _FINE)]
        self._draw.line(ends, colour, round(width * _FINE))

    def _rect(self, x: float, y: float, right: float, bottom: float, colour: Colour) -> None:
        self._draw.rectangle((x * _FINE, y * _FINE, right * _FINE, bottom * _FINE), colour)


def _ends(view: ThresholdView, rows: Sequence[Row]) -> tuple[float, float]:
    """Logarithms of the axis's ends: all that is shown, and some room on both sides."""
    scores = [mark.score for row in rows for mark in row.marks]
    scores += [view.threshold, *(score for score, _ in view.others)]
    if view.prediction is not None:
        reach = 3.5 * view.prediction.width
        scores += [math.exp(view.prediction.mean - reach), math.exp(view.prediction.mean + reach)]
    middle, most = math.log(view.threshold), math.log(_FARTHEST)
    logs = [math.log(max(score, 1e-9)) for score in scores]
    low, high = max(min(logs), middle - most), min(max(logs), middle + most)
    room = max(0.04 * (high - low), 0.05)
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis, about ten of them."""
    steps: tuple[float, ...] = (1, 2, 5)
    if high / low < 12:
        steps = (1, 1.5, 2, 3, 4, 5, 7)
    if high / low < 4:
        steps = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{step * 10.0**decade:.4g}") for decade in decades for step in steps]
    return [tick for tick in ticks if low <= tick <= high]


def _wrapped(sentences: Sequence[str], room: float, font: ImageFont.FreeTypeFont) -> list[str]:
    """Sentences as lines that fit."""
    lines = []
    for sentence in sentences:
        line = ""
        for word in sentence.split():
            longer = f"{line} {word}" if line else word
            if line and font.getlength(longer) > room:
                lines.append(line)
                longer = f"    {word}"
            line = longer
        lines.append(line)
    return lines


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow is built with FreeType everywhere
    return font
