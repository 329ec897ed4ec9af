"""Fit anomalib's models to shots.

PatchCore and PaDiM read the two maps that ``LAYERS`` names from the network in the weights folder,
at strides 8 and 16 of a MobileNetV2; everything else is anomalib's default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from torch import Tensor, nn

LAYERS = ["blocks.2", "blocks.4"]
CORESET = 0.1
NEIGHBOURS = 9

#: PaDiM keeps this many of the 128 channels of ``LAYERS``, at random. anomalib has no default for a
#: MobileNetV2; 100 is its default for its smallest backbone.
PADIM_FEATURES = 100

#: Images that go through a model in one call.
BATCH = 8


def fit(system: str, weights: Path, shots: Tensor) -> nn.Module:
    """Fit a model to the shots; returns it in evaluation mode.

    Args:
        system: ``patchcore``, ``padim`` or ``efficientad``.
        weights: folder in timm's ``local-dir:`` layout.
        shots: normalised images of good parts, float32 ``[N, 3, H, W]``.

    Raises:
        ValueError: there is no such system, or it cannot be fitted to these shots.
    """
    backbone = f"local-dir:{weights}"
    model: Any
    if system == "patchcore":
        model = PatchcoreModel(LAYERS, backbone, pre_trained=True, num_neighbors=NEIGHBOURS)
    elif system == "padim":
        model = PadimModel(backbone, LAYERS, pre_trained=True, n_features=PADIM_FEATURES)
    elif system == "efficientad":
        raise ValueError(
            "EfficientAD cannot be trained here: it needs its pretrained teacher (a download from "
            "anomalib's releases) and ImageNet-like images (Imagenette), whatever weights are given"
        )
    else:
        raise ValueError(f"there is no system '{system}': patchcore, padim or efficientad")
    model.train()
    with torch.inference_mode():
        for batch in torch.split(shots, BATCH):
            model(batch)
        if system == "patchcore":
            model.subsample_embedding(CORESET)
        else:
            model.fit()
    fitted: nn.Module = model.eval()
    return fitted
