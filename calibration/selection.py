"""What suits a part, chosen from its shots alone on the synthetic task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fsad_edge.calibration.calibrate import CalibrationSettings
from fsad_edge.calibration.synthetic_task import SyntheticTask
from fsad_edge.runtime.backends.onnxruntime import OnnxSession

#: What a dearer choice must gain in worth: less is a tie, which the cheaper one wins.
DEARER = 0.01

#: What a turned bank is worth more than the task says: it may lose less than that and is taken,
#: which is about what the task's own noise is from one draw of defects to the next.
TURNING = 0.02

#: Shots that can show how parts lie.
ENOUGH = 4


@dataclass(frozen=True)
class Trial:
    """One way to look at the parts, and what it is worth.

    Attributes:
        image_size: side of the input, pixels.
        strides: of the feature maps.
        turns: in which shots go into the bank.
        auroc: on the synthetic task, 0 to 1.
        found: of its defects, at the threshold, as a fraction.
        milliseconds: of the model alone, median, here and now.
    """

    image_size: int
    strides: tuple[int, ...]
    rotations: int
    auroc: float
    found: float
    milliseconds: float

    @property
    def selection_score(self) -> float:
        """What is chosen by: half how well defects are told apart, half what is found of them.

        AUROC alone takes a bank whose threshold lies above every defect for a good one; what is
        found hangs on a threshold from a few scores, and jumps. ``TURNING`` more where the bank is
        turned.
        """
        return (self.auroc + self.found) / 2 + (TURNING if self.rotations > 1 else 0)

    def words(self) -> str:
        """As a person reads it."""
        return (
            f"{self.image_size} px, stride {' and '.join(map(str, self.strides))}, "
            + (
                f"bank turned in {self.rotations} steps"
                if self.rotations > 1
                else "bank as photographed"
            )
            + f": AUROC {self.auroc:.3f}, {self.found:.0%} found, {self.milliseconds:.1f} ms"
        )


def try_rotations(
    task: SyntheticTask,
    session: OnnxSession,
    settings: CalibrationSettings,
    strides: Sequence[int],
    rotations: Sequence[int],
    milliseconds: float,
) -> list[Trial]:
    """A trial for each number of turns, of one encoder at one size."""
    trials = []
    for steps in rotations:
        solved = task.solve(session, replace(settings, bank_rotations=steps))
        shape = task.side, tuple(strides), steps
        trials.append(Trial(*shape, solved.auroc, solved.found, milliseconds))
    return trials


def best_rotations(trials: Sequence[Trial], shots: int) -> Trial:
    """Of trials that differ in turns alone.

    Turned shots pay where parts lie at any angle, or a surface has no upright, and cost nothing
    at run time, but a turned part then counts as good: where the task shows a loss, parts lie as
    photographed. Fewer shots than ``ENOUGH`` can't show how parts lie; measured, turning them
    helped or did no harm.
    """
    rotated = [trial for trial in trials if trial.rotations > 1]
    if shots < ENOUGH and rotated:
        return rotated[0]
    return max(trials, key=lambda trial: trial.selection_score)


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The first trial, or a later one that is clearly better.

    Args:
        trials: from the cheapest to the dearest, at least one.
    """
    best = trials[0]
    for trial in trials[1:]:
        if trial.selection_score > best.selection_score + DEARER:
            best = trial
    return best
