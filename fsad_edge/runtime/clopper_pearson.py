"""The bounds of a rate after some cases of many were counted (Clopper & Pearson 1934).

A device that is shown a few examples has numpy and no scipy, which is why it is here.
"""

from __future__ import annotations

import math

#: The share of cases in which the true rate is below the bound.
CONFIDENCE = 0.95

#: Halvings of the interval from 0 to 1 in the search for a bound: the rest is below rounding.
_HALVINGS = 60


def upper_bound(errors: int, count: int, confidence: float = CONFIDENCE) -> float:
    """The highest error rate that so few errors in so many cases still allow.

    It is the rate at which as few errors or fewer are seen with the probability ``1 - confidence``.
    The true rate is below it in at least ``confidence`` of all cases, whatever the rate is.

    Args:
        errors: errors that were counted, 0 to ``count``.
        count: cases that were looked at, independent of one another; 0 says nothing.
        confidence: above 0 and below 1; one-sided.

    Returns:
        the bound, as a fraction from 0 to 1.

    Raises:
        ValueError: there are more errors than cases, or one of the numbers is negative.

    Example:
        >>> f"{upper_bound(0, 12):.0%}", f"{upper_bound(1, 12):.0%}", upper_bound(0, 0)
        ('22%', '34%', 1.0)
    """
    if not 0 <= errors <= count:
        raise ValueError(f"{errors} errors in {count} cases")
    if errors == count:
        return 1.0
    low, high = errors / count, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if probability_of_at_most(errors, count, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def both_bounds(count: int, of: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The lowest and the highest rate that a count allows.

    The true rate is between them in at least ``confidence`` of all cases; it is as likely to be
    below the lower one as above the higher one.

    Args:
        count: cases that were counted, 0 to ``of``.
        of: cases that were looked at, independent of one another; 0 says nothing.
        confidence: above 0 and below 1; two-sided.

    Raises:
        ValueError: as :func:`upper_bound` does.

    Example:
        >>> ["{:.1%} to {:.1%}".format(*both_bounds(97, 100)), both_bounds(0, 0)]
        ['91.5% to 99.4%', (0.0, 1.0)]
    """
    one_sided = (1 + confidence) / 2
    return 1 - upper_bound(of - count, of, one_sided), upper_bound(count, of, one_sided)


def probability_of_at_most(errors: int, count: int, rate: float) -> float:
    """The binomial probability of so many errors or fewer in so many cases.

    Args:
        errors: 0 to ``count``; below 0 the probability is 0.
        count: cases, independent of one another.
        rate: how likely an error is in each, 0 to 1.

    Example:
        >>> round(probability_of_at_most(1, 2, 0.5), 12)
        0.75
    """
    if errors < 0 or errors >= count:
        return float(errors >= count)
    if not 0 < rate < 1:
        return float(rate <= 0)
    odds = math.log(rate) - math.log1p(-rate)
    term = count * math.log1p(-rate)  # the logarithm of the probability of no error
    terms = [term]
    for number in range(errors):
        term += math.log(count - number) - math.log(number + 1) + odds
        terms.append(term)
    return math.fsum(map(math.exp, terms))
