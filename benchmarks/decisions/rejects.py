"""What rejected patches change: missed defects of a kind are taught, the others of it are scored.

Of each kind of defect with enough misses at the threshold of the shots, one, three and five missed
ones are called bad, by the worst region of the map and, where there are masks, by the box around
the mask. The recall on all others of the kind and the false alarms on the good images are measured
before, after, and once more after a person has called one of the new false alarms good.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.accuracy.rows import Row
from benchmarks.decisions.parts import Part
from fsad_edge.evaluation import Sample
from fsad_edge.learning.rejected import Box, marked_patches, with_rejected
from fsad_edge.runtime.arrays import Float32Array, IndexArray
from fsad_edge.runtime.bank import (
    WORST_PATCHES,
    ReferenceModel,
    patch_distances,
    raised_distances,
)

#: How many missed defects are taught, and how often others are drawn.
TAUGHT, DRAWS = (1, 3, 5), 3

REGION, BOX = "worst region", "box"

#: Images in one run of the model.
BATCH = 16

#: Shares of a row, by their names.
FIGURES = (
    "recall_before",
    "recall",
    "recall_corrected",
    "false_alarms_before",
    "false_alarms",
    "false_alarms_corrected",
    "taught_found",
)


@dataclass(frozen=True)
class Embedded:
    """The test images of a part as its model sees them.

    Attributes:
        part: the part.
        patches: float32 ``[N, P, D + 1]``.
        distances: float32 ``[N, P]``, from the memory bank.
        grid: rows and columns of the map.
    """

    part: Part
    patches: Float32Array
    distances: Float32Array
    grid: tuple[int, int]

    def places(self, kind: str | None) -> IndexArray:
        """The images with a kind of defect; None for the good ones."""
        return np.array([n for n, s in enumerate(self.part.samples) if s.defect == kind], np.intp)


def rejection_rows(part: Part, seed: int) -> list[Row]:
    """A row for each kind of defect, number of taught images and way of marking.

    Args:
        part: a part, with its model.
        seed: of the draw of its shots, and of the draws of what is taught.
    """
    seen = _embed(part)
    kinds = dict.fromkeys(s.defect for s in part.samples if s.defect is not None)
    return [row for kind in kinds for row in _rows_of_kind(seen, kind, seed)]


def rejection_table(rows: Sequence[Row]) -> str:
    """Means over the draws: a line for each data set, kind, way of marking and number taught."""
    lines = [
        "| data set | kind | taught | marked by | draws | recall on the others: before → after "
        "→ one false alarm called good | false alarms | taught ones rejected |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, group in _groups(rows, ("dataset", "kind", "taught", "marking")).items():
        lines.append(f"| {' | '.join(map(str, name))} | {len(group)} | {_cells(group)} |")
    for (taught, marking), group in _groups(rows, ("taught", "marking")).items():
        # Each kind counts once, however many draws had enough misses of it.
        kinds = [
            {**one[0], **{name: _mean(one, name) for name in FIGURES}}
            for one in _groups(group, ("dataset", "kind")).values()
        ]
        lines.append(
            f"| mean | {len(kinds)} kinds | {taught} | {marking} | {len(group)} | {_cells(kinds)} |"
        )
    return "\n".join([*lines, ""])


def _embed(part: Part) -> Embedded:
    prepared = [part.model.prepare(part.model.decode(s.path)) for s in part.samples]
    found = [
        part.model.embed(np.stack(prepared[start : start + BATCH]))
        for start in range(0, len(prepared), BATCH)
    ]
    height, width = found[0]["anomaly_map"].shape[1:]
    patches = np.concatenate([one["patches"] for one in found])
    distances = patch_distances(patches, part.model.reference)
    return Embedded(part, patches, distances, (height, width))


def _rows_of_kind(seen: Embedded, kind: str, seed: int) -> Iterator[Row]:
    part, places = seen.part, seen.places(kind)
    scores = np.array([part.results[place].score for place in places])
    missed = places[scores <= part.model.threshold]
    boxes = {place: _box(part.samples[place]) for place in missed}
    ways = [REGION]
    if len(missed) and all(box is not None for box in boxes.values()):
        ways.append(BOX)
    for count in [count for count in TAUGHT if count < len(missed)]:
        for way in ways:
            draws = []
            for draw in range(DRAWS):
                rng = np.random.default_rng([seed, count, draw])
                taught = rng.permutation(missed)[:count]
                marks = [boxes[place] if way == BOX else None for place in taught]
                draws.append(_taught(seen, places, taught, marks, rng))
            yield {
                "dataset": part.data.name,
                "system": "fsad-edge",
                "settings": f"{part.model.metadata.width} px, {count} of {kind} by {way}",
                "shots": part.model.metadata.shots.count,
                "seed": seed,
                "kind": kind,
                "taught": count,
                "marking": way,
                "missed": len(missed),
                **{name: statistics.fmean(one[name] for one in draws) for name in draws[0]},
            }


def _taught(
    seen: Embedded,
    places: IndexArray,
    taught: IndexArray,
    marks: Sequence[Box | None],
    rng: np.random.Generator,
) -> dict[str, float]:
    """What teaching some images changes for the others of their kind and for good ones."""
    reference, threshold = seen.part.model.reference, seen.part.model.threshold
    rows = np.concatenate(
        [
            marked_patches(seen.patches[place], seen.distances[place], seen.grid, mark)
            for place, mark in zip(taught, marks, strict=True)
        ]
    )
    others, good = np.setdiff1d(places, taught), seen.places(None)
    before = _scores(seen, reference) > threshold
    taught_model = with_rejected(reference, rows)
    after = _scores(seen, taught_model) > threshold
    corrected, rest = after, good
    new = good[after[good] & ~before[good]]
    if len(new):
        called = rng.choice(new)
        model = with_rejected(reference, rows, [seen.patches[called]])
        corrected, rest = _scores(seen, model) > threshold, good[good != called]
    return {
        "recall_before": float(before[others].mean()),
        "recall": float(after[others].mean()),
        "recall_corrected": float(corrected[others].mean()),
        "false_alarms_before": float(before[good].mean()),
        "false_alarms": float(after[good].mean()),
        "false_alarms_corrected": float(corrected[rest].mean()),
        "taught_found": float(after[taught].mean()),
        "rows": float(len(taught_model.rejected_patches)),
    }


def _scores(seen: Embedded, reference: ReferenceModel) -> Float32Array:
    """Patch scores of all images, float32 ``[N]``."""
    raised = raised_distances(seen.patches, seen.distances, reference)
    scores: Float32Array = np.sort(raised, axis=1)[:, -WORST_PATCHES:].mean(axis=1)
    return scores


def _box(sample: Sample) -> Box | None:
    """The box around what the mask marks, as fractions of the image."""
    if sample.mask is None:
        return None
    marked = sample.mask.read()
    down, across = marked.any(axis=1).nonzero()[0], marked.any(axis=0).nonzero()[0]
    height, width = marked.shape
    return (
        float(across[0] / width),
        float(down[0] / height),
        float((across[-1] + 1) / width),
        float((down[-1] + 1) / height),
    )


def _groups(rows: Sequence[Row], by: tuple[str, ...]) -> dict[tuple[object, ...], list[Row]]:
    found: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in by), []).append(row)
    return dict(sorted(found.items(), key=str))


def _mean(rows: Sequence[Row], name: str) -> float:
    return statistics.fmean(row[name] for row in rows)


def _cells(rows: Sequence[Row]) -> str:
    recall = [f"{_mean(rows, name):.1%}" for name in FIGURES[:3]]
    alarms = [f"{_mean(rows, name):.2%}" for name in FIGURES[3:6]]
    found = f"{_mean(rows, 'taught_found'):.0%}"
    return f"{' → '.join(recall)} | {' → '.join(alarms)} | {found}"
