"""Score images with a peer. Runs in the peers' environment, from the repository root.

    PEERS_PYTHON -m benchmarks.peers JOB.json OUT.npz

JOB: ``system`` (patchcore, padim or efficientad), ``shots`` and ``test`` (lists of image files),
``weights`` (folder in timm's ``local-dir:`` layout), ``size`` (side of the input in pixels),
``seed``, ``threads``, ``maps`` (true or false).

OUT: ``scores`` float32 ``[N]`` in the order of ``test``; ``seconds`` float, the time to fit and to
score without reading files; and, if ``maps`` is true, ``maps`` float16 ``[N, 56, 56]``, the peer's
full-size map averaged over a coarse grid to keep the file small.

An error is one sentence on stderr and exit code 1.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

KEYS = ("system", "shots", "test", "weights", "size", "seed", "threads", "maps")

#: Side of the written maps, in cells.
GRID = 56


def run(job: dict[str, Any]) -> dict[str, Any]:
    """The arrays of OUT for a JOB, as described above."""
    import numpy as np
    import torch

    from benchmarks.peers.images import load_batch
    from benchmarks.peers.models import BATCH, fit

    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    np.random.seed(job["seed"])
    weights, size = Path(job["weights"]), job["size"]
    shots, test = ([Path(path) for path in job[key]] for key in ("shots", "test"))
    normal = load_batch(shots, size, weights)
    start = time.perf_counter()
    model = fit(job["system"], weights, normal)
    seconds = time.perf_counter() - start
    scores, maps = [], []
    for first in range(0, len(test), BATCH):
        batch = load_batch(test[first : first + BATCH], size, weights)
        start = time.perf_counter()
        with torch.inference_mode():
            prediction = model(batch)
        seconds += time.perf_counter() - start
        scores.append(prediction.pred_score.flatten())
        grid = torch.nn.functional.adaptive_avg_pool2d(prediction.anomaly_map, GRID)
        maps.append(grid[:, 0].half())
    values = torch.cat(scores).float().numpy()
    if not np.isfinite(values).all():
        why = ": its covariance needs two shots" if job["system"] == "padim" else ""
        raise ValueError(f"{job['system']}'s scores of {len(shots)} shot(s) are not finite{why}")
    asked = {"maps": torch.cat(maps).numpy()} if job["maps"] else {}
    return {"scores": values, "seconds": seconds, **asked}


def answer(keys: Sequence[str], run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The program ``JOB.json OUT.npz``: check the job's keys, run it and write its arrays."""
    if len(sys.argv) != 3:
        sys.exit("usage: PEERS_PYTHON -m MODULE JOB.json OUT.npz")
    job, out = map(Path, sys.argv[1:])
    warnings.simplefilter("ignore")  # of libraries: stderr is for one sentence
    logging.disable(logging.ERROR)
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        document = json.loads(job.read_text())
        if missing := [key for key in keys if key not in document]:
            raise ValueError(f"{job} has no {', '.join(missing)}")
        arrays = run(document)
        import numpy as np

        np.savez_compressed(out, **arrays)
    # Whatever anomalib and torch raise, the caller gets one line.
    except Exception as error:
        sys.exit(f"{(str(error).splitlines() or [type(error).__name__])[0].rstrip('.')}.")


if __name__ == "__main__":
    answer(KEYS, run)
