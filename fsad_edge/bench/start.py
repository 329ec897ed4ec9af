"""A start as a device does it, in a process of its own: load time, first score, peak memory.

Run as ``python -m fsad_edge.bench.start FILE PROVIDER THREADS BATCH`` with a picture on standard
input, it is that process; :func:`start` runs it and holds the clock.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fsad_edge.bench.machine import peak_memory
from fsad_edge.runtime.model import Model

_SCORES = 3  # after which memory is at its peak: engines allocate in their first runs


@dataclass(frozen=True)
class Start:
    """What one start took.

    Attributes:
        load_ms: reading, loading and checking the file, golden images included.
        first_score_ms: from the start of the process, Python's own included, to the first score.
        peak_bytes: resident memory at its highest; None where the system does not tell.
    """

    load_ms: float
    first_score_ms: float
    peak_bytes: int | None


def start(file: Path, provider: str, threads: int, batch: int, picture: bytes) -> Start | None:
    """Start a process that scores ``batch`` copies of a picture; None if it fails."""
    command = [sys.executable, "-m", "fsad_edge.bench.start", str(file), provider]
    command += [str(threads), str(batch)]
    with tempfile.TemporaryFile() as given:
        given.write(picture)
        given.seek(0)
        began = time.perf_counter()
        with subprocess.Popen(
            command, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            try:
                first = process.stdout.readline()
                taken = (time.perf_counter() - began) * 1e3
                second = process.stdout.readline()
            except BaseException:
                process.kill()
                raise
    if process.returncode or not second:
        return None
    return Start(json.loads(first), taken, json.loads(second))


def main() -> None:
    """Load, score, say so, score some more, tell the peak."""
    file, provider, threads, batch = sys.argv[1:]
    began = time.perf_counter()
    with Model.load(file, provider, int(threads)) as model:
        loaded = (time.perf_counter() - began) * 1e3
        pictures = [sys.stdin.buffer.read()] * int(batch)
        model.score_batch(pictures)
        print(json.dumps(loaded), flush=True)
        for _ in range(_SCORES):
            model.score_batch(pictures)
        print(json.dumps(peak_memory()), flush=True)


if __name__ == "__main__":
    main()
