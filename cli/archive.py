"""``fsad-edge score --ray``: an archive of images, on all cores of a machine or of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fsad_edge.cli.console import (
    ANOMALY,
    ERROR,
    GOOD,
    err,
    out,
    print_facts,
    print_json,
    progress_bar,
)
from fsad_edge.cli.score import put_learned
from fsad_edge.errors import InputError, MissingExtraError
from fsad_edge.runtime.files import check_output

if TYPE_CHECKING:
    from fsad_edge.distributed.score import LoadedModel


@dataclass(frozen=True)
class ArchiveRequest:
    """What is asked of an archive.

    Attributes:
        address: of a Ray cluster; None: this machine.
        workers: at a time; 0: as many as there are cores for.
        threads: of each; 0: one.
        output: folder for the rows.
        retry_errors: score images anew that could not be read.
    """

    address: str | None
    workers: int
    threads: int
    output: Path
    retry_errors: bool


def score_archive(
    model: Path,
    place: Path,
    request: ArchiveRequest,
    provider: str,
    strict: bool,
    learned: bool,
    json_: bool,
) -> None:
    """Score an archive and say what came of it; exits as ``fsad-edge score`` does."""
    try:
        from fsad_edge.distributed import score
        from fsad_edge.distributed.archive import Archive, Counts
        from fsad_edge.distributed.cluster import cluster
        from fsad_edge.distributed.source import read_source
    except ImportError as error:
        raise MissingExtraError(error.name or "ray", "ray") from error
    check_output(request.output, force=True)
    threads = request.threads or 1
    loaded = _load(model, provider, strict, threads, learned)
    with err.status("listing images"):
        source = read_source(place)
    archive = Archive.open(
        request.output, {"name": loaded.name, "sha256": loaded.sha256}, source.place
    )
    if request.retry_errors:
        archive.forget_errors()
    done, earlier = archive.done(source.key)
    counts, rest = Counts(), source.missing(done).num_rows
    spans: list[tuple[float, float]] = []
    workers = request.workers
    if rest:
        with cluster(request.address) as ray, progress_bar() as bar:
            gpu = provider in {"cuda", "tensorrt"} or model.suffix == ".engine"
            workers = score.plan_workers(ray, workers, threads, gpu)
            task = bar.add_task("scoring", total=rest, note=f"starting {workers} workers")
            for batch in score.score_archive(ray, source, archive, done, loaded, workers, gpu):
                counts += batch.counts
                spans.append((batch.begun, batch.ended))
                note = f"{counts.anomalies} anomalies, {counts.errors} unreadable"
                bar.update(task, completed=counts.images, note=note)
    whole, total = archive.done(source.key)
    left = source.missing(whole).num_rows
    if left:
        raise InputError(
            f"{left} images have no row in {request.output}: run the same command again."
        )
    seconds = max(end for _, end in spans) - min(start for start, _ in spans) if spans else 0.0
    if json_:
        print_json(
            {
                "output": str(request.output),
                "images": total.images,
                **vars(total),
                "scored": counts.images,
                "scored_before": earlier.images,
                "workers": workers,
                "threads": threads,
                "seconds": round(seconds, 3),
            }
        )
    else:
        out.print(
            f"{total.images} images in {request.output}: {total.good} good, {total.anomalies} "
            f"anomalies, {total.errors} could not be read",
            markup=False,
        )
        speed = f", {counts.images / seconds:.1f} a second" if seconds else ""
        facts = {"scored now": f"{counts.images} by {workers} workers{speed}" if rest else "none"}
        if earlier.images:
            facts["before"] = str(earlier.images)
        print_facts(facts)
    raise typer.Exit(ERROR if total.errors else ANOMALY if total.anomalies else GOOD)


def _load(model: Path, provider: str, strict: bool, threads: int, learned: bool) -> LoadedModel:
    """The model as workers get it; that it can be loaded is shown here, before Ray is started."""
    from fsad_edge.distributed.score import LoadedModel
    from fsad_edge.runtime.model import Model

    # On a cluster this machine need not have what the workers have.
    here = "auto" if model.suffix == ".engine" else "cpu"
    with Model.load(model, here, threads) as loaded:
        known = put_learned(model, loaded) if learned else None
        reference = (known.reference, known.threshold.value) if known else None
    return LoadedModel(model.read_bytes(), str(model), provider, strict, threads, reference)
