"""What learning false alarms on a device changes: false alarms, misses and time.

    python -m benchmarks.learning OUT --data FOLDER ... [--shots 5] [--learn 10] [--seeds 0 1 2]

For each MVTec-style folder and seed, a model is made from the shots, as a user would make it. Half
of the other normal images are the pool: its highest-scoring images are called good one by one, as a
person at the line would call false alarms. The other half and those of the test split are held out.
Writes ``learning.jsonl``, one row for each run, and ``learning.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from benchmarks.accuracy.datasets import DataSet, mvtec_style
from benchmarks.accuracy.ours import make_part
from benchmarks.accuracy.systems import Run
from fsad_edge import FinetuneOptions, Model
from fsad_edge.cli.console import err
from fsad_edge.evaluation.metrics import image_auroc
from fsad_edge.learning.learner import Learner
from fsad_edge.monitoring.score_drift import START, ScoreDrift
from fsad_edge.runtime.arrays import Float64Array
from fsad_edge.runtime.documents import to_document
from fsad_edge.runtime.files import write_bytes

#: The bundled encoder at the size that the other tables have.
OPTIONS = FinetuneOptions(image_size=224, strides=(16,))

#: The approximate number of held-out images, good ones and defective ones.
IMAGES = 150


@dataclass(frozen=True)
class Rates:
    """How well held-out images are told apart; shares from 0 to 1."""

    false_alarms: float
    misses: float
    auroc: float


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        data: name of the data set.
        shots: number of shots.
        seed: random seed of the draw of shots.
        rotations: steps of a full turn in which the shots are in the bank.
        learned: number of learned images.
        pool: number of images that these were chosen from.
        false_alarms_learned: images of the pool above the threshold, before learning.
        still_above: learned images above the threshold, after learning.
        forced: learned images that scored like defects.
        rows: bank rows that were learned.
        bank_rows: bank rows in use after learning.
        threshold_ratio: the threshold after learning over the one before.
        before: rates before learning.
        after_old_threshold: rates after learning, at the threshold before.
        after: rates after learning.
        rise_median: relative rise of a held-out normal image's score, median.
        rise_95: the same, 95 % quantile.
        first_to_shots: the first scores of the pool over the shots' scores; None for one shot.
        unlike_shots: whether these differ more than by chance.
        ms: milliseconds that learning each image took.
    """

    data: str
    shots: int
    seed: int
    rotations: int
    learned: int
    pool: int
    false_alarms_learned: int
    still_above: int
    forced: int
    rows: int
    bank_rows: int
    threshold_ratio: float
    before: Rates
    after_old_threshold: Rates
    after: Rates
    rise_median: float
    rise_95: float
    first_to_shots: float | None
    unlike_shots: bool
    ms: list[float]


@dataclass(frozen=True)
class Split:
    """The images of a run: a pool to learn from, and held-out good and defective images."""

    pool: list[Path]
    good: list[Path]
    bad: list[Path]


def split(data: DataSet, shots: Sequence[Path], seed: int) -> Split:
    """Divide the images that are not among the shots."""
    rng = np.random.RandomState(seed)
    rest = [path for path in data.normal_images if path not in set(shots)]
    rest = [rest[index] for index in rng.permutation(len(rest))]
    pool = rest[: len(rest) // 2]
    good = rest[len(pool) :] + [one.path for one in data.samples if one.defect is None]
    bad = [one.path for one in data.samples if one.defect is not None]
    good, bad = ([paths[i] for i in rng.permutation(len(paths))[:IMAGES]] for paths in (good, bad))
    return Split(pool, good, bad)


def run(data: DataSet, shots: int, learn: int, seed: int, work: Path) -> Row:
    """Make a model, let it learn, and measure it before and after."""
    drawn = data.draw(shots, seed)
    _, file = make_part(Run(data, drawn, seed), work, OPTIONS)
    images = split(data, drawn, seed)
    with Model.load(file, "cpu") as model:
        scores = _scores(model, images.pool, f"{data.name}, pool")
        before = _scores(model, images.good, "good"), _scores(model, images.bad, "defective")
        drift = _first_scores(model, scores)
        chosen = [images.pool[index] for index in np.argsort(-scores)[:learn]]
        with Learner.open(file, model) as learner:
            times = [_learn(learner, path) for path in chosen]
            entries, bank_rows = learner.active, learner.reference.rows
        after = _scores(model, images.good, "good"), _scores(model, images.bad, "defective")
        own = _scores(model, chosen, "learned")
        old, new = model.metadata.threshold.value, model.threshold
        rotations = model.metadata.bank_rotations
    rise = np.sort(after[0] / before[0] - 1)
    return Row(
        data=data.name,
        shots=shots,
        seed=seed,
        rotations=rotations,
        learned=len(entries),
        pool=len(images.pool),
        false_alarms_learned=int((scores > old).sum()),
        still_above=int((own > new).sum()),
        forced=sum(entry.forced for entry in entries),
        rows=sum(entry.rows for entry in entries),
        bank_rows=bank_rows,
        threshold_ratio=new / old,
        before=_rates(*before, old),
        after_old_threshold=_rates(*after, old),
        after=_rates(*after, new),
        rise_median=float(np.median(rise)),
        rise_95=float(np.quantile(rise, 0.95)),
        first_to_shots=drift.ratio_to_shots,
        unlike_shots=drift.unlike_shots(),
        ms=[round(one, 1) for one in times],
    )


def _learn(learner: Learner, path: Path) -> float:
    """Milliseconds that learning an image takes."""
    image = path.read_bytes()
    start = time.perf_counter()
    learner.add(image, "benchmark", force=True)
    return 1e3 * (time.perf_counter() - start)


def _first_scores(model: Model, scores: Float64Array) -> ScoreDrift:
    """The first scores of a line compared with the shots' scores."""
    threshold = model.metadata.threshold
    left_out = model.metadata.shots.count > 1
    drift = ScoreDrift(threshold.scores if left_out else (), prior_std=threshold.prior_std)
    for score in scores[:START]:
        drift.update(float(score))
    return drift


def _scores(model: Model, paths: Sequence[Path], what: str) -> Float64Array:
    found = [model.score(path).score for path in track(paths, what, console=err, transient=True)]
    return np.array(found)


def _rates(good: Float64Array, bad: Float64Array, threshold: float) -> Rates:
    area = image_auroc([*good, *bad], [False] * len(good) + [True] * len(bad))
    assert area is not None  # there are both kinds
    return Rates(
        false_alarms=float((good > threshold).mean()),
        misses=float((bad <= threshold).mean()),
        auroc=area,
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown with means over seeds."""
    lines = [
        "| data | shots | learned | rows | AUROC | false alarms | misses | threshold "
        "| rise, median | rise, 95 % |",
        "|---" * 10 + "|",
    ]
    for data, shots in sorted({(row.data, row.shots) for row in rows}):
        lines.append(_line([row for row in rows if (row.data, row.shots) == (data, shots)]))
    times = [one for row in rows for one in row.ms]
    lines += [
        "",
        "Before → after; in brackets after learning, at the threshold before. Rise: relative rise "
        "of held-out normal images' scores.",
        f"Images above the threshold: {sum(row.false_alarms_learned for row in rows)} of the pool "
        f"before, {sum(row.still_above for row in rows)} of the learned ones after. "
        f"{sum(row.forced for row in rows)} scored like defects and were forced.",
        f"An image is learned in {np.quantile(times, 0.5):.0f} ms (p50), "
        f"{np.quantile(times, 0.9):.0f} ms (p90), {min(times):.0f} ms at best, of {len(times)}.",
    ]
    return "\n".join(lines) + "\n"


def _line(rows: Sequence[Row]) -> str:
    """The table's line for rows of one data set and number of shots."""

    def mean(value: Callable[[Row], float]) -> float:
        return statistics.fmean(map(value, rows))

    def rate(value: Callable[[Rates], float]) -> str:
        before, after = mean(lambda row: value(row.before)), mean(lambda row: value(row.after))
        return (
            f"{before:.1%} → {after:.1%} ({mean(lambda row: value(row.after_old_threshold)):.1%})"
        )

    auroc = f"{mean(lambda row: row.before.auroc):.3f} → {mean(lambda row: row.after.auroc):.3f}"
    cells = [
        rows[0].data,
        str(rows[0].shots),
        f"{mean(lambda row: row.learned):.0f}",
        f"{mean(lambda row: row.rows):.0f}",
        auroc,
        rate(lambda rates: rates.false_alarms),
        rate(lambda rates: rates.misses),
        f"×{mean(lambda row: row.threshold_ratio):.2f}",
        f"{mean(lambda row: row.rise_median):+.1%}",
        f"{mean(lambda row: row.rise_95):+.1%}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="What learning on a device changes.")
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="MVTec-style folders")
    parser.add_argument("--shots", type=int, default=5, help="number of shots")
    parser.add_argument("--learn", type=int, default=10, help="number of images to learn")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="random seeds")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for folder in chosen.data:
        for seed in chosen.seeds:
            with tempfile.TemporaryDirectory() as work:
                data = mvtec_style(folder)
                rows.append(run(data, chosen.shots, chosen.learn, seed, Path(work)))
        lines = "".join(json.dumps(to_document(row)) + "\n" for row in rows)
        write_bytes(chosen.out / "learning.jsonl", lines.encode())
        write_bytes(chosen.out / "learning.md", table(rows).encode())
    print(table(rows), end="")


if __name__ == "__main__":
    main()
