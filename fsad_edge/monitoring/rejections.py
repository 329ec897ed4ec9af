"""Whether a line rejects clearly more than the share of good parts that was asked for."""

from __future__ import annotations

from fsad_edge.runtime.clopper_pearson import upper_bound

#: The rejected share must be above so many times the rate that was asked for, with 95 % confidence:
#: bad parts are rejected, too, and a line that has a few in a hundred should be left in peace.
MANY_TIMES = 5

#: So many images there must be: somebody who tries out a few bad parts is no line.
FEWEST = 20


class Rejections:
    """Counts images and rejected ones since the model, its threshold or its examples changed.

    An object must not be used from several threads at once.

    Attributes:
        images: images that were judged.
        rejected: how many of them were rejected.

    Example:
        >>> rejections = Rejections()
        >>> for image in range(40):
        ...     rejections.update(rejected=image % 4 == 0)
        >>> rejections.rejected, rejections.many(0.01)
        (10, True)
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start to count again."""
        self.images = 0
        self.rejected = 0

    def update(self, rejected: bool) -> None:
        """Count the next image."""
        self.images += 1
        self.rejected += rejected

    def many(self, false_alarm_rate: float) -> bool:
        """Whether the rejected share is surely above ``MANY_TIMES`` the rate that was asked for.

        Args:
            false_alarm_rate: the share of good parts that may be rejected, as a fraction.
        """
        least = 1 - upper_bound(self.images - self.rejected, self.images)
        return self.images >= FEWEST and least > MANY_TIMES * false_alarm_rate
