"""``fsad-edge archive``: score an archive on all cores of a machine or of a cluster."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsad_edge.cli.console import (
    ERROR,
    counted,
    exit_code,
    out,
    print_facts,
    print_json,
    shown_progress,
    tell_unseen,
    warn,
)
from fsad_edge.cli.shared_options import Json, Learned, MmPerPx, RunsOn, SkipUnreadable, Strict
from fsad_edge.options import MAX_THREADS, MAX_WORKERS, Provider
from fsad_edge.runtime.folders import describe

if TYPE_CHECKING:
    from fsad_edge.distributed.archive import ArchiveReport


def archive(
    model: Annotated[Path, typer.Argument(help="File that export wrote.")],
    images: Annotated[
        Path,
        typer.Argument(
            help="Folder of images, or Parquet with a column path, image or bytes: a file or a "
            "folder of files."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the scores, in Parquet files.")
    ],
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of a Ray cluster, such as auto or HOST:6379; without it, Ray is started "
            "on this machine."
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_WORKERS,
            help="Workers at a time; 0 takes as many as cores or GPUs allow.",
        ),
    ] = 0,
    threads: Annotated[
        int, typer.Option(min=1, max=MAX_THREADS, help="Threads of each worker.")
    ] = 1,
    provider: RunsOn = Provider.AUTO,
    strict: Strict = False,
    learned: Learned = True,
    retry_errors: Annotated[
        bool,
        typer.Option("--retry-errors", help="Score images again that could not be read before."),
    ] = False,
    mm_per_px: MmPerPx = None,
    skip_unreadable: SkipUnreadable = False,
    json_: Json = False,
) -> None:
    """Score an archive of images on all cores.

    After a stop, the same command continues it.

    Exit code 2: an error; else 1: an anomaly found; else 3: an image is not judged; else 0: all
    good.
    """
    from fsad_edge.distributed.archive import ArchiveOptions, score_archive

    options = ArchiveOptions(
        address=address,
        workers=workers,
        threads=threads,
        provider=provider,
        strict=strict,
        learned=learned,
        retry_errors=retry_errors,
        mm_per_px=mm_per_px,
    )
    with shown_progress() as on_progress:
        report = score_archive(
            model, images, output, options, on_progress=on_progress, on_warning=warn
        )
    if json_:
        skipped = [one.as_dict() for one in report.skipped]
        print_json({**dataclasses.asdict(report), "skipped": skipped})
    else:
        _print_report(report)
    tell_unseen(report.skipped, skip_unreadable)
    unseen = report.errors > 0 or any(one.unseen for one in report.skipped)
    if report.errors == report.images or (unseen and not skip_unreadable):
        raise typer.Exit(ERROR)
    raise typer.Exit(exit_code(report.anomalies, report.not_judged))


def _print_report(report: ArchiveReport) -> None:
    out.print(
        f"{counted(report.images, 'image')} in {report.output}: {report.good} good, "
        f"{counted(report.anomalies, 'anomaly', 'anomalies')}, {report.not_judged} not judged, "
        f"{report.errors} could not be read"
        + (f"; {describe(report.skipped)}" if report.skipped else ""),
    )
    speed = f", {report.scored / report.seconds:.1f} per second" if report.seconds else ""
    now = f"{report.scored} by {report.workers} workers{speed}" if report.scored else "no image"
    facts = {"scored now": now}
    if report.scored_before:
        facts["scored before"] = str(report.scored_before)
    if report.taught is not None:
        facts["taught here"] = f"{report.taught}; --no-learned leaves all of that out"
    print_facts(facts)
