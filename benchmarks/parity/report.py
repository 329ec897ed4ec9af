"""Table, rows and plot of the benchmark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parity.systems import HOW, Scored


def summarise(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """A row a system and size: images, largest and median drift, decisions flipped."""
    rows = []
    for system, size in dict.fromkeys((one.system, one.size) for one in scored):
        of_it = [one for one in scored if (one.system, one.size) == (system, size)]
        drifts = [one.drift for one in of_it]
        rows.append(
            {
                "system": system,
                "size": size,
                "images": len(of_it),
                "largest_drift": max(drifts),
                "median_drift": float(np.median(drifts)),
                "flipped": sum(one.flipped for one in of_it),
            }
        )
    return rows


def write_report(out: Path, scored: Sequence[Scored], notes: Sequence[str]) -> str:
    """Write ``parity.md``, ``parity.json`` and ``parity.png``; returns the first.

    Args:
        out: folder to write into.
        scored: every image, by every system.
        notes: sentences that go below the table.
    """
    rows = summarise(scored)
    lines = [
        "| system | images | n | largest drift | median drift | decisions flipped |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        drifts = f"{row['largest_drift']:.1e} | {row['median_drift']:.1e}"
        lines.append(
            f"| {row['system']} | {row['size']} | {row['images']} | {drifts} | {row['flipped']} |"
        )
    lines += ["", "Drift: difference of the two scores, relative to the one before export (or to "]
    lines[-1] += "the threshold, where the score is smaller)."
    lines += ["", "How each path resizes:", ""]
    systems = {one.system.split()[0] for one in scored}
    lines += [f"- {name}: {text}" for name, text in HOW.items() if name.split()[0] in systems]
    lines += [f"\n{note}" for note in notes]
    report = "\n".join(lines) + "\n"
    (out / "parity.md").write_text(report)
    images = [{**asdict(one), "drift": one.drift, "flipped": one.flipped} for one in scored]
    (out / "parity.json").write_text(json.dumps({"rows": rows, "images": images}, indent=1) + "\n")
    _plot(out / "parity.png", scored)
    return report


def _plot(file: Path, scored: Sequence[Scored]) -> None:
    """A panel a system: each image's ratio to the threshold before and after export."""
    from matplotlib.figure import Figure

    systems = list(dict.fromkeys(one.system for one in scored))
    figure = Figure(figsize=(4.2 * len(systems), 4.4), layout="constrained")
    panels = figure.subplots(1, len(systems), squeeze=False)[0]
    for axes, system in zip(panels, systems, strict=True):
        of_it = [one for one in scored if one.system == system]
        for size in dict.fromkeys(one.size for one in of_it):
            points = [one for one in of_it if one.size == size]
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
