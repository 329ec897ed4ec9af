"""Ranges of a graph's activations on normal images, for a rewrite to int8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsad_edge.calibration.batches import stacked
from fsad_edge.calibration.calibrate import CalibrationSettings
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.synthesis import Shot, add_defect, random_view

#: Augmented views of each shot, and as many with a synthesised defect.
VIEWS = 4


def activation_ranges(
    session: OnnxSession,
    names: Sequence[str],
    shots: Sequence[Shot],
    settings: CalibrationSettings,
) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of tensors on the shots and views of them.

    Some views carry synthesised defects: were the activations of a defect cut off, it would look
    smaller than it is.

    Args:
        session: a graph that has the tensors as outputs.
        names: names of the tensors.
        shots: at least one.
        settings: how far views may differ, and the random seed.
    """
    rng = np.random.default_rng([settings.seed, 3])
    images = [shot.image for shot in shots]
    for shot in shots:
        height, width = shot.image.shape[:2]
        views = [
            random_view(shot.canvas, height, width, settings.part_views, rng)
            for _ in range(2 * VIEWS)
        ]
        images += views[:VIEWS] + [add_defect(view, rng)[0] for view in views[VIEWS:]]
    ranges = dict.fromkeys(names, (np.inf, -np.inf))
    for batch in stacked(images):
        arrays = session.run(list(names), {"image": batch})
        for name, array in zip(names, arrays, strict=True):
            low, high = ranges[name]
            ranges[name] = (min(low, float(array.min())), max(high, float(array.max())))
    return ranges
