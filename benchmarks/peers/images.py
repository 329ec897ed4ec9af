"""Pixels for the peers, the same as fsad_edge sees for 8-bit images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


def pretrained_config(weights: Path) -> dict[str, Any]:
    """The ``pretrained_cfg`` of a weights folder's ``config.json``, with ``mean`` and ``std``."""
    config: dict[str, Any] = json.loads((weights / "config.json").read_text())["pretrained_cfg"]
    return config


def load_batch(paths: list[Path], size: int, weights: Path) -> Tensor:
    """Decode images, stretch them to the model's size (bilinear with antialiasing) and normalise.

    Args:
        paths: image files. More than 8 bits a channel are refused, because Pillow and fsad_edge
            convert them differently.
        size: side of the model's input in pixels.
        weights: folder in timm's ``local-dir:`` layout, for its mean and std.

    Returns:
        float32 ``[N, 3, size, size]``.
    """
    pixels = []
    for path in paths:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"{path} has more than 8 bits a channel: convert it first")
            rgb = ImageOps.exif_transpose(image).convert("RGB")
        pixels.append(np.asarray(rgb.resize((size, size), Image.Resampling.BILINEAR)))
    batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
    config = pretrained_config(weights)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (batch - mean) / std
