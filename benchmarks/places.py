"""What comparing images with the shots place by place brings, with and without it.

    python -m benchmarks.places benchmarks/results/places --data FOLDER... [--rendered bracket ...]
        [--shots 5] [--seeds 3 4 5] [--images 60] [--variant "image_size=224 strides=16"]

fine-tunes and exports each draw of shots once, with ``--place auto``, and scores the test images
once: without the place score the same file decides by its patch score, against the same threshold.
A row for each draw goes into OUT/places.jsonl, and the means of the draws into OUT/places.md. All
images are counted, also those that the model would not judge. Draws that are there already are not
made again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.datasets import DataSet, mvtec_style, rendered
from benchmarks.accuracy.ours import make_part, parse_options
from benchmarks.accuracy.rows import append_row, key, read_rows
from benchmarks.accuracy.systems import Run
from benchmarks.rendered_parts import PARTS
from fsad_edge.evaluation import Sample
from fsad_edge.evaluation.metrics import PixelMetrics, image_auroc
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.model import Model

#: Maps are held against their thresholds, and what is higher counts as this much.
MOST_RATIO = 10.0

#: The size that maps of good images are stretched to, pixels.
GOOD_SIZE = (256, 256)

HEADER = (
    "| data | pixels | compared | AUROC | false alarms | misses | AUPRO |",
    "|---|---|---|---|---|---|---|",
)


class _Side:
    """The scores of one side of the comparison, over the threshold."""

    def __init__(self) -> None:
        self.ratios: list[float] = []
        self.pixels = PixelMetrics(high=MOST_RATIO)

    def add(self, ratio: float, sample: Sample, field: Float32Array, masked: bool) -> None:
        self.ratios.append(ratio)
        if masked and (sample.mask is not None or sample.defect is None):
            mask = np.zeros(GOOD_SIZE, np.bool_) if sample.mask is None else sample.mask.read()
            self.pixels.add(np.minimum(field, np.float32(MOST_RATIO)), mask)


def measure(data: DataSet, shots: int, seed: int, variant: str, images: int) -> dict[str, Any]:
    """The row of one draw."""
    options, export_options = parse_options(variant)
    samples = data.subset(images)
    masked = any(sample.mask is not None for sample in samples)
    without, with_it = _Side(), _Side()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(data=data, shots=data.draw(shots, seed), seed=seed)
        part, file = make_part(run, Path(folder), options, export_options)
        with Model.load(file.path, "cpu", options.threads) as model:
            for sample in samples:
                image = model.prepared(model.decode(sample.path))
                batch = image.pixels[None]
                place = None if image.located is None else image.located.placement
                found = model.embed(batch)
                [result] = model.score_prepared(batch, places=[image.located])
                score, field = float(found["patch_score"][0]), found["anomaly_map"][0]
                field = field if place is None else place.in_photograph(field)
                threshold = model.threshold
                without.add(score / threshold, sample, field / threshold, masked)
                with_it.add(result.ratio, sample, result.anomaly_map / threshold, masked)
            size = (model.metadata.height, model.metadata.width)
    bad = np.array([sample.defect is not None for sample in samples])
    row = {
        "dataset": data.name,
        "system": "places",
        "settings": variant,
        "shots": shots,
        "seed": seed,
        "height": size[0],
        "width": size[1],
        "compared": part.by_place.on,
        "why": part.by_place.why,
        "bytes": file.size,
        "good": int((~bad).sum()),
        "bad": int(bad.sum()),
    }
    for name, side in (("without", without), ("with", with_it)):
        ratios = np.array(side.ratios)
        row[f"auroc_{name}"] = image_auroc(side.ratios, bad.tolist())
        row[f"false_alarms_{name}"] = int((ratios[~bad] > 1).sum())
        row[f"missed_{name}"] = _missed(samples, ratios)
        row[f"aupro_{name}"] = side.pixels.aupro() if masked else None
    return row


def _missed(samples: Sequence[Sample], ratios: np.ndarray[Any, Any]) -> dict[str, list[int]]:
    """Of each kind of defect how many are missed, and of how many."""
    kinds: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for sample, ratio in zip(samples, ratios, strict=True):
        if sample.defect is not None:
            kinds[sample.defect][0] += int(ratio <= 1)
            kinds[sample.defect][1] += 1
    return dict(kinds)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The means of the draws, without and with the place score."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["dataset"], row["settings"]].append(row)
    lines = [*HEADER]
    for (data, _), found in groups.items():
        cells = [
            data,
            f"{found[0]['width']} x {found[0]['height']}",
            f"{sum(row['compared'] for row in found)} of {len(found)} draws",
            _pair(found, lambda row, name: row[f"auroc_{name}"], "{:.3f}"),
            _pair(found, lambda row, name: row[f"false_alarms_{name}"] / row["good"], "{:.1%}"),
            _pair(found, lambda row, name: _share(row[f"missed_{name}"]), "{:.0%}"),
            _pair(found, lambda row, name: row[f"aupro_{name}"], "{:.3f}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Missed of each kind of defect, of the draws where places are compared:", ""]
    for (data, _), found in groups.items():
        if kinds := _kinds([row for row in found if row["compared"]]):
            lines.append(f"- {data}: {kinds}")
    return "\n".join(lines) + "\n"


def _pair(rows: Sequence[dict[str, Any]], value: Any, form: str) -> str:
    means = []
    for name in ("without", "with"):
        values = [value(row, name) for row in rows]
        if None in values:
            return "–"
        means.append(form.format(float(np.mean(values))))
    return " → ".join(means)


def _share(missed: dict[str, list[int]]) -> float:
    return sum(one[0] for one in missed.values()) / sum(one[1] for one in missed.values())


def _kinds(rows: Sequence[dict[str, Any]]) -> str:
    """Of each kind of defect how many are missed, without and with the place score."""
    kinds = sorted({kind for row in rows for kind in row["missed_with"]})
    words = []
    for kind in kinds:
        some = [row for row in rows if kind in row["missed_with"]]
        before, after = (
            sum(row[f"missed_{name}"][kind][0] for row in some) for name in ("without", "with")
        )
        count = sum(row["missed_with"][kind][1] for row in some)
        words.append(f"{kind} {before} → {after} of {count}")
    return ", ".join(words)


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.places",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", nargs="*", type=Path, default=[])
    parser.add_argument("--rendered", nargs="*", choices=list(PARTS), default=[])
    parser.add_argument("--place", type=Path, help="where parts are rendered")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--seeds", nargs="+", type=int, default=[3, 4, 5])
    parser.add_argument("--images", type=int, default=60, help="good and bad test images each")
    parser.add_argument("--variant", default="encoder=fast image_size=224 strides=16 threads=1")
    args = parser.parse_args(words)
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / "places.jsonl"
    place = args.place or args.output / "rendered"
    sets = [mvtec_style(folder) for folder in args.data]
    sets += [rendered(part, place) for part in args.rendered]
    done = {key(row) for row in read_rows(file)}
    for data in sets:
        for seed in args.seeds:
            if (data.name, "places", args.variant, args.shots, seed) in done:
                continue
            row = measure(data, args.shots, seed, args.variant, args.images)
            append_row(file, row)
            print(json.dumps(row), flush=True)
    (args.output / "places.md").write_text(table(read_rows(file)))


if __name__ == "__main__":
    main()
