"""Student's t distribution and the pooled standard deviation behind every prediction bound.

A device that derives a threshold again has numpy and no scipy, which is why they are here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from fsad_edge.runtime.arrays import Float64Array


@dataclass(frozen=True)
class PooledStd:
    """A standard deviation pooled with a prior one.

    Attributes:
        std: the pooled standard deviation.
        dof: its degrees of freedom.
    """

    std: float
    dof: int


def pooled_std(values: Float64Array, prior_std: float, prior_count: int) -> PooledStd:
    """Pool the standard deviation of a few values with a prior one (Gelman et al., BDA, 2.6).

    Args:
        values: float64 ``[n]``, at least one.
        prior_std: the standard deviation where nothing else is known.
        prior_count: the number of values that the prior counts for.

    Example:
        >>> import numpy as np
        >>> pooled_std(np.zeros(2), prior_std=0.2, prior_count=8).dof
        9
    """
    dof = prior_count + len(values) - 1
    squares = prior_count * prior_std**2 + ((values - values.mean()) ** 2).sum()
    return PooledStd(math.sqrt(squares / dof), dof)


def student_quantile(probability: float, dof: int) -> float:
    """Quantile of Student's t distribution (Hill 1970, Algorithm 396; closed forms up to 2).

    Args:
        probability: at least 0.5, below 1.
        dof: degrees of freedom, at least 1.

    Returns:
        The quantile, with a relative error below 1e-3 for probabilities up to 0.9999.

    Example:
        >>> round(student_quantile(0.99, 12), 2)
        2.68
    """
    if dof == 1:
        return math.tan(math.pi * (probability - 0.5))
    tail = 2 * (1 - probability)
    if dof == 2:
        return math.sqrt(max(2 / (tail * (2 - tail)) - 2, 0))
    a = 1 / (dof - 0.5)
    b = (48 / a) / a
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * dof
    y = (d * tail) ** (2 / dof)
    if y > 0.05 + a:
        x = NormalDist().inv_cdf(tail / 2)
        y = x * x
        if dof < 5:
            c += 0.3 * (dof - 4.5) * (x + 0.6)
        c += (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y * y)
    else:
        y = (
            (1 / (((dof + 6) / (dof * y) - 0.089 * d - 0.822) * (dof + 2) * 3) + 0.5 / (dof + 4))
            * y
            - 1
        ) * (dof + 1) / (dof + 2) + 1 / y
    return math.sqrt(dof * y)


def student_tail(t: float, dof: int) -> float:
    """Probability that Student's t is above ``t`` (closed form, Abramowitz & Stegun 26.7.3-4).

    Args:
        t: any number.
        dof: degrees of freedom, a whole number, at least 1.

    Returns:
        The probability, 0 to 1, with an error below 1e-12.

    Example:
        >>> round(student_tail(2.68, 12), 3)
        0.01
    """
    angle = math.atan(t / math.sqrt(dof))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = dof % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for step in range(2 + odd, dof + 1, 2):
        total += term
        term *= square * (step - 1) / step
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return min(max((1 - inside) / 2, 0.0), 1.0)
