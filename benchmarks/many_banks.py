"""Many parts on one encoder: memory, loading and switching with one file and with fifty.

    python -m benchmarks.many_banks PART.onnx SHOTS [--banks 50] [--seconds 20] [--out FOLDER]

From a file and photographs of parts it makes files with other memory banks: each of 32 augmented
views of the photographs, seeds apart, with golden scores of its own. Every figure of memory is of a
process of its own that has loaded that many files and scored one image with each: the library with
one session for all, with one session a file, and ``fsad-edge serve``. Then, in turns in one
process: one file by itself, one of the fifty image after image, and the fifty in rotation.
Writes many_banks.md, many_banks.jsonl and many_banks.png.
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
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.progress import track

from fsad_edge import Model
from fsad_edge.bench.latency import Call, difference, interleave, percentiles
from fsad_edge.bench.machine import describe_machine
from fsad_edge.calibration.calibrate import BATCH
from fsad_edge.cli.console import err
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.bank import ReferenceModel, fit_gaussian, greedy_coreset
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.metadata import KEY
from fsad_edge.runtime.onnx_file import replace
from fsad_edge.synthesis import Shot, Views, load_shot, random_view

#: Views of the photographs behind one bank.
VIEWS = 32

#: Processes behind one figure of memory, which is their median.
PROCESSES = 3

#: What a process does whose memory is measured: the library and nothing else.
LIBRARY = """
import json, sys, time
from fsad_edge import Model
shared, files = sys.argv[1] == "shared", sys.argv[2:]
start, models = time.perf_counter(), []
for file in files:
    models.append(Model.load(file, "cpu", 1, beside=models if shared else ()))
seconds = time.perf_counter() - start
for model in models:
    model.score(model.metadata.golden[0].image)
assert all(model.shares_with(models[0]) == shared for model in models[1:])
status = open("/proc/self/status").read()
print(json.dumps({"seconds": seconds, "status": status}))
"""

#: What is measured, as the tables call it.
LIBRARY_SHARED, LIBRARY_APART, SERVE = "library", "library, a session each", "fsad-edge serve"


def make_files(file: Path, photographs: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """Files of the same graph with memory banks and golden scores of their own."""
    data, files = file.read_bytes(), []
    with Model.load(file, "cpu", 1) as model:
        height, width = model.metadata.height, model.metadata.width
        shots = [load_shot(path, height, width) for path in photographs]
        for index in track(range(count), "banks", console=err, transient=True):
            reference = _normals(model, shots, index)
            changed = replace(data, reference.as_inputs(), {})
            with Model.from_bytes(changed, "a part", "cpu", 1) as part:
                golden = [
                    dataclasses.replace(one, score=part.score(one.image).score)
                    for one in model.metadata.golden
                ]
            described = dataclasses.replace(model.metadata, golden=golden)
            files.append(folder / f"part{index:02d}.onnx")
            write_bytes(files[-1], replace(changed, {}, {KEY: described.to_json()}))
    return files


def _normals(model: Model, shots: Sequence[Shot], seed: int) -> ReferenceModel:
    """A bank as large as the file's own, of augmented views."""
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


def library(files: Sequence[Path], shared: bool) -> dict[str, float]:
    """Resident megabytes, and seconds to load, of a process with these files."""
    arguments = ["shared" if shared else "apart", *map(str, files)]
    said = subprocess.run(
        [sys.executable, "-c", LIBRARY, *arguments], check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(said.stdout)
    return {"megabytes": _resident(found["status"]), "seconds": found["seconds"]}


def serve(files: Sequence[Path], image: bytes) -> dict[str, float]:
    """Resident megabytes of the service with these files, each of which has scored an image."""
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
    return {"megabytes": _resident(status)}


def _resident(status: str) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024 / 1e6


def memory(files: Sequence[Path], image: bytes) -> list[dict[str, Any]]:
    """A row for each way and number of files."""
    numbers = sorted({number for number in (1, 2, 5, 10, 20, 35) if number < len(files)})
    rows = []
    for number in track([*numbers, len(files)], "memory", console=err, transient=True):
        some = files[:number]
        for name in (LIBRARY_SHARED, LIBRARY_APART, SERVE):
            found: list[Mapping[str, float]] = [
                serve(some, image) if name == SERVE else library(some, name == LIBRARY_SHARED)
                for _ in range(PROCESSES)
            ]
            middle = {key: statistics.median(one[key] for one in found) for key in found[0]}
            rows.append({"what": name, "banks": number, **middle})
    return rows


def switching(files: Sequence[Path], seconds: float) -> dict[str, Any]:
    """Milliseconds of a run of the engine, in turns in this process."""
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
            "a session of its own": scoring([alone] * count),
            "one of many, image after image": scoring([models[-1]] * count),
            "all in rotation": scoring(models),
        },
        seconds=seconds,
    )
    base, other = (
        run.samples[name].total for name in ("one of many, image after image", "all in rotation")
    )
    ratio = difference(base, other)
    return {
        "times": {name: percentiles(one.total) for name, one in run.samples.items()},
        "calls": len(base),
        "noisy": run.noisy,
        "others": run.others,
        "switch_ms": float(np.median(other) - np.median(base)),
        "ratio": dataclasses.asdict(ratio),
    }


def table(rows: Sequence[Mapping[str, Any]], times: Mapping[str, Any]) -> str:
    """Markdown."""
    names = (LIBRARY_SHARED, LIBRARY_APART, SERVE)
    by_place = {(row["what"], row["banks"]): row for row in rows}
    numbers = sorted({row["banks"] for row in rows})
    lines = ["| banks | " + " | ".join(f"{name}, MB" for name in names) + " | loaded in, ms |"]
    lines.append("|---" * 5 + "|")
    for number in numbers:
        found = [by_place[name, number] for name in names]
        cells = [
            f"{row['megabytes']:.1f} (×{row['megabytes'] / by_place[name, 1]['megabytes']:.2f})"
            for name, row in zip(names, found, strict=True)
        ]
        lines.append(f"| {number} | {' | '.join(cells)} | {found[0]['seconds'] * 1e3:.0f} |")
    lines += ["", "| the engine's run, one image | p50, ms | p90 | p99 |", "|---|---|---|---|"]
    for name, one in times["times"].items():
        lines.append(f"| {name} | {one['p50']:.3f} | {one['p90']:.3f} | {one['p99']:.3f} |")
    ratio = times["ratio"]
    steadiness = "too noisy to tell" if times["noisy"] else "steady"
    lines += [
        "",
        f"Another bank for every image adds {times['switch_ms'] * 1e3:+.0f} µs to the median "
        f"(×{ratio['ratio']:.3f}, {ratio['low']:.3f} to {ratio['high']:.3f} over the blocks; "
        f"{times['calls']} calls each; the machine was {steadiness}).",
    ]
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG: memory against the number of banks."""
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
        points = [(row["banks"], row["megabytes"]) for row in rows if row["what"] == name]
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
    parser.add_argument("shots", type=Path, help="folder of photographs, of whatever parts")
    parser.add_argument("--banks", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20, help="of switching, for each way")
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
        times = switching(files, given.seconds)
        rows = memory(files, image)
    about = {
        "machine": describe_machine(),
        "bank": list(shape),
        "golden_bytes": sum(len(one.image) for one in golden),
        "processes": PROCESSES,
        "switching": times,
    }
    text = table(rows, times)
    given.out.mkdir(parents=True, exist_ok=True)
    documents = "\n".join(json.dumps(row) for row in [about, *rows]) + "\n"
    write_bytes(given.out / "many_banks.jsonl", documents.encode())
    write_bytes(given.out / "many_banks.md", text.encode())
    write_bytes(given.out / "many_banks.png", draw(rows))
    print(text)


if __name__ == "__main__":
    main()
