"""Features of large images in PyTorch, computed tile by tile (:mod:`fsad_edge.scoring.tiles`)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fsad_edge.scoring.tiles import spans, tile_size


def in_tiles(network: Callable[[Tensor], Tensor], images: Tensor, stride: int, step: int) -> Tensor:
    """The map of large images, as ``network`` gives it for tiles.

    Args:
        network: takes float ``[N, C, h, w]`` of the size that :func:`tile_size` names and returns
            float ``[N, D, h/stride, w/stride]``.
        images: float ``[N, C, H, W]``.
        stride: of the map, pixels.
        step: the largest stride within the network, pixels.

    Returns:
        float ``[N, D, H/stride, W/stride]``.
    """
    height, width = images.shape[2:]
    tall, wide = tile_size(height, width, step)
    rows = []
    for down in spans(height, tall, stride, step):
        strip = images[:, :, down.start : down.start + tall]
        row = [
            network(strip[:, :, :, across.start : across.start + wide])[
                :, :, down.first : down.last, across.first : across.last
            ]
            for across in spans(width, wide, stride, step)
        ]
        rows.append(torch.cat(row, dim=3))
    return torch.cat(rows, dim=2)
