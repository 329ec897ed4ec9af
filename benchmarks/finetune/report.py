"""Table and plot of what each step takes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from benchmarks.finetune.steps import Case, Installed, Timed

#: Steps that are shown together, by the words that their names hold.
GROUPS = {
    "start and imports": ("start", "imports"),
    "shots and angles": ("checking", "looking"),
    "first model": ("first model",),
    "search": ("drawing", "choosing", "alignment"),
    "bank and threshold": ("finetune: memory bank", "fit"),
    "export": ("export",),
    "first score": ("first score",),
}

COLOURS = ("#9aa3ad", "#56b4e9", "#009e73", "#e69f00", "#0072b2", "#cc79a7", "#d55e00")


def grouped(row: Timed) -> dict[str, float]:
    """Seconds by group, in their order."""
    sums = dict.fromkeys(GROUPS, 0.0)
    for step, seconds in row.steps.items():
        found = [name for name, words in GROUPS.items() if any(word in step for word in words)]
        # The start of a command belongs to the start, whatever the command is.
        sums[found[0] if found else "search"] += seconds
    return sums


def words_of(case: Case) -> str:
    """A case in words."""
    words = f"{case.shots} shot{'s' if case.shots > 1 else ''}, {case.width}x{case.height}"
    if case.bank_rows is not None:
        words += f", {case.bank_rows} rows"
    return words + (", --budget-s 0" if case.first_model else "")


def markdown(
    rows: Sequence[Timed], installed: Mapping[str, Installed], machine: Mapping[str, str]
) -> str:
    """The tables."""
    lines = [
        "# From photographs to the first score",
        "",
        "; ".join(f"{name} {fact}" for name, fact in machine.items()),
        "",
        "Seconds. `finetune`, `export` and `score` are run as a user runs them, one after another.",
        "",
        f"| system | case | {' | '.join(GROUPS)} | **all** | a first model after |",
        f"|---|---|{'---|' * (len(GROUPS) + 2)}",
    ]
    for row in rows:
        seconds = " | ".join(f"{value:.1f}" for value in grouped(row).values())
        first = "" if row.to_first_model is None else f"{row.to_first_model:.1f}"
        lines.append(
            f"| {row.system} | {words_of(row.case)} | {seconds} | **{row.seconds:.1f}** | {first} |"
        )
    lines += ["", "| environment | installed in | on the disk |", "|---|---|---|"]
    lines += [
        f"| {name} | {one.seconds:.0f} s, downloads included | {one.megabytes:,.0f} MB |"
        for name, one in installed.items()
    ]
    return "\n".join([*lines, ""])


def plot(rows: Sequence[Timed]) -> bytes:
    """A bar for each case, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.4 + 0.38 * len(rows)), dpi=150, layout="constrained")
    axes = figure.subplots()
    names = [f"{row.system}: {words_of(row.case)}" for row in rows]
    left = [0.0] * len(rows)
    for group, colour in zip(GROUPS, COLOURS, strict=True):
        widths = [grouped(row)[group] for row in rows]
        axes.barh(names, widths, left=left, color=colour, label=group)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, row in enumerate(rows):
        axes.text(left[place], place, f" {row.seconds:.1f}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("seconds from photographs in a folder to the first score of the file")
    axes.margins(x=0.08)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
