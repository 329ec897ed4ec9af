"""Progress of a job with several steps."""

from __future__ import annotations

from collections.abc import Callable


class Steps:
    """One fraction for steps that come one after another.

    Args:
        on_progress: called with the fraction of all steps that is done.

    Example:
        >>> steps = Steps(print)
        >>> first, second = steps.next(0.25), steps.next(0.75)
        >>> first(1.0)
        0.25
        >>> second(0.5)
        0.625
    """

    def __init__(self, on_progress: Callable[[float], None]) -> None:
        self._on_progress, self._end = on_progress, 0.0

    def next(self, share: float) -> Callable[[float], None]:
        """What the next step calls with the fraction of it that is done; ``share`` is of all."""
        start = self._end
        self._end += share
        return lambda done: self._on_progress(min(1.0, start + share * done))
