"""Run the commands as a user does, and read from what they print how long each step took."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.client import REPOSITORY, run_job
from fsad_edge.errors import InputError

#: A line that a command prints when a step is done.
STEP = re.compile(r"^([a-z0-9: ]+): (\d+\.\d) s(?: \(.*\))?$", re.MULTILINE)

#: The step after which a first model can be exported.
FIRST_MODEL = "first model"

#: What a command takes before its first step: the start of Python and imports.
START = "start"


@dataclass(frozen=True)
class Case:
    """What a model is made of.

    Attributes:
        shots: number of photographs.
        width: of a photograph, pixels.
        height: likewise.
        bank_rows: most rows of the memory bank; None leaves the choice to ``finetune``.
        first_model: stop at the first model (``--budget-s 0``).
    """

    shots: int
    width: int
    height: int
    bank_rows: int | None = None
    first_model: bool = False


@dataclass(frozen=True)
class Timed:
    """How long it took.

    Attributes:
        system: what made the model, in words.
        case: what it was made of.
        steps: seconds by step, one after another.
        to_first_model: seconds until a first model could be exported; None where there is none.
    """

    system: str
    case: Case
    steps: dict[str, float]
    to_first_model: float | None

    @property
    def seconds(self) -> float:
        """From photographs in a folder to the first score of the exported file."""
        return sum(self.steps.values())


def time_commands(python: Path, shots: Path, case: Case, folder: Path) -> Timed:
    """``finetune``, ``export`` and ``score`` of one photograph.

    Args:
        python: interpreter of the environment that fsad-edge is installed in.
        shots: folder of the photographs.
        case: what they are, and the options.
        folder: a folder to work in.

    Raises:
        InputError: a command fails.
    """
    part, file = folder / "part", folder / "part.onnx"
    options = [] if case.bank_rows is None else ["--bank-size", str(case.bank_rows)]
    options += ["--budget-s", "0"] if case.first_model else []
    made = _run(python, "finetune", str(shots), "-o", str(part), *options)
    first = 0.0
    for name, seconds in made.items():
        first += seconds
        if name == FIRST_MODEL:
            break
    steps = {f"finetune: {name}": seconds for name, seconds in made.items()}
    exported = _run(python, "export", str(part), "-o", str(file))
    steps |= {f"export: {name}": seconds for name, seconds in exported.items()}
    image = min(shots.iterdir())
    steps["first score"] = sum(_run(python, "score", str(file), str(image)).values())
    return Timed("fsad-edge", case, steps, first if FIRST_MODEL in made else None)


def _run(python: Path, *command: str) -> dict[str, float]:
    """Seconds of each step of a command; ``START`` is what is left of its whole time."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    began = time.perf_counter()
    done = subprocess.run(
        [str(python.absolute()), "-m", "fsad_edge.cli", *command],
        capture_output=True,
        text=True,
        env=environment,
        cwd="/",
    )
    whole = time.perf_counter() - began
    if done.returncode not in (0, 1):  # 1 tells that an anomaly was found
        raise InputError(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1]}")
    steps = {name: float(seconds) for name, seconds in STEP.findall(done.stderr)}
    return {START: max(0.0, whole - sum(steps.values())), **steps}


def time_patchcore(python: Path, shots: Path, case: Case, threads: int) -> Timed:
    """anomalib's PatchCore: fit, export and the first score in ONNX Runtime.

    Args:
        python: interpreter of the peers' environment.
        shots: folder of the photographs.
        case: what they are.
        threads: threads of torch and of ONNX Runtime.

    Raises:
        InputError: it fails.
    """
    job = {"shots": str(shots.absolute()), "threads": threads}
    began = time.perf_counter()
    found = run_job(python, "benchmarks.peers.finetune", job)
    whole = time.perf_counter() - began
    steps = {name: float(seconds) for name, seconds in found.items()}
    start = max(0.0, whole - sum(steps.values()))
    return Timed("anomalib PatchCore, resnet18", case, {START: start, **steps}, None)


@dataclass(frozen=True)
class Installed:
    """A fresh environment.

    Attributes:
        python: its interpreter.
        seconds: to make it and to install into it, downloads included.
        megabytes: on the disk.
    """

    python: Path
    seconds: float
    megabytes: float


def install_own(folder: Path) -> Installed:
    """fsad-edge without PyTorch, as the README installs it, into a new environment."""
    return _installed(
        folder,
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin/python"), "-m", "pip", "install", "-q", f"{REPOSITORY}[cpu]"],
    )


def install_peers(folder: Path) -> Installed:
    """anomalib, into a new environment."""
    return _installed(folder, [sys.executable, "-m", "benchmarks.peers.install", str(folder)])


def _installed(folder: Path, *commands: list[str]) -> Installed:
    began = time.perf_counter()
    environment = {**os.environ, "PIP_NO_CACHE_DIR": "1"}
    for command in commands:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no reason was given"]
            raise InputError(f"{folder} cannot be installed: {lines[-1]}")
    seconds = time.perf_counter() - began
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    return Installed(folder / "bin/python", seconds, size / 1e6)
