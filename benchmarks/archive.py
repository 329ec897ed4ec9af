"""An archive scored through Ray beside plain loops, and with a worker or the command killed.

    python -m benchmarks.archive OUT --model part.onnx --images FOLDER

Three ways take turns, each with as many threads in all as there are cores, each in processes of
its own: one loop over ``Model.score`` with all threads, a loop a core with one thread each, and
``fsad-edge score --ray``. Start-up apart means, for all three: from the beginning of the first
image that is timed to the end of the last, by the clocks of those that score. What Ray does between
its batches counts, its start and the loading of models does not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fsad_edge.bench.machine import describe_machine
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.images import find_images

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
    begun = time.time()
    for path in paths:
        model.score(path)
    print(begun, time.time())
"""


def read_rows(output: Path) -> list[dict[str, Any]]:
    """The rows of all parts of an output folder."""
    parts = sorted(output.glob("chunk-*.parquet"))
    return [row for part in parts for row in pq.ParquetFile(part).read().to_pylist()]


def workers_below(root: int) -> list[int]:
    """Process ids of Ray's workers that score images, below a process."""
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
            continue  # it has just ended
        if title.startswith(b"ray::MapWorker") and b"ScoreImages" in title:
            scoring.append(int(entry.name))
    return sorted(pid for pid in scoring if _is_below(pid, root, parents))


def _is_below(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid not in (0, root):
        pid = parents.get(pid, 0)
    return pid == root


def loops(model: Path, paths: list[Path], count: int, threads: int) -> float:
    """Images a second of ``count`` plain loops side by side, each with its share of the images."""
    start = time.time() + 8 + 2 * count
    running = []
    for place in range(count):
        arguments = [str(model), str(threads), str(WARM), str(start)]
        process = subprocess.Popen(
            [sys.executable, "-c", LOOP, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append((process, "\n".join(map(str, paths[place::count]))))
    for process, given in running:
        assert process.stdin is not None
        process.stdin.write(given)
        process.stdin.close()
    spans = []
    for process, _ in running:
        assert process.stdout is not None
        ready, times = process.stdout.read().splitlines()
        assert ready == "ready"
        begun, ended = map(float, times.split())
        if begun > start + 0.5:
            raise SystemExit("a plain loop was loaded too late to begin with the others: run again")
        spans.append((begun, ended))
        process.wait()
    return len(paths) / (max(end for _, end in spans) - min(begun for begun, _ in spans))


def start_command(model: Path, folder: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fsad_edge.cli", "archive", str(model), str(folder)]
    return subprocess.Popen(
        [*command, "-o", str(output), "--json", "--provider", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def finish(command: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = command.communicate()
    if command.returncode not in {0, 1}:
        raise SystemExit(f"the command failed with exit code {command.returncode}")
    summary: dict[str, Any] = json.loads(out)
    return summary


def wait_for_rows(output: Path, rows: int) -> int:
    """Wait until so many rows are written; how many there are then."""
    while True:
        parts = list(output.glob("chunk-*.parquet"))
        there = int(sum(pq.ParquetFile(part).metadata.num_rows for part in parts))
        if there >= rows:
            return there
        time.sleep(0.05)


def killed(model: Path, folder: Path, output: Path, count: int, whole: bool) -> dict[str, Any]:
    """A run in which a worker, or the whole command, gets SIGKILL at a third."""
    started = time.time()
    command = start_command(model, folder, output)
    there = wait_for_rows(output, count // 3)
    if whole:
        command.kill()
        command.wait()
    else:
        os.kill(workers_below(command.pid)[0], signal.SIGKILL)
    summary = finish(start_command(model, folder, output) if whole else command)
    names = [row["path"] for row in read_rows(output)]
    return {
        "killed": "the command, then run again" if whole else "a worker",
        "rows_when_killed": there,
        "images": count,
        "rows": len(names),
        "rows_twice": len(names) - len(set(names)),
        "scored_by_the_last_run": summary["scored"],
        "seconds": round(time.time() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="folder for archive.md and archive.jsonl")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found = find_images(given.images)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = work / "images"
        folder.mkdir()
        for index in range(given.count):  # the same images under other names, if there are too few
            source = found[index % len(found)].absolute()
            (folder / f"{index:06d}{source.suffix}").symlink_to(source)
        paths = sorted(folder.iterdir())
        for number in range(given.rounds):
            one = loops(given.model, paths, 1, CORES)
            runs.append({"way": "one loop", "images_per_second": one})
            runs.append(
                {
                    "way": "loops side by side",
                    "images_per_second": loops(given.model, paths, CORES, 1),
                }
            )
            output = work / f"scores{number}"
            summary = finish(start_command(given.model, folder, output))
            speed = summary["scored"] / summary["seconds"]
            runs.append({"way": "ray", "images_per_second": speed, **summary})
            print(runs[-3:], flush=True)
        for whole in (False, True):
            runs.append(killed(given.model, folder, work / f"killed{whole}", given.count, whole))
            print(runs[-1], flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({key: run[key] for key in run if key != "output"}) for run in runs]
    write_bytes(given.out / "archive.jsonl", ("\n".join(lines) + "\n").encode())
    write_bytes(given.out / "archive.md", report(runs, given.count).encode())


def report(runs: list[dict[str, Any]], count: int) -> str:
    """The table, in Markdown."""
    names = {
        "one loop": f"one loop over `Model.score`, {CORES} threads",
        "loops side by side": f"{CORES} such loops side by side, 1 thread each",
        "ray": f"`fsad-edge archive`, {CORES} workers of 1 thread",
    }
    speeds = {
        way: [run["images_per_second"] for run in runs if run.get("way") == way] for way in names
    }
    plain = zip(speeds["one loop"], speeds["loops side by side"], strict=True)
    best = [max(pair) for pair in plain]
    machine = describe_machine()
    lines = [
        f"{count} images, {len(speeds['ray'])} rounds in turns, start-up apart. "
        f"Machine: {machine['cpu']}, "
        f"{machine['cores']} cores, Python {machine['python']}, load {machine['load']}.",
        "",
        "| way | images a second, median | lowest to highest | of the round's best plain loop |",
        "|---|---|---|---|",
    ]
    for way, name in names.items():
        middle = statistics.median(speeds[way])
        ratios = [speed / top for speed, top in zip(speeds[way], best, strict=True)]
        lines.append(
            f"| {name} | {middle:.1f} | {min(speeds[way]):.1f} to {max(speeds[way]):.1f} "
            f"| {', '.join(f'{ratio:.0%}' for ratio in ratios)} |"
        )
    lines += [
        "",
        "| SIGKILL to | rows when killed | images | rows in the end | rows twice "
        "| scored by the run that ended |",
        "|---|---|---|---|---|---|",
    ]
    for run in runs:
        if "killed" in run:
            lines.append(
                f"| {run['killed']} | {run['rows_when_killed']} | {run['images']} | {run['rows']} "
                f"| {run['rows_twice']} | {run['scored_by_the_last_run']} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
