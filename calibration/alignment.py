"""Features made steady against light, from the shots alone: contrastive learning in closed form.

A contrastive loss pulls two views of one thing together and leaves the rest apart (COFT-AD,
arXiv 2402.18998, L_con). Here the thing is a patch, and the views are the same photograph under
other light. Of all linear maps, the one that shrinks the directions in which such views differ does
that at once. It forgets nothing else and cannot diverge, as gradient descent on the same views can.
(In speaker recognition the method is known as nuisance attribute projection and within-class
covariance normalisation; Solomonoff et al. 2005, Hatch et al. 2006.)
"""

from __future__ import annotations

import numpy as np

from fsad_edge.runtime.arrays import Float32Array, Float64Array

#: How strongly a direction is shrunk in which light changes features as much as patches differ:
#: its variance is divided by 1 + STRENGTH.
STRENGTH = 4.0

#: Patches that differ less than this along a direction (of unit vectors) count as equal along it.
_NO_VARIANCE = 1e-6


def illumination_scatter(patches: Float32Array, relit: Float32Array) -> Float64Array:
    """How light changes the features of one shot.

    Args:
        patches: float32 ``[P, D]``, L2-normalised.
        relit: float32 ``[V, P, D]``, the same patches in V views under other light.

    Returns:
        float64 ``[D, D]``, mean outer product of the differences.
    """
    change = (relit - patches).reshape(-1, patches.shape[1]).astype(np.float64)
    scatter: Float64Array = change.T @ change / len(change)
    return scatter


def alignment(scatter: Float64Array, covariance: Float64Array) -> Float32Array:
    """The projection that shrinks what light changes.

    Args:
        scatter: float64 ``[D, D]``, mean of :func:`illumination_scatter` over the shots.
        covariance: float64 ``[D, D]``, covariance of the patches of normal images.

    Returns:
        float32 ``[D, D]``, symmetric: along each principal direction of the scatter, with variance
        l there and variance s of the patches, the factor is ``(1 + STRENGTH * l / s) ** -0.5``.
    """
    variances, directions = np.linalg.eigh(scatter)
    patch_variances = np.einsum("ij,ij->j", directions, covariance @ directions)
    ratio = variances.clip(0) / np.maximum(patch_variances, _NO_VARIANCE)
    projection: Float64Array = (directions * (1 + STRENGTH * ratio) ** -0.5) @ directions.T
    return projection.astype(np.float32)
