"""A service that keeps a GPU busy, the graph alone and peers: the table of a page "On a GPU".

    python -m benchmarks.serve.gpu MODEL IMAGE.jpg --provider cuda [--peers-python PYTHON]

One command prints the whole table as Markdown and writes it into ``--output``. It runs on a machine
without a GPU, too, with ``--provider cpu``, and says what it could not measure. The clients run on
the machine of the service and take cores from it: the table tells how many.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import multiprocessing
import resource
import statistics
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.latency.systems import PEERS, System, export_peers, load_peer
from benchmarks.serve.client import Answer, Connection, closed_loop, form, post
from benchmarks.serve.gpu_report import write_report
from benchmarks.serve.process import Service, serving
from fsad_edge import Model
from fsad_edge.errors import FsadEdgeError
from fsad_edge.options import Provider
from fsad_edge.runtime.cores import usable_cores

RESULTS = Path(__file__).resolve().parent.parent / "results/serve_gpu"

#: Runs of the graph before its time is taken, and runs whose time is taken.
WARM_UP, RUNS = 20, 200

#: Seconds after which a row has enough runs, however few.
MOST_SECONDS = 10.0

#: Batches of the graph alone, and the two that take turns.
BATCHES, TURNS = (1, 8, 32), (1, 8)

#: Clients beside each row of several images in one request.
FORM_CLIENTS = 8

#: Seconds for the processes of the clients to begin together.
TOGETHER = 1.0


@dataclass
class Load:
    """What clients measured of the service, and what it and they took for it.

    Attributes:
        clients: connections that each send their next request when they have an answer.
        images: images in each request.
        answers: to their requests, all rounds together.
        rates: images scored in a second, of each round.
        runs: runs of the engine.
        scored: images in them.
        stages: seconds of all scored images together, by stage.
        service_cores: cores that the service kept busy, of each round.
        client_cores: the same of the clients.
    """

    clients: int
    images: int
    answers: list[Answer] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    runs: float = 0
    scored: float = 0
    stages: dict[str, float] = field(default_factory=dict)
    service_cores: list[float] = field(default_factory=list)
    client_cores: list[float] = field(default_factory=list)


@dataclass
class Figures:
    """All figures of a run.

    Attributes:
        provider: what ran the model, by ONNX Runtime's name.
        about: the model and the image, in words.
        processes: of the clients.
        loads: the service under load.
        alone: milliseconds of the graph alone and of peers, or why there are none, by row.
    """

    provider: str
    about: str
    processes: int
    loads: list[Load] = field(default_factory=list)
    alone: dict[str, float | str] = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure as the command line says and write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serve.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="exported model file")
    parser.add_argument("image", type=Path, help="JPEG that is sent again and again")
    parser.add_argument("--provider", choices=["cuda", "tensorrt", "cpu"], default="cuda")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--images", type=int, default=8, help="images in a request of several")
    parser.add_argument("--seconds", type=float, default=8, help="seconds of each load and round")
    parser.add_argument("--rounds", type=int, default=2, help="rounds, in which loads take turns")
    parser.add_argument(
        "--client-processes",
        type=int,
        default=max(1, min(4, usable_cores() // 4)),
        help="processes that share the clients; each can use one core",
    )
    parser.add_argument("--peers-python", type=Path, help="interpreter of the peers' environment")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("options", nargs="*", help="further options for  fsad-edge serve")
    given = parser.parse_args(argv)
    image = given.image.read_bytes()
    given.output.mkdir(parents=True, exist_ok=True)
    with Model.load(given.model, given.provider, strict=given.provider != "cpu") as model:
        about = f"{given.model.name}, {model.metadata.width}x{model.metadata.height}; "
        about += f"{given.image.name} of {len(image) / 1e3:.0f} kB"
        figures = Figures(model.provider, about, given.client_processes)
        measure_graph(model, image, figures)
    measure_peers(Provider(given.provider), given.peers_python, given.output, image, figures)
    shapes = [*((clients, 1) for clients in given.clients), (FORM_CLIENTS, given.images)]
    context = multiprocessing.get_context("spawn")
    with (
        serving(given.model, 0, *given.options, provider=given.provider) as service,
        ProcessPoolExecutor(given.client_processes, context) as pool,
    ):
        warm_up = [Load(*shape) for shape in shapes]
        put_under_load(
            service, pool, given.client_processes, warm_up, image, min(2.0, given.seconds)
        )
        figures.loads = [Load(*shape) for shape in shapes]
        for _ in range(given.rounds):
            put_under_load(
                service, pool, given.client_processes, figures.loads, image, given.seconds
            )
    write_report(given.output, figures)


def measure_graph(model: Model, image: bytes, figures: Figures) -> None:
    """Time runs of the graph, from pixels in memory to scores in memory."""
    pixels = model.prepare(model.decode(image))[None]

    def run(batch: int) -> float:
        return model.score_prepared(pixels.repeat(batch, axis=0))[0].timings["infer"]

    for batch in BATCHES:
        figures.alone[f"graph alone, batch {batch}"] = median_of(functools.partial(run, batch))
    name = "graph alone, batch {} and batch {} in turns, the pair".format(*TURNS)
    figures.alone[name] = median_of(lambda: sum(map(run, TURNS)))


def measure_peers(
    provider: Provider, python: Path | None, out: Path, image: bytes, figures: Figures
) -> None:
    """Time the peers' graphs with the same provider; what is missing gets its reason."""
    rows = [(name, "0") for name in PEERS]
    if provider is Provider.CUDA:
        rows.append(("efficientad-small", "1"))
    for name, tf32 in rows:
        row = f"{name}, batch 1" + (", TF32" if tf32 == "1" else "")
        if python is None:
            figures.alone[row] = "not measured: no --peers-python was given"
            continue
        options = {"use_tf32": tf32} if provider is Provider.CUDA else {}
        try:
            [peer] = [one for one in export_peers(python, out).models if one.name == name]
            system = load_peer(out / f"{name}.onnx", peer, image, 0, provider, options)
        except FsadEdgeError as error:
            figures.alone[row] = f"not measured: {error}"
            continue

        def run(system: System = system) -> float:
            begin = time.perf_counter()
            system.alone(0)
            return (time.perf_counter() - begin) * 1e3

        figures.alone[row] = median_of(run)


def median_of(run: Callable[[], float]) -> float:
    """The median of what some runs return, after as many as warm it up."""
    end = time.perf_counter() + MOST_SECONDS
    times = [run() for _ in range(WARM_UP)]
    while not times[WARM_UP:] or (len(times) < WARM_UP + RUNS and time.perf_counter() < end):
        times.append(run())
    return statistics.median(times[WARM_UP:])


def put_under_load(
    service: Service,
    pool: ProcessPoolExecutor,
    processes: int,
    loads: Sequence[Load],
    image: bytes,
    seconds: float,
) -> None:
    """One round: each of the loads in turn."""
    for load in loads:
        before, used = counts_of(service), service.busy_seconds()
        start = time.time() + TOGETHER
        images = load.images * [image]
        address = service.host, service.port
        request = post(*address, image) if load.images == 1 else form(*address, *images)
        shares = list(_shares(load.clients, processes))
        futures = [
            pool.submit(run_clients, *address, request, share, start, seconds) for share in shares
        ]
        found = [future.result() for future in futures]
        after = counts_of(service)
        load.service_cores.append((service.busy_seconds() - used) / seconds)
        load.client_cores.append(sum(busy for _, busy in found) / seconds)
        answers = [answer for some, _ in found for answer in some]
        load.answers += answers
        scored = load.images * sum(answer.status == 200 for answer in answers)
        load.rates.append(scored / seconds)
        load.runs += after["batch_images_count"] - before["batch_images_count"]
        load.scored += after["batch_images_sum"] - before["batch_images_sum"]
        for stage in ("decode", "resize", "queue", "infer"):
            name = f'stage_seconds_sum{{stage="{stage}"}}'
            spent = after[name] - before[name]
            load.stages[stage] = load.stages.get(stage, 0.0) + spent


def run_clients(
    host: str, port: int, request: bytes, clients: int, start: float, seconds: float
) -> tuple[list[Answer], float]:
    """Some clients in a process of their own: the answers they got, and the core seconds."""
    connections = [Connection(host, port, request) for _ in range(clients)]
    time.sleep(max(0.0, start - time.time()))
    begin = _core_seconds()
    answers = asyncio.run(closed_loop(connections, seconds))
    return answers, _core_seconds() - begin


def counts_of(service: Service) -> dict[str, float]:
    """The metrics of the service by their names, without the prefix."""
    with urllib.request.urlopen(f"http://{service.host}:{service.port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    rows = (line.rsplit(" ", 1) for line in lines if line.startswith("fsad_edge_"))
    return {name.removeprefix("fsad_edge_"): float(value) for name, value in rows}


def _shares(clients: int, processes: int) -> Iterator[int]:
    """How many of the clients each process runs; those without any are left out."""
    for place in range(min(clients, processes)):
        yield len(range(place, clients, processes))


def _core_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
