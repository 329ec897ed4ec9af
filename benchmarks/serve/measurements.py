"""The figures of a run."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from benchmarks.serve.client import Answer


@dataclass
class Measurements:
    """All figures of a run; times in milliseconds, rates in images per second."""

    threads: int
    cores: int
    image_bytes: int
    bare: list[float] = field(default_factory=list)
    served: list[float] = field(default_factory=list)
    bare_rates: list[float] = field(default_factory=list)
    served_rates: list[float] = field(default_factory=list)
    loads: dict[float, list[Answer]] = field(default_factory=dict)
    seconds: float = 0.0
    memory: list[tuple[int, float]] = field(default_factory=list)
    soak: list[Answer] = field(default_factory=list)

    @property
    def capacity(self) -> float:
        """Images per second at saturation."""
        return statistics.median(self.served_rates)
