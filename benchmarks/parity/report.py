"""Report of the benchmark: table, JSON and plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.parity.systems import RESIZING, Scored


@dataclass(frozen=True)
class Summary:
    """The drift of one system on images of one size.

    Attributes:
        system: name of the system.
        size: name of the size.
        images: number of images.
        largest_drift: largest relative difference of the scores before and after export.
        median_drift: median of these differences.
        flipped: number of images whose decision changed.
    """

    system: str
    size: str
    images: int
    largest_drift: float
    median_drift: float
    flipped: int


def summarise(scored: Sequence[Scored]) -> list[Summary]:
    """One row for each system and size."""
    rows = []
    for system, size in dict.fromkeys((one.system, one.size) for one in scored):
        group = [one for one in scored if (one.system, one.size) == (system, size)]
        drifts = [one.drift for one in group]
        rows.append(
            Summary(
                system=system,
                size=size,
                images=len(group),
                largest_drift=max(drifts),
                median_drift=float(np.median(drifts)),
                flipped=sum(one.flipped for one in group),
            )
        )
    return rows


def write_report(out: Path, scored: Sequence[Scored], notes: Sequence[str]) -> str:
    """Write ``parity.md``, ``parity.json`` and ``parity.png``; returns the first.

    Args:
        out: folder to write into.
        scored: every image, scored by every system.
        notes: sentences to write below the table.
    """
    rows = summarise(scored)
    lines = [
        "| system | images | n | largest drift | median drift | decisions flipped |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.system} | {row.size} | {row.images} | {row.largest_drift:.1e} "
            f"| {row.median_drift:.1e} | {row.flipped} |"
        )
    systems = {one.system.split()[0] for one in scored}
    lines += [
        "",
        "Drift: difference of the two scores, relative to the one before export (or to the "
        "threshold, where the score is smaller).",
        "",
        "How each path resizes:",
        "",
        *(f"- {name}: {text}" for name, text in RESIZING.items() if name.split()[0] in systems),
    ]
    lines += [f"\n{note}" for note in notes]
    report = "\n".join(lines) + "\n"
    (out / "parity.md").write_text(report)
    images = [{**asdict(one), "drift": one.drift, "flipped": one.flipped} for one in scored]
    document = {"rows": [asdict(row) for row in rows], "images": images}
    (out / "parity.json").write_text(json.dumps(document, indent=1) + "\n")
    _plot(out / "parity.png", scored)
    return report


def _plot(file: Path, scored: Sequence[Scored]) -> None:
    """A panel for each system: each image's ratio to the threshold before and after export."""
    from matplotlib.figure import Figure

    systems = list(dict.fromkeys(one.system for one in scored))
    figure = Figure(figsize=(4.2 * len(systems), 4.4), layout="constrained")
    panels = figure.subplots(1, len(systems), squeeze=False)[0]
    for axes, system in zip(panels, systems, strict=True):
        group = [one for one in scored if one.system == system]
        for size in dict.fromkeys(one.size for one in group):
            points = [one for one in group if one.size == size]
            before = [one.before / one.threshold_before for one in points]
            after = [one.after / one.threshold_after for one in points]
            axes.scatter(before, after, s=14, alpha=0.7, label=size)
        axes.axline((1, 1), slope=1, color="0.6", linewidth=0.8, zorder=0)
        axes.axhline(1, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
        axes.axvline(1, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
        axes.set(title=system, xlabel="score / threshold before export")
        axes.set_ylabel("score / threshold after export")
        axes.title.set_fontsize(9)
    panels[0].legend(fontsize=7)
    figure.savefig(file, dpi=110)
