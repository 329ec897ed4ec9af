"""The table of a published set, with what others have published beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.accuracy.cells import cell
from benchmarks.accuracy.field import Field
from benchmarks.accuracy.rows import Row

_FIGURES = (
    *("image_auroc", "pixel_auroc", "aupro"),
    *("false_alarm_rate", "miss_rate", "not_judged_rate"),
)
_HEAD = "image AUROC | pixel AUROC | AUPRO | false alarms | misses | not judged"


def field_table(field: Field, systems: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """The lines of the tables of one published set.

    Args:
        field: the set.
        systems: its rows, by the name of the system.
    """
    yield (
        "Set s of k shots is the images s·k to s·k + k - 1 of train/good, sorted by name. A cell "
        "is the mean, and in brackets the standard deviation, over the sets. False alarms and "
        "misses are at the threshold that finetune set; an image that is not judged is neither. "
        "AUPRO goes up to a false positive rate of 0.3."
    )
    yield from ("", f"### Mean over the classes of {field.name}", "")
    yield "A class counts where all its sets were run. Others may have drawn their shots otherwise."
    yield from ("", f"| shots | system | {_HEAD} | sets | classes | source |", f"|{'---|' * 11}")
    short = False
    shots_of = {row["shots"] for rows in systems.values() for row in rows}
    for shots in sorted(shots_of):
        for name, rows in systems.items():
            if same := [row for row in rows if row["shots"] == shots]:
                whole, sets = _whole_classes(same)
                count = len({row["dataset"] for row in whole})
                short |= count < len(field.classes)
                classes = f"{count} of {len(field.classes)}"
                yield f"| {shots} | {name} | {_cells(whole)} | {sets} | {classes} | measured here |"
        for other in field.published:
            if shots in other.image_auroc:
                dashes = " | –" * len(_FIGURES)  # of the other figures, and of the sets
                yield (
                    f"| {shots} | {other.system} | {other.image_auroc[shots]:.1f}%{dashes} | "
                    f"{len(field.classes)} of {len(field.classes)} | {other.source} |"
                )
    if short:
        yield from ("", "**Not every class was run: a mean over some is no mean of the set.**")
    if not field.published:
        yield from ("", f"This project has collected no published figures of {field.name}.")
    yield from ("", f"### Each class of {field.name}", "")
    yield from _classes(field, systems)


def _whole_classes(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """The rows of the classes of which every set is done, and the number of sets."""
    sets = {row["seed"] for row in rows}
    done = [row for row in rows if "skipped" not in row]
    of_class: dict[str, set[int]] = {}
    for row in done:
        of_class.setdefault(row["dataset"], set()).add(row["seed"])
    return [row for row in done if of_class[row["dataset"]] == sets], len(sets)


def _classes(field: Field, systems: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """The table with a line for each class, and why runs were skipped."""
    yield f"| class | shots | system | {_HEAD} | sets |"
    yield f"|{'---|' * 10}"
    skipped: dict[str, None] = {}
    for one in field.classes:
        of_class = {
            name: [row for row in rows if row["dataset"] == f"{field.name}/{one}"]
            for name, rows in systems.items()
        }
        for shots in sorted({row["shots"] for rows in of_class.values() for row in rows}):
            for name, rows in of_class.items():
                same = [row for row in rows if row["shots"] == shots]
                done = [row for row in same if "skipped" not in row]
                for row in same:
                    if "skipped" in row:
                        run = f"{one}, {shots} shots, set {row['seed']}"
                        skipped[f"- {name}, {run}: {row['skipped']}"] = None
                if same:
                    yield f"| {one} | {shots} | {name} | {_cells(done)} | {len(done)} |"
    if skipped:
        yield from ("", "Skipped:", "", *skipped)


def _cells(rows: Sequence[Row]) -> str:
    with_rate = [row | {"not_judged_rate": _not_judged(row)} for row in rows]
    return " | ".join(cell(with_rate, figure, 1, True) for figure in _FIGURES)


def _not_judged(row: Row) -> float | None:
    """The share of the test images that are not judged; None for a system that judges all."""
    if "not_judged_good" not in row:
        return None
    images: int = row["n_good"] + row["n_defective"]
    return float(row["not_judged_good"] + row["not_judged_defective"]) / images
