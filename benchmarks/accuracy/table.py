"""From raw rows to tables of their means and standard deviations in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from benchmarks.accuracy.cells import cell
from benchmarks.accuracy.field import FIELDS
from benchmarks.accuracy.field_table import field_table
from benchmarks.accuracy.rows import Row
from benchmarks.accuracy.systems import BASELINES

#: Order of the systems in the tables.
ORDER = ("ours", "plain-bank", "patchcore", "padim", "efficientad", *BASELINES)


def group_of(row: Row) -> str:
    """The data set of a row, which may be one of its tasks."""
    return str(row["dataset"]).partition("/")[0]


def named(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each system by its name, which includes the settings if they are not unique."""
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
    """All tables as one document."""
    systems = named(rows)
    lines = [
        "# Accuracy",
        "",
        "Mean (standard deviation) over random seeds. All systems get the same shots. `colour` and "
        "`pixels` are the image AUROC of two baselines, the distance to the nearest shot in colour "
        "statistics and in 24x24 raw pixels: a data set that they solve proves little. False "
        "alarms and misses are at the threshold that a system chose from the shots alone. A row "
        "with fewer runs than others covers fewer seeds or tasks.",
        "",
        "| system | options or weights |",
        "|---|---|",
    ]
    lines += [f"| {name} | {of[0]['settings'] or 'none'} |" for name, of in systems.items()]
    for group in dict.fromkeys(map(group_of, rows)):
        of_group = [row for row in rows if group_of(row) == group]
        tasks = len({row["dataset"] for row in of_group})
        lines += ["", f"## {group}", ""]
        if group in FIELDS:
            of_field = {
                name: [row for row in of_system if group_of(row) == group]
                for name, of_system in systems.items()
            }
            lines += field_table(FIELDS[group], of_field)
            continue
        if tasks > 1:
            lines += [f"Mean over {tasks} tasks, each with another class as the normal one.", ""]
        lines += _data_set(of_group, systems)
    if measured := [row for row in rows if row.get("defect_regions")]:
        lines += ["", "## Regions", "", *_regions(measured, systems)]
    if models := [row for row in rows if "parity" in row]:
        lines += ["", "## The exported models", "", *_models(models)]
    return "\n".join(lines) + "\n"


def _data_set(rows: Sequence[Row], systems: dict[str, list[Row]]) -> Iterator[str]:
    """The table of one data set. Baselines are columns where there are other systems."""
    yield (
        "| shots | system | image AUROC | colour | pixels | pixel AUROC | AUPRO | false alarms "
        "| misses | runs |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    group = group_of(rows[0])
    skipped: dict[str, None] = {}
    only_baselines = all(row["system"] in BASELINES for row in rows)
    for shots in sorted({row["shots"] for row in rows}):
        same_shots = [row for row in rows if row["shots"] == shots]
        for name, all_rows in systems.items():
            of_system = [r for r in all_rows if group_of(r) == group and r["shots"] == shots]
            if not of_system or (of_system[0]["system"] in BASELINES and not only_baselines):
                continue
            done = [row for row in of_system if "skipped" not in row]
            for row in of_system:
                if "skipped" in row:
                    skipped[f"- {name}: {row['skipped']}"] = None
            cells = [
                cell(done, "image_auroc") if done else "skipped",
                *_baseline_cells(of_system, same_shots),
                cell(done, "pixel_auroc"),
                cell(done, "aupro"),
                cell(done, "false_alarm_rate", 1, True),
                cell(done, "miss_rate", 1, True),
            ]
            yield f"| {shots} | {name} | {' | '.join(cells)} | {len(done)} |"
    if skipped:
        yield from ("", "Skipped:", "", *skipped)


def _baseline_cells(rows: Sequence[Row], others: Sequence[Row]) -> list[str]:
    """The AUROC of each baseline over the same tasks and seeds as ``rows``."""
    draws = {(row["dataset"], row["seed"]) for row in rows}
    same = [row for row in others if (row["dataset"], row["seed"]) in draws]
    return [
        cell([row for row in same if row["system"] == name], "image_auroc") for name in BASELINES
    ]


def _regions(rows: Sequence[Row], systems: dict[str, list[Row]]) -> Iterator[str]:
    """How well the regions found are the defects, where masks mark these."""
    yield (
        "A defect region is a connected part of a mask, found where a found region shares a tenth "
        "of the smaller one's area with it."
    )
    yield ""
    yield (
        "| data set | shots | system | AUPRO | recall | precision | area on defects "
        "| false regions a good image | defect regions | runs |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for group in dict.fromkeys(map(group_of, rows)):
        for shots in sorted({row["shots"] for row in rows if group_of(row) == group}):
            for name, of_system in systems.items():
                same = [
                    row
                    for row in of_system
                    if row in rows and group_of(row) == group and row["shots"] == shots
                ]
                if same:
                    cells = [
                        cell(same, "aupro"),
                        cell(same, "region_recall"),
                        cell(same, "region_precision"),
                        cell(same, "area_on_defects", 1, True),
                        cell(same, "false_regions_per_good", 2),
                        cell(same, "defect_regions", 0),
                    ]
                    yield f"| {group} | {shots} | {name} | {' | '.join(cells)} | {len(same)} |"


def _models(rows: Sequence[Row]) -> Iterator[str]:
    """What training and export say of the project's own runs."""
    yield (
        "| data set | system | training, s at most | fine-tuned weights kept | largest difference "
        "between torch and ONNX | decisions flipped | MB | model alone, ms |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for group in dict.fromkeys(map(group_of, rows)):
        for name, all_rows in named(rows).items():
            models = [row for row in all_rows if group_of(row) == group]
            if not models:
                continue
            cells = [
                f"{max(row['training_seconds'] for row in models):.0f}",
                f"{sum(row['weights_kept'] for row in models)} of {len(models)}",
                f"{max(row['parity'] for row in models):.1e}",
                f"{sum(row['flips'] for row in models)}",
                f"{max(row['bytes'] for row in models) / 1e6:.2f}",
                f"{statistics.median(row['model_ms'] for row in models):.1f}",
            ]
            yield f"| {group} | {name} | {' | '.join(cells)} |"


def _rank(system: str) -> int:
    name = system.partition(":")[0]
    return ORDER.index(name) if name in ORDER else len(ORDER)
