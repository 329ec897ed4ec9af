"""Accuracy of the tool, of peers and of trivial rules, over data sets, shots and seeds.

    python -m benchmarks.accuracy RUNS --data FOLDER ... --systems ours colour pixels plain-bank
        --shots 1 2 5 10 --seeds 0 1 2 --weights local-dir:FOLDER

Each run becomes a line of RUNS/runs.jsonl as soon as it is done, and is not done again; at the end
all lines become RUNS/table.md and RUNS/accuracy.png. ``--report-only`` makes those again.

``ours`` is finetune, export and eval with ``--options``; ``--variant NAME="--epochs 0"`` adds
``ours:NAME``, the same with other options; those after a ``--`` are export's. Peers need
``--peers-python``, the interpreter of their own environment.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from benchmarks.accuracy.datasets import DataSet, mvtec_style, one_against_rest, rendered
from benchmarks.accuracy.plot import write_plot
from benchmarks.accuracy.rows import KEY, Row, append_row, key, read_rows
from benchmarks.accuracy.systems import (
    PEERS,
    TRIVIAL,
    Run,
    SkipError,
    System,
    peer,
    plain_bank,
    trivial,
)
from benchmarks.accuracy.table import markdown
from benchmarks.accuracy.tool import ours
from benchmarks.rendered_parts import PARTS
from fsad_edge.cli.console import ERROR, STOPPED, fail, progress_bar
from fsad_edge.errors import FsadEdgeError, InputError
from fsad_edge.runtime.files import write_bytes

SYSTEMS = ("ours", "plain-bank", *PEERS, *TRIVIAL)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    chosen = _arguments().parse_args(argv)
    runs: Path = chosen.runs
    try:
        if not chosen.report_only:
            _run_all(chosen, runs)
        rows = read_rows(runs / "runs.jsonl")
        if not rows:
            raise InputError(f"{runs} has no rows yet: name data sets with --data.")
        write_bytes(runs / "table.md", markdown(rows).encode())
        write_plot(rows, runs / "accuracy.png")
    except FsadEdgeError as error:
        fail(str(error))
        return ERROR
    except KeyboardInterrupt:
        fail("stopped; the same command goes on from here.")
        return STOPPED
    print(f"{len(rows)} runs: {runs / 'table.md'} and {runs / 'accuracy.png'}")
    return 0


def _run_all(chosen: argparse.Namespace, folder: Path) -> None:
    """Do the runs that are not in the file yet."""
    with tempfile.TemporaryDirectory() as links:
        sets = _data_sets(chosen, folder, Path(links))
        draws = [
            (data, shots, seed) for data in sets for shots in chosen.shots for seed in chosen.seeds
        ]
        for data, shots, seed in draws:
            data.draw(shots, seed)  # too few images: say so before the first run
        systems = _systems(chosen)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be made: {error.strerror}.") from error
        file = folder / "runs.jsonl"
        known = {key(row) for row in read_rows(file) if not (chosen.again and "skipped" in row)}
        wanted = [
            (system, *draw)
            for group in dict.fromkeys(data.group for data in sets)
            for system in systems.items()  # one after the other, for their features are kept
            for draw in draws
            if draw[0].group == group
        ]
        # A console of its own, for the tool's is redirected while it runs.
        bar = Progress(*progress_bar().columns, console=Console(file=sys.stderr, soft_wrap=True))
        with bar:
            task = bar.add_task("runs", total=len(wanted), note="")
            for (name, system), data, shots, seed in wanted:
                label = f"{data.name}, {name}, {shots} shots, seed {seed}"
                bar.update(task, note=label)
                values = (data.name, name, system.settings, shots, seed)
                row: Row = dict(zip(KEY, values, strict=True))
                if key(row) not in known:
                    row |= _figures(system, Run(data, data.draw(shots, seed), seed))
                    append_row(file, row)
                    bar.console.print(f"{label}: {_said(row)}", highlight=False, markup=False)
                bar.advance(task)


def _figures(system: System, run: Run) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        figures = system.figures(run)
    except SkipError as reason:
        figures = {"skipped": str(reason)}
    return {**figures, "seconds": round(time.perf_counter() - started, 1)}


def _said(row: Row) -> str:
    if "skipped" in row:
        return f"skipped: {row['skipped']}"
    return f"image AUROC {row['image_auroc']:.4f} in {row['seconds']} s"


def _data_sets(chosen: argparse.Namespace, folder: Path, links: Path) -> list[DataSet]:
    sets = [mvtec_style(path) for path in chosen.data]
    for path in chosen.one_class:
        sets += one_against_rest(path, chosen.classes, links)
    sets += [rendered(part, folder / "rendered") for part in chosen.rendered]
    names = [data.name for data in sets]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two data sets are called {name}: rename one of the folders.")
    if not sets:
        raise InputError("there is no data set: give --data, --one-class or --rendered.")
    return sets


def _systems(chosen: argparse.Namespace) -> dict[str, System]:
    found = {}
    for name in chosen.systems:
        if name == "ours":
            found[name] = ours(chosen.options)
        elif name in TRIVIAL:
            found[name] = trivial(name)
        elif name == "plain-bank":
            found[name] = plain_bank(chosen.weights, chosen.size)
        else:
            found[name] = _peer(name, chosen)
    for variant in chosen.variant:
        name, equals, options = variant.partition("=")
        if not equals or not name:
            raise InputError(f"--variant takes NAME=\"OPTIONS\", not '{variant}'.")
        found[f"ours:{name}"] = ours(options)
    return found


def _peer(name: str, chosen: argparse.Namespace) -> System:
    if not shutil.which(chosen.peers_python):
        raise InputError(f"{name} needs --peers-python, the interpreter of the peers' environment.")
    if not chosen.weights.startswith("local-dir:"):
        raise InputError(f"{name} needs --weights local-dir:FOLDER, the weights that all take.")
    return peer(name, chosen.peers_python, chosen.weights, chosen.size, chosen.threads)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("runs", type=Path, help="folder of rows, table and plot; made where it is missing")
    add("--data", type=Path, nargs="+", default=[], help="MVTec-style folders")
    add("--one-class", type=Path, nargs="+", default=[], help="folders with train/<class>, test/…")
    add("--classes", nargs="+", default=[], help="of those, the normal ones; all by default")
    add("--rendered", nargs="+", default=[], choices=sorted(PARTS), help="the demo's parts")
    add("--systems", nargs="*", default=["ours", "plain-bank", *TRIVIAL], choices=SYSTEMS)
    add("--variant", action="append", default=[], help='NAME="OPTIONS": adds ours:NAME')
    add("--options", default="", help="of finetune, for ours; as --options='--flip'")
    add("--shots", type=int, nargs="+", default=[1, 2, 5, 10])
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--weights", default="fsad_edge", help="of plain-bank and peers, in timm's forms")
    add("--size", type=int, default=224, help="pixels a side, of plain-bank and peers")
    add("--threads", type=int, default=os.cpu_count() or 1, help="of peers")
    add("--peers-python", default="", help="interpreter of the peers' environment")
    add("--again", action="store_true", help="try again what was skipped")
    add("--report-only", action="store_true", help="make table and plot from the rows")
    return parser


if __name__ == "__main__":
    sys.exit(main())
