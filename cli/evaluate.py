"""``fsad-edge eval``: how well an exported file does on a labelled set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from fsad_edge.cli.console import err, out, print_json, progress_bar, warn
from fsad_edge.errors import InputError, MissingExtraError
from fsad_edge.runtime.files import check_output


def evaluate(
    model: Annotated[Path, typer.Argument(help="File that export wrote.")],
    dataset: Annotated[
        Path,
        typer.Argument(
            help="MVTec-style folder: test/good, test/<defect>, and ground_truth where there are "
            "masks."
        ),
    ],
    report: Annotated[
        Path, typer.Option(help="Picture to write: histogram, ROC curve, worst mistakes.")
    ] = Path("report.png"),
    provider: Annotated[str, typer.Option(help="auto, cpu, cuda or tensorrt.")] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse to run on the CPU in place of the GPU.")
    ] = False,
    threads: Annotated[
        int, typer.Option(min=0, help="For one image; 0 leaves the choice to the engine.")
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an older report.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Score a labelled set: AUROC, AUPRO, false alarms and misses at the threshold."""
    check_output(report, force)
    if report.suffix.lower() != ".png" or report.is_dir():
        raise InputError(f"--report {report} must name a .png file.")
    with err.status("starting"):
        try:
            from fsad_edge.evaluation import evaluate as measure
            from fsad_edge.evaluation import read_dataset
            from fsad_edge.evaluation.report import write_report
        except ImportError as error:
            raise MissingExtraError(error.name or "scikit-learn", "train") from error
        from fsad_edge.runtime.model import Model

        samples = read_dataset(dataset)
        loaded = Model.load(model, provider, threads, strict=strict)
    if loaded.notice:
        warn(loaded.notice)
    with loaded, progress_bar() as bar:
        task = bar.add_task("scoring", total=len(samples), note="")
        results = []
        for sample in samples:
            results.append(loaded.score(sample.path))
            bar.advance(task)
    with err.status("measuring and drawing"):
        evaluation = measure(samples, results, loaded.metadata.threshold.value)
        title = f"{loaded.metadata.name} on {dataset.absolute().name}"
        write_report(evaluation, samples, results, report, title)
    asked = loaded.metadata.threshold.false_alarm_rate
    if json_:
        print_json(
            {
                **evaluation.to_json(),
                "false_alarm_rate_asked": asked,
                "report": str(report),
            }
        )
        return
    out.print(
        f"{title}: {evaluation.n_good} good and {evaluation.n_defective} defective images",
        markup=False,
    )
    out.print(f"  image AUROC   {_number(evaluation.image_auroc)}")
    if evaluation.n_masked:
        out.print(f"  pixel AUROC   {_number(evaluation.pixel_auroc)}")
        out.print(f"  AUPRO (30 %)  {_number(evaluation.aupro)}")
    out.print(
        f"  false alarms  {evaluation.false_alarms} of {evaluation.n_good} "
        f"({_percent(evaluation.false_alarm_rate)}; {asked:.2%} was asked for)"
    )
    out.print(
        f"  missed        {evaluation.missed} of {evaluation.n_defective} "
        f"({_percent(evaluation.miss_rate)})"
    )
    table = Table("defect", box=None, pad_edge=True)
    for heading in ("images", "AUROC", "missed", "miss rate"):
        table.add_column(heading, justify="right")
    for row in evaluation.by_defect:
        table.add_row(
            Text(row.defect),  # a folder's name is not markup
            str(row.n),
            _number(row.image_auroc),
            str(row.missed),
            _percent(row.miss_rate),
        )
    out.print(table)
    out.print(f"The report is {report}.", markup=False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
