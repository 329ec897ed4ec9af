"""Measure the service: ``python -m benchmarks.serve load|soak MODEL IMAGE``.

``load`` measures its cost over the bare runtime, and its answers at and above its capacity. Service
and runtime take turns within one run, so that a busy machine slows both alike. ``soak`` sends many
requests and measures the memory.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from pathlib import Path

from benchmarks.serve import report
from benchmarks.serve.client import Connection, closed_loop, open_loop, post
from benchmarks.serve.measurements import Measurements
from benchmarks.serve.process import Service, serving
from fsad_edge import Model

RESULTS = Path(__file__).resolve().parent.parent / "results/serve"

#: Multiples of the capacity at which requests arrive.
LOADS = (0.5, 1.0, 3.0)


def main() -> None:
    """Measure as the command line says and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["load", "soak"])
    parser.add_argument("model", type=Path, help="exported model file")
    parser.add_argument("image", type=Path, help="JPEG that is sent again and again")
    parser.add_argument("--threads", type=int, default=1, help="engine threads of both")
    parser.add_argument("--seconds", type=float, default=20, help="seconds of each load")
    parser.add_argument("--pairs", type=int, default=400, help="pairs of runs for the overhead")
    parser.add_argument("--rounds", type=int, default=4, help="rounds for the throughput")
    parser.add_argument("--requests", type=int, default=100_000, help="requests of the soak")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("options", nargs="*", help="further options for  fsad-edge serve")
    given = parser.parse_args()
    image = given.image.read_bytes()
    measured = Measurements(given.threads, os.cpu_count() or 1, len(image))
    measured.seconds = given.seconds
    given.output.mkdir(parents=True, exist_ok=True)
    with serving(given.model, given.threads, *given.options) as service:
        if given.what == "soak":
            asyncio.run(soak(service, image, measured, given.requests))
            report.write_soak(given.output, measured)
            return
        with Model.load(given.model, "cpu", given.threads) as model:
            asyncio.run(compare(service, model, image, measured, given.pairs, given.rounds))
        for load in LOADS:
            rate = load * measured.capacity
            measured.loads[load] = asyncio.run(
                open_loop(lambda: connect(service, image), rate, given.seconds, seed=0)
            )
            print(report.load_row(load, measured), flush=True)
    report.write_load(given.output, measured)


def connect(service: Service, image: bytes) -> Connection:
    """A connection that asks for the score of the image."""
    return Connection(service.host, service.port, post(service.host, service.port, image))


async def compare(
    service: Service, model: Model, image: bytes, measured: Measurements, pairs: int, rounds: int
) -> None:
    """Compare the service with the runtime: one image at a time, and at saturation."""
    connection = connect(service, image)
    for place in range(pairs + 20):
        begin = time.perf_counter()
        status = await connection.ask()
        between = time.perf_counter()
        model.score(image)
        end = time.perf_counter()
        assert status == 200
        if place >= 20:  # the first runs are slow in both
            measured.served.append((between - begin) * 1e3)
            measured.bare.append((end - between) * 1e3)
    connection.close()
    print(report.overhead_row(measured), flush=True)
    for _ in range(rounds):
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < 4:
            model.score(image)
            count += 1
        measured.bare_rates.append(count / (time.perf_counter() - begin))
        connections = [connect(service, image) for _ in range(4)]
        begin = time.perf_counter()
        answers = await closed_loop(connections, 4)
        scored = sum(answer.status == 200 for answer in answers)
        measured.served_rates.append(scored / (time.perf_counter() - begin))
        for connection in connections:
            connection.close()
    print(report.throughput_row(measured), flush=True)


async def soak(service: Service, image: bytes, measured: Measurements, count: int) -> None:
    """Send many requests and measure the memory of the service."""
    connections = [connect(service, image) for _ in range(4)]
    step = max(count // 200, 1)
    done = 0
    while done < count:
        answers = await closed_loop(connections, 3600, min(step, count - done))
        measured.soak += answers
        done += len(answers)
        measured.memory.append((done, service.resident()))
    for connection in connections:
        connection.close()


if __name__ == "__main__":
    main()
