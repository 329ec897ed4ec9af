"""Many parts on one encoder: memory, load time and switching with one file and with fifty.

    python -m benchmarks.many_banks PART.onnx SHOTS [--banks 50] [--seconds 20] [--out FOLDER]

From a file and photographs of parts it makes files with other memory banks. Each bank is made of 32
augmented views of the photographs, with a seed and golden scores of its own. Every figure of memory
is that of a process of its own, which loaded that many files and scored one image with each: the
library with one session for all, the library with one session a file, and ``fsad-edge serve``.
Then three ways to score are interleaved in one process: one file by itself, one of the fifty for
every image, and the fifty in rotation. Writes many_banks.md, many_banks.jsonl and many_banks.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.progress import track

from fsad_edge import Model
from fsad_edge.bench.latency import (
    Call,
    Difference,
    Percentiles,
    difference,
    interleave,
    percentiles,
)
from fsad_edge.bench.machine import describe_machine
from fsad_edge.calibration.batches import BATCH
from fsad_edge.cli.console import err
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.bank import ReferenceModel, fit_gaussian, greedy_coreset
from fsad_edge.runtime.documents import to_document
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.metadata import KEY
from fsad_edge.runtime.onnx_file import replace
from fsad_edge.synthesis import Shot, Views, load_shot, random_view

#: The number of views of the photographs in one bank.
VIEWS = 32

#: The number of processes for one figure of memory, which is their median.
PROCESSES = 3

#: The program whose memory is measured: the library and nothing else.
LIBRARY = """
import json, sys, time
from fsad_edge import Model
shared, files = sys.argv[1] == "shared", sys.argv[2:]
start, models = time.perf_counter(), []
for file in files:
    models.append(Model.load(file, "cpu", 1, share_with=models if shared else ()))
seconds = time.perf_counter() - start
for model in models:
    model.score(model.metadata.golden[0].image)
assert all(model.shares_with(models[0]) == shared for model in models[1:])
status = open("/proc/self/status").read()
print(json.dumps({"seconds": seconds, "status": status}))
"""

#: The ways to load many files, as the tables name them.
LIBRARY_SHARED, LIBRARY_APART, SERVE = "library", "library, a session each", "fsad-edge serve"

#: The ways to score with many files, as the tables name them.
ALONE = "a session of its own"
SAME_BANK, OTHER_BANK = "one of many, image after image", "all in rotation"


@dataclass(frozen=True)
class Usage:
    """Resident memory of a process, and the time to load the files if it was measured."""

    megabytes: float
    seconds: float | None = None


@dataclass(frozen=True)
class MemoryRow:
    """Memory and load time of one way to load a number of files, medians of ``PROCESSES``."""

    what: str
    banks: int
    megabytes: float
    seconds: float | None


@dataclass(frozen=True)
class Switching:
    """Milliseconds of each way to score, and what another bank for every image adds to the same."""

    times: dict[str, Percentiles]
    calls: int
    noisy: bool
    other_load: float | None
    switch_ms: float
    ratio: Difference


def make_files(file: Path, photographs: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """Make files of the same graph, each with a memory bank and golden scores of its own."""
    data, files = file.read_bytes(), []
    with Model.load(file, "cpu", 1) as model:
        height, width = model.metadata.height, model.metadata.width
        shots = [load_shot(path, height, width) for path in photographs]
        for index in track(range(count), "banks", console=err, transient=True):
            reference = _make_reference(model, shots, index)
            described = dataclasses.replace(model.metadata, bank_rows=reference.rows)
            changed = replace(data, reference.as_inputs(), {KEY: described.to_json()})
            with Model.from_bytes(changed, "a part", "cpu", 1) as part:
                golden = [
                    dataclasses.replace(one, score=part.score(one.image).score)
                    for one in model.metadata.golden
                ]
            described = dataclasses.replace(described, golden=golden)
            files.append(folder / f"part{index:02d}.onnx")
            write_bytes(files[-1], replace(changed, {}, {KEY: described.to_json()}))
    return files


def _make_reference(model: Model, shots: Sequence[Shot], seed: int) -> ReferenceModel:
    """A reference model of augmented views, with a bank as large as the file's own."""
    rng = np.random.default_rng(seed)
    height, width = model.metadata.height, model.metadata.width
    views: list[UInt8Array] = []
    for index in range(VIEWS):
        canvas = shots[(seed + index) % len(shots)].canvas
        views.append(random_view(canvas, height, width, Views(), rng))
    found = [
        model.embed(np.stack(views[start : start + BATCH])) for start in range(0, VIEWS, BATCH)
    ]
    rows = np.concatenate([patches for each in found for patches in each["patches"]])
    mean, whitening = fit_gaussian(np.concatenate([each["embedding"] for each in found]))
    chosen = rows[greedy_coreset(rows[:, :-1], model.reference.rows)]
    filled = model.reference.with_patches(chosen)
    return dataclasses.replace(filled, gaussian_mean=mean, gaussian_whitening=whitening)


def run_library(files: Sequence[Path], shared: bool) -> Usage:
    """Load files and score an image with each, in a process of its own."""
    arguments = ["shared" if shared else "apart", *map(str, files)]
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY, *arguments], check=True, capture_output=True, text=True
    )
    answer = json.loads(done.stdout)
    return Usage(_resident_megabytes(answer["status"]), answer["seconds"])


def run_service(files: Sequence[Path], image: bytes) -> Usage:
    """Start the service with files and score an image with each."""
    command = [sys.executable, "-m", "fsad_edge.cli", "serve", *map(str, files)]
    with subprocess.Popen(
        [*command, "--provider", "cpu", "--threads", "1", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            url = next(found[1] for line in lines if (found := re.search(r"on (http\S+)", line)))
            for file in files:
                request = urllib.request.Request(
                    f"{url}/v1/score?model={file.stem}",
                    image,
                    {"Content-Type": "image/jpeg"},
                )
                with urllib.request.urlopen(request) as answer:
                    assert json.load(answer)["results"]
            status = Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.terminate()
    return Usage(_resident_megabytes(status))


def _resident_megabytes(status: str) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024 / 1e6


def measure_memory(files: Sequence[Path], image: bytes) -> list[MemoryRow]:
    """Measure each way to load with several numbers of files."""
    numbers = [number for number in (1, 2, 5, 10, 20, 35) if number < len(files)]
    rows = []
    for number in track([*numbers, len(files)], "memory", console=err, transient=True):
        some = files[:number]
        for name in (LIBRARY_SHARED, LIBRARY_APART, SERVE):
            used = [
                run_service(some, image)
                if name == SERVE
                else run_library(some, name == LIBRARY_SHARED)
                for _ in range(PROCESSES)
            ]
            megabytes = statistics.median(one.megabytes for one in used)
            seconds = [one.seconds for one in used if one.seconds is not None]
            rows.append(
                MemoryRow(name, number, megabytes, statistics.median(seconds) if seconds else None)
            )
    return rows


def measure_switching(files: Sequence[Path], seconds: float) -> Switching:
    """Time runs of the engine, interleaved in this process."""
    alone = Model.load(files[0], "cpu", 1)
    models: list[Model] = []
    for file in files:
        models.append(Model.load(file, "cpu", 1, share_with=models))
    images = [model.prepare(model.decode(model.metadata.golden[0].image)) for model in models]
    assert all(model.shares_with(models[0]) for model in models)

    def scoring(order: Sequence[Model]) -> Call:
        schedule = itertools.cycle(zip(order, images, strict=True))

        def call(repetition: int) -> Mapping[str, float]:
            model, image = next(schedule)
            model.score_prepared(image[None])
            return {}

        return call

    count = len(models)
    run = interleave(
        {
            ALONE: scoring([alone] * count),
            SAME_BANK: scoring([models[-1]] * count),
            OTHER_BANK: scoring(models),
        },
        seconds=seconds,
    )
    base, other = run.samples[SAME_BANK].total, run.samples[OTHER_BANK].total
    return Switching(
        times={name: percentiles(samples.total) for name, samples in run.samples.items()},
        calls=len(base),
        noisy=run.noisy,
        other_load=run.other_load,
        switch_ms=float(np.median(other) - np.median(base)),
        ratio=difference(base, other),
    )


def markdown(rows: Sequence[MemoryRow], switching: Switching) -> str:
    """The tables of memory and of switching."""
    names = (LIBRARY_SHARED, LIBRARY_APART, SERVE)
    megabytes = {(row.what, row.banks): row.megabytes for row in rows}
    lines = ["| banks | " + " | ".join(f"{name}, MB" for name in names) + " | loaded in, ms |"]
    lines.append("|---" * 5 + "|")
    for row in rows:
        if row.what == LIBRARY_SHARED and row.seconds is not None:
            used = {name: megabytes[name, row.banks] for name in names}
            cells = [f"{one:.1f} (×{one / megabytes[name, 1]:.2f})" for name, one in used.items()]
            lines.append(f"| {row.banks} | {' | '.join(cells)} | {row.seconds * 1e3:.0f} |")
    lines += ["", "| the engine's run, one image | p50, ms | p90 | p99 |", "|---|---|---|---|"]
    for name, times in switching.times.items():
        lines.append(f"| {name} | {times.p50:.3f} | {times.p90:.3f} | {times.p99:.3f} |")
    ratio = switching.ratio
    steadiness = "too noisy to tell" if switching.noisy else "steady"
    lines += [
        "",
        f"Another bank for every image adds {switching.switch_ms * 1e3:+.0f} µs to the median "
        f"(×{ratio.ratio:.3f}, {ratio.low:.3f} to {ratio.high:.3f} over the blocks; "
        f"{switching.calls} calls each; the machine was {steadiness}).",
    ]
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[MemoryRow]) -> bytes:
    """Memory against the number of banks, as PNG."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(
        xlabel="parts, each with its bank", ylabel="resident memory, MB",
        title="Parts of one graph share a session",
    )  # fmt: skip
    styles = {
        LIBRARY_APART: ("#d55e00", "--"),
        SERVE: ("#009e73", "-"),
        LIBRARY_SHARED: ("#0072b2", "-"),
    }
    for name, (colour, style) in styles.items():
        points = [(row.banks, row.megabytes) for row in rows if row.what == name]
        axes.plot(*zip(*points, strict=True), color=colour, linestyle=style, marker="o", label=name)
    axes.set_ylim(0)
    axes.set_xlim(0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Memory and switching of many banks.")
    parser.add_argument("part", type=Path, help="file that export wrote")
    parser.add_argument("shots", type=Path, help="folder of photographs of any parts")
    parser.add_argument("--banks", type=int, default=50)
    parser.add_argument(
        "--seconds", type=float, default=20, help="time to measure each way of switching"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/many_banks"))
    given = parser.parse_args()
    photographs = sorted(path for path in given.shots.glob("*") if path.is_file())
    if not given.part.is_file() or not photographs or given.banks < 2:
        parser.error("give a file, a folder of photographs and 2 banks or more")
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(given.part, photographs, given.banks, Path(folder))
        with Model.load(files[0], "cpu", 1) as model:
            image, golden = model.metadata.golden[0].image, model.metadata.golden
            shape = model.reference.bank.shape
        switching = measure_switching(files, given.seconds)
        rows = measure_memory(files, image)
    about = {
        "machine": describe_machine(),
        "bank": list(shape),
        "golden_bytes": sum(len(one.image) for one in golden),
        "processes": PROCESSES,
        "switching": switching,
    }
    text = markdown(rows, switching)
    given.out.mkdir(parents=True, exist_ok=True)
    documents = "\n".join(json.dumps(to_document(row)) for row in [about, *rows]) + "\n"
    write_bytes(given.out / "many_banks.jsonl", documents.encode())
    write_bytes(given.out / "many_banks.md", text.encode())
    write_bytes(given.out / "many_banks.png", plot(rows))
    print(text)


if __name__ == "__main__":
    main()
