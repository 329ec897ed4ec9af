"""Metrics for image scores and for anomaly maps.

Sources: P. Bergmann et al., 'The MVTec Anomaly Detection Dataset', IJCV 129, 2021 (the per-region
overlap and the area under it up to a false positive rate of 0.3); T. Fawcett, 'An introduction to
ROC analysis', 2006.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from fsad_edge.runtime.arrays import BoolArray, Float32Array, Float64Array
from fsad_edge.runtime.heatmap import upsample

#: AUPRO is the area up to this false positive rate, as in MVTec AD.
FPR_LIMIT = 0.3


def image_auroc(scores: Sequence[float], defective: Sequence[bool]) -> float | None:
    """Probability that a defective image scores above a good one; a tie counts as a half.

    Args:
        scores: scores of ``N`` images; a higher score is more anomalous.
        defective: whether each of the ``N`` images has a defect.

    Returns:
        a number from 0 to 1; None if one of the classes is empty.

    Raises:
        ValueError: a score is not a number.
    """
    marked, values = np.asarray(defective, dtype=bool), np.asarray(scores)
    if np.isnan(values).any():
        raise ValueError("a score is not a number")
    good, bad = np.sort(values[~marked]), values[marked]
    if not len(good) or not len(bad):
        return None
    lower, not_higher = (np.searchsorted(good, bad, side) for side in ("left", "right"))
    return float((lower + not_higher).sum() / (2 * len(good) * len(bad)))


class PixelMetrics:
    """Pixel AUROC and AUPRO of any number of images in constant memory.

    Each map is stretched to the size of its mask and counted into a histogram of scores, so that
    only three arrays of ``bins`` numbers are kept. Binning keeps the order of the scores, but
    scores in the same bin count as tied. Scores that are multiples of the bin width lose nothing.
    For other scores :meth:`auroc_error` and :meth:`aupro_error` compute a bound of the error from
    the counts. If both kinds of pixels are distributed evenly over k bins, the bound is 1 / (2 k)
    for the AUROC, which is 1e-4 with the default bins and scores over a range of 0.5, and 1 / k
    for the AUPRO, where k counts the bins up to its limit. Errors within bins cancel, so the true
    errors are far smaller.

    A defect region is a connected component of a mask; pixels that touch at a corner are connected.
    Every normal pixel counts for the false positive rate, those of good images too, as in MVTec AD.
    """

    def __init__(self, low: float = 0.0, high: float = 2.0, bins: int = 20_000) -> None:
        """Start with no images.

        Args:
            low: the lowest score that can occur.
            high: the highest score that can occur; 2 for a cosine distance.
            bins: number of bins between the two.

        Raises:
            ValueError: the range is empty, or there are no bins.
        """
        if not low < high or bins < 1:
            raise ValueError(f"no room for {bins} bins from {low} to {high}")
        self._low, self._high, self._bins = low, high, bins
        self._normal = np.zeros(bins, dtype=np.int64)
        self._defective = np.zeros(bins, dtype=np.int64)
        self._overlap = np.zeros(bins, dtype=np.float64)  # each region's pixels sum to 1
        self._regions = 0

    def add(self, anomaly_map: Float32Array, mask: BoolArray) -> None:
        """Add one image.

        Args:
            anomaly_map: float32 ``[h, w]``; it is stretched to the size of the mask bilinearly.
            mask: bool ``[H, W]``, True on defects; all False for a good part.

        Raises:
            ValueError: a value of the map is outside the range, or not a number.
        """
        # Rounding can put a distance of 0 slightly below 0. Values further outside the range would
        # be counted in the wrong bin.
        tolerance = 1e-3 * (self._high - self._low)
        lowest, highest = float(anomaly_map.min()), float(anomaly_map.max())
        if not (self._low - tolerance <= lowest and highest <= self._high + tolerance):
            raise ValueError(
                f"map values from {lowest} to {highest} do not fit {self._low} to {self._high}"
            )
        height, width = mask.shape
        stretched = upsample(anomaly_map, height, width, Image.Resampling.BILINEAR)
        scaled = (stretched - self._low) * (self._bins / (self._high - self._low))
        index = scaled.clip(0, self._bins - 1).astype(np.intp)
        counts = np.bincount(index.ravel(), minlength=self._bins)
        if mask.any():
            from scipy.ndimage import label

            regions, count = label(mask, np.ones((3, 3), dtype=np.int8))
            areas = np.bincount(regions.ravel())
            inside = index[mask]
            weights = 1.0 / areas[regions[mask]]
            self._overlap += np.bincount(inside, weights, minlength=self._bins)
            defective = np.bincount(inside, minlength=self._bins)
            self._defective += defective
            self._regions += int(count)
            counts = counts - defective
        self._normal += counts

    def auroc(self) -> float | None:
        """Probability that a defective pixel scores above a normal one.

        Returns:
            a number from 0 to 1; None if there are no defective or no normal pixels.
        """
        if not (self._normal.any() and self._defective.any()):
            return None
        return _area(_curve(self._normal), _curve(self._defective))

    def aupro(self, limit: float = FPR_LIMIT) -> float | None:
        """Area under the curve of the mean region overlap against the false positive rate.

        Args:
            limit: the false positive rate at which the area ends.

        Returns:
            the area divided by ``limit``, from 0 to 1; None if there is no defect region or no
            normal pixel.
        """
        if not (self._normal.any() and self._regions):
            return None
        return _area(*_cut(_curve(self._normal), _curve(self._overlap), limit)) / limit

    def auroc_error(self) -> float:
        """Upper bound of the difference between :meth:`auroc` and the exact value."""
        return _uncertain_area(_curve(self._normal), _curve(self._defective)) / 2

    def aupro_error(self, limit: float = FPR_LIMIT) -> float:
        """Upper bound of the difference between :meth:`aupro` and the exact value."""
        # This is not halved as in auroc_error: in the bin that contains ``limit``, the exact curve
        # need not pass through the interpolated point.
        curve = _cut(_curve(self._normal), _curve(self._overlap), limit, whole=True)
        return _uncertain_area(*curve) / limit


def _curve(counts: npt.NDArray[np.int64] | Float64Array) -> Float64Array:
    """Share of a histogram at or above each bin, from the highest bin down: ``[bins + 1]``."""
    summed = np.concatenate([[0.0], np.cumsum(counts[::-1], dtype=np.float64)])
    return summed / summed[-1] if summed[-1] else summed


def _cut(
    x: Float64Array, y: Float64Array, limit: float, whole: bool = False
) -> tuple[Float64Array, Float64Array]:
    """The part of a rising curve up to ``x = limit``, with its last segment interpolated.

    With ``whole`` the last segment ends at ``limit`` as well, but at its full height.
    """
    kept = int(np.searchsorted(x, limit, side="right"))
    if kept == len(x):
        return x, y
    share = 1.0 if whole else (limit - x[kept - 1]) / (x[kept] - x[kept - 1])
    end = y[kept - 1] + share * (y[kept] - y[kept - 1])
    return np.append(x[:kept], limit), np.append(y[:kept], end)


def _area(x: Float64Array, y: Float64Array) -> float:
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)


def _uncertain_area(x: Float64Array, y: Float64Array) -> float:
    """Area between the highest and the lowest rising curve through the points."""
    return float(np.sum(np.diff(x) * np.diff(y)))
