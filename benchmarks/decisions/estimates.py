"""Whether what is known of drawn defects before the first real one tells anything of real ones.

For each model: how well defects drawn onto the shots stood out when ``finetune`` chose among its
candidates, and how well real ones do on the test images. What does not rank the truth, from one
draw of the shots to the next and from one part to another, is no estimate: ``finetune`` compares
candidates of one part by it and prints no figure.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.accuracy.datasets import DataSet
from benchmarks.accuracy.rows import Row
from benchmarks.accuracy.table import group_of
from benchmarks.decisions.limits import rates_at
from benchmarks.decisions.parts import Part, make_part
from fsad_edge.evaluation.metrics import image_auroc
from fsad_edge.runtime.arrays import Float64Array

#: Keys of a row: an estimate, the truth that it would be of, and the headings of both.
PAIRS = (
    ("drawn_auroc", "image_auroc", "AUROC on drawn defects", "AUROC"),
    ("drawn_found", "found", "drawn defects found", "defects found"),
    ("margin", "found", "threshold over left-out scores", "defects found"),
)


def estimate_rows(
    sets: Sequence[DataSet], seeds: Sequence[int], shots: int, size: int | None, images: int
) -> Iterator[Row]:
    """Make a model of each set and seed, and a row of each.

    Args:
        sets: the data sets.
        seeds: of the draws of shots.
        shots: how many shots are drawn.
        size: side of the model's input in pixels; None lets ``finetune`` choose.
        images: the most good and the most defective test images.
    """
    for seed in seeds:
        for data in sets:
            with tempfile.TemporaryDirectory() as folder:
                part = make_part(data, shots, seed, size, images, Path(folder))
                try:
                    yield estimate_of(part, seed)
                finally:
                    part.model.close()


def estimate_of(part: Part, seed: int) -> Row:
    """One row: keys as :mod:`benchmarks.accuracy.rows` wants them, and those of ``PAIRS``."""
    chosen, metadata, good, bad = part.made.chosen, part.model.metadata, part.good, part.bad
    threshold = metadata.threshold
    rates = rates_at(threshold.value, good, bad)
    labels = [False] * len(good) + [True] * len(bad)
    return {
        "dataset": part.data.name,
        "system": "fsad-edge",
        "settings": "size chosen" if len(part.made.trials) > 1 else f"{metadata.width} px",
        "shots": metadata.shots.count,
        "seed": seed,
        "image_size": chosen.image_size,
        "rotations": chosen.rotations,
        "drawn_auroc": chosen.drawn_auroc,
        "drawn_found": chosen.drawn_found,
        # A threshold near to the scores of good parts lets fewer defects pass: the nearer, the more
        # is found, if anything is.
        "margin": -float(np.log(threshold.value / fmean(threshold.scores))),
        "image_auroc": image_auroc([*good, *bad], labels),
        "found": 1 - rates.misses,
        "false_alarms": rates.false_alarms,
    }


def estimate_table(rows: Sequence[Row]) -> str:
    """Means of each set, and how estimate and truth rank within the sets and over all of them."""
    groups = list(dict.fromkeys(map(group_of, rows)))
    names = ("drawn_auroc", "image_auroc", "drawn_found", "found", "false_alarms")
    headings = (
        *("AUROC on drawn defects", "AUROC", "drawn defects found", "defects found"),
        "false alarms",
    )
    lines = [f"| data set | draws | {' | '.join(headings)} |", "|---" * (len(names) + 2) + "|"]
    for group in groups:
        of_group = [row for row in rows if group_of(row) == group]
        cells = [_cell(name, fmean(row[name] for row in of_group)) for name in names]
        lines.append(f"| {group} | {len(of_group)} | {' | '.join(cells)} |")
    lines += [
        "",
        "Rank correlation (Spearman): 1 ranks as the truth does, 0 says nothing of it.",
        "",
        "| estimate | of | within a set, mean | worst set | over all models | set means |",
        "|---|---|---|---|---|---|",
    ]
    for estimate, truth, heading, of in PAIRS:
        each = [
            [(row[estimate], row[truth]) for row in rows if group_of(row) == one] for one in groups
        ]
        within = [value for value in map(rank_correlation, each) if value is not None]
        means = [(fmean(x for x, _ in pairs), fmean(y for _, y in pairs)) for pairs in each]
        figures = (
            fmean(within) if within else None,
            min(within, default=None),
            rank_correlation([pair for pairs in each for pair in pairs]),
            rank_correlation(means),
        )
        lines.append(f"| {heading} | {of} | {' | '.join(map(_signed, figures))} |")
    return "\n".join([*lines, ""])


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation, with mean ranks for ties; None where it is not defined.

    Example:
        >>> rank_correlation([(1, 10), (2, 30), (3, 20)])
        0.5
    """
    if len(pairs) < 3:
        return None
    one, two = (_ranks(values) for values in zip(*pairs, strict=True))
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return None
    return round(float(np.corrcoef(one, two)[0, 1]), 12)


def _ranks(values: Sequence[float]) -> Float64Array:
    array = np.asarray(values, dtype=np.float64)
    higher, equal = array[:, None] > array, array[:, None] == array
    return np.asarray(higher.sum(axis=1) + (equal.sum(axis=1) - 1) / 2)


def _cell(name: str, value: float) -> str:
    return f"{value:.3f}" if "auroc" in name else f"{value:.0%}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"
