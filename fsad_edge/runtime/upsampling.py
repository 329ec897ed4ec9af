"""Stretch an anomaly map, the one way that pictures, figures and regions share."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from fsad_edge.runtime.arrays import Float32Array, IndexArray

#: In cells: where two finer cells are as near to a peak as this, both have it.
_EVEN = 0.2


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


def where_seen(field: Float32Array, shift: tuple[float, float]) -> Float32Array:
    """A map as it lies in its image, twice as fine.

    Args:
        field: float32 ``[h, w]``.
        shift: how far what a cell sees lies right of and below the cell, in cells.

    Returns:
        float32 ``[2h, 2w]``, between the cells linear, and continued at the borders. Its highest
        value is that of ``field``.

    Example:
        >>> import numpy as np
        >>> where_seen(np.array([[0, 1, 0, 0]], np.float32), (-0.25, 0.0))
        array([[0. , 0.5, 1. , 0.5, 0. , 0. , 0. , 0. ],
               [0. , 0.5, 1. , 0.5, 0. , 0. , 0. , 0. ]], dtype=float32)
    """
    rows, columns = field.shape
    down, across = _moved(rows, shift[1]), _moved(columns, shift[0])
    seen: Float32Array = down @ field @ across.T
    row, column = divmod(int(field.argmax()), columns)
    # The finer cells around the peak, which are two where it lies between them, so that it stays
    # in its place.
    seen[np.ix_(_nearest(row, shift[1], rows), _nearest(column, shift[0], columns))] = field.max()
    return seen


@functools.lru_cache(32)  # the maps of a model have one shape
def _moved(count: int, shift: float) -> Float32Array:
    """What each of some cells adds to finer ones where they lie, ``[2 * count, count]``."""
    places = (np.arange(2 * count) + 0.5) / 2 - 0.5 - shift
    each = [np.interp(places, np.arange(count), one) for one in np.eye(count)]
    return np.stack(each, axis=1).astype(np.float32)


@functools.lru_cache(1024)
def _nearest(cell: int, shift: float, count: int) -> IndexArray:
    """The finer cells, one or two, that are nearest to what a cell sees."""
    seen = min(max(cell + 0.5 + shift, 0.25), count - 0.25)
    apart = np.abs((np.arange(2 * count) + 0.5) / 2 - seen)
    return np.flatnonzero(apart <= apart.min() + _EVEN)


@functools.lru_cache(32)
def _weights(count: int, finer: int) -> Float32Array:
    """What each of some points adds to the stretched ones, ``[finer * count, count]``."""
    each = Image.fromarray(np.eye(count, dtype=np.float32))
    return np.asarray(each.resize((count, finer * count), Image.Resampling.BICUBIC))
