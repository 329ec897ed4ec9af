"""What suits a part, chosen from its shots alone on the synthetic task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fsad_edge.calibration.calibrate import CalibrationSettings
from fsad_edge.calibration.synthetic_task import SyntheticTask
from fsad_edge.runtime.backends.onnxruntime import OnnxSession

#: How much a slower choice must gain in selection score: less is a tie, which the faster one wins.
SLOWER_MUST_GAIN = 0.01

#: Bonus in the selection score for a rotated bank. It is about the task's own noise from one draw
#: of defects to the next: a rotated bank is taken unless it loses more than that.
ROTATION_BONUS = 0.02

#: Shots that can show at which angles parts are photographed.
ENOUGH = 4


@dataclass(frozen=True)
class Trial:
    """One way to look at the parts, and how well it does on the synthetic task.

    Attributes:
        image_size: side of the input, pixels.
        strides: strides of the feature maps.
        rotations: steps of a full turn in which the shots go into the bank.
        auroc: area under the ROC curve on the synthetic task, 0 to 1.
        detection_rate: the share of its defects that score above the threshold.
        latency_ms: milliseconds of the model alone, median, on this machine at this time.
    """

    image_size: int
    strides: tuple[int, ...]
    rotations: int
    auroc: float
    detection_rate: float
    latency_ms: float

    @property
    def selection_score(self) -> float:
        """The figure that choices are compared by: the mean of AUROC and detection rate.

        AUROC alone accepts a bank whose threshold is above every defect. The detection rate alone
        depends on a threshold from a few scores, and jumps. ``ROTATION_BONUS`` is added where the
        bank is rotated.
        """
        bonus = ROTATION_BONUS if self.rotations > 1 else 0
        return (self.auroc + self.detection_rate) / 2 + bonus

    def __str__(self) -> str:
        strides = " and ".join(map(str, self.strides))
        bank = (
            f"bank rotated in {self.rotations} steps"
            if self.rotations > 1
            else "bank as photographed"
        )
        return (
            f"{self.image_size} px, stride {strides}, {bank}: AUROC {self.auroc:.3f} and "
            f"{self.detection_rate:.0%} found of synthesised defects, {self.latency_ms:.1f} ms"
        )


def try_rotations(
    task: SyntheticTask,
    session: OnnxSession,
    settings: CalibrationSettings,
    strides: Sequence[int],
    rotations: Sequence[int],
    latency_ms: float,
) -> list[Trial]:
    """A trial for each number of rotations, of one encoder at one size."""
    trials = []
    for steps in rotations:
        solved = task.solve(session, replace(settings, bank_rotations=steps))
        shape = task.side, tuple(strides), steps
        trials.append(Trial(*shape, solved.auroc, solved.detection_rate, latency_ms))
    return trials


def best_rotations(trials: Sequence[Trial], shots: int) -> Trial:
    """The best of trials that differ in rotations alone.

    Rotated shots help where parts are photographed at any angle, or where a surface has no upright
    position, and cost no time at run time; but a rotated part then counts as good. Where the task
    shows a loss, all parts are photographed at one angle. Fewer shots than ``ENOUGH`` cannot show
    that; rotating them helped or did no harm where it was measured.
    """
    rotated = [trial for trial in trials if trial.rotations > 1]
    if shots < ENOUGH and rotated:
        return rotated[0]
    return max(trials, key=lambda trial: trial.selection_score)


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
