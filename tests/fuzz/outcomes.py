"""How a case ends, and the table of many cases."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

#: What a case does, in values that JSON has.
Steps = dict[str, Any]


class Outcome(Enum):
    """How a case ended. All but the first four are faults of the product."""

    REFUSED = "refused"  # with a sentence, a status below 500, or 503
    SAME = "same"  # as without the damage
    ACCEPTED = "accepted"  # a whole document or image, other than the one it was made from
    SKIPPED = "skipped"  # it cannot be tried here; the detail says why
    TRACEBACK = "traceback"
    SERVER_ERROR = "5xx"
    HUNG = "hung"
    SILENT = "silently different"
    LOST = "lost"
    MEMORY = "over memory"

    @property
    def is_fault(self) -> bool:
        """Whether the product misbehaved."""
        return self not in {Outcome.REFUSED, Outcome.SAME, Outcome.ACCEPTED, Outcome.SKIPPED}


@dataclass(frozen=True)
class Verdict:
    """An outcome, and what was seen, in words."""

    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class Case:
    """One case of an area.

    Attributes:
        area: the area's name.
        seed: the run's seed.
        number: the place in the run, from 0.
        steps: what it does.
    """

    area: str
    seed: int
    number: int
    steps: Steps

    @property
    def title(self) -> str:
        """The case in a few words."""
        return f"{self.area} --seed {self.seed} --first {self.number} ({self.steps['kind']})"

    def save(self, folder: Path, verdict: Verdict) -> Path:
        """Write the case as a file that ``python -m tests.fuzz --replay FILE`` runs."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.area}-{self.seed}-{self.number}.json"
        found = {"outcome": verdict.outcome.value, "detail": verdict.detail}
        file.write_text(json.dumps({**asdict(self), "found": found}, indent=1))
        return file

    @classmethod
    def read(cls, file: Path) -> Case:
        """Read what :meth:`save` wrote."""
        document = json.loads(file.read_text())
        document.pop("found")
        return cls(**document)


class Attack(Protocol):
    """An area's attack."""

    def make(self, rng: random.Random) -> Steps:
        """Draw the steps of a case; ``kind`` names what it does."""
        ...

    def run(self, steps: Steps) -> Verdict:
        """Do the steps."""
        ...

    def close(self) -> None:
        """End what runs, and remove what was written."""
        ...


_COLUMNS: tuple[tuple[str, tuple[Outcome, ...]], ...] = (
    ("tried", tuple(one for one in Outcome if one is not Outcome.SKIPPED)),
    ("refused", (Outcome.REFUSED,)),
    ("same", (Outcome.SAME,)),
    ("accepted", (Outcome.ACCEPTED,)),
    ("tracebacks", (Outcome.TRACEBACK,)),
    ("5xx", (Outcome.SERVER_ERROR,)),
    ("hung", (Outcome.HUNG,)),
    ("silently different", (Outcome.SILENT,)),
    ("lost", (Outcome.LOST,)),
    ("over memory", (Outcome.MEMORY,)),
    ("skipped", (Outcome.SKIPPED,)),
)


def table(counts: dict[str, Counter[Outcome]]) -> str:
    """The outcomes by area, in Markdown."""
    names = [name for name, _ in _COLUMNS]
    lines = [
        "| area | " + " | ".join(names) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for area, counted in counts.items():
        numbers = [sum(counted[one] for one in outcomes) for _, outcomes in _COLUMNS]
        lines.append(f"| {area} | " + " | ".join(f"{number:,}" for number in numbers) + " |")
    return "\n".join(lines) + "\n"
