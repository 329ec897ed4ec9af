"""``fsad-edge score``: score images with an exported file."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsad_edge.cli.console import ANOMALY, ERROR, GOOD, err, fail, out, print_json, warn
from fsad_edge.errors import ImageError, InputError

if TYPE_CHECKING:
    from fsad_edge.learning.learner import Learner
    from fsad_edge.runtime.model import Model, Result

FIELDS = ["image", "score", "ratio", "decision", "ms", "error"]


def score(
    model: Annotated[Path, typer.Argument(help="File that export wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    heatmaps: Annotated[
        Path | None, typer.Option(help="Folder to write a heat map of each image into.")
    ] = None,
    provider: Annotated[str, typer.Option(help="auto, cpu, cuda or tensorrt.")] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse to run on the CPU in place of the GPU.")
    ] = False,
    threads: Annotated[
        int, typer.Option(min=0, help="For one image; 0 leaves the choice to the engine.")
    ] = 0,
    learned: Annotated[
        bool, typer.Option(help="Use what the model learned on this device, if anything.")
    ] = True,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Score an archive on all cores: one folder, or Parquet with a column path, image "
            "or bytes. Run it again after a stop: it goes on.",
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="With --ray: folder for Parquet files.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="With --ray: of a cluster, such as auto or HOST:6379.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="With --ray: at a time, --threads each; 0: one a core.")
    ] = 0,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="With --ray: score unreadable images anew.")
    ] = False,
) -> None:
    """Score images: a row each. Exit code 0: all good; 1: an anomaly found; 2: an error."""
    if ray:
        from fsad_edge.cli.archive import ArchiveRequest, score_archive

        if heatmaps is not None or csv_:
            raise InputError("--heatmaps and --csv do not go with --ray, which writes Parquet.")
        if len(images) != 1 or output is None:
            raise InputError("--ray takes one folder or Parquet file, and --output FOLDER.")
        request = ArchiveRequest(address, workers, threads, output, retry_errors)
        return score_archive(model, images[0], request, provider, strict, learned, json_)
    if output is not None or address is not None or workers or retry_errors:
        raise InputError("--output, --address, --workers and --retry-errors go with --ray alone.")
    from fsad_edge.runtime.images import find_images
    from fsad_edge.runtime.model import Model

    if json_ and csv_:
        raise InputError("take one of --json and --csv.")
    paths: list[tuple[Path, Path]] = []  # each with its heat map's place
    for given in images:
        if given.is_dir():
            paths += [(found, found.relative_to(given)) for found in find_images(given)]
        else:
            paths.append((given, Path(given.name)))
    places = _apart(paths)
    rows: list[dict[str, Any]] = []
    with Model.load(model, provider, threads, strict=strict) as loaded:
        if loaded.notice:
            warn(loaded.notice)
        known = put_learned(model, loaded) if learned else None
        number = len(known.active) if known else 0
        writer = csv.DictWriter(sys.stdout, FIELDS)
        if csv_:
            writer.writeheader()
        elif not json_:
            out.print(f"{'score':>9}  {'ratio':>6}  {'decision':<8}  {'ms':>7}  image")
        for path, place in places.items():
            row = _score(loaded, path, place, heatmaps)
            rows.append(row)
            if csv_:
                writer.writerow(row)
            elif not json_:
                _print(row)
    errors = sum(row["decision"] == "error" for row in rows)
    anomalies = sum(row["decision"] == "anomaly" for row in rows)
    if json_:
        print_json(
            {
                "model": str(model),
                "provider": loaded.provider,
                "learned": number,
                "images": rows,
            }
        )
    elif not csv_:
        counts = f"{len(rows)} images: {len(rows) - errors - anomalies} good, {anomalies} anomalies"
        out.print(counts + (f", {errors} could not be read" if errors else ""))
        if heatmaps is not None and errors < len(rows):
            out.print(f"Heat maps are in {heatmaps}.", markup=False)
    raise typer.Exit(ERROR if errors else ANOMALY if anomalies else GOOD)


def _apart(paths: list[tuple[Path, Path]]) -> dict[Path, Path]:
    """Each image once, with a heat map's place of its own: folders share file names."""
    places: dict[Path, Path] = {}
    for path, place in paths:
        if path in places:
            continue
        number, free = 1, place
        while free in places.values():
            number += 1
            free = place.with_name(f"{place.stem}_{number}{place.suffix}")
        places[path] = free
    return places


def put_learned(path: Path, model: Model) -> Learner | None:
    """Put in force what was learned beside the file, and say so; None where there is nothing."""
    from fsad_edge.learning.learner import Learner, store_path

    if not store_path(path).exists():
        return None
    with Learner.open(path, model, write=False) as learned:
        if learned.notice:
            warn(learned.notice)
        if learned.active:
            err.print(
                f"with {len(learned.active)} images learned here; --no-learned leaves them out",
                markup=False,
            )
        return learned if learned.active else None


def _score(model: Any, path: Path, place: Path, heatmaps: Path | None) -> dict[str, Any]:
    try:
        result: Result = model.score(path)
    except ImageError as error:
        fail(str(error))  # the others are still scored
        return {
            **dict.fromkeys(FIELDS),
            "image": str(path),
            "decision": "error",
            "error": str(error),
        }
    if heatmaps is not None:
        _write_heatmap(path, heatmaps / place, result)
    return {
        "image": str(path),
        "score": round(result.score, 6),
        "ratio": round(result.ratio, 4),
        "decision": "anomaly" if result.anomalous else "good",
        "ms": round(sum(result.timings.values()), 2),
        "error": None,
    }


def _print(row: dict[str, Any]) -> None:
    if row["decision"] == "error":
        return
    style = "bold red" if row["decision"] == "anomaly" else None
    out.print(
        f"{row['score']:9.4f}  {row['ratio']:6.2f}  {row['decision']:<8}  {row['ms']:7.1f}  "
        f"{row['image']}",
        style=style,
        markup=False,
    )


def _write_heatmap(path: Path, target: Path, result: Result) -> None:
    from fsad_edge.runtime.files import write_bytes
    from fsad_edge.runtime.heatmap import describe, render
    from fsad_edge.runtime.images import load_image

    caption = describe(path.name, result.score, result.threshold)
    picture = render(
        load_image(path), result.anomaly_map, result.map_threshold, caption, result.anomalous
    )
    # The suffix stays in the name: part.jpg and part.png may stand side by side.
    target = target.with_name(target.name + ".heatmap.png")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{target.parent} cannot be made: {error.strerror or error}.") from error
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes(target, buffer.getvalue())
