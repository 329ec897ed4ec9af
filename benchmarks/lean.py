"""Start, memory and installed size on a device.

    python -m benchmarks.lean PART.onnx IMAGE [--python DEVICE_ENVIRONMENT/bin/python]

Starts ``fsad-edge score PART.onnx IMAGE`` repeatedly in the environment of ``--python``,
interleaved with an empty Python and a bare import of ONNX Runtime, and sums the sizes of the
packages that are installed there. Writes ``OUT/pythonX.Y.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path

# Modules that need numpy are imported after the measurement, because the kernel counts the memory
# of the parent at the start of a child into the child's peak.

#: Packages that an environment holds before anything is installed into it.
TOOLS = frozenset({"pip", "setuptools", "wheel"})

#: Packages whose versions are printed.
SHOWN = frozenset({"numpy", "onnxruntime", "onnxruntime-gpu", "pillow", "typer"})

#: The number of packages with a row of their own in the table; the rest is one row.
NAMED = 12


@dataclass
class Starts:
    """What the starts of one command took, one value for each start.

    Attributes:
        wall: seconds from the start of the process to its end.
        cpu: seconds of processor time, which other load on the machine changes little.
        peak: largest resident memory in bytes.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Weight:
    """Size of one distribution in bytes, in total and of its bytecode."""

    name: str
    version: str
    total: int
    bytecode: int


def start_commands(python: str, part: str, image: str) -> dict[str, list[str]]:
    """The commands that are measured, by the names in the table."""
    score = f"from fsad_edge import Model; Model.load({part!r}).score({image!r})"
    return {
        "python -c pass": [python, "-c", "pass"],
        "import onnxruntime": [python, "-c", "import onnxruntime"],
        "Model.load and score": [python, "-c", score],
        "fsad-edge score": [python, "-m", "fsad_edge.cli", "score", part, image],
    }


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, Starts]:
    """Start every command ``rounds`` times, interleaved; a first round fills the disk cache.

    Raises:
        SystemExit: a command fails.
    """
    starts = {name: Starts() for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/"
            )
            assert process.stderr is not None
            error = process.stderr.read().decode(errors="replace")
            _, status, used = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
            process.stderr.close()
            process.returncode = os.waitstatus_to_exitcode(status)
            anomaly = process.returncode == 1 and "fsad_edge.cli" in command
            if process.returncode != 0 and not anomaly:
                sys.exit(f"{' '.join(command)} failed: {error.strip()}")
            if turn:
                starts[name].wall.append(wall)
                starts[name].cpu.append(used.ru_utime + used.ru_stime)
                # kilobytes on Linux, bytes on macOS
                unit = 1 if sys.platform == "darwin" else 1024
                starts[name].peak.append(used.ru_maxrss * unit)
    return starts


def weigh(folder: Path) -> list[Weight]:
    """The size of every distribution in a site-packages folder, the largest first."""
    weights = [_weigh(found) for found in distributions(path=[str(folder)])]
    return sorted(weights, key=lambda weight: -weight.total)


def _weigh(distribution: Distribution) -> Weight:
    # Strings and one look into each folder: an environment holds tens of thousands of files.
    folders: dict[str, str] = {}
    compiled: dict[str, dict[str, list[str]]] = {}
    sizes: dict[str, int] = {}
    for file in distribution.files or []:
        given, name = os.path.split(str(file.locate()))
        if given not in folders:
            folders[given] = os.path.realpath(given)
            compiled[given] = _bytecode(os.path.join(folders[given], "__pycache__"))
        path = os.path.join(folders[given], name)
        stem, suffix = os.path.splitext(name)
        # Bytecode that Python wrote at the first import may not be in the distribution's list.
        for each in (path, *(compiled[given].get(stem, []) if suffix == ".py" else [])):
            with contextlib.suppress(OSError):
                sizes[each] = os.stat(each).st_size
    bytecode = sum(size for path, size in sizes.items() if path.endswith(".pyc"))
    name = distribution.metadata["Name"]
    return Weight(name, distribution.version, sum(sizes.values()), bytecode)


def _bytecode(folder: str) -> dict[str, list[str]]:
    """The paths of compiled modules by the name of the module; none without such a folder."""
    found = defaultdict(list)
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            module, *middle, suffix = name.split(".")
            if middle and suffix == "pyc":
                found[module].append(os.path.join(folder, name))
    return dict(found)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Start, memory and installed size.")
    parser.add_argument("part", type=Path, help="file that export wrote")
    parser.add_argument("image", type=Path)
    parser.add_argument("--python", default=sys.executable, help="interpreter to measure")
    parser.add_argument("--starts", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/lean"))
    chosen = parser.parse_args()
    if chosen.starts < 2:
        parser.error("--starts takes 2 or more")
    for file in (chosen.part, chosen.image):
        if not file.is_file():
            parser.error(f"{file} is not a file")
    python = str(Path(chosen.python).absolute())  # not resolved: a link belongs to the environment
    paths = str(chosen.part.absolute()), str(chosen.image.absolute())
    starts = measure(start_commands(python, *paths), chosen.starts)
    query = (
        "import json, platform, sysconfig; print(json.dumps("
        "[sysconfig.get_path('purelib'), platform.python_version()]))"
    )
    answer = subprocess.run([python, "-c", query], check=True, capture_output=True, text=True)
    folder, version = json.loads(answer.stdout)
    weights = weigh(Path(folder))
    versions = [f"{w.name} {w.version}" for w in weights if w.name.lower() in SHOWN]

    from fsad_edge.runtime.files import write_bytes

    facts = [
        f"Python {version}, {', '.join(versions)}",
        *_facts(chosen.part, chosen.image),
        f"{chosen.starts} interleaved starts of each, after one that does not count",
    ]
    text = "\n\n".join(["; ".join(facts) + ".", _starts_table(starts), _weights_table(weights)])
    chosen.out.mkdir(parents=True, exist_ok=True)
    target = chosen.out / f"python{'.'.join(version.split('.')[:2])}.md"
    write_bytes(target, f"{text}\n".encode())
    print(f"{text}\n\nWrote {target}.")


def _facts(part: Path, image: Path) -> list[str]:
    """The machine, the model and the image, in words."""
    from fsad_edge.bench.machine import describe_machine
    from fsad_edge.runtime.images import decode
    from fsad_edge.runtime.model import Model

    with Model.load(part) as model:
        size = f"{model.metadata.height}×{model.metadata.width}"
    width, height = decode(image).size
    machine = describe_machine()
    return [
        f"{machine.get('cpu', 'unknown CPU')}, {machine.get('cores', '?')}; load {machine['load']}",
        f"a model of {size} pixels, {part.stat().st_size / 1e6:.1f} MB; an image of "
        f"{width}×{height} pixels, {image.stat().st_size / 1e3:.0f} kB",
    ]


def _starts_table(starts: dict[str, Starts]) -> str:
    lines = [
        "| process | p50 s | p90 s | CPU s, p50 | peak memory MB |",
        "|---|---|---|---|---|",
    ]
    for name, took in starts.items():
        p90 = statistics.quantiles(took.wall, n=10, method="inclusive")[-1]
        lines.append(
            f"| `{name}` | {statistics.median(took.wall):.3f} | {p90:.3f} "
            f"| {statistics.median(took.cpu):.3f} | {max(took.peak) / 1e6:.0f} |"
        )
    return "\n".join(lines)


def _weights_table(weights: list[Weight]) -> str:
    lines = ["| installed | MB | of which bytecode |", "|---|---|---|"]
    own = [weight for weight in weights if weight.name.lower() not in TOOLS]
    tools = [weight for weight in weights if weight.name.lower() in TOOLS]
    rest = own[NAMED:]
    rows = [*own[:NAMED], _sum(f"{len(rest)} more", rest)]
    rows += [_sum("**all of `[cpu]`**", own), _sum("the environment's own tools", tools)]
    for weight in rows:
        lines.append(f"| {weight.name} | {weight.total / 1e6:.1f} | {weight.bytecode / 1e6:.1f} |")
    return "\n".join(lines)


def _sum(name: str, weights: list[Weight]) -> Weight:
    total = sum(weight.total for weight in weights)
    return Weight(name, "", total, sum(weight.bytecode for weight in weights))


if __name__ == "__main__":
    main()
