"""Run the attacks: ``python -m tests.fuzz --minutes 30``, or ``make fuzz MINUTES=30``.

Without ``--seed``, each run takes another one and prints it. A case that the product fails is
saved in ``fuzz-failures/``; ``python -m tests.fuzz --replay FILE`` runs it again.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tests.fuzz.outcomes import Attack, Case, Outcome, Verdict, table
from tests.fuzz.subject import Subject, make_subject

#: The areas and their modules, and how many cases of each a plain run has.
AREAS = {
    "model-bytes": ("model_bytes", 400),
    "model-documents": ("model_documents", 1500),
    "learned": ("learned_stores", 300),
    "images": ("image_files", 600),
    "http": ("raw_http", 600),
    "watched": ("watched_folders", 15),
    "commands": ("command_lines", 400),
}


@dataclass(frozen=True)
class Run:
    """One run of an area.

    Attributes:
        area: its name.
        seed: the seed.
        first: the number of the first case.
        count: the most cases; None for no limit.
        seconds: the most seconds; None for no limit.
    """

    area: str
    seed: int
    first: int
    count: int | None
    seconds: float | None

    def cases(self, attack: Attack) -> Iterator[Case]:
        """The cases until the run is over."""
        end = None if self.seconds is None else time.monotonic() + self.seconds
        number = self.first
        while self.count is None or number < self.first + self.count:
            if end is not None and time.monotonic() > end:
                return
            rng = random.Random(f"{self.area} {self.seed} {number}")
            yield Case(self.area, self.seed, number, attack.make(rng))
            number += 1


@contextlib.contextmanager
def attacking(area: str, subject: Subject) -> Iterator[Attack]:
    """The attack of an area; what it started ends with the block."""
    module = importlib.import_module(f"tests.fuzz.{AREAS[area][0]}")
    attack: Attack = module.Attack(subject)
    try:
        yield attack
    finally:
        attack.close()


def show(case: Case, verdict: Verdict, failures: Path) -> None:
    """Print a fault, and save its case."""
    file = case.save(failures, verdict)
    detail = verdict.detail.encode("unicode_escape").decode("ascii")
    print(f"{verdict.outcome.value.upper()}: {case.title}: {detail[:600]}\n  {file}", flush=True)


def run_area(run: Run, subject: Subject, failures: Path) -> Counter[Outcome]:
    """The outcomes of a run; faults are printed and saved."""
    counted: Counter[Outcome] = Counter()
    with attacking(run.area, subject) as attack:
        for case in run.cases(attack):
            verdict = attack.run(case.steps)
            counted[verdict.outcome] += 1
            if verdict.outcome.is_fault:
                show(case, verdict, failures)
    return counted


def replay(file: Path, subject: Subject) -> int:
    """Run a saved case again; 1 where it still is a fault."""
    case = Case.read(file)
    with attacking(case.area, subject) as attack:
        verdict = attack.run(case.steps)
    print(f"{verdict.outcome.value}: {case.title}\n{verdict.detail}")
    return int(verdict.outcome.is_fault)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--area", action="append", choices=[*AREAS], help="repeatable; else all")
    parser.add_argument("--minutes", type=float, help="of all areas together, in equal parts")
    parser.add_argument("--count", type=int, help="cases of each area")
    parser.add_argument("--seed", type=int, help="by default another one in each run")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--table", type=Path, help="Markdown file for the table")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--subject", type=Path, help="folder that keeps what is attacked")
    parser.add_argument("--replay", type=Path, help="a saved case to run again")
    return parser.parse_args(arguments)


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; 1 where the product has failed a case."""
    given = parse(arguments)
    signal.signal(signal.SIGTERM, _stop)
    os.environ["OMP_NUM_THREADS"] = "1"
    seed = secrets.randbelow(10**9) if given.seed is None else given.seed
    areas = given.area or [*AREAS]
    counts: dict[str, Counter[Outcome]] = {}
    with tempfile.TemporaryDirectory(prefix="fsad-edge-fuzz-") as scratch:
        Path(scratch).chmod(0o755)
        os.environ["XDG_STATE_HOME"] = f"{scratch}/state"
        subject = make_subject(given.subject or Path(scratch) / "subject")
        if given.replay is not None:
            return replay(given.replay, subject)
        print(f"seed {seed}", flush=True)
        for area in areas:
            seconds = None if given.minutes is None else given.minutes * 60 / len(areas)
            plain = AREAS[area][1] if seconds is None else None
            run = Run(area, seed, given.first, given.count or plain, seconds)
            start = time.monotonic()
            counts[area] = run_area(run, subject, given.failures)
            took = time.monotonic() - start
            print(f"{area}: {counts[area].total()} cases in {took:.0f} s", flush=True)
    text = f"Seed {seed}, from case {given.first}.\n\n{table(counts)}"
    print(text)
    if given.table is not None:
        given.table.write_text(text)
    return int(any(one.is_fault for counted in counts.values() for one in counted))


if __name__ == "__main__":
    sys.exit(main())
