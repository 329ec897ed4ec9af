"""What suits a part, chosen from its shots alone: image size and strides on drawn defects, and
whether the shots go into the memory bank turned."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fsad_edge.calibration.batches import unit_patches
from fsad_edge.calibration.calibrate import ROTATIONS, bank_views
from fsad_edge.calibration.prediction import SMALLEST
from fsad_edge.options import BundledEncoder, Turning
from fsad_edge.runtime.arrays import Float64Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.documents import Range
from fsad_edge.synthesis import Shot

#: From this image size on, one is tried only where the one before it is the best: it takes minutes.
SLOW_SIZE = 1024

#: The weight, 0 to 1, of AUROC in the selection score, and of what is found the rest. Both
#: rank image sizes alike over many sets, but what is found depends on a threshold from a few
#: scores, and jumps. AUROC alone would accept a choice whose threshold is above every defect.
AUROC_WEIGHT = 0.8

#: How much a slower choice must gain in selection score: less is a tie, which the faster one wins.
SLOWER_MUST_GAIN = 0.01

#: The same of a slower encoder. On defects drawn onto six sets of photographs `accurate` nearly
#: always has the higher AUROC, by up to 0.125; where that is less than 0.05, it is less than 0.01
#: on the real ones.
ENCODER_MUST_GAIN = AUROC_WEIGHT * 0.05

#: Angles in a full turn at which one shot is compared with another.
ANGLES = 24

#: So many steps to either side of upright are the play of a fixture, and no reason to accept parts
#: at any angle.
WOBBLE = 1

#: How much nearer, as a fraction, shots must be to each other at their best angles than as
#: photographed. With the bundled encoder at 224 pixels, five metal nuts, pins and screws that lie
#: at any angle are 26 to 59 % nearer, and with ImageNet encoders at least 7 %. Five shots of
#: textures and of parts that lie alike are at most 9 % nearer, and round parts up to 16 %.
TURNED_MUST_BE_NEARER = 0.1

#: The same where the best angle may be a quarter or a half turn: these lay a weave or a rectangle
#: upon another one that lies alike. Carpets, tiles and solar cells are up to 17 % nearer.
QUARTERS_MUST_BE_NEARER = 0.2

#: Of so many shots the angles are looked at, and so many patches of each.
MOST_SHOTS, MOST_PATCHES = 8, 1000

Side = Annotated[int, Range(1, 16384)]
Share = Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class Trial:
    """One way to look at the parts, and how well it does on drawn defects.

    The figures compare the choices for one part with each other. They say nothing of how many real
    defects will be found: over parts and draws they do not follow it.

    Attributes:
        image_size: side of the square input, pixels, or of a square of about as many pixels.
        strides: strides of the feature maps.
        rotations: steps of a full turn in which the shots go into the bank.
        drawn_auroc: area under the ROC curve of drawn defects against normal views, 0 to 1; None
            where there was no time to look at any.
        drawn_found: the share of drawn defects that score above the threshold; None likewise.
        latency_ms: milliseconds of the model alone, median, on this machine at this time.
        sides: width and height of the input, pixels, where it is no square of ``image_size``.
        encoder: which of the bundled encoders, None for another one.
    """

    image_size: Side
    strides: Annotated[tuple[Annotated[int, Range(1, 16384)], ...], Range(1)]
    rotations: Annotated[int, Range(1, 360)]
    drawn_auroc: Share | None
    drawn_found: Share | None
    latency_ms: Annotated[float, Range(0)]
    sides: tuple[Side, Side] | None = None
    encoder: BundledEncoder | None = None

    @property
    def selection_score(self) -> float:
        """The figure that choices are compared by, 0 to 1: of AUROC, and of what is found."""
        if self.drawn_auroc is None or self.drawn_found is None:
            return 0.0
        return AUROC_WEIGHT * self.drawn_auroc + (1 - AUROC_WEIGHT) * self.drawn_found

    def __str__(self) -> str:
        strides = " and ".join(map(str, self.strides))
        encoder = f"{self.encoder}, " if self.encoder else ""
        size = self.image_size if self.sides is None else "x".join(map(str, self.sides))
        return f"{encoder}{size} px, stride {strides}, {self.latency_ms:.1f} ms"


def choose_turning(
    session: OnnxSession,
    shots: Sequence[Shot],
    on_progress: Callable[[float], None] = lambda done: None,
) -> tuple[int, Turning]:
    """Whether the shots themselves show that parts lie at different angles, 30° or more apart.

    Where they do, a shot is clearly nearer to the others at some other angle than as photographed.
    Otherwise turned shots add what no good part looks like, and a turned part would count as good:
    a tie goes to shots as photographed. A single shot shows nothing.

    Args:
        session: the graph.
        shots: at least one.
        on_progress: called with the fraction that is done.

    Returns:
        the steps of a full turn in which the shots go into the bank, and why.
    """
    if len(shots) == 1:
        return 1, Turning.ONE_SHOT
    distances = distances_at_angles(session, shots, on_progress)
    angles = np.arange(ANGLES)
    lies_turned = np.minimum(angles, ANGLES - angles) > WOBBLE
    no_quarter = lies_turned & (angles % (ANGLES // 4) != 0)
    nearer = (
        _nearer(distances[:, 0], distances[:, no_quarter]) > TURNED_MUST_BE_NEARER
        or _nearer(distances[:, 0], distances[:, lies_turned]) > QUARTERS_MUST_BE_NEARER
    )
    return (ROTATIONS, Turning.NEARER) if nearer else (1, Turning.NO_NEARER)


def distances_at_angles(
    session: OnnxSession,
    shots: Sequence[Shot],
    on_progress: Callable[[float], None] = lambda done: None,
) -> Float64Array:
    """How far shots are from each other at ``ANGLES`` angles.

    The distance of two is the mean cosine distance of the patches of the one to the nearest patches
    of the other.

    Args:
        session: the graph.
        shots: at least two, of which at most ``MOST_SHOTS`` are looked at.
        on_progress: called with the fraction that is done.

    Returns:
        float64 ``[N * (N - 1), ANGLES]``: each shot as photographed against each other one that is
        turned clockwise in equal steps, from 0 on.
    """
    looked_at = np.linspace(0, len(shots) - 1, min(len(shots), MOST_SHOTS)).astype(int)
    shots = [shots[index] for index in looked_at]
    upright = unit_patches(session, [shot.image for shot in shots])
    upright = upright[:, :: math.ceil(upright.shape[1] / MOST_PATCHES)]
    distances = np.zeros((len(shots), len(shots), ANGLES))
    for index, shot in enumerate(shots):
        turned = unit_patches(session, bank_views(shot.image, ANGLES, flip=False))
        for other in range(len(shots)):
            nearest = [(upright[other] @ view.T).max(axis=1) for view in turned]
            distances[other, index] = [1 - cosine.mean() for cosine in nearest]
        on_progress((index + 1) / len(shots))
    return distances[~np.eye(len(shots), dtype=bool)]


def _nearer(as_photographed: Float64Array, turned: Float64Array) -> float:
    """By which fraction distances ``[N]`` fall at the best of some angles, ``[N, A]``."""
    before = float(as_photographed.mean())
    if before <= SMALLEST:
        return 0.0
    return 1 - float(np.minimum(as_photographed, turned.min(axis=1)).mean()) / before


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The first trial, or a later one that is clearly better.

    Args:
        trials: from the fastest to the slowest, at least one.
    """
    best = trials[0]
    for trial in trials[1:]:
        if trial.selection_score > best.selection_score + _must_gain(best, trial.encoder):
            best = trial
    return best


def can_win(encoder: BundledEncoder | None, best: Trial) -> bool:
    """Whether a slower choice with an encoder could be better than the best one so far at all."""
    return best.selection_score + _must_gain(best, encoder) < 1.0


def _must_gain(best: Trial, encoder: BundledEncoder | None) -> float:
    return SLOWER_MUST_GAIN if encoder is best.encoder else ENCODER_MUST_GAIN


def is_worth_a_trial(image_size: int, trials: Sequence[Trial]) -> bool:
    """Whether an image size is tried after these trials.

    Args:
        image_size: in pixels.
        trials: from the fastest to the slowest; the size is slower than all of them.
    """
    return image_size < SLOW_SIZE or not trials or best_trial(trials) is trials[-1]
