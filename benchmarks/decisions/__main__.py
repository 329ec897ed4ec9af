"""What a model decides, over data sets and draws of shots: a table, a plot and the raw rows.

    python -m benchmarks.decisions OUT --data DATASET ... [--rendered] [--seeds 0 1 2 3]

For each data set and seed, shots are drawn, and ``finetune`` and ``export`` make a model of them.
Its decisions on the test images give the false alarms and misses at its own threshold, with
examples and at the best threshold; how often p-values are small on good parts; and what is not
judged, of pictures of anything else, of good parts and of defects. A run that was cut off goes on
from its rows.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accuracy.datasets import DataSet, mvtec_style, rendered
from benchmarks.accuracy.rows import append_row, read_rows
from benchmarks.decisions.parts import make_part
from benchmarks.decisions.plot import write_plot
from benchmarks.decisions.rows import row_of
from benchmarks.decisions.table import table
from fsad_edge.cli.console import err
from fsad_edge.runtime.files import write_bytes

#: Parts of the demo that are rendered.
RENDERED = ("bracket", "label", "wood")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decisions", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for rows.jsonl, decisions.md and .png")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="MVTec-style folders")
    parser.add_argument("--rendered", action="store_true", help="the demo's parts, too")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--size", type=int, default=224, help="0 lets finetune choose")
    parser.add_argument("--images", type=int, default=150, help="test images of each kind")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    sets = [mvtec_style(folder) for folder in given.data]
    if given.rendered:
        sets += [rendered(part, given.out / "rendered") for part in RENDERED]
    for seed in given.seeds:
        for data in sets:
            _measure(data, seed, given)
    rows = read_rows(given.out / "rows.jsonl")
    write_bytes(given.out / "decisions.md", table(rows).encode())
    write_plot(rows, given.out / "decisions.png")


def _measure(data: DataSet, seed: int, given: argparse.Namespace) -> None:
    file = given.out / "rows.jsonl"
    if any((row["dataset"], row["seed"]) == (data.name, seed) for row in read_rows(file)):
        return
    err.print(f"{data.name}, seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        size = given.size or None
        part = make_part(data, given.shots, seed, size, given.images, Path(folder))
        try:
            append_row(file, row_of(part, seed))
        finally:
            part.model.close()


if __name__ == "__main__":
    main()
