"""Stretch an anomaly map, the one way that pictures, figures and regions share."""

from __future__ import annotations

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
