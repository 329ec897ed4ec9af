"""A task made of the shots alone, to choose by: tell synthesised defects from normal images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fsad_edge.calibration.calibrate import (
    CalibrationSettings,
    embed_shot,
    fit_shots,
    run_batches,
    still_views,
)
from fsad_edge.runtime.session import OnnxSession
from fsad_edge.synthesis import Shot, add_defect, random_view

#: Images in all, shared out over the shots.
NORMAL_IMAGES, DEFECTIVE_IMAGES = 60, 120

#: A smaller gain than this is noise: with so few images the figure moves as much by chance, and
#: defects that are drawn are not those that come.
NOISE = 0.02


def synthetic_auroc(
    session: OnnxSession, shots: Sequence[Shot], settings: CalibrationSettings
) -> float:
    """Image AUROC on synthesised defects, each shot scored against the others.

    The same seed gives the same images, so that two graphs can be compared on them.

    Args:
        session: the graph; its own defaults for the normal parts are not used.
        shots: at least one; a single one is scored against itself.
        settings: as for the calibration.

    Returns:
        the chance that a defective view scores higher than a normal one, 0 to 1.
    """
    rng = np.random.default_rng([settings.seed, 1])
    still = still_views(settings)
    if settings.score == "patch":
        settings = replace(settings, gaussian_views=0)
    embedded = [embed_shot(session, shot, settings, rng) for shot in shots]
    normal, defective = [], []
    for index, shot in enumerate(shots):
        others = embedded[:index] + embedded[index + 1 :]
        against = fit_shots(others or embedded, settings.bank_size)
        height, width = shot.image.shape[:2]
        goods, bads = (
            [
                random_view(shot.canvas, height, width, still, rng)
                for _ in range(max(1, count // len(shots)))
            ]
            for count in (NORMAL_IMAGES, DEFECTIVE_IMAGES)
        )
        bads = [add_defect(image, rng)[0] for image in bads]
        output = [f"{settings.score}_score"]
        normal.append(run_batches(session, goods, output, against)[0])
        defective.append(run_batches(session, bads, output, against)[0])
    good, bad = np.concatenate(normal), np.concatenate(defective)
    higher = bad[:, None] > good
    level = bad[:, None] == good
    return float(higher.mean() + level.mean() / 2)
