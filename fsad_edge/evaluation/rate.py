"""A share that was counted, with the bounds that so few cases leave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fsad_edge.runtime.clopper_pearson import both_bounds


@dataclass(frozen=True)
class Rate:
    """A count of cases, as a share with its bounds.

    Attributes:
        count: the cases that were counted.
        of: the cases that were looked at.
        share: ``count / of``, 0 to 1; None where nothing was looked at.
        low: the true share is above this, and
        high: below this, in 95 % of all such counts (Clopper & Pearson 1934); 0 and 1 where nothing
            was looked at.
    """

    count: int
    of: int
    share: float | None
    low: float
    high: float


def rate(count: int, of: int) -> Rate:
    """The share of some cases, with its bounds.

    Raises:
        ValueError: there are more than were looked at, or a number is negative.

    Example:
        >>> found = rate(97, 100)
        >>> found.share, round(found.low, 3), round(found.high, 3)
        (0.97, 0.915, 0.994)
    """
    low, high = both_bounds(count, of)
    return Rate(count, of, count / of if of else None, low, high)


def joined(rates: Iterable[Rate]) -> Rate:
    """One rate of several counts that have no case in common."""
    counts = [(one.count, one.of) for one in rates]
    return rate(sum(count for count, _ in counts), sum(of for _, of in counts))
