"""What a model decides, over data sets and draws of shots: tables, a plot and the raw rows.

    python -m benchmarks.decisions OUT --data DATASET ... [--photos FOLDER] [--rendered]
        [--seeds 0 1 2 3]

For each data set and seed, shots are drawn, and ``finetune`` and ``export`` make a model of them.
Its decisions on the test images give

- the false alarms and misses at its own threshold, with examples and at the best threshold, and how
  often p-values are small on good parts (:mod:`.limits`);
- what is not judged, of pictures of anything else, of good parts and of defects (:mod:`.foreign`);
- what teaching missed defects changes (:mod:`.rejects`);
- whether figures on drawn defects tell anything of real ones (:mod:`.estimates`).

A run that was cut off goes on from its rows.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.accuracy.datasets import DataSet, mvtec_style, rendered
from benchmarks.accuracy.rows import Row, append_row, read_rows
from benchmarks.decisions import foreign
from benchmarks.decisions.estimates import estimate_of, estimate_table
from benchmarks.decisions.parts import make_part
from benchmarks.decisions.plot import write_plot
from benchmarks.decisions.rejects import rejection_rows, rejection_table
from benchmarks.decisions.rows import row_of
from benchmarks.decisions.table import table
from fsad_edge.cli.console import err
from fsad_edge.runtime.files import write_bytes

#: Parts of the demo that are rendered.
RENDERED = ("bracket", "label", "wood")

#: The tables: the name of their rows' file and of the table's, the heading, and what makes it.
TABLES: dict[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "limits": ("False alarms and misses", table),
    "foreign": ("Not judged", foreign.table),
    "rejects": ("Missed defects, taught", rejection_table),
    "estimates": ("Drawn defects against real ones", estimate_table),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decisions", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the rows, decisions.md and .png")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="MVTec-style folders")
    parser.add_argument("--photos", type=Path, help="a folder of photographs of the world")
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
            _measure(data, sets, seed, given)
            write_tables(given.out)


def write_tables(out: Path) -> None:
    """Write decisions.md and decisions.png from the rows in a folder."""
    rows = {name: read_rows(_file(out, name)) for name in TABLES}
    written = [f"## {title}\n\n{make(rows[name])}" for name, (title, make) in TABLES.items()]
    write_bytes(out / "decisions.md", "\n".join(written).encode())
    write_plot(rows["limits"], out / "decisions.png")


def _file(out: Path, name: str) -> Path:
    return out / f"{name}.jsonl"


def _measure(data: DataSet, sets: Sequence[DataSet], seed: int, given: argparse.Namespace) -> None:
    done = read_rows(_file(given.out, "limits"))  # written last
    if any((row["dataset"], row["seed"]) == (data.name, seed) for row in done):
        return
    err.print(f"{data.name}, seed {seed}")
    shots = min(given.shots, len(data.normal_images))
    with tempfile.TemporaryDirectory() as folder:
        part = make_part(data, shots, seed, given.size or None, given.images, Path(folder))
        with part.model:
            pictures = foreign.pictures_for(data, sets, given.photos, part.model.metadata.width)
            append_row(_file(given.out, "foreign"), foreign.row_of(part, seed, pictures))
            for row in rejection_rows(part, seed):
                append_row(_file(given.out, "rejects"), row)
            append_row(_file(given.out, "estimates"), estimate_of(part, seed))
            append_row(_file(given.out, "limits"), row_of(part, seed))


if __name__ == "__main__":
    main()
