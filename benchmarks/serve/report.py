"""The figures as tables and plots."""

from __future__ import annotations

import platform
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serve.measurements import Measurements


def overhead_row(measured: Measurements) -> str:
    """The cost of the service over the runtime, one image at a time."""
    served, bare = statistics.median(measured.served), statistics.median(measured.bare)
    return (
        f"one client: {served:.2f} ms served, {bare:.2f} ms bare (medians of "
        f"{len(measured.served)}, in turns): overhead {served - bare:.2f} ms"
    )


def throughput_row(measured: Measurements) -> str:
    """The throughput at saturation."""
    served, bare = measured.capacity, statistics.median(measured.bare_rates)
    return (
        f"saturated: {served:.1f} images/s served, {bare:.1f} bare (medians of "
        f"{len(measured.served_rates)} rounds, in turns): {served / bare:.0%}"
    )


def load_row(load: float, measured: Measurements) -> str:
    """A row of the table of loads."""
    answers = measured.loads[load]
    counts = Counter(answer.status for answer in answers)
    rest = sum(counts.values()) - counts[200] - counts[429]
    cells = [f"{load:g}×", f"{load * measured.capacity:.0f}", str(counts[200]), str(counts[429])]
    cells.append(str(rest))
    for status in (200, 429):
        times = [answer.seconds * 1e3 for answer in answers if answer.status == status]
        if times:
            p50, p90, p99 = np.percentile(times, [50, 90, 99])
            cells += [f"{p50:.1f} / {p90:.1f} / {p99:.1f}", f"{max(times):.1f}"]
        else:
            cells += ["–", "–"]
    return "| " + " | ".join(cells) + " |"


def soak_row(measured: Measurements) -> str:
    """The answers and the memory of the soak."""
    counts = Counter(answer.status for answer in measured.soak)
    tenth = len(measured.memory) // 10
    after_warming, end = measured.memory[tenth], measured.memory[-1]
    statuses = ", ".join(f"{count} × {status}" for status, count in sorted(counts.items()))
    return (
        f"soak: {statuses}; memory {after_warming[1]:.0f} MB after {after_warming[0]} requests, "
        f"{end[1]:.0f} MB after {end[0]}, at most {max(size for _, size in measured.memory):.0f} MB"
    )


def write_load(folder: Path, measured: Measurements) -> None:
    """``load.md`` and ``load.png``."""
    text = [
        *_setting(measured),
        f"- {overhead_row(measured)}",
        f"- {throughput_row(measured)}",
        "",
        f"Arrivals at random (Poisson) for {measured.seconds:g} s, times from when a request was "
        "due; ms as p50 / p90 / p99, and the longest.",
        "",
        "| load | requests/s | scored | refused | else | scored in | longest | refused in "
        "| longest |",
        "|---|---|---|---|---|---|---|---|---|",
        *(load_row(load, measured) for load in measured.loads),
        "",
    ]
    _write(folder / "load.md", text)
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(6.5, 4), layout="constrained")
    colours = ("#1b7837", "#e08214", "#b2182b")
    for (load, answers), colour in zip(measured.loads.items(), colours, strict=False):
        for status, style in ((200, "-"), (429, ":")):
            times = np.sort([answer.seconds * 1e3 for answer in answers if answer.status == status])
            if len(times) > 20:
                shares = 1 - np.arange(len(times)) / len(times)
                label = f"{load:g}× {'scored' if status == 200 else 'refused'}"
                axes.plot(times, shares, style, color=colour, label=label)
    axes.set(xscale="log", yscale="log", xlabel="ms from when it was due", ylabel="share slower")
    axes.set_title("Latency at multiples of the capacity")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(folder / "load.png", dpi=130)
    pyplot.close(figure)


def write_soak(folder: Path, measured: Measurements) -> None:
    """``soak.md`` and ``soak.png``."""
    _write(folder / "soak.md", [*_setting(measured), f"- {soak_row(measured)}", ""])
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(6.5, 4), layout="constrained")
    requests, sizes = zip(*measured.memory, strict=True)
    axes.plot(requests, sizes, color="#2166ac")
    axes.set(xlabel="requests", ylabel="resident memory, MB", ylim=(0, max(sizes) * 1.15))
    axes.set_title("Memory of the service")
    axes.grid(alpha=0.3)
    figure.savefig(folder / "soak.png", dpi=130)
    pyplot.close(figure)


def _setting(measured: Measurements) -> list[str]:
    return [
        f"Engine threads: {measured.threads}; cores: {measured.cores}, shared with the client; "
        f"image: a JPEG of {measured.image_bytes / 1e3:.0f} kB; {platform.machine()}.",
        "",
    ]


def _write(path: Path, text: list[str]) -> None:
    path.write_text("\n".join(text))
    print("\n".join(text))


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
