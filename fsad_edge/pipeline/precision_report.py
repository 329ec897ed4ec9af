"""What a graph of another precision does to a part's decisions, on its shots alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fsad_edge.bench.latency import Call, interleave
from fsad_edge.calibration.calibrate import Calibration, CalibrationSettings, run_batches
from fsad_edge.calibration.synthetic_task import SyntheticTask
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession

#: Runs of each graph behind the milliseconds.
TIMED_RUNS = 40


@dataclass(frozen=True)
class CalibratedGraph:
    """A graph and what it made of the shots."""

    session: OnnxSession
    fitted: Calibration

    def ratios(self, images: Sequence[UInt8Array]) -> npt.NDArray[np.float64]:
        """Scores over the threshold, float64 ``[N]``."""
        scores = run_batches(self.session, images, ["score"], self.fitted.reference.as_inputs())[0]
        return scores.astype(np.float64) / self.fitted.threshold.value


@dataclass(frozen=True)
class PrecisionReport:
    """A graph against the fp32 graph that it was made from.

    Each has its own memory bank and threshold, so scores are compared as ratios to the threshold.

    Attributes:
        images: that were compared: views of the shots, with and without a synthesised defect.
        normal_drift: largest change of a normal view's ratio.
        defect_drift: the same of the views with a defect.
        flips: images on the other side of the threshold.
        auroc_before: on the synthetic task, of the fp32 graph.
        auroc_after: of this one.
        ms_before: of the fp32 graph alone, median, batch 1, interleaved with:
        ms_after: this one's.
    """

    images: int
    normal_drift: float
    defect_drift: float
    flips: int
    auroc_before: float
    auroc_after: float
    ms_before: float
    ms_after: float

    def holds(self, allowed: float) -> bool:
        """Whether so little changes.

        Args:
            allowed: share of decisions that may flip; of AUROC half as much may be lost.
        """
        flipped, lost = self.flips / self.images, self.auroc_before - self.auroc_after
        return flipped <= allowed and lost <= allowed / 2


def compare_precisions(
    before: CalibratedGraph,
    after: CalibratedGraph,
    task: SyntheticTask,
    settings: CalibrationSettings,
) -> PrecisionReport:
    """Compare a graph with the fp32 graph that it was made from, on a part's synthetic task."""
    normal = [image for images in task.normal for image in images]
    defective = [image for images in task.defective for image in images]
    (good_before, bad_before), (good_after, bad_after) = (
        (graph.ratios(normal), graph.ratios(defective)) for graph in (before, after)
    )
    flips = np.concatenate(
        [(good_before > 1) != (good_after > 1), (bad_before > 1) != (bad_after > 1)]
    )
    image = {"image": normal[0][None]}

    def timed(session: OnnxSession) -> Call:
        def call(repetition: int) -> dict[str, float]:
            session.run(["score", "anomaly_map"], image)
            return {}

        return call

    run = interleave(
        {"before": timed(before.session), "after": timed(after.session)}, runs=TIMED_RUNS
    )
    return PrecisionReport(
        images=len(flips),
        normal_drift=float(np.abs(good_after - good_before).max()),
        defect_drift=float(np.abs(bad_after - bad_before).max()),
        flips=int(flips.sum()),
        auroc_before=task.solve(before.session, settings).auroc,
        auroc_after=task.solve(after.session, settings).auroc,
        ms_before=float(np.median(run.samples["before"].total)),
        ms_after=float(np.median(run.samples["after"].total)),
    )
