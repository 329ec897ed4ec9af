"""Photographs of a report with their anomaly maps and the outline of the marked defect."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from fsad_edge.evaluation.masks import Mask
from fsad_edge.evaluation.report_mistakes import Case
from fsad_edge.options import HeatScale
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.heatmap import overlay, shrink, upsample
from fsad_edge.runtime.image_scale import ImageScale
from fsad_edge.runtime.images import load_image
from fsad_edge.runtime.own_pictures import marked
from fsad_edge.runtime.regions import grown

#: The colour of a marked defect's outline.
MASK_COLOUR = (53, 224, 232)


def pair(case: Case, scale: ImageScale, colours: HeatScale, side: int) -> UInt8Array:
    """The photograph and its anomaly map: wide ones are stacked, others are side by side.

    Args:
        case: the image.
        scale: the model's, for images of more than 8 bits.
        colours: of the heat map.
        side: longer side of the photograph in pixels.

    Returns:
        uint8 ``[H, W, 3]``, RGB.

    Raises:
        InputError: the image or its mask can no longer be read.
    """
    image = shrink(load_image(case.sample.path, scale), side)
    drawn = overlay(image, case.result.anomaly_map, case.result.map_threshold, colours)
    photograph = image if case.sample.mask is None else _outlined(image, case.sample.mask)
    height, width = image.shape[:2]
    axis = 0 if width > 1.8 * height else 1
    gap = max(2, max(height, width) // 50)
    shape = (gap, width, 3) if axis == 0 else (height, gap, 3)
    paper = np.full(shape, 255, dtype=np.uint8)
    both: UInt8Array = np.concatenate([photograph, paper, drawn], axis=axis)
    return both


def data_url(pixels: UInt8Array) -> str:
    """A picture that stands in a page itself."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=82, **marked("JPEG"))
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _outlined(image: UInt8Array, mask: Mask) -> UInt8Array:
    """An image with the outline of a mask around the defect, so that the defect stays visible."""
    height, width = image.shape[:2]
    fitted = upsample(mask.read().astype(np.float32), height, width, Image.Resampling.BILINEAR)
    # Half of the peak, so that a defect of a few pixels is still outlined after shrinking.
    inside = fitted > fitted.max() / 2
    drawn: UInt8Array = image.copy()
    drawn[grown(inside, max(1, max(height, width) // 200)) & ~inside] = MASK_COLOUR
    return drawn
