"""From raw rows to means and standard deviations, as cells of tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.accuracy.rows import Row


class Value(NamedTuple):
    """A mean over seeds and its standard deviation, which is None for a single seed."""

    mean: float
    std: float | None

    def text(self, digits: int = 3, percent: bool = False) -> str:
        """The value as a cell of a table."""
        unit, scale = ("%", 100) if percent else ("", 1)
        shown = f"{scale * self.mean:.{digits}f}{unit}"
        return shown + ("" if self.std is None else f" ({scale * self.std:.{digits}f})")


def summary(rows: Sequence[Row], figure: str) -> Value | None:
    """The value of a figure over the runs of one system with one number of shots.

    The tasks of a data set are averaged for each seed first. None where no run has the figure.
    """
    seeds: dict[int, list[float]] = {}
    for row in rows:
        if row.get(figure) is not None:
            seeds.setdefault(row["seed"], []).append(row[figure])
    means = [statistics.fmean(values) for values in seeds.values()]
    if not means:
        return None
    return Value(statistics.fmean(means), statistics.stdev(means) if len(means) > 1 else None)


def cell(rows: Sequence[Row], figure: str, digits: int = 3, percent: bool = False) -> str:
    """The value of a figure as a cell of a table; a dash where no run has it."""
    value = summary(rows, figure)
    return "–" if value is None else value.text(digits, percent)
