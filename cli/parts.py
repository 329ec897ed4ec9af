"""``fsad-edge finetune --ray``: a folder of parts, one model each, as many at a time as there is
room for."""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from fsad_edge.cli.console import ERROR, fail, out, print_json, progress_bar, warn, warned
from fsad_edge.errors import FsadEdgeError, InputError, MissingExtraError
from fsad_edge.pipeline.finetune import PartOptions, make_part
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.images import find_images

#: What is written beside the models, a row a part.
TABLE = "parts.csv"
FIELDS = ("part", "shots", "threshold", "auroc", "seconds", "state", "reliability", "error")


@dataclass(frozen=True)
class PartsRequest:
    """What is asked of a folder of parts.

    Attributes:
        output: folder for the models, each under its part's name.
        address: of a Ray cluster; None: this machine.
        workers: parts at a time; 0: what cores and memory bear.
        export: write each part's ONNX file, too.
    """

    output: Path
    address: str | None
    workers: int
    export: bool


def finetune_parts(place: Path, request: PartsRequest, options: PartOptions, json_: bool) -> None:
    """Fine-tune every part, write the table; exit code 2 where a part failed."""
    try:
        from fsad_edge.distributed.cluster import cluster
        from fsad_edge.distributed.parts import run_parts
    except ImportError as error:
        raise MissingExtraError(error.name or "ray", "ray") from error
    parts = _find_parts(place)
    output = request.output.absolute()
    try:
        output.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{output} cannot be made: {error.strerror or error}.") from error
    # A worker's own folder need not be this one.
    weights = options.weights and options.weights.absolute()
    options = dataclasses.replace(options, threads=options.threads or 1, weights=weights)
    rows: dict[str, dict[str, Any]] = {}
    for shots in parts:
        kept = None if options.force else _kept(shots, output / shots.name, request.export)
        if kept is not None:
            rows[shots.name] = kept
    rest = [shots for shots in parts if shots.name not in rows]
    if rest:
        calls = {
            shots.name: (shots, output / shots.name, options, request.export) for shots in rest
        }
        with cluster(request.address) as ray, progress_bar() as bar:
            task = bar.add_task("fine-tuning parts", total=len(rest), note="")
            for name, row in run_parts(ray, make, calls, options.threads, request.workers):
                for sentence in row.pop("warnings", []):  # a worker's own screen is nowhere
                    warn(f"{name}: {sentence}")
                rows[name] = {**dict.fromkeys(FIELDS), **row, "part": name}
                bar.update(task, advance=1, note=name)
                if row["error"]:
                    fail(f"{name}: {row['error']}")  # the others go on
                _write(output / TABLE, rows)
    _write(output / TABLE, rows)
    table = [rows[name] for name in sorted(rows)]
    failed = sum(row["state"] == "failed" for row in table)
    if json_:
        print_json({"output": str(output), "failed": failed, "parts": table})
    else:
        _print(table)
        out.print(
            f"{len(table)} parts, {failed} failed. The table is {output / TABLE}.", markup=False
        )
    raise typer.Exit(ERROR if failed else 0)


def make(shots: Path, output: Path, options: PartOptions, export: bool) -> dict[str, Any]:
    """One part, in a process of Ray's: its row of the table. Never raises for a bad part."""
    started = time.perf_counter()
    warned.clear()
    try:
        made = make_part(shots, output, dataclasses.replace(options, force=True)).summary
        if export:
            _export(output)
    except FsadEdgeError as error:
        seconds = _since(started)
        return {"state": "failed", "error": str(error), "seconds": seconds, "warnings": [*warned]}
    return {
        "warnings": [*warned],
        "shots": made["shots"],
        "threshold": made["threshold"],
        "auroc": _auroc(made["alignment"], made["aligned"]),
        "seconds": _since(started),
        "state": "made",
        "reliability": made["reliability"],
        "error": None,
    }


def _export(part: Path) -> None:
    from fsad_edge.cli.export import export

    export(part, force=True, json_=True)


def _find_parts(place: Path) -> list[Path]:
    if not place.is_dir():
        raise InputError(f"{place} is not a folder: give one that holds a folder for each part.")
    parts = sorted(
        path.absolute()
        for path in place.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    )
    if not parts:
        raise InputError(f"{place} holds no folder: make one for each part, its shots inside.")
    return parts


def _kept(shots: Path, model: Path, export: bool) -> dict[str, Any] | None:
    """The row of a part that is there already, made from these very shots; None: make it."""
    from fsad_edge.runtime.files import sha256
    from fsad_edge.training.model_directory import read_encoder, read_manifest, read_reference

    if not model.exists():
        return None
    try:
        onnx = model.with_name(f"{model.name}.onnx")
        if export and onnx.stat().st_mtime < (model / "manifest.json").stat().st_mtime:
            return None  # it is of the model before this one
        manifest = read_manifest(model)
        read_encoder(model, manifest)
        read_reference(model, manifest)
        given = sorted(sha256(path.read_bytes()) for path in find_images(shots))
    except (FsadEdgeError, OSError):
        return None
    if given != sorted(entry["sha256"] for entry in manifest.shots):
        return None
    return {
        **dict.fromkeys(FIELDS),
        "part": shots.name,
        "shots": len(given),
        "threshold": manifest.threshold.value,
        "auroc": _auroc(manifest.training["alignment"], manifest.calibration["align"]),
        "state": "there already",
        "reliability": manifest.threshold.reliability,
    }


def _auroc(alignment: dict[str, Any], kept: bool) -> float:
    """On synthesised defects, of the model as it was made."""
    return round(float(alignment["after" if kept else "before"]), 4)


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 1)


def _write(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, FIELDS)
    writer.writeheader()
    writer.writerows(rows[name] for name in sorted(rows))
    write_bytes(path, buffer.getvalue().encode("utf-8", "backslashreplace"))


def _print(table: list[dict[str, Any]]) -> None:
    width = max(len("part"), *(len(row["part"]) for row in table))
    out.print(f"{'part':<{width}}  shots  threshold  auroc  seconds  state", markup=False)
    for row in table:
        cells = (
            f"{row['part']:<{width}}",
            f"{_text(row['shots'], 'd'):>5}",
            f"{_text(row['threshold'], '.4g'):>9}",
            f"{_text(row['auroc'], '.3f'):>5}",
            f"{_text(row['seconds'], '.1f'):>7}",
            row["state"] + (f": {row['error']}" if row["error"] else ""),
        )
        style = "bold red" if row["error"] else None
        out.print("  ".join(cells), markup=False, style=style)


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
