"""What is measured of one part, as one row."""

from __future__ import annotations

from statistics import fmean, quantiles

import numpy as np

from benchmarks.accuracy.rows import Row
from benchmarks.decisions.limits import (
    best_rates,
    p_value_shares,
    rates_at,
    rates_with_examples,
)
from benchmarks.decisions.parts import Part
from fsad_edge.evaluation.metrics import image_auroc


def row_of(part: Part, seed: int) -> Row:
    """All that is measured of one part; keys as :mod:`benchmarks.accuracy.rows` wants them."""
    model, good, bad = part.model, part.good, part.bad
    threshold, left_out = model.metadata.threshold, model.metadata.shots.count > 1
    own, best = rates_at(threshold.value, good, bad), best_rates(good, bad)
    examples = rates_with_examples(threshold, left_out, good, bad, seed)
    misses = [one.misses for one in examples]
    both = np.concatenate([good, bad]).tolist()
    return {
        "dataset": part.data.name,
        "system": "fsad-edge",
        "settings": f"{model.metadata.width} px",
        "shots": model.metadata.shots.count,
        "seed": seed,
        "image_auroc": image_auroc(both, [False] * len(good) + [True] * len(bad)),
        "turned": model.metadata.bank_rotations > 1,
        "false_alarms": own.false_alarms,
        "misses": own.misses,
        "best_misses": best.misses,
        "examples_false_alarms": fmean(one.false_alarms for one in examples),
        "examples_misses": fmean(misses),
        "examples_misses_worst_tenth": quantiles(misses, n=10)[-1],
        **p_value_shares(threshold, good),
    }
