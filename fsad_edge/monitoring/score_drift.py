"""Score drift: whether the scores of a production line are still distributed as before."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from fsad_edge.runtime.student_t import pooled_std, student_quantile

#: :class:`ScoreDrift` raises at most one false alarm in this many images, on average.
RUN_LENGTH = 100_000

#: The number of scores that new ones are compared with. No more are added after that, because a
#: slow drift would otherwise become part of the reference.
REFERENCE_SCORES = 2000

#: The number of images whose scores are compared with the shots' scores.
START = 50

#: The number of scores that the prior standard deviation counts for, as for the threshold.
_PRIOR_SCORES = 8


class ScoreDrift:
    """Tells whether the scores of a production line are no longer distributed as before.

    Each score is ranked among those before it (a conformal p-value). As long as the order of the
    scores is random, the ranks are uniform and independent, whatever the distribution (Vovk,
    Gammerman, Shafer: Algorithmic Learning in a Random World, 2nd ed., chapter 8). Power bets on
    ranks that are too high or too low are summed over all times at which a drift may have begun
    (Shiryaev and Roberts). Without a drift there is on average at most one alarm in ``run_length``
    images.

    An object must not be used from several threads at once.

    Args:
        shots: scores of the left-out shots; empty where there are none.
        run_length: least number of images between two false alarms, on average.
        seed: random seed, which orders equal scores.
        prior_std: the threshold's prior standard deviation, for :meth:`unlike_shots`.

    Attributes:
        images: the number of scores that were given.
        drifted: ``higher`` or ``lower`` from an alarm until :meth:`reset`; else None.

    Example:
        >>> drift = ScoreDrift()
        >>> for image in range(1000):
        ...     drift.update(0.1 + 0.001 * (image % 7))
        >>> drift.drifted
        >>> for image in range(50):
        ...     drift.update(0.2)
        >>> drift.drifted
        'higher'
    """

    #: Exponents of the bets: for strong drifts, and for weak ones.
    _POWERS = np.array([0.5, 0.75])

    def __init__(
        self,
        shots: Sequence[float] = (),
        run_length: int = RUN_LENGTH,
        seed: int = 0,
        prior_std: float = 0.2,
    ) -> None:
        self._shots = np.log(np.maximum(np.asarray(shots, dtype=np.float64), 1e-4))
        self._prior_std = prior_std
        self._run_length = run_length
        self._rng = np.random.default_rng(seed)
        self.reset()

    def reset(self) -> None:
        """Start again and take the next scores as normal, after learning or after a repair."""
        self.images = 0
        self.drifted: Literal["higher", "lower"] | None = None
        self._before: list[float] = []
        self._first: list[float] = []
        self._sums = np.zeros((2, len(self._POWERS)))  # of bets on higher and on lower scores

    def update(self, score: float) -> None:
        """Add the score of the next image, a finite number."""
        self.images += 1
        if len(self._first) < START:
            self._first.append(math.log(max(score, 1e-4)))
        lower = bisect.bisect_left(self._before, score)
        equal = bisect.bisect_right(self._before, score) - lower
        rank = (lower + self._rng.uniform() * (equal + 1)) / (len(self._before) + 1)
        if len(self._before) < REFERENCE_SCORES:
            self._before.insert(lower, score)
        chances = np.clip([[1 - rank], [rank]], 1e-9, 1)
        bets = self._POWERS * chances ** (self._POWERS - 1)
        self._sums = np.minimum((self._sums + 1) * bets, 1e12)
        if self.drifted is None and self.evidence >= 1:
            higher, lower_ = self._sums.mean(axis=1)
            self.drifted = "higher" if higher > lower_ else "lower"

    @property
    def evidence(self) -> float:
        """Evidence of a drift, 0 and up; 1 raises the alarm."""
        return float(self._sums.mean()) / self._run_length

    @property
    def ratio_to_shots(self) -> float | None:
        """Ratio of the geometric means of the first ``START`` scores and of the shots' scores.

        None before there are as many scores, or where there are fewer than two shots.
        """
        if len(self._shots) < 2 or len(self._first) < START:
            return None
        return math.exp(float(np.mean(self._first) - self._shots.mean()))

    def unlike_shots(self, false_alarm_rate: float = 0.01) -> bool:
        """Whether the first ``START`` images of the line score higher than the shots did.

        They were then photographed in another way, or show other parts. The test is Student's
        prediction bound for the mean; it is False while there are fewer images, or for one shot.

        Args:
            false_alarm_rate: probability of a false alarm of this one test, as a fraction.
        """
        ratio = self.ratio_to_shots
        if ratio is None:
            return False
        pooled = pooled_std(self._shots, self._prior_std, _PRIOR_SCORES)
        width = pooled.std * math.sqrt(1 / len(self._shots) + 1 / START)
        return math.log(ratio) > student_quantile(1 - false_alarm_rate, pooled.dof) * width
