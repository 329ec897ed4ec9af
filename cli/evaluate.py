"""``fsad-edge eval``: how good an exported file is on labelled images."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import fsad_edge
from fsad_edge.cli.console import ERROR, counted, out, print_json, shown_progress, tell_unseen, warn
from fsad_edge.cli.shared_options import (
    Force,
    Json,
    Learned,
    RunsOn,
    SkipUnreadable,
    Strict,
    Threads,
)
from fsad_edge.errors import InputError
from fsad_edge.options import MaskMeaning, Provider
from fsad_edge.runtime.plain_text import printable

if TYPE_CHECKING:
    from fsad_edge.evaluation import DefectFigures, Evaluation
    from fsad_edge.evaluation.rate import Rate
    from fsad_edge.pipeline.evaluate import EvaluationReport


#: Missing more than this share of the defects is most of them.
MOST = 0.5


def evaluate(
    model: Annotated[Path, typer.Argument(help="File that export wrote.")],
    dataset: Annotated[
        Path,
        typer.Argument(
            help="Folder with good images, defects and, optionally, masks: test/good, test/DEFECT "
            "and ground_truth/DEFECT, or the same without test."
        ),
    ],
    report: Annotated[
        Path,
        typer.Option(
            help="Page to write: verdict, figures, charts, all mistakes. A name in .png gets a "
            "picture of the most important of it, and needs matplotlib.",
        ),
    ] = Path("report.html"),
    masks: Annotated[
        list[MaskMeaning] | None,
        typer.Option(
            help="How masks are meant that would be refused: inverted: the defect is black; large: "
            "they may mark over half of the image; scaled: another size is resized. Repeatable."
        ),
    ] = None,
    provider: RunsOn = Provider.AUTO,
    strict: Strict = False,
    threads: Threads = 0,
    learned: Learned = True,
    force: Force = False,
    skip_unreadable: SkipUnreadable = False,
    json_: Json = False,
) -> None:
    """Measure AUROC, misses, false alarms and regions. Exit code 2: not all images were scored."""
    from fsad_edge.runtime.files import check_output

    check_output(report, force)
    with shown_progress() as on_progress:
        result = fsad_edge.evaluate(
            model,
            dataset,
            report,
            masks=masks or (),
            provider=provider,
            threads=threads,
            strict=strict,
            learned=learned,
            on_progress=on_progress,
            on_warning=warn,
        )
    if json_:
        print_json(_as_document(result))
    else:
        _print_figures(result)
        _print_defects(result.figures)
        _print_best(model, result)
        for note in result.dataset.notes():
            out.print(note)
        for image in result.not_scored:
            out.print(f"Not scored: {image.error}")
        if result.picture is not None:
            out.print(f"The report is {result.picture}.")
    tell_unseen(result.dataset.skipped, skip_unreadable)
    if result.picture_error is not None:
        raise InputError(result.picture_error)
    if not (result.complete or skip_unreadable):
        raise typer.Exit(ERROR)


def _as_document(result: EvaluationReport) -> dict[str, Any]:
    dataset, layout = result.dataset, result.dataset.layout
    lists = ("empty_masks", "scaled_masks", "turned_masks", "unmatched_masks", "unlabelled")
    return {
        **dataclasses.asdict(result.figures),
        "learned": result.learned,
        "taught": result.taught,
        "not_judged_because": [
            {"reason": one.reason, "image": str(one.image), "images": one.images}
            for one in result.not_judged
        ],
        "known": [{"path": str(one.path), "known_as": one.known_as} for one in result.known],
        "false_alarm_rate_asked": result.false_alarm_rate_asked,
        "report": result.picture and str(result.picture),
        "report_error": result.picture_error,
        "dataset": {
            "good": str(layout.good),
            "defects": [str(path) for path in layout.defects],
            "masks": None if layout.masks is None else str(layout.masks),
            **{name: [str(path) for path in getattr(dataset, name)] for name in lists},
        },
        "not_scored": [{"path": str(one.path), "error": one.error} for one in result.not_scored],
        "skipped": [one.as_dict() for one in dataset.skipped],
    }


def _print_figures(result: EvaluationReport) -> None:
    figures = result.figures
    out.print(
        f"{result.title}: {figures.n_good} good and {figures.n_defective} defective images",
    )
    if result.taught is not None:
        out.print(f"  {result.taught}; --no-learned scores with the file alone")
    out.print(f"  image AUROC   {_number(figures.image_auroc)}")
    if figures.n_masked:
        out.print(f"  pixel AUROC   {_number(figures.pixel_auroc)}")
        out.print(f"  AUPRO (30 %)  {_number(figures.aupro)}")
    out.print(
        f"  false alarms  {figures.false_alarms} of {figures.n_good} "
        f"({_percent(figures.false_alarm_rate)}, {_range(figures.false_alarm_bounds)}; "
        f"{result.false_alarm_rate_asked:.2%} was asked for)"
    )
    missed = "  missed        no defective image to measure it with"
    if figures.miss_bounds is not None:
        missed = (
            f"  missed        {figures.missed} of {figures.n_defective} "
            f"({_percent(figures.miss_rate)}, {_range(figures.miss_bounds)})"
        )
    out.print(missed)
    elsewhere = figures.regions.rejected_elsewhere
    if elsewhere:
        out.print(
            f"  elsewhere     {elsewhere} of {figures.n_masked} with a mask are rejected, but not "
            "where the defect is"
        )
    out.print(
        f"  not judged    {figures.not_judged_good} of {figures.n_good} good, "
        f"{figures.not_judged_defective} of {figures.n_defective} defective"
    )
    _print_regions(figures)
    from fsad_edge.runtime.files import folder_and_name

    for one in result.not_judged:
        name = folder_and_name(str(one.image))
        out.print(f"    {counted(one.images, 'image')} such as {name}: {one.reason}")
    if figures.not_judged_good or figures.not_judged_defective:
        out.print(f"  {_consequences(figures)}")


def _print_regions(figures: Evaluation) -> None:
    """Print how well the regions found are the defects, where masks show it, and the false ones."""
    found = figures.regions
    if figures.n_masked:
        recall = _counted(found.recall) or "undefined, there are none"
        out.print(f"  recall        of the defect regions that masks mark: {recall}")
        precision = _counted(found.precision) or "undefined, none was found"
        out.print(f"  precision     regions found that lie on one of them: {precision}")
    if found.false_regions_per_good is not None:
        out.print(
            f"  false regions {found.false_regions_per_good:.2f} a good image "
            f"({_counted(found.good_with_regions)} good images have one or more)"
        )
    if figures.n_masked and (found.without_mask or found.not_judged):
        out.print(
            f"                left out: {found.without_mask} defective without a mask, "
            f"{found.not_judged} not judged"
        )


def _consequences(figures: Evaluation) -> str:
    """What becomes of images that are not judged on a line, where nobody looks at them."""
    stopped = figures.false_alarms + figures.not_judged_good
    passed = figures.missed + figures.not_judged_defective
    return (
        "A person must look at what is not judged. A line that rejects it stops "
        f"{stopped} of {figures.n_good} good parts; one that passes it misses {passed} of "
        f"{figures.n_defective} defects."
    )


def _print_defects(figures: Evaluation) -> None:
    from rich.table import Table
    from rich.text import Text

    from fsad_edge.evaluation.report_words import hardest_first

    table = Table("defect", box=None, pad_edge=False)
    masked = any(row.regions for row in figures.by_defect)
    # Short headings and no wrapping, so that it fits into 80 columns.
    headings = ("n", "AUROC", "missed", "95 % bounds", "not\njudged")
    for heading in (*headings, *(("regions\nfound", "else-\nwhere") if masked else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in hardest_first(figures):
        table.add_row(
            Text(printable(row.defect)),
            str(row.n),
            _number(row.image_auroc),
            f"{row.missed} ({_percent(row.miss_rate)})",
            _range(row.miss_bounds),
            str(row.not_judged),
            *([_regions_of(row), str(row.rejected_elsewhere)] if masked else []),
        )
    out.print(table)


def _print_best(model: Path, result: EvaluationReport) -> None:
    """Print the best thresholds for these images, and the lines that set them."""
    figures, best = result.figures, result.figures.best
    if best is None:
        return
    unjudged = figures.not_judged_good or figures.not_judged_defective
    out.print(f"Best threshold for these images{', of those that are judged' if unjudged else ''}:")
    names = (f"up to {result.false_alarm_rate_asked:.2%} false alarms", "least sum of both errors")
    for name, one in zip(names, (best.within, best.balanced), strict=True):
        out.print(
            f"  {name:<26}  {one.threshold!r}: {one.false_alarm_rate:.1%} false alarms, "
            f"{one.miss_rate:.1%} missed"
        )
    out.print("They are chosen on these very images, so expect a little more of both on others.")
    from fsad_edge.evaluation.report_words import About, is_worth_setting, next_step

    if not is_worth_setting(best):
        out.print(next_step(figures, About(asked=result.false_alarm_rate_asked)))
        return
    if best.within.miss_rate > MOST:
        out.print(
            f"Up to {result.false_alarm_rate_asked:.2%} false alarms most of these defects are "
            "missed, because good images score as high. Shots that show how good parts vary, and "
            "larger images, help more than a threshold."
        )
    command = f"fsad-edge threshold {shlex.quote(str(model))} --value"
    for which, one in (("first", best.within), ("second", best.balanced)):
        if one.miss_rate < 1:
            out.print(f"{f'To set the {which}:':<20}{command} {one.threshold!r}")


def _regions_of(row: DefectFigures) -> str:
    return f"{row.regions.count} of {row.regions.of}" if row.regions else "no mask"


def _counted(found: Rate) -> str:
    """A rate with its share and bounds; empty where nothing was counted."""
    if found.share is None:
        return ""
    return f"{found.count} of {found.of} ({found.share:.1%}, {_range((found.low, found.high))})"


def _range(bounds: tuple[float, float]) -> str:
    """The bounds of a rate, at 95 % confidence."""
    return f"{100 * bounds[0]:.1f} to {bounds[1]:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
