"""Stretch an anomaly map, the one way that pictures, figures and regions share."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from fsad_edge.runtime.arrays import Float32Array


def upsample(
    anomaly_map: Float32Array,
    height: int,
    width: int,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> Float32Array:
    """Stretch a map to the size of its image, with pixel centres aligned.

    The filter is bicubic by default, because a bilinear one shows the patch grid as diamonds. It
    overshoots, so the result is clipped to the range of the map.

    Args:
        anomaly_map: float32 ``[h, w]``.
        height: height of the result in pixels.
        width: width of the result in pixels.
        resample: Pillow's filter.

    Returns:
        float32 ``[height, width]``, in the unit of the map.
    """
    source = np.ascontiguousarray(anomaly_map, dtype=np.float32)
    stretched = np.asarray(Image.fromarray(source).resize((width, height), resample))
    return stretched.clip(source.min(), source.max())


def refine(field: Float32Array, finer: int) -> Float32Array:
    """Stretch a map so many times along each side, as :func:`upsample` does but for rounding.

    It is faster for small maps. The values in the middle of the cells stay exactly as they are.

    Args:
        field: float32 ``[h, w]``.
        finer: an odd number.

    Example:
        >>> import numpy as np
        >>> refine(np.array([[0, 1]], np.float32), 3).shape
        (3, 6)
    """
    down, across = (_weights(count, finer) for count in field.shape)
    stretched: Float32Array = (down @ field @ across.T).clip(field.min(), field.max())
    stretched[finer // 2 :: finer, finer // 2 :: finer] = field
    return stretched


@functools.lru_cache(32)  # the maps of a model have one shape
def _weights(count: int, finer: int) -> Float32Array:
    """What each of some points adds to the stretched ones, ``[finer * count, count]``."""
    each = Image.fromarray(np.eye(count, dtype=np.float32))
    return np.asarray(each.resize((count, finer * count), Image.Resampling.BICUBIC))
