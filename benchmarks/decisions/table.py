"""The table of decisions in Markdown: one row for each data set, and the mean of all."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.accuracy.cells import summary
from benchmarks.accuracy.rows import Row
from benchmarks.accuracy.table import group_of

#: Figures of a row and their headings; all but the first are shares, printed in per cent.
COLUMNS = {
    "image_auroc": "AUROC",
    "false_alarms": "false alarms",
    "misses": "misses",
    "best_misses": "misses, best threshold at ≤ 2 % false alarms",
    "examples_false_alarms": "false alarms, 3 good and 3 bad examples",
    "examples_misses": "misses with them",
    "examples_misses_worst_tenth": "misses, worst tenth of them",
    "p_at_most_0.01": "good with p ≤ 0.01",
    "p_at_most_0.002": "good with p ≤ 0.002",
}


def table(rows: Sequence[Row]) -> str:
    """A table of the means over the seeds, and of the worst seed's false alarms."""
    groups = dict.fromkeys(map(group_of, rows))
    seeds = len({row["seed"] for row in rows})
    lines = [
        f"{len(rows)} models of {len(groups)} data sets, {seeds} draws of the shots.",
        "",
        f"| data set | turned | {' | '.join(COLUMNS.values())} | worst draw's false alarms |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    means: dict[str, list[float]] = {name: [] for name in COLUMNS}
    for group in groups:
        of_group = [row for row in rows if group_of(row) == group]
        cells = []
        for name in COLUMNS:
            value = summary(of_group, name)
            cells.append("–" if value is None else _cell(name, value.mean))
            if value is not None:
                means[name].append(value.mean)
        turned = sum(row["turned"] for row in of_group)
        worst = max(row["false_alarms"] for row in of_group)
        start = f"| {group} | {turned} of {len(of_group)} "
        lines.append(f"{start}| {' | '.join(cells)} | {worst:.1%} |")
    cells = [
        _cell(name, statistics.fmean(values)) if values else "–" for name, values in means.items()
    ]
    lines.append(f"| mean | | {' | '.join(cells)} | |")
    return "\n".join([*lines, ""])


def _cell(name: str, value: float) -> str:
    return f"{value:.3f}" if name == "image_auroc" else f"{value:.1%}"
