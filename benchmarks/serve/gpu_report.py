"""The figures of a service beside a GPU as a table."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fsad_edge._version import __version__
from fsad_edge.bench.machine import describe_gpu, describe_machine
from fsad_edge.runtime.backends.onnxruntime import import_onnxruntime

if TYPE_CHECKING:
    from benchmarks.serve.gpu import Figures, Load

CPU = "CPUExecutionProvider"

COLUMNS = (
    "clients", "images a request", "images/s", "× 1 client", "p50 ms", "p99 ms", "p99 / p50",
    "429", "other errors", "images a run", "decode / resize / queue / infer ms",
    "cores of the service", "cores of the clients",
)  # fmt: skip


def write_report(folder: Path, figures: Figures) -> None:
    """Print ``serve_gpu.md`` and write it into a folder."""
    text = "\n".join([*_setting(figures), *_table(figures), *_alone(figures), *_missing(figures)])
    (folder / "serve_gpu.md").write_text(text + "\n")
    print(text)


def _setting(figures: Figures) -> list[str]:
    machine = describe_machine()
    facts = [f"fsad-edge {__version__}", f"onnxruntime {import_onnxruntime().__version__}"]
    facts += [f"{name} {machine[name]}" for name in ("cpu", "cores", "python") if name in machine]
    gpu = "none was used" if figures.provider == CPU else describe_gpu()
    return [
        f"Provider: {figures.provider}. GPU: {gpu}.",
        f"{'; '.join(facts)}. Model and image: {figures.about}.",
        f"The clients ran on the same machine in {figures.processes} processes; the last column "
        "is what they took from the service.",
        "",
    ]


def _table(figures: Figures) -> list[str]:
    lone = next((load for load in figures.loads if (load.clients, load.images) == (1, 1)), None)
    return [
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *(_row(load, lone) for load in figures.loads),
        "",
    ]


def _row(load: Load, lone: Load | None) -> str:
    statuses = Counter(answer.status for answer in load.answers)
    times = [answer.seconds * 1e3 for answer in load.answers if answer.status == 200]
    rate = statistics.median(load.rates)
    cells = [str(load.clients), str(load.images), f"{rate:.0f}"]
    base = 0.0 if lone is None else statistics.median(lone.rates)
    cells.append(f"{rate / base:.1f}" if base else "–")
    if times:
        p50, p99 = np.percentile(times, [50, 99])
        cells += [f"{p50:.1f}", f"{p99:.1f}", f"{p99 / p50:.1f}"]
    else:
        cells += ["–"] * 3
    others = sum(statuses.values()) - statuses[200] - statuses[429]
    cells += [str(statuses[429]), str(others)]
    cells.append(f"{load.scored / load.runs:.1f}" if load.runs else "–")
    spent = (f"{value * 1e3 / max(load.scored, 1):.2f}" for value in load.stages.values())
    cells.append(" / ".join(spent))
    cells += [
        f"{statistics.median(cores):.1f}" for cores in (load.service_cores, load.client_cores)
    ]
    return "| " + " | ".join(cells) + " |"


def _alone(figures: Figures) -> list[str]:
    return [
        "| from pixels to scores, copies included | ms (median) |",
        "|---|---|",
        *(
            f"| {row} | {value if isinstance(value, str) else format(value, '.2f')} |"
            for row, value in figures.alone.items()
        ),
        "",
    ]


def _missing(figures: Figures) -> list[str]:
    if figures.provider != CPU:
        return []
    return [
        "**Not measured: a GPU.** All figures here are of the CPU, and say nothing of how a GPU is "
        "kept busy."
    ]
