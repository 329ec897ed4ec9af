"""Score an archive with Ray and with plain loops, and with a worker or the command killed.

    python -m benchmarks.archive OUT --model part.onnx --images FOLDER

Three ways to score the same images run in turns: one loop over ``Model.score`` with all threads,
one such loop with one thread for each core, and ``fsad-edge archive``. Each uses as many threads as
there are cores, in processes of its own. The time is counted from the start of the first timed
image to the end of the last one, by the clocks of the processes that score. It includes what Ray
does between chunks, but not the start of Ray or the loading of models.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fsad_edge.bench.machine import describe_machine
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.folders import find_images

CORES = os.cpu_count() or 1
#: Images that a plain loop scores before it is timed.
WARM = 10

LOOP = """
import sys, time
from fsad_edge import Model
paths = sys.stdin.read().splitlines()
with Model.load(sys.argv[1], "cpu", int(sys.argv[2])) as model:
    for path in paths[:int(sys.argv[3])]:
        model.score(path)
    print("ready", flush=True)
    time.sleep(max(0, float(sys.argv[4]) - time.time()))
    started = time.time()
    for path in paths:
        model.score(path)
    print(started, time.time())
"""

#: The ways to score, with what the report calls them.
WAYS = {
    "one loop": f"one loop over `Model.score`, {CORES} threads",
    "loops side by side": f"{CORES} such loops side by side, 1 thread each",
    "ray": f"`fsad-edge archive`, {CORES} workers of 1 thread",
}


@dataclass(frozen=True)
class Speed:
    """The speed of one way in one round."""

    way: str
    images_per_second: float


@dataclass(frozen=True)
class KilledRun:
    """A run in which a process was killed.

    Attributes:
        killed: the process that got SIGKILL.
        rows_when_killed: rows that were written by then.
        images: number of images in the archive.
        rows: rows in the end.
        rows_twice: rows in the end beyond one for each image.
        scored_by_the_last_run: images that the run that ended scored.
        seconds: time from the start of the first run to the end of the last one.
    """

    killed: str
    rows_when_killed: int
    images: int
    rows: int
    rows_twice: int
    scored_by_the_last_run: int
    seconds: float


def read_rows(output: Path) -> list[dict[str, Any]]:
    """The rows of all chunks in an output folder."""
    chunks = sorted(output.glob("chunk-*.parquet"))
    return [row for chunk in chunks for row in pq.ParquetFile(chunk).read().to_pylist()]


def workers_below(root: int) -> list[int]:
    """Process ids of Ray's workers that score images and descend from the process ``root``."""
    parents, scoring = {}, []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            title = (entry / "cmdline").read_bytes()
            parents[int(entry.name)] = int(
                (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
            )
        except (OSError, ValueError):
            continue  # the process has just ended
        if title.startswith(b"ray::MapWorker") and b"ScoreImages" in title:
            scoring.append(int(entry.name))
    return sorted(pid for pid in scoring if _is_below(pid, root, parents))


def _is_below(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid not in (0, root):
        pid = parents.get(pid, 0)
    return pid == root


def loop_speed(model: Path, paths: list[Path], count: int, threads: int) -> float:
    """Images per second of ``count`` loops side by side, each with its share of the images."""
    start = time.time() + 8 + 2 * count
    loops = []
    for index in range(count):
        arguments = [str(model), str(threads), str(WARM), str(start)]
        process = subprocess.Popen(
            [sys.executable, "-c", LOOP, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        loops.append((process, "\n".join(map(str, paths[index::count]))))
    for process, given in loops:
        assert process.stdin is not None
        process.stdin.write(given)
        process.stdin.close()
    starts, ends = [], []
    for process, _ in loops:
        assert process.stdout is not None
        ready, times = process.stdout.read().splitlines()
        assert ready == "ready"
        started, ended = map(float, times.split())
        if started > start + 0.5:
            raise SystemExit("a loop was loaded too late to start with the others: run again")
        starts.append(started)
        ends.append(ended)
        process.wait()
    return len(paths) / (max(ends) - min(starts))


def start_command(model: Path, folder: Path, output: Path) -> subprocess.Popen[str]:
    """Start ``fsad-edge archive``."""
    command = [sys.executable, "-m", "fsad_edge.cli", "archive", str(model), str(folder)]
    return subprocess.Popen(
        [*command, "-o", str(output), "--json", "--provider", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def finish(command: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the command: the summary that it printed."""
    out, _ = command.communicate()
    if command.returncode not in {0, 1, 3}:
        raise SystemExit(f"the command failed with exit code {command.returncode}")
    summary: dict[str, Any] = json.loads(out)
    return summary


def wait_for_rows(output: Path, rows: int) -> int:
    """Wait until so many rows are written: their number then."""
    while True:
        chunks = list(output.glob("chunk-*.parquet"))
        written = int(sum(pq.ParquetFile(chunk).metadata.num_rows for chunk in chunks))
        if written >= rows:
            return written
        time.sleep(0.05)


def run_killed(model: Path, folder: Path, output: Path, count: int, whole: bool) -> KilledRun:
    """Run the command and kill it, or one of its workers, when a third of the rows is written."""
    started = time.time()
    command = start_command(model, folder, output)
    written = wait_for_rows(output, count // 3)
    if whole:
        command.kill()
        command.wait()
    else:
        os.kill(workers_below(command.pid)[0], signal.SIGKILL)
    summary = finish(start_command(model, folder, output) if whole else command)
    names = [row["path"] for row in read_rows(output)]
    return KilledRun(
        killed="the command, then run again" if whole else "a worker",
        rows_when_killed=written,
        images=count,
        rows=len(names),
        rows_twice=len(names) - len(set(names)),
        scored_by_the_last_run=summary["scored"],
        seconds=round(time.time() - started, 1),
    )


def link_images(images: list[Path], folder: Path, count: int) -> list[Path]:
    """Links to ``count`` images: each image gets several names if there are too few."""
    folder.mkdir()
    for index in range(count):
        source = images[index % len(images)].absolute()
        (folder / f"{index:06d}{source.suffix}").symlink_to(source)
    return sorted(folder.iterdir())


def one_round(model: Path, paths: list[Path], output: Path) -> list[Speed]:
    """The speed of each way, one after another."""
    one = loop_speed(model, paths, 1, CORES)
    many = loop_speed(model, paths, CORES, 1)
    summary = finish(start_command(model, paths[0].parent, output))
    speeds = (one, many, summary["scored"] / summary["seconds"])
    return [Speed(way, speed) for way, speed in zip(WAYS, speeds, strict=True)]


def report(speeds: Sequence[Speed], killed: Sequence[KilledRun], count: int) -> str:
    """The tables, in Markdown."""
    by_way = {way: [run.images_per_second for run in speeds if run.way == way] for way in WAYS}
    loops = zip(by_way["one loop"], by_way["loops side by side"], strict=True)
    best = [max(pair) for pair in loops]
    machine = describe_machine()
    lines = [
        f"{count} images, {len(best)} rounds, the ways in turns, start-up not counted. "
        f"Machine: {machine['cpu']}, "
        f"{machine['cores']} cores, Python {machine['python']}, load {machine['load']}.",
        "",
        "| way | images per second, median | lowest to highest | of the round's best plain loop |",
        "|---|---|---|---|",
    ]
    for way, name in WAYS.items():
        ratios = [speed / top for speed, top in zip(by_way[way], best, strict=True)]
        lines.append(
            f"| {name} | {statistics.median(by_way[way]):.1f} "
            f"| {min(by_way[way]):.1f} to {max(by_way[way]):.1f} "
            f"| {', '.join(f'{ratio:.0%}' for ratio in ratios)} |"
        )
    lines += [
        "",
        "| SIGKILL to | rows when killed | images | rows in the end | rows twice "
        "| scored by the run that ended |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {run.killed} | {run.rows_when_killed} | {run.images} | {run.rows} | {run.rows_twice} "
        f"| {run.scored_by_the_last_run} |"
        for run in killed
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="folder for archive.md and archive.jsonl")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    speeds: list[Speed] = []
    killed: list[KilledRun] = []
    with tempfile.TemporaryDirectory() as name:
        work, folder = Path(name), Path(name) / "images"
        paths = link_images(find_images(given.images).images, folder, given.count)
        for number in range(given.rounds):
            speeds += one_round(given.model, paths, work / f"scores{number}")
            print(speeds[-len(WAYS) :], flush=True)
        for whole in (False, True):
            output = work / f"killed{whole}"
            killed.append(run_killed(given.model, folder, output, given.count, whole))
            print(killed[-1], flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    runs: list[Speed | KilledRun] = [*speeds, *killed]
    lines = [json.dumps(dataclasses.asdict(run)) for run in runs]
    write_bytes(given.out / "archive.jsonl", ("\n".join(lines) + "\n").encode())
    write_bytes(given.out / "archive.md", report(speeds, killed, given.count).encode())


if __name__ == "__main__":
    main()
