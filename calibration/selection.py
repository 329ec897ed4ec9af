"""What suits a part, chosen from its shots alone: image size and strides on drawn defects, and
whether the shots go into the memory bank turned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fsad_edge.calibration.calibrate import ROTATIONS, CalibrationSettings, left_out_scores
from fsad_edge.options import ScoreKind, Turning
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.synthesis import Shot

#: How much a slower choice must gain in selection score: less is a tie, which the faster one wins.
SLOWER_MUST_GAIN = 0.01

#: By which fraction the left-out scores must fall with turned shots before these are taken, and by
#: which they must then be below those with mirrored shots: any more of a texture brings every shot
#: nearer. With five shots at 224 pixels they fell by 5 to 22 % on metal nuts, which lie at any
#: angle, 6 to 15 % below those with mirrored ones. On a carpet, tiles and grain they fell by up to
#: 12 %, at most 4 % below. Nuts that are not turned cost 31 % false alarms.
TURNED_MUST_LOWER, MORE_THAN_MIRRORED = 0.04, 0.05


@dataclass(frozen=True)
class Trial:
    """One way to look at the parts, and how well it does on drawn defects.

    The figures compare the choices for one part with each other. They say nothing of how many real
    defects will be found: over parts and draws they do not follow it.

    Attributes:
        image_size: side of the input, pixels.
        strides: strides of the feature maps.
        rotations: steps of a full turn in which the shots go into the bank.
        drawn_auroc: area under the ROC curve of drawn defects against normal views, 0 to 1.
        drawn_found: the share of drawn defects that score above the threshold.
        latency_ms: milliseconds of the model alone, median, on this machine at this time.
    """

    image_size: int
    strides: tuple[int, ...]
    rotations: int
    drawn_auroc: float
    drawn_found: float
    latency_ms: float

    @property
    def selection_score(self) -> float:
        """The figure that choices are compared by: the mean of AUROC and of what is found.

        AUROC alone accepts a bank whose threshold is above every defect. What is found depends on a
        threshold from a few scores, and jumps.
        """
        return (self.drawn_auroc + self.drawn_found) / 2

    def __str__(self) -> str:
        strides = " and ".join(map(str, self.strides))
        return f"{self.image_size} px, stride {strides}, {self.latency_ms:.1f} ms"


def choose_turning(
    session: OnnxSession, shots: Sequence[Shot], settings: CalibrationSettings
) -> tuple[int, Turning]:
    """Whether the shots themselves show that parts lie at any angle.

    Each shot is scored with a bank of the others, as photographed and turned. Where parts lie at
    any angle, the others show a part at this angle only when they are turned, and the scores fall.
    Otherwise turned shots add what no good part looks like, and a turned part would count as good:
    a tie goes to shots as photographed. A single shot shows nothing.

    Args:
        session: the graph.
        shots: at least one.
        settings: as for the calibration.

    Returns:
        the steps of a full turn in which the shots go into the bank, and why.
    """
    if len(shots) == 1:
        return 1, Turning.ONE_SHOT

    def mean_score(**changes: Any) -> float:
        changed = replace(settings, score=ScoreKind.PATCH, **changes)
        return float(left_out_scores(session, shots, changed).mean())

    turned, upright = mean_score(bank_rotations=ROTATIONS), mean_score(bank_rotations=1)
    nearer = turned < (1 - TURNED_MUST_LOWER) * upright
    if nearer:
        mirrored = mean_score(bank_rotations=1, views=replace(settings.views, flip=True))
        nearer = turned < (1 - MORE_THAN_MIRRORED) * mirrored
    return (ROTATIONS, Turning.NEARER) if nearer else (1, Turning.NO_NEARER)


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The first trial, or a later one that is clearly better.

    Args:
        trials: from the fastest to the slowest, at least one.
    """
    best = trials[0]
    for trial in trials[1:]:
        if trial.selection_score > best.selection_score + SLOWER_MUST_GAIN:
            best = trial
    return best
