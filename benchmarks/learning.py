"""What learning false alarms on the device does to false alarms, misses and time.

    python -m benchmarks.learning OUT --data FOLDER ... [--shots 5] [--learn 10] [--seeds 0 1 2]

For each MVTec-style folder and seed: finetune and export from the shots, as a user would; of other
normal images half are the pool, of which the highest-scoring are called good one by one, as the
person at the line would call false alarms; the other half, with those of the test split, are held
out. Writes ``learning.jsonl``, a row a run, and ``learning.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from fsad_edge.runtime.files import write_bytes

#: The bundled encoder at the size that the other tables have.
OPTIONS = FinetuneOptions(image_size=224, strides=(16,))

#: Held-out images of either kind, about.
IMAGES = 150


def run(data: DataSet, shots: int, learn: int, seed: int, work: Path) -> dict[str, Any]:
    """One row."""
    drawn = data.draw(shots, seed)
    make_part(Run(data, drawn, seed), work, OPTIONS)
    rng = np.random.RandomState(seed)
    rest = [path for path in data.normal_images if path not in set(drawn)]
    rest = [rest[index] for index in rng.permutation(len(rest))]
    pool = rest[: len(rest) // 2]
    good = rest[len(pool) :] + [one.path for one in data.samples if one.defect is None]
    bad = [one.path for one in data.samples if one.defect is not None]
    good, bad = ([paths[i] for i in rng.permutation(len(paths))[:IMAGES]] for paths in (good, bad))
    file = work / "part.onnx"
    with Model.load(file, "cpu") as model:
        scores = _scores(model, pool, f"{data.name}, pool")
        before = _scores(model, good, "good"), _scores(model, bad, "defective")
        chosen = [pool[index] for index in np.argsort(-scores)[:learn]]
        behind = model.metadata.threshold
        drift = ScoreDrift(behind.scores if shots > 1 else (), prior_std=behind.prior_std)
        for score in scores[:START]:
            drift.update(float(score))
        times = []
        with Learner.open(file, model) as learned:
            for path in chosen:
                image = path.read_bytes()
                start = time.perf_counter()
                learned.add(image, "benchmark", force=True)
                times.append(1e3 * (time.perf_counter() - start))
            entries, bank_rows = learned.active, learned.reference.rows
        after = _scores(model, good, "good"), _scores(model, bad, "defective")
        own = _scores(model, chosen, "learned")
        old, new = model.metadata.threshold.value, model.threshold
        rotations = model.metadata.bank_rotations
    rise = np.sort(after[0] / before[0] - 1)
    return {
        "data": data.name,
        "shots": shots,
        "seed": seed,
        "rotations": rotations,
        "learned": len(entries),
        "pool": len(pool),
        "false_alarms_learned": int((scores > old).sum()),
        "still_above": int((own > new).sum()),
        "forced": sum(entry.forced for entry in entries),
        "rows": sum(entry.rows for entry in entries),
        "bank_rows": bank_rows,
        "threshold_ratio": new / old,
        "before": _rates(*before, old),
        "after_old_threshold": _rates(*after, old),
        "after": _rates(*after, new),
        "rise_median": float(np.median(rise)),
        "rise_95": float(np.quantile(rise, 0.95)),
        "first_to_shots": drift.ratio_to_shots,
        "unlike_shots": drift.unlike_shots(),
        "ms": [round(one, 1) for one in times],
    }


def _scores(model: Model, paths: Sequence[Path], what: str) -> Float64Array:
    found = [model.score(path).score for path in track(paths, what, console=err, transient=True)]
    return np.array(found)


def _rates(good: Float64Array, bad: Float64Array, threshold: float) -> dict[str, float]:
    area = image_auroc([*good, *bad], [False] * len(good) + [True] * len(bad))
    assert area is not None  # there are both kinds
    return {
        "false_alarms": float((good > threshold).mean()),
        "misses": float((bad <= threshold).mean()),
        "auroc": area,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: means over seeds."""
    lines = [
        "| data | shots | learned | rows | AUROC | false alarms | misses | threshold "
        "| rise, median | rise, 95 % |",
        "|---" * 10 + "|",
    ]
    for data, shots in sorted({(row["data"], row["shots"]) for row in rows}):
        its = [row for row in rows if (row["data"], row["shots"]) == (data, shots)]

        def mean(values: Sequence[float]) -> float:
            return statistics.fmean(values)

        def change(name: str, form: str, its: list[dict[str, Any]] = its) -> str:
            one, two, three = (
                format(statistics.fmean(row[state][name] for row in its), form)
                for state in ("before", "after_old_threshold", "after")
            )
            return f"{one} → {three}" + (f" ({two})" if name != "auroc" else "")

        lines.append(
            f"| {data} | {shots} | {mean([row['learned'] for row in its]):.0f} "
            f"| {mean([row['rows'] for row in its]):.0f} | {change('auroc', '.3f')} "
            f"| {change('false_alarms', '.1%')} | {change('misses', '.1%')} "
            f"| ×{mean([row['threshold_ratio'] for row in its]):.2f} "
            f"| {mean([row['rise_median'] for row in its]):+.1%} "
            f"| {mean([row['rise_95'] for row in its]):+.1%} |"
        )
    times = [one for row in rows for one in row["ms"]]
    lines += [
        "",
        "Before → after; in brackets after learning at the threshold that was before. Rise: of "
        "held-out normal images' scores.",
        f"Learned images above the threshold: {sum(row['false_alarms_learned'] for row in rows)} "
        f"of the pool before, {sum(row['still_above'] for row in rows)} of the learned after. "
        f"{sum(row['forced'] for row in rows)} scored so high that they had to be forced.",
        f"An image is learned in {np.quantile(times, 0.5):.0f} ms (p50), "
        f"{np.quantile(times, 0.9):.0f} ms (p90), {min(times):.0f} ms at best, of {len(times)}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="What learning on the device does.")
    parser.add_argument("out", type=Path, help="existing folder")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="MVTec-style folders")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--learn", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for folder in chosen.data:
        for seed in chosen.seeds:
            with tempfile.TemporaryDirectory() as work:
                data = mvtec_style(folder)
                rows.append(run(data, chosen.shots, chosen.learn, seed, Path(work)))
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            chosen.out.mkdir(parents=True, exist_ok=True)
            write_bytes(chosen.out / "learning.jsonl", lines.encode())
            write_bytes(chosen.out / "learning.md", table(rows).encode())
    print(table(rows), end="")


if __name__ == "__main__":
    main()
