"""From raw rows to means and spreads, and to a table of them in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.accuracy.rows import Row
from benchmarks.accuracy.systems import TRIVIAL

RANK = ("ours", "plain-bank", "patchcore", "padim", "efficientad", *TRIVIAL)


class Value(NamedTuple):
    """Mean over seeds, and their standard deviation (None for a single seed)."""

    mean: float
    std: float | None

    def text(self, digits: int = 3, percent: bool = False) -> str:
        """As a cell of the table."""
        unit, scale = ("%", 100) if percent else ("", 1)
        shown = f"{scale * self.mean:.{digits}f}{unit}"
        return shown + ("" if self.std is None else f" ({scale * self.std:.{digits}f})")


def summary(rows: Sequence[Row], figure: str) -> Value | None:
    """A figure of the runs of one system with one number of shots.

    Tasks of one data set are averaged for each seed first. None where no run has the figure.
    """
    seeds: dict[int, list[float]] = {}
    for row in rows:
        if row.get(figure) is not None:
            seeds.setdefault(row["seed"], []).append(row[figure])
    means = [statistics.fmean(values) for values in seeds.values()]
    if not means:
        return None
    return Value(statistics.fmean(means), statistics.stdev(means) if len(means) > 1 else None)


def group_of(row: Row) -> str:
    """The data set, of which the row may hold one task."""
    return str(row["dataset"]).partition("/")[0]


def named(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by what to call their system: its settings stand behind it where it has several."""
    settings: dict[str, set[str]] = {}
    for row in rows:
        settings.setdefault(row["system"], set()).add(row["settings"])
    found: dict[str, list[Row]] = {}
    for row in rows:
        several = len(settings[row["system"]]) > 1
        name = f"{row['system']} ({row['settings'] or 'defaults'})" if several else row["system"]
        found.setdefault(name, []).append(row)
    return dict(sorted(found.items(), key=lambda item: (_rank(item[1][0]["system"]), item[0])))


def markdown(rows: Sequence[Row]) -> str:
    """The whole table."""
    lines = [
        "# Accuracy",
        "",
        "Mean (standard deviation) over seeds; shots are the same for all systems. `colour` and "
        "`pixels` are the image AUROC of the distance to the nearest shot in colour statistics and "
        "in 24x24 raw pixels: a data set that they solve proves nothing. False alarms and misses "
        "are at the threshold that a system chose from the shots alone. A row of fewer runs than "
        "others is over fewer seeds or tasks.",
        "",
        "| system | options or weights |",
        "|---|---|",
    ]
    for system, its in named(rows).items():
        lines.append(f"| {system} | {its[0]['settings'] or 'none'} |")
    for group in dict.fromkeys(map(group_of, rows)):
        its = [row for row in rows if group_of(row) == group]
        tasks = len({row["dataset"] for row in its})
        lines += ["", f"## {group}", ""]
        if tasks > 1:
            lines += [f"Mean over {tasks} tasks, each with another class as the normal one.", ""]
        lines += _data_set(its, named(rows))
    cost = list(_cost(rows))
    if cost:
        lines += ["", "## What the models are", "", *cost]
    return "\n".join(lines) + "\n"


def _data_set(rows: Sequence[Row], systems: dict[str, list[Row]]) -> Iterator[str]:
    yield (
        "| shots | system | image AUROC | colour | pixels | pixel AUROC | AUPRO | false alarms "
        "| misses | runs |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    group = group_of(rows[0])
    notes: dict[str, None] = {}
    only_trivial = all(row["system"] in TRIVIAL for row in rows)
    for shots in sorted({row["shots"] for row in rows}):
        for name, all_rows in systems.items():
            its = [r for r in all_rows if group_of(r) == group and r["shots"] == shots]
            if not its or (its[0]["system"] in TRIVIAL and not only_trivial):
                continue
            done = [row for row in its if "skipped" not in row]
            for row in its:
                if "skipped" in row:
                    notes[f"- {name}: {row['skipped']}"] = None
            same = {(row["dataset"], row["seed"]) for row in its}
            matched = [r for r in rows if r["shots"] == shots and (r["dataset"], r["seed"]) in same]
            cells = [
                _text(summary(done, "image_auroc")) if done else "skipped",
                *(
                    _text(summary([r for r in matched if r["system"] == trivial], "image_auroc"))
                    for trivial in TRIVIAL
                ),
                _text(summary(done, "pixel_auroc")),
                _text(summary(done, "aupro")),
                _text(summary(done, "false_alarm_rate"), 1, True),
                _text(summary(done, "miss_rate"), 1, True),
            ]
            yield f"| {shots} | {name} | {' | '.join(cells)} | {len(done)} |"
    if notes:
        yield from ("", "Skipped:", "", *notes)


def _cost(rows: Sequence[Row]) -> Iterator[str]:
    """What export and training say of the tool's own runs."""
    models = [row for row in rows if "parity" in row]
    if models:
        yield (
            "| data set | system | training, s at most | fine-tuned weights kept | parity, worst "
            "| decisions flipped | MB | model alone, ms |"
        )
        yield "|---|---|---|---|---|---|---|---|"
    for group in dict.fromkeys(map(group_of, models)):
        for name, all_rows in named(models).items():
            its = [row for row in all_rows if group_of(row) == group]
            if not its:
                continue
            kept = sum(bool((row["synthetic_auroc"] or {}).get("kept")) for row in its)
            cells = [
                f"{max(row['training_seconds'] for row in its):.0f}",
                f"{kept} of {len(its)}",
                f"{max(row['parity'] for row in its):.1e}",
                f"{sum(row['flips'] for row in its)}",
                f"{max(row['bytes'] for row in its) / 1e6:.2f}",
                f"{statistics.median(row['model_ms'] for row in its):.1f}",
            ]
            yield f"| {group} | {name} | {' | '.join(cells)} |"


def _text(value: Value | None, digits: int = 3, percent: bool = False) -> str:
    return "–" if value is None else value.text(digits, percent)


def _rank(system: str) -> int:
    name = system.partition(":")[0]
    return RANK.index(name) if name in RANK else len(RANK)
