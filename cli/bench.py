"""``fsad-edge bench``: latency of exported files on this machine."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer

from fsad_edge.cli.console import out, print_facts, print_json, progress_bar, stopped, warn
from fsad_edge.errors import InputError, MissingExtraError
from fsad_edge.runtime.files import check_output


def bench(
    models: Annotated[list[Path], typer.Argument(help="Files that export wrote.")],
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Picture or folder; repeat for more. Else the golden images, or noise."),
    ] = None,
    provider: Annotated[
        list[str] | None, typer.Option(help="auto, cpu, cuda or tensorrt; repeat to compare.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse to run on the CPU in place of the GPU.")
    ] = False,
    threads: Annotated[
        str, typer.Option(help="For one image, such as 1,2; 0 leaves the choice to the engine.")
    ] = "0",
    batch: Annotated[str, typer.Option(help="Images in one call, such as 1,8.")] = "1",
    seconds: Annotated[
        float | None, typer.Option(help="To measure each configuration; 10 if --runs is not given.")
    ] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Timed calls of each configuration at most.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the order in which they take turns.")] = 0,
    compare: Annotated[
        Path | None, typer.Option(help="Earlier --json output to show ratios against.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture to write: distribution and steps, PNG.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older picture.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Measure latency, all configurations in turns in one run: p50, p90, p99, max, by step."""
    from fsad_edge.bench.benchmark import Configuration, run_benchmark
    from fsad_edge.bench.comparison import compare as compare_with
    from fsad_edge.bench.comparison import read_base

    if seconds is not None and not 0 < seconds < 1e6:
        raise InputError("--seconds takes a number above 0.")
    if plot is not None:
        check_output(plot, force)
        if plot.suffix.lower() != ".png" or plot.is_dir():
            raise InputError(f"--plot {plot} must name a .png file.")
        try:
            from fsad_edge.bench.plot import write_plot
        except ImportError as error:
            raise MissingExtraError(error.name or "matplotlib", "train") from error
    base = None if compare is None else read_base(compare)
    configurations = [
        Configuration(*each, strict=strict)
        for each in itertools.product(
            models, provider or ["auto"], _numbers(threads, "threads", 0), _numbers(batch, "batch")
        )
    ]
    with progress_bar() as bar:
        task = bar.add_task("loading", total=1.0, note="")

        def show(doing: str, fraction: float) -> None:
            if stopped.is_set():
                raise KeyboardInterrupt
            bar.update(task, description=doing, completed=fraction)

        document = run_benchmark(
            configurations,
            images or [],
            seconds=10.0 if seconds is None and runs is None else seconds,
            runs=runs,
            seed=seed,
            progress=show,
        )
    for notice in {row["notice"]: None for row in document["configurations"]}:
        if notice:
            warn(notice)
    if base is not None:
        document["compare"] = compare_with(document, base)
    if plot is not None:
        write_plot(document, plot)
    if json_:
        print_json(document)
        return
    _print(document)
    if plot is not None:
        out.print(f"The picture is {plot}.", markup=False)


def _numbers(text: str, option: str, least: int = 1) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < least:
        raise InputError(f"--{option} takes whole numbers from {least}, such as 1,2; not '{text}'.")
    return list(dict.fromkeys(numbers))


def _print(document: dict[str, Any]) -> None:
    pictures, rows = document["pictures"], document["configurations"]
    print_facts(
        {
            **document["machine"],
            "pictures": f"{pictures['source']}: {pictures['count']} of {_some(pictures['sizes'])}",
            "repetitions": f"{document['repetitions']}, {document['calls_per_turn']} in a turn",
        }
    )
    _print_table("Milliseconds a call, from encoded pictures to decisions:", _totals(rows))
    _print_table("Its steps, p50 (p99):", _steps(rows))
    _print_table("Started in a process of its own:", _starts(rows))
    out.print()
    if document["repetitions"] < 100:
        out.print(f"A p99 of {document['repetitions']} repetitions is little more than their max.")
    _print_noise(document)
    _print_differences(document)
    if document["power"] is not None:
        _print_power(document["power"])
    if "compare" in document:
        _print_comparison(document["compare"])


def _totals(rows: list[dict[str, Any]]) -> list[list[str]]:
    table = [["configuration", "p50", "p90", "p99", "max", "p50/image", "images/s", "noise"]]
    for row in rows:
        moved = "?" if row["noise"] is None else f"{row['noise']:.1%}"
        table.append(
            [
                row["label"],
                *(f"{row['total'][name]:.2f}" for name in ("p50", "p90", "p99", "max")),
                f"{row['ms_per_image']['p50']:.2f}",
                f"{row['images_per_second']:.1f}",
                moved + (" !" if row["noisy"] else "  "),
            ]
        )
    return table


def _steps(rows: list[dict[str, Any]]) -> list[list[str]]:
    names = list(dict.fromkeys(name for row in rows for name in row["steps"]))
    table = [["configuration", *names]]
    for row in rows:
        steps = [row["steps"][name] for name in names]
        table.append([row["label"], *(f"{step['p50']:.2f} ({step['p99']:.2f})" for step in steps)])
    return table


def _starts(rows: list[dict[str, Any]]) -> list[list[str]]:
    table = [["configuration", "load", "first score", "peak memory", "file", "provider"]]
    for row in rows:
        peak = row["peak_bytes"]
        table.append(
            [
                row["label"],
                *(
                    f"{row[name]['p50']:.0f} ms" if row[name] else "-"
                    for name in ("load_ms", "first_score_ms")
                ),
                f"{peak['max'] / 1e6:.0f} MB" if peak else "-",
                f"{row['bytes'] / 1e6:.1f} MB",
                row["provider"].removesuffix("ExecutionProvider"),
            ]
        )
    return table


def _print_table(title: str, table: list[list[str]]) -> None:
    """Columns as wide as what is in them: figures that are folded or cut cannot be read."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    out.print(f"\n{title}")
    for first, *others in table:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        out.print("  ".join([f"  {first:<{widths[0]}}", *cells]).rstrip(), markup=False)


def _print_noise(document: dict[str, Any]) -> None:
    noise = document["noise"]
    moved = noise["reference_noise"]
    noisy = [row["label"] for row in document["configurations"] if row["noisy"]]
    if moved is None:
        warn(f"too few repetitions to tell noise: give --runs {noise['blocks']} or more.")
    else:
        says = f"a fixed computation on all cores, in the same run, moved by {moved:.1%}"
        if noise["others"] is not None:
            says += f", and other processes used {noise['others']:.1%} of the cores"
        if noise["noisy"]:
            warn(f"the machine was too noisy to tell: {says}. Stop what else runs.")
        elif noisy:
            warn(f"too noisy to tell (marked ! above): {', '.join(noisy)}; {says}.")
        else:
            out.print(f"The machine was steady: {says}.")
    for row in document["configurations"]:
        if row["load_ms"] is None:
            warn(f"{row['label']} did not start in a process of its own.")
    if noise["restless_turns"]:
        warn(f"{noise['restless_turns']} turns began while another's threads were still busy.")
    out.print(f"Rule: {noise['rule']}")


def _print_differences(document: dict[str, Any]) -> None:
    for each in document["differences"]:
        ratio = f"{each['ratio']:.3g} of its time an image"
        std = f"{each['low']:.3g} to {each['high']:.3g} over the blocks"
        if document["noise"]["noisy"]:
            verdict = f"too noisy to tell, {ratio} ({std})"
        elif each["certain"]:
            word = "faster" if each["ratio"] < 1 else "slower"
            verdict = f"{word}, {ratio} ({std})"
        else:
            verdict = f"within the noise, {ratio} ({std})"
        out.print(f"{each['label']} against {each['base']}: {verdict}", markup=False)


def _print_power(power: dict[str, Any]) -> None:
    out.print(f"\nPower and clocks (mode {power['mode'] or 'unknown'}), p50 (max):")
    for label, found in {"idle": power["idle"], **power["configurations"]}.items():
        values = [
            f"{name} {value['p50']:.2f} ({value['max']:.2f}) {unit}"
            for unit, kind in (("W", "watts"), ("MHz", "mhz"))
            for name, value in found[kind].items()
        ]
        out.print(f"  {label}: {', '.join(values)}", markup=False)


def _print_comparison(comparison: dict[str, Any]) -> None:
    out.print("\nAgainst the base, p50 now over p50 then:")
    for row in comparison["rows"]:
        std = "" if row["low"] is None else f" ({row['low']:.3g} to {row['high']:.3g})"
        other = "" if row["base"] == row["label"] else f" against {row['base']}"
        out.print(f"  {row['label']}{other}: {row['ratio']:.3g}{std}", markup=False)
    out.print(f"  the fixed computation: {comparison['reference']:.3g}")
    for note in comparison["notes"]:
        warn(f"{note}.")
    out.print(comparison["caveat"])


def _some(sizes: list[str]) -> str:
    return ", ".join(sizes[:3]) + (f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else "")
