"""Whether a line rejects clearly more than the share of good parts that was asked for."""

from __future__ import annotations

from collections import deque

from fsad_edge.runtime.clopper_pearson import CONFIDENCE, probability_of_at_most

#: The rejected share must be above so many times the rate that was asked for, with 95 % confidence:
#: bad parts are rejected, too, and a line that has a few in a hundred should be left in peace.
MANY_TIMES = 5

#: So many of the newest images count, and so many there must be: somebody who tries out a few bad
#: parts is no line.
NEWEST, FEWEST = 200, 20


class Rejections:
    """Counts how many of the newest images were rejected.

    An object must not be used from several threads at once.

    Example:
        >>> rejections = Rejections()
        >>> for image in range(40):
        ...     rejections.update(rejected=image % 4 == 0)
        >>> rejections.rejected, rejections.images, rejections.many(0.01)
        (10, 40, True)
    """

    def __init__(self) -> None:
        self._newest: deque[bool] = deque(maxlen=NEWEST)

    def reset(self) -> None:
        """Start to count again, as the model, its threshold or its examples have changed."""
        self._newest.clear()

    def update(self, rejected: bool) -> None:
        """Count the next image that is judged."""
        self._newest.append(rejected)

    @property
    def images(self) -> int:
        """How many of the newest images count, at most ``NEWEST``."""
        return len(self._newest)

    @property
    def rejected(self) -> int:
        """How many of them were rejected."""
        return sum(self._newest)

    def many(self, false_alarm_rate: float) -> bool:
        """Whether the rejected share is surely above ``MANY_TIMES`` the rate that was asked for.

        Args:
            false_alarm_rate: the share of good parts that may be rejected, as a fraction.
        """
        if self.images < FEWEST:
            return False
        fewer = probability_of_at_most(
            self.rejected - 1, self.images, min(MANY_TIMES * false_alarm_rate, 1.0)
        )
        return fewer > CONFIDENCE
