"""Accuracy of fsad-edge, of other systems and of baselines, over data sets, shots and seeds.

    python -m benchmarks.accuracy RUNS --data FOLDER ... --systems ours colour pixels plain-bank
        --shots 1 2 5 10 --seeds 0 1 2 --weights local-dir:FOLDER

Each run becomes a line of RUNS/runs.jsonl as soon as it is done, and is not repeated. At the end
all lines become RUNS/table.md and RUNS/accuracy.png; ``--report-only`` writes only these.

``--mvtec FOLDER`` and ``--visa FOLDER`` run the field's few-shot protocol on your own copy of
MVTec AD or VisA: :mod:`benchmarks.accuracy.field`. They need no other argument.

``ours`` is finetune, export and evaluate with the options of ``--options``, written like
``image_size=224 strides=8,16 precision=int8``: the fields of FinetuneOptions and ExportOptions.
``--variant "NAME: OPTIONS"`` adds ``ours:NAME`` with other options. Other systems need
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

from benchmarks.accuracy.datasets import DataSet, mvtec_style, one_against_rest, rendered
from benchmarks.accuracy.field import (
    MVTEC_AD,
    OPTIONS,
    SETS,
    SHOTS,
    VISA,
    check_classes,
    mvtec_ad,
    visa,
)
from benchmarks.accuracy.ours import ours
from benchmarks.accuracy.plot import write_plot
from benchmarks.accuracy.rows import KEY, Row, append_row, key, read_rows
from benchmarks.accuracy.systems import (
    BASELINES,
    PEERS,
    Run,
    SkipError,
    System,
    baseline,
    peer,
    plain_bank,
)
from benchmarks.accuracy.table import markdown
from benchmarks.rendered_parts import PARTS
from fsad_edge.cli.console import ERROR, STOPPED, fail, progress_bar
from fsad_edge.errors import FsadEdgeError, InputError
from fsad_edge.runtime.files import write_bytes

SYSTEMS = ("ours", "plain-bank", *PEERS, *BASELINES)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    _fill_in(arguments)
    folder: Path = arguments.runs
    try:
        if not arguments.report_only:
            _run_all(arguments, folder)
        rows = read_rows(folder / "runs.jsonl")
        if not rows:
            raise InputError(f"{folder} has no rows yet: name data sets, such as with --data.")
        write_bytes(folder / "table.md", markdown(rows).encode())
        write_plot(rows, folder / "accuracy.png")
    except FsadEdgeError as error:
        fail(str(error))
        return ERROR
    except KeyboardInterrupt:
        fail("stopped; the same command continues from here.")
        return STOPPED
    print(f"{len(rows)} runs: {folder / 'table.md'} and {folder / 'accuracy.png'}")
    return 0


def _fill_in(arguments: argparse.Namespace) -> None:
    """Set what was not given: published sets have a protocol of their own."""
    field = arguments.mvtec is not None or arguments.visa is not None
    if arguments.shots is None:
        arguments.shots = list(SHOTS) if field else [1, 2, 5, 10]
    if arguments.systems is None:
        arguments.systems = ["ours"] if field else ["ours", "plain-bank", *BASELINES]
    if arguments.options is None:
        arguments.options = OPTIONS if field else ""


def _run_all(arguments: argparse.Namespace, folder: Path) -> None:
    """Do the runs that are not in the file yet."""
    with tempfile.TemporaryDirectory() as links:
        sets = _data_sets(arguments, folder, Path(links))
        runs = [  # drawn before the first run, so that too few images are reported at once
            Run(data, data.draw(shots, seed), seed)
            for data in sets
            for shots in arguments.shots
            for seed in arguments.seeds
        ]
        systems = _systems(arguments)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be made: {error.strerror}.") from error
        file = folder / "runs.jsonl"
        done = {key(row) for row in read_rows(file) if not (arguments.again and "skipped" in row)}
        # One system after another within a data set, because its features are kept in memory.
        planned = [
            (name, system, run)
            for group in dict.fromkeys(data.group for data in sets)
            for name, system in systems.items()
            for run in runs
            if run.data.group == group
        ]
        with progress_bar() as bar:
            task = bar.add_task("runs", total=len(planned), note="")
            for name, system, run in planned:
                label = f"{run.data.name}, {name}, {len(run.shots)} shots, seed {run.seed}"
                bar.update(task, note=label)
                values = (run.data.name, name, system.settings, len(run.shots), run.seed)
                row: Row = dict(zip(KEY, values, strict=True))
                if key(row) not in done:
                    row |= _figures(system, run)
                    append_row(file, row)
                    bar.console.print(f"{label}: {_outcome(row)}", highlight=False, markup=False)
                bar.advance(task)


def _figures(system: System, run: Run) -> dict[str, Any]:
    """The columns of a row that the run gives."""
    started = time.perf_counter()
    try:
        figures = system.figures(run)
    except SkipError as reason:
        figures = {"skipped": str(reason)}
    except InputError as reason:  # one class must not keep a run of days from the others
        if not run.data.published:
            raise
        figures = {"skipped": str(reason)}
    return {**figures, "seconds": round(time.perf_counter() - started, 1)}


def _outcome(row: Row) -> str:
    if "skipped" in row:
        return f"skipped: {row['skipped']}"
    return f"image AUROC {row['image_auroc']:.4f} in {row['seconds']} s"


def _data_sets(arguments: argparse.Namespace, folder: Path, links: Path) -> list[DataSet]:
    if arguments.mvtec is not None or arguments.visa is not None:
        return _published_sets(arguments, links)
    sets = [mvtec_style(path) for path in arguments.data]
    for path in arguments.one_class:
        sets += one_against_rest(path, arguments.classes, links)
    sets += [rendered(part, folder / "rendered") for part in arguments.rendered]
    names = [data.name for data in sets]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two data sets are called {name}: rename one of the folders.")
    if not sets:
        raise InputError(
            "there is no data set: give --data, --one-class, --rendered, --mvtec or --visa."
        )
    return sets


def _published_sets(arguments: argparse.Namespace, links: Path) -> list[DataSet]:
    if arguments.data or arguments.one_class or arguments.rendered:
        raise InputError("--mvtec and --visa have their own protocol: leave out the other sets.")
    asked = [(MVTEC_AD, arguments.mvtec), (VISA, arguments.visa)]
    given = [(field, folder) for field, folder in asked if folder is not None]
    check_classes(arguments.classes, [field for field, _ in given])
    sets: list[DataSet] = []
    for field, folder in given:
        chosen = [name for name in arguments.classes if name in field.classes]
        if chosen or not arguments.classes:
            sets += mvtec_ad(folder, chosen) if field is MVTEC_AD else visa(folder, chosen, links)
    return sets


def _systems(arguments: argparse.Namespace) -> dict[str, System]:
    systems = {}
    for name in arguments.systems:
        if name == "ours":
            systems[name] = ours(arguments.options)
        elif name in BASELINES:
            systems[name] = baseline(name)
        elif name == "plain-bank":
            systems[name] = plain_bank(arguments.weights, arguments.size)
        else:
            systems[name] = _peer(name, arguments)
    for variant in arguments.variant:
        name, colon, options = variant.partition(":")
        if not colon or not name:
            raise InputError(f"--variant takes \"NAME: OPTIONS\", not '{variant}'.")
        systems[f"ours:{name}"] = ours(options.strip())
    return systems


def _peer(name: str, arguments: argparse.Namespace) -> System:
    python, weights = shutil.which(arguments.peers_python), arguments.weights
    if python is None:
        raise InputError(f"{name} needs --peers-python, the interpreter of the peers' environment.")
    if not weights.startswith("local-dir:"):
        raise InputError(f"{name} needs --weights local-dir:FOLDER, the weights that all take.")
    return peer(name, Path(python), weights, arguments.size, arguments.threads)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "runs",
        type=Path,
        nargs="?",
        default=Path("accuracy_runs"),
        help="folder of the rows, table and plot; made if missing; default accuracy_runs",
    )
    add("--mvtec", type=Path, metavar="FOLDER", help="your copy of MVTec AD: the field's protocol")
    add("--visa", type=Path, metavar="FOLDER", help="your copy of VisA: the field's protocol")
    add("--data", type=Path, nargs="+", default=[], help="folders in the layout of MVTec AD")
    add("--one-class", type=Path, nargs="+", default=[], help="folders of train/CLASS, test/CLASS")
    add("--classes", nargs="+", default=[], help="the normal classes, one task each; default all")
    add("--rendered", nargs="+", default=[], choices=sorted(PARTS), help="parts of the demo")
    add(
        "--systems",
        nargs="*",
        choices=SYSTEMS,
        help="default: ours, and plain-bank and baselines",
    )
    add("--variant", action="append", default=[], help='"NAME: OPTIONS" adds ours:NAME')
    add("--options", help='options of ours, such as "image_size=224 precision=int8"')
    add("--shots", type=int, nargs="+", help="numbers of normal images; default 1 2 5 10, or 1 2 4")
    add("--seeds", type=int, nargs="+", default=list(SETS), help="random seeds, or sets, of shots")
    add("--weights", default="fsad_edge", help="encoder of plain-bank and of the peers")
    add("--size", type=int, default=224, help="image size in pixels of plain-bank and the peers")
    add("--threads", type=int, default=os.cpu_count() or 1, help="threads of the peers")
    add("--peers-python", default="", help="interpreter of the peers' environment")
    add("--again", action="store_true", help="repeat runs that were skipped")
    add(
        "--report-only", action="store_true", help="write table and plot from the rows, run nothing"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
