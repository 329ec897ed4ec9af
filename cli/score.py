"""``fsad-edge score``: score images with an exported file."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsad_edge.cli.console import (
    ERROR,
    counted,
    err,
    exit_code,
    fail,
    out,
    print_json,
    tell_unseen,
    warn,
)
from fsad_edge.cli.shared_options import (
    Json,
    Learned,
    MmPerPx,
    RunsOn,
    SkipUnreadable,
    Strict,
    Threads,
)
from fsad_edge.cli.unused_options import refuse_unused
from fsad_edge.errors import InputError
from fsad_edge.options import Decision, HeatScale, Provider
from fsad_edge.pipeline.score import (
    HEATMAP,
    WHY,
    ScoredFile,
    collect_images,
    picture_beside,
    score_pages,
)
from fsad_edge.runtime.folders import Skipped, describe
from fsad_edge.runtime.plain_text import printable
from fsad_edge.runtime.real_scale import check_mm_per_px

if TYPE_CHECKING:
    from fsad_edge.learning.summary import TaughtSummary
    from fsad_edge.runtime.model import Model


#: How a row is printed; a good one has no colour.
STYLES = {Decision.ANOMALY: "bold red", Decision.NOT_JUDGED: "bold yellow"}


def score(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="File that export wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    heatmaps: Annotated[
        Path | None, typer.Option(help="Folder for a heat map of each image.")
    ] = None,
    scale: Annotated[
        HeatScale,
        typer.Option(
            help="Colours of the heat maps: threshold: what is near the threshold and above it; "
            "near: also, in blue, what lies well below it."
        ),
    ] = HeatScale.THRESHOLD,
    why: Annotated[
        Path | None,
        typer.Option(
            help="Folder for a picture of each anomaly beside the most similar good place of the "
            "shots, with a sentence that says how they differ."
        ),
    ] = None,
    provider: RunsOn = Provider.AUTO,
    strict: Strict = False,
    threads: Threads = 0,
    learned: Learned = True,
    skip_unreadable: SkipUnreadable = False,
    mm_per_px: MmPerPx = None,
    json_: Json = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Score images: a row each.

    Exit code 2: an error; else 1: an anomaly found; else 3: an image is not judged; else 0: all
    good.
    """
    from fsad_edge.runtime.model import Model
    from fsad_edge.twin import check_has_twins

    if json_ and csv_:
        raise InputError("--json and --csv exclude each other: give one of them.")
    if heatmaps is None:
        refuse_unused(context, "--heatmaps", "scale")
    if mm_per_px is not None:
        check_mm_per_px(mm_per_px)
    found = collect_images(images)
    with Model.load(model, provider, threads, strict=strict) as loaded:
        if why is not None:
            check_has_twins(loaded)
        taught, notices = _apply_learned(model, loaded, learned)
        rows = _score_all(loaded, found.images, heatmaps, scale, mm_per_px, why)
        if json_:
            scored = list(rows)
            print_json(
                {
                    "model": str(model),
                    "provider": loaded.provider,
                    "learned": taught.learned,
                    "rejected": taught.rejected,
                    "zones": taught.zones,
                    "threshold": loaded.threshold,
                    "threshold_set_by": taught.set_by,
                    "notices": notices,
                    "images": [row.as_dict() for row in scored],
                    "skipped": [one.as_dict() for one in found.skipped],
                }
            )
        else:
            scored = _print_csv(rows) if csv_ else _print_table(rows)
    if not json_:
        closing = err if csv_ else out
        closing.print(_closing_line(scored, found.skipped))
        drawn = [row for row in scored if row.error is None and row.heatmap_error is None]
        if heatmaps is not None and drawn:
            closing.print(f"Heat maps are in {heatmaps}.")
        if any(row.twins for row in scored):
            closing.print(f"What the anomalies differ in is in {why}.")
    _tell_lost(scored)
    tell_unseen(found.skipped, skip_unreadable)
    raise typer.Exit(_exit_code(scored, found.skipped, skip_unreadable))


def _tell_lost(scored: list[ScoredFile]) -> None:
    """Say how many pictures were asked for and could not be written."""
    heatmaps = sum(row.heatmap_error is not None for row in scored)
    if heatmaps:
        fail(f"{heatmaps} of {counted(len(scored), 'heat map')} could not be written.")
    whys = [row.why_error for row in scored if row.why_error is not None]
    if whys:
        fail(f"{counted(len(whys), 'picture')} of anomalies could not be made: {whys[0]}")


def _exit_code(scored: list[ScoredFile], skipped: list[Skipped], skip_unreadable: bool) -> int:
    counts = Counter(row.decision for row in scored)
    errors = counts[Decision.ERROR]
    unseen = errors > 0 or any(one.unseen for one in skipped)
    if errors == len(scored) or (unseen and not skip_unreadable):
        return ERROR
    if any(row.heatmap_error or row.why_error for row in scored):
        return ERROR
    return exit_code(counts[Decision.ANOMALY], counts[Decision.NOT_JUDGED])


def _closing_line(scored: list[ScoredFile], skipped: list[Skipped]) -> str:
    """Every image and every entry of the folders, counted."""
    counts = Counter(row.decision for row in scored)
    errors, not_judged = counts[Decision.ERROR], counts[Decision.NOT_JUDGED]
    line = (
        f"{counted(len(scored) - errors, 'image')} scored: {counts[Decision.GOOD]} good, "
        f"{counted(counts[Decision.ANOMALY], 'anomaly', 'anomalies')}"
    )
    parts = [f"{line}, {not_judged} not judged" if not_judged else line]
    if errors:
        parts.append(f"{errors} could not be read")
    if skipped:
        parts.append(describe(skipped))
    return "; ".join(parts)


def _apply_learned(path: Path, model: Model, learned: bool) -> tuple[TaughtSummary, list[str]]:
    """Score with what was taught on this device, unless that is left out, and say so.

    Returns:
        what it is, and what is to be known of it and of the file, as sentences.
    """
    from fsad_edge.learning.learner import Learner
    from fsad_edge.learning.summary import TaughtSummary

    summary, notices = TaughtSummary(), list(model.notices)
    if learned:
        with Learner.open(path, model, write=False) as learner:
            if learner.notice:
                notices.append(learner.notice)
            summary = learner.summary
    for notice in notices:
        warn(notice)
    if summary.sentence is not None:
        err.print(f"{summary.sentence}; --no-learned scores with the file alone")
    return summary, notices


def _score_all(
    model: Model,
    targets: dict[Path, Path],
    heatmaps: Path | None,
    colours: HeatScale,
    mm_per_px: float | None,
    why: Path | None,
) -> Iterator[ScoredFile]:
    told = False
    for path, name in targets.items():
        target = heatmaps and picture_beside(heatmaps / name, HEATMAP)
        beside = why and picture_beside(why / name, WHY)
        for row in score_pages(model, path, target, colours, mm_per_px, beside):
            if row.error is not None:
                fail(row.error)  # the other images are still scored
            if row.heatmap_error is not None and not told:
                told = True  # on a full disk all the others say the same
                fail(row.heatmap_error)
            yield row


def _print_csv(rows: Iterator[ScoredFile]) -> list[ScoredFile]:
    writer = csv.DictWriter(sys.stdout, [field.name for field in dataclasses.fields(ScoredFile)])
    writer.writeheader()
    printed = []
    for row in rows:
        words = {
            "good": str(row.good).lower(),
            "doubts": " ".join(row.doubts),
            "reasons": "; ".join(row.reasons),
            "regions": row.region_words,
            "twins": row.sentences,
        }
        cells = vars(row) | words
        # It may be shown on a terminal, too; JSON holds every name as it is.
        writer.writerow(
            {key: printable(one) if isinstance(one, str) else one for key, one in cells.items()}
        )
        sys.stdout.flush()  # as the table does: a reader need not wait for the last image
        printed.append(row)
    return printed


def _print_table(rows: Iterator[ScoredFile]) -> list[ScoredFile]:
    out.print(f"{'score':>9}  {'ratio':>6}  {'decision':<10}  {'ms':>7}  image")
    printed = []
    for row in rows:
        printed.append(row)
        if row.decision is not Decision.ERROR:
            # Of an image that is not judged, the reason says enough.
            found = [one for one in (row.out_of_place, row.sentences or row.region_words) if one]
            said = list(row.reasons) or found
            why = f"  ({'; '.join(said)})" if said else ""
            out.print(
                f"{row.score:9.4f}  {row.ratio:6.2f}  {row.decision.words:<10}  {row.ms:7.1f}  "
                f"{row.image}{why}",
                style=STYLES.get(row.decision),
            )
    return printed
