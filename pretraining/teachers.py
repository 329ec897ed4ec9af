"""The networks whose features a student learns, and where their cells lie in an image."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from candidates import Cut
from torch import nn


@dataclass(frozen=True)
class Source:
    """A timm network and the feature level that is taken from it.

    Attributes:
        network: timm's name, e.g. ``local-dir:FOLDER``.
        level: index of the feature level; ``blocks.4`` of MobileNetV2 and of EfficientNet is 3.
    """

    network: str
    level: int

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read ``NETWORK:LEVEL``, e.g. ``local-dir:weights/tf_efficientnet_lite2:3``.

        Raises:
            ValueError: the text has no level.
        """
        network, _, level = text.rpartition(":")
        if not network or not level.isdigit():
            raise ValueError(f"{text} names no feature level: write NETWORK:LEVEL, e.g. {text}:3")
        return cls(network, int(level))

    @property
    def name(self) -> str:
        """The network's name without its folder."""
        return Path(self.network).name


@dataclass(frozen=True)
class Window:
    """The part of a crop that a teacher sees, and which of its cells the student learns.

    A network with TensorFlow's padding is centred on the far corner of each cell, pixel 16k + 15 at
    stride 16, and one with symmetric padding on the near corner, 16k. The student's cells are
    centred on their middle, so that an anomaly map shows the anomaly in its place. The teacher
    therefore sees the crop from another pixel on, and real context takes the place of padding.

    Attributes:
        start: first row and column of the crop that the teacher sees, pixels.
        side: height and width of what it sees, pixels.
        first: index of the teacher's cell that lies on the student's cell 0.
        cells: number of cells on each side that the student learns.
    """

    start: int
    side: int
    first: int
    cells: int


def cell_centre(net: nn.Module, stride: int) -> float:
    """The pixel on which a network's first cell would be centred if its field had no border.

    It is measured: with equal positive weights everywhere, the gradient of a cell with respect to
    the pixels is symmetric around the centre of the cell.

    Args:
        net: a convolutional network that takes float ``[1, 3, H, W]`` and returns one map.
        stride: the stride of that map, pixels.

    Returns:
        The index of the pixel; cell k is centred on ``stride * k`` pixels more.
    """
    even = copy.deepcopy(net).eval()
    with torch.no_grad():
        for module in even.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.fill_(1 / module.weight[0].numel())
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.reset_parameters()
    cells = 48
    # Small values, so that no activation is cut off at 6.
    image = torch.full((1, 3, stride * cells, stride * cells), 1e-3, requires_grad=True)
    middle = cells // 2
    even(image)[0, :, middle, middle].sum().backward()
    assert image.grad is not None
    rows = image.grad.abs().sum((0, 1, 3)).double()
    centre = (rows * torch.arange(len(rows))).sum() / rows.sum()
    return float(centre) - stride * middle


def window(centre: float, stride: int, size: int, margin: int) -> Window:
    """Where a teacher must look so that its cells lie on the student's, to half a pixel.

    Args:
        centre: what :func:`cell_centre` measured of the teacher, pixels.
        stride: stride of the map that is learnt, pixels.
        size: side of the image that the student sees, pixels, in the middle of the crop.
        margin: pixels of the crop on each side that the student does not see.

    Raises:
        ValueError: the margin is too small for such a teacher.
    """
    offset = margin + (stride - 1) / 2 - centre
    start = min(math.floor(offset) % stride, math.ceil(offset) % stride)
    side = (size + 2 * margin - start) // stride * stride
    found = Window(start, side, round((offset - start) / stride), size // stride)
    if found.first < 0 or (found.first + found.cells) * stride > side:
        raise ValueError(f"a margin of {margin} pixels is too small for cells of {stride} pixels")
    return found


class Teacher:
    """A teacher with its weights, and how its cells lie in a crop.

    Args:
        source: the network and its level.
        size: side of the image that the student sees, pixels.
        margin: pixels of the crop on each side that the student does not see.
    """

    def __init__(self, source: Source, size: int, margin: int) -> None:
        self.source = source
        self.net = Cut(source.network, source.level).eval()
        self.mean, self.std = self.net.input_stats()
        self.channels, self.stride = self.net.shape()
        self.window = window(cell_centre(self.net, self.stride), self.stride, size, margin)

    def about(self) -> dict[str, object]:
        """What a pool or a recipe says of the teacher."""
        return {
            "name": self.source.name,
            "level": self.source.level,
            "stride": self.stride,
            "channels": self.channels,
            "mean": self.mean,
            "std": self.std,
        }
