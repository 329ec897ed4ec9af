"""How long the search of ``finetune`` may take, and what still fits."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from fsad_edge.options import BundledEncoder
from fsad_edge.pipeline.candidates import Shape
from fsad_edge.runtime.encoder_names import bundled_kind

#: How many times as long as with the fastest encoder a step takes with another bundled one.
SLOWER = {BundledEncoder.FAST: 1.0, BundledEncoder.ACCURATE: 3.0}

#: How long steps take, in trials of the same encoder at the same size: the first trial, which also
#: draws the defects; alignment; fine-tuning; memory bank and threshold.
FIRST, ALIGNMENT, FINE_TUNING, FITTING = 2.0, 0.4, 3.0, 0.8

#: Seconds that fine-tuning takes besides, on two cores: PyTorch is imported and trains three times.
TRAINING_SECONDS = 12.0


@dataclass
class TimeBudget:
    """What is left of the time for the search, and how long its steps take here.

    Attributes:
        seconds: that the search may take; None sets no limit.
        started: when it began, of :func:`time.perf_counter`.
        pace: seconds that a trial takes for each pixel of the input with the fastest encoder, as
            the last one took.
    """

    seconds: float | None
    started: float = field(default_factory=time.perf_counter)
    pace: float = 0.0

    def note(self, backbone: str, shape: Shape, seconds: float, trials: float = 1.0) -> None:
        """Take down how long something took that is as long as so many trials."""
        self.pace = seconds / (trials * _work(backbone, shape))

    def allows(self, backbone: str, shape: Shape, trials: float, more: float = 0.0) -> bool:
        """Whether there is time for so many trials with an encoder, for an input of a shape.

        Args:
            backbone: the encoder.
            shape: of the input.
            trials: how many trials it takes as long as.
            more: seconds that it takes besides, whatever the input.
        """
        if self.seconds is None:
            return True
        return self.seconds_for(backbone, shape, trials) + more <= self.seconds

    def seconds_for(self, backbone: str, shape: Shape, trials: float) -> float:
        """The seconds from the start that suffice for so many trials after what is done."""
        needed = self.pace * trials * _work(backbone, shape)
        return time.perf_counter() - self.started + needed


def _work(backbone: str, shape: Shape) -> float:
    height, width = shape.size
    kind = bundled_kind(backbone)
    return height * width * (1.0 if kind is None else SLOWER[kind])
