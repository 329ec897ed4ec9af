"""The start of a device, in a process of its own: load time, first score and peak memory.

``python -m fsad_edge.bench.start FILE PROVIDER THREADS BATCH`` with an image on standard input is
that process; :func:`measure_start` runs it and takes the time.
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
from fsad_edge.options import Provider
from fsad_edge.runtime.backends.batch_sizes import LARGEST_MOST, USUAL_MOST
from fsad_edge.runtime.model import Model

_FURTHER_SCORES = 3  # until memory is at its peak: engines allocate in their first runs


@dataclass(frozen=True)
class Start:
    """What one start took.

    Attributes:
        load_ms: milliseconds to read, load and check the file, golden images included.
        first_score_ms: milliseconds from the start of the process, Python's own start included, to
            the first score.
        peak_bytes: the largest resident memory; None if the system does not tell.
    """

    load_ms: float
    first_score_ms: float
    peak_bytes: int | None


def largest_run(batch: int) -> int:
    """The ``max_batch`` of :meth:`Model.load` with which a GPU takes so many images at once."""
    return min(batch, LARGEST_MOST) if batch > USUAL_MOST else 0


def measure_start(
    file: Path, provider: Provider, threads: int, batch: int, image: bytes
) -> Start | None:
    """Start a process that scores ``batch`` copies of an image; None if it fails."""
    arguments = map(str, (file, provider, threads, batch))
    command = [sys.executable, "-m", "fsad_edge.bench.start", *arguments]
    with tempfile.TemporaryFile() as standard_input:
        standard_input.write(image)
        standard_input.seek(0)
        began = time.perf_counter()
        with subprocess.Popen(
            command,
            stdin=standard_input,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            try:
                load_ms = process.stdout.readline()
                first_score_ms = (time.perf_counter() - began) * 1e3
                peak_bytes = process.stdout.readline()
            except BaseException:
                process.kill()
                raise
    if process.returncode or not peak_bytes:
        return None
    return Start(json.loads(load_ms), first_score_ms, json.loads(peak_bytes))


def main() -> None:
    """Load the file, score, print the load time, score again and print the peak memory."""
    file, provider, threads, batch = sys.argv[1:]
    began = time.perf_counter()
    most = largest_run(int(batch))
    with Model.load(file, provider, int(threads), max_batch=most) as model:
        load_ms = (time.perf_counter() - began) * 1e3
        images = [sys.stdin.buffer.read()] * int(batch)
        model.score_batch(images)
        print(json.dumps(load_ms), flush=True)
        for _ in range(_FURTHER_SCORES):
            model.score_batch(images)
        print(json.dumps(peak_memory()), flush=True)


if __name__ == "__main__":
    main()
