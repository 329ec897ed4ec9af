"""Document, tables and picture of the benchmark."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.latency.systems import System
from fsad_edge.bench.latency import (
    NOISE_RULE,
    Run,
    Samples,
    block_medians,
    difference,
    is_noisy,
    noise,
    percentiles,
)
from fsad_edge.runtime.arrays import Float64Array
from fsad_edge.runtime.backends.onnxruntime import import_onnxruntime
from fsad_edge.runtime.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WAYS = {"alone": "Model alone", "whole": "From JPEG bytes to decision"}
STEPS = ("decode", "resize", "infer", "post")

RANDOM = (
    "The peers' weights and memory banks are random, of the shapes that trained ones have: "
    "pretrained ones take downloads, and the time of a graph does not depend on its values."
)


def describe(
    systems: Sequence[System],
    run: Run,
    machine: Mapping[str, str],
    versions: Mapping[str, str],
    picture: str,
    threads: int,
) -> dict[str, Any]:
    """All that was found, for ``json``; times are milliseconds.

    Args:
        systems: in the order of the tables.
        run: with samples under ``alone/NAME`` and ``whole/NAME``.
        machine: facts by name.
        versions: of the peers' packages; empty where no peers were measured.
        picture: the JPEG in words.
        threads: as they were asked for.
    """
    bases = [system for system in systems if not system.ours] + [systems[0]]
    rows = []
    for system in systems:
        found = {
            way: _measured(run.samples[f"{way}/{system.name}"])
            | {
                "faster_than": {
                    base.name: _faster(
                        run.samples[f"{way}/{base.name}"].total,
                        run.samples[f"{way}/{system.name}"].total,
                    )
                    for base in bases
                    if base is not system
                }
            }
            for way in WAYS
        }
        alone, whole = (run.samples[f"{way}/{system.name}"].total for way in WAYS)
        rows.append(
            {
                "name": system.name,
                "about": system.about,
                "ours": system.ours,
                **found,
                "whole_over_alone": difference(alone, whole).ratio,
            }
        )
    return {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": {**machine, "engine": f"onnxruntime {import_onnxruntime().__version__}"},
        "threads": threads,
        "picture": picture,
        "peers": dict(versions),
        "repetitions": len(run.reference.total),
        "calls_per_turn": run.calls_per_turn,
        "noise": {
            "rule": NOISE_RULE,
            "noisy": run.noisy,
            "reference": percentiles(run.reference.total),
            "reference_noise": noise(run.reference.total),
            "others": run.others,
            "restless_turns": run.restless,
        },
        "bases": list(dict.fromkeys(base.name for base in bases)),
        "systems": rows,
    }


def _measured(samples: Samples) -> dict[str, Any]:
    return {
        "total": percentiles(samples.total),
        "steps": {name: percentiles(taken) for name, taken in samples.steps.items()},
        "noise": noise(samples.total),
        "noisy": is_noisy(samples.total),
        "block_p50": np.round(block_medians(samples.total), 4).tolist(),
        "times": np.round(samples.total, 4).tolist(),
    }


def _faster(base: Float64Array, own: Float64Array) -> dict[str, Any]:
    """How many times faster than ``base``, and the least and most of it over the blocks."""
    found = difference(base, own)
    return {
        "times": 1 / found.ratio,
        "low": 1 / found.high,
        "high": 1 / found.low,
        "certain": found.certain,
    }


def write_report(out: Path, document: dict[str, Any]) -> str:
    """Write ``latency.md``, ``latency.json`` and ``latency.png``; returns the first."""
    text = markdown(document)
    write_bytes(out / "latency.json", json.dumps(document, indent=1).encode())
    write_bytes(out / "latency.md", text.encode())
    write_bytes(out / "latency.png", _plot(document))
    return text


def markdown(document: dict[str, Any]) -> str:
    """The tables and what is to be known of them."""
    machine, rows = document["machine"], document["systems"]
    facts = ("cpu", "cores", "governor", "system", "load")
    told = [f"{machine[name]}" for name in ("engine", *facts) if machine.get(name)]
    told[-1] = f"load {told[-1]}" if "load" in machine else told[-1]
    threads = document["threads"] or "the engine's choice of"
    lines = [
        f"{'; '.join(told)}.",
        "",
        f"Batch 1, {threads} threads for every model, {document['repetitions']} repetitions in "
        f"turns in one process, {document['calls_per_turn']} in a turn. Picture: "
        f"{document['picture']}. Milliseconds.",
        "",
        _verdict(document),
    ]
    if document["repetitions"] < 100:
        lines += ["", "A p99 of fewer than 100 repetitions is little more than their max."]
    for way, title in WAYS.items():
        lines += ["", f"### {title}", "", *_table(document, way)]
    lines += [
        "",
        "Times faster: of the p50s, the median of the blocks; in brackets their least and ",
    ]
    lines[-1] += "most. `!`: too noisy to tell. Steps: their p50."
    lines += ["", *(f"- **{row['name']}**: {row['about']}" for row in rows)]
    if document["peers"]:
        versions = ", ".join(f"{name} {version}" for name, version in document["peers"].items())
        lines += [
            "",
            f"Peers ({versions}) are ONNX files in plain ONNX Runtime sessions of the same number "
            f"of threads. {RANDOM} For them Pillow decodes the whole picture and resizes it with "
            "antialiasing, and NumPy makes normalised float32 of it (counted as resize).",
        ]
    return (
        "\n".join([*lines, "", document["noise"]["rule"].replace("noise is", "Noise is", 1)]) + "\n"
    )


def _verdict(document: dict[str, Any]) -> str:
    told = document["noise"]
    if told["reference_noise"] is None:
        return "**Too few repetitions to tell noise.**"
    says = f"a fixed computation on all cores moved by {told['reference_noise']:.1%}"
    if told["others"] is not None:
        says += f", other processes used {told['others']:.1%} of the cores"
    if told["restless_turns"]:
        says += f", {told['restless_turns']} turns began while another's threads were busy"
    if told["noisy"]:
        return f"**The machine was too noisy to tell: {says}.**"
    return f"The machine was steady: {says}."


def _table(document: dict[str, Any], way: str) -> list[str]:
    bases, rows, whole = document["bases"], document["systems"], way == "whole"
    heads = ["system", "p50", "p90", "p99", *(f"times faster than {base}" for base in bases)]
    heads += [*STEPS, "over model alone"] if whole else []
    lines = [f"| {' | '.join([*heads, 'noise'])} |", "|---" * (len(heads) + 1) + "|"]
    for row in rows:
        found = row[way]
        cells = [row["name"], *(f"{found['total'][name]:.2f}" for name in ("p50", "p90", "p99"))]
        for base in bases:
            than = found["faster_than"].get(base)
            cells.append(f"{than['times']:.3g}" if than else "1")
            if than and base == bases[0]:
                cells[-1] += f" ({than['low']:.3g}–{than['high']:.3g})"
        if whole:
            cells += [f"{found['steps'][step]['p50']:.2f}" for step in STEPS]
            cells.append(f"{row['whole_over_alone']:.2f}")
        moved = "?" if found["noise"] is None else f"{found['noise']:.1%}"
        lines.append(f"| {' | '.join([*cells, moved + (' !' if found['noisy'] else '')])} |")
    return lines


def _plot(document: dict[str, Any]) -> bytes:
    """Left all systems on a logarithmic axis, p50 to p99; right the steps of ours."""
    from matplotlib.figure import Figure

    rows = document["systems"]
    figure = Figure(figsize=(13, 2.2 + 0.62 * len(rows)), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    _draw_all(left, rows, document["bases"][0])
    _draw_steps(right, [row for row in rows if row["ours"]])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.invert_yaxis()
        axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    noisy = document["noise"]["noisy"]
    figure.suptitle(
        f"{document['machine'].get('cpu', 'unknown CPU')}; {document['repetitions']} repetitions; "
        f"the machine was {'too noisy to tell' if noisy else 'steady'}",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _draw_all(axes: Axes, rows: Sequence[Mapping[str, Any]], base: str) -> None:
    for way, offset, colour in (("alone", -0.17, "#0072b2"), ("whole", 0.17, "#d55e00")):
        for place, row in enumerate(rows):
            p50, p99 = (row[way]["total"][name] for name in ("p50", "p99"))
            y = place + offset
            axes.plot([p50, p99], [y, y], color=colour, linewidth=1.4)
            label = f"{WAYS[way]}: p50, line to p99" if place == 0 else None
            axes.plot(p50, y, "o" if row["ours"] else "D", color=colour, label=label, linestyle="")
            than = row[way]["faster_than"].get(base)
            note = f"  ({than['times']:.3g}× as fast)" if than else ""
            axes.text(
                p99, y, f"  {p50:{'.0f' if p50 >= 100 else '.3g'}}{note}", va="center", fontsize=8.5
            )
    lowest = min(row["alone"]["total"]["p50"] for row in rows)
    highest = max(row[way]["total"]["p99"] for row in rows for way in WAYS)
    axes.set(xscale="log", xlabel=f"milliseconds; × as fast: as {base}")
    axes.set_xlim(lowest * 0.8, highest * (highest / lowest) ** 0.35)  # room for the last label
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.grid(axis="x", alpha=0.3)


def _draw_steps(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    colours = ("#e69f00", "#f4cf7c", "#0072b2", "#1c2026")
    start = np.zeros(len(rows))
    for step, colour in zip(STEPS, colours, strict=True):
        widths = np.array([row["whole"]["steps"][step]["p50"] for row in rows])
        axes.barh(range(len(rows)), widths, left=start, color=colour, height=0.6, label=step)
        start += widths
    for place, row in enumerate(rows):
        steps = " + ".join(f"{row['whole']['steps'][step]['p50']:.2f}" for step in STEPS)
        axes.text(0, place + 0.33, f" {steps}", va="top", fontsize=8.5)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_ylim(-0.5, len(rows) - 0.3)
    axes.set_xlabel("ours: p50 of each step, milliseconds")
