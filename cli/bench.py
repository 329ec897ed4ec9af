"""``fsad-edge bench``: latency of exported files on this machine."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsad_edge.cli.console import out, print_facts, print_json, progress_bar, warn
from fsad_edge.cli.shared_options import Force, Json, Strict
from fsad_edge.cli.stop import stopped
from fsad_edge.cli.unused_options import refuse_unused
from fsad_edge.errors import InputError, needs_extra
from fsad_edge.options import MAX_THREADS, Provider
from fsad_edge.runtime.files import check_no_input, check_output, is_folder

if TYPE_CHECKING:
    from fsad_edge.bench.benchmark import Configuration
    from fsad_edge.bench.report import (
        BenchmarkReport,
        ComparisonReport,
        ConfigurationReport,
        DifferenceReport,
        MedianAndMax,
        PowerReport,
    )


#: The most images in one call.
MAX_BATCH = 1024


def bench(
    context: typer.Context,
    models: Annotated[list[Path], typer.Argument(help="Files that export wrote.")],
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help="Image or folder to score; repeat for more. Default: the golden images, or noise."
        ),
    ] = None,
    provider: Annotated[
        list[Provider] | None,
        typer.Option(help="What runs the model; repeat to compare. Default: auto."),
    ] = None,
    strict: Strict = False,
    threads: Annotated[
        str,
        typer.Option(
            help="Threads for one image, at most 256; several numbers such as 1,2 are compared. 0 "
            "takes as many as this process may use."
        ),
    ] = "0",
    batch: Annotated[
        str,
        typer.Option(
            help="Images in one call, at most 1024; several numbers such as 1,8 are compared."
        ),
    ] = "1",
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Seconds for each configuration, below 1,000,000; 10 if --runs is not given."
        ),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(min=1, max=10**7, help="Largest number of timed calls per configuration."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="Random seed of the order in which configurations take turns.",
        ),
    ] = 0,
    compare: Annotated[
        Path | None, typer.Option(help="Output of an earlier --json to show ratios against.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="PNG file for a plot of the distributions and the steps.")
    ] = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Measure the latency of model files on this machine.

    All configurations are interleaved in one run: p50, p90, p99, max, and the steps.
    """
    from fsad_edge.bench.benchmark import Configuration
    from fsad_edge.bench.comparison import compare as compare_reports
    from fsad_edge.bench.report import read_report

    if seconds is not None and not 0 < seconds < 1e6:
        raise InputError("--seconds takes a number above 0 and below 1,000,000.")
    if plot is None:
        refuse_unused(context, "--plot", "force")
    else:
        check_no_input(plot, [*models, *(images or [])])
    write_plot = None if plot is None else _plot_writer(plot, force)
    base = None if compare is None else read_report(compare)
    counts = (
        _numbers(threads, "threads", 0, MAX_THREADS),
        _numbers(batch, "batch", 1, MAX_BATCH),
    )
    providers = list(dict.fromkeys(provider or [Provider.AUTO]))
    configurations = [
        Configuration(*each, strict=strict)
        for each in itertools.product(models, providers, *counts)
    ]
    seconds = 10.0 if seconds is None and runs is None else seconds
    report = _run(configurations, images or [], seconds, runs, seed)
    if base is not None:
        report = replace(report, comparison=compare_reports(report, base))
    plot_error = None
    if write_plot is not None:
        try:
            write_plot(report)
        except InputError as error:  # the figures took long and are worth more than their picture
            plot_error = error
    for notice in dict.fromkeys(row.notice for row in report.configurations if row.notice):
        warn(notice)
    if json_:
        print_json(report.to_document())
    else:
        _print_report(report)
    if plot_error is not None:
        raise plot_error
    if plot is not None and not json_:
        out.print(f"The plot is {plot}.")


def _plot_writer(plot: Path, force: bool) -> Callable[[BenchmarkReport], None]:
    """Check ahead of a long run that the plot can be written."""
    check_output(plot, force)
    if plot.suffix.lower() != ".png" or is_folder(plot):
        raise InputError(f"--plot {plot} must name a .png file.")
    with needs_extra("eval"):
        from fsad_edge.bench.plot import write_plot
    return lambda report: write_plot(report, plot)


def _numbers(text: str, option: str, least: int, most: int) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < least or max(numbers) > most:
        raise InputError(
            f"--{option} takes whole numbers from {least} to {most}, such as 1,2; not '{text}'."
        )
    return list(dict.fromkeys(numbers))


def _run(
    configurations: list[Configuration],
    images: list[Path],
    seconds: float | None,
    runs: int | None,
    seed: int,
) -> BenchmarkReport:
    from fsad_edge.bench.benchmark import run_benchmark

    with progress_bar() as bar:
        task = bar.add_task("loading", total=1.0, note="")

        def show(stage: str, fraction: float) -> None:
            if stopped.is_set():
                raise KeyboardInterrupt
            bar.update(task, description=stage, completed=fraction)

        return run_benchmark(
            configurations, images, seconds=seconds, runs=runs, seed=seed, on_progress=show
        )


def _print_report(report: BenchmarkReport) -> None:
    images, rows = report.images, report.configurations
    sizes = ", ".join(images.sizes[:3])
    if len(images.sizes) > 3:
        sizes += f" and {len(images.sizes) - 3} other sizes"
    print_facts(
        {
            **report.machine,
            "images": f"{images.source}: {images.count} of {sizes}",
            "repetitions": f"{report.repetitions}, {report.calls_per_turn} in a turn",
        }
    )
    _print_table("Milliseconds a call, from encoded images to decisions:", _total_table(rows))
    _print_table("Its steps, p50 (p99):", _step_table(rows))
    _print_table("Started in a process of its own:", _start_table(rows))
    out.print()
    if report.repetitions < 100:
        out.print(f"A p99 of {report.repetitions} repetitions is little more than their maximum.")
    _print_noise(report)
    for difference in report.differences:
        _print_difference(difference, report.noise.noisy)
    if report.power is not None:
        _print_power(report.power)
    if report.comparison is not None:
        _print_comparison(report.comparison)


def _total_table(rows: list[ConfigurationReport]) -> list[list[str]]:
    table = [["configuration", "p50", "p90", "p99", "max", "p50/image", "images/s", "noise"]]
    for row in rows:
        total = row.total
        times = (total.p50, total.p90, total.p99, total.max, row.ms_per_image.p50)
        noise = "?" if row.noise is None else f"{row.noise:.1%}"
        noise += " !" if row.noisy else "  "
        cells = [f"{time:.2f}" for time in times]
        table.append([row.label, *cells, f"{row.images_per_second:.1f}", noise])
    return table


def _step_table(rows: list[ConfigurationReport]) -> list[list[str]]:
    names = list(dict.fromkeys(name for row in rows for name in row.steps))
    table = [["configuration", *names]]
    for row in rows:
        steps = [row.steps[name] for name in names]
        table.append([row.label, *(f"{step.p50:.2f} ({step.p99:.2f})" for step in steps)])
    return table


def _start_table(rows: list[ConfigurationReport]) -> list[list[str]]:
    def median_ms(times: MedianAndMax | None) -> str:
        return f"{times.p50:.0f} ms" if times else "-"

    table = [["configuration", "load", "first score", "peak memory", "file", "provider"]]
    for row in rows:
        peak = f"{row.peak_bytes.max / 1e6:.0f} MB" if row.peak_bytes else "-"
        provider = row.provider.removesuffix("ExecutionProvider")
        starts = [median_ms(row.load_ms), median_ms(row.first_score_ms), peak]
        table.append([row.label, *starts, f"{row.bytes / 1e6:.1f} MB", provider])
    return table


def _print_table(title: str, table: list[list[str]]) -> None:
    """Print columns as wide as their cells, because folded or cut figures cannot be read."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    out.print()
    out.print(title)
    for first, *others in table:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        out.print("  ".join([f"  {first:<{widths[0]}}", *cells]).rstrip())


def _print_noise(report: BenchmarkReport) -> None:
    noise = report.noise
    noisy = [row.label for row in report.configurations if row.noisy]
    if noise.reference_noise is None:
        warn(f"too few repetitions to tell the noise: give --runs {noise.blocks} or more.")
    else:
        facts = f"a fixed computation on all cores moved by {noise.reference_noise:.1%}"
        if noise.other_load is not None:
            facts += f", and other processes used {noise.other_load:.1%} of the cores"
        if noise.noisy:
            warn(f"the machine was too noisy to tell: {facts}. Stop what else runs.")
        elif noisy:
            warn(f"too noisy to tell (marked ! above): {', '.join(noisy)}; {facts}.")
        else:
            out.print(f"The machine was steady: {facts}.")
    for row in report.configurations:
        if row.load_ms is None:
            warn(f"{row.label} did not start in a process of its own.")
    if noise.restless_turns:
        warn(f"{noise.restless_turns} turns began while threads of the turn before still ran.")
    out.print(f"Rule: {noise.rule}")


def _print_difference(difference: DifferenceReport, noisy: bool) -> None:
    if noisy:
        verdict = "too noisy to tell"
    elif not difference.certain:
        verdict = "within the noise"
    else:
        verdict = "faster" if difference.ratio < 1 else "slower"
    out.print(
        f"{difference.label} against {difference.base}: {verdict}, {difference.ratio:.3g} of its "
        f"time an image ({difference.low:.3g} to {difference.high:.3g} over the blocks)",
    )


def _print_power(power: PowerReport) -> None:
    out.print()
    out.print(f"Power and clocks (mode {power.mode or 'unknown'}), p50 (max):")
    for label, sample in {"idle": power.idle, **power.configurations}.items():
        values = [
            f"{name} {value.p50:.2f} ({value.max:.2f}) {unit}"
            for unit, readings in (("W", sample.watts), ("MHz", sample.mhz))
            for name, value in readings.items()
        ]
        out.print(f"  {label}: {', '.join(values)}")


def _print_comparison(comparison: ComparisonReport) -> None:
    out.print()
    out.print("Against the base, p50 now over p50 then:")
    for row in comparison.rows:
        blocks = "" if row.low is None else f" ({row.low:.3g} to {row.high:.3g})"
        other = "" if row.base == row.label else f" against {row.base}"
        out.print(f"  {row.label}{other}: {row.ratio:.3g}{blocks}")
    out.print(f"  the fixed computation: {comparison.reference:.3g}")
    for note in comparison.notes:
        warn(f"{note}.")
    out.print(comparison.caveat)
