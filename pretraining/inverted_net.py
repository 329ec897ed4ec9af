"""The larger encoder: EfficientNet-Lite2 (arXiv 1905.11946) down to stride 16, with fewer blocks.

Its training begins with the weights of that network, so that a few thousand steps are enough.
Strided kernels are one larger than there, with symmetric padding, so that cell (i, j) of the map is
centred on its own square of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from encoder_net import ConvUnit
from torch import Tensor, nn

#: Channels, kernel and stride of the first block of each stage.
STAGES = ((24, 3, 2), (48, 5, 2), (88, 3, 2), (120, 5, 1))


class CappedUnit(ConvUnit):
    """Convolution, batch norm and, unless `relu` is false, an activation from 0 to 6."""

    def forward(self, x: Tensor) -> Tensor:
        """x: float [N, cin, H, W] -> float [N, cout, H/stride, W/stride]."""
        out: Tensor = self.norm(self.conv(x))
        return nn.functional.relu6(out) if self.relu else out

    def plain(self) -> list[nn.Module]:
        """The same as a convolution with bias and its activation; must be in eval mode."""
        return [self.folded(), *([nn.ReLU6()] if self.relu else [])]


class InvertedResidual(nn.Module):
    """1x1 expansion (none where it is 1), depthwise convolution, linear 1x1; a skip if it fits."""

    def __init__(self, cin: int, expand: int, cout: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = cin * expand
        units = [CappedUnit(cin, wide, 1)] if expand > 1 else []
        units.append(CappedUnit(wide, wide, kernel + stride - 1, stride, groups=wide))
        units.append(CappedUnit(wide, cout, 1, relu=False))
        self.body = nn.Sequential(*units)
        self.skip = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """x: float [N, cin, H, W] -> float [N, cout, H/stride, W/stride]."""
        out: Tensor = self.body(x)
        return x + out if self.skip else out

    def fold(self) -> None:
        """Fold its batch norms into its convolutions, in place."""
        layers = [layer for unit in self.body for layer in as_capped(unit).plain()]
        self.body = nn.Sequential(*layers)


def as_capped(unit: nn.Module) -> CappedUnit:
    """The unit, which has been folded already if it is none."""
    assert isinstance(unit, CappedUnit)
    return unit


class InvertedEncoder(nn.Module):
    """From a normalised image to one map at stride 16.

    Args:
        depths: blocks at stride 4, at stride 8, and of two widths at stride 16.
        channels: channels of the map. Its values may be negative, as the last layer is linear.
        frozen: blocks behind the stem that keep the weights they begin with, as does the stem.
    """

    stride = 16

    def __init__(
        self, depths: Sequence[int] = (2, 2, 3, 3), channels: int = 120, frozen: int = 3
    ) -> None:
        super().__init__()
        self.channels, self.depths, self.frozen = channels, depths, frozen
        blocks: list[nn.Module] = [InvertedResidual(32, 1, 16, 3, 1)]
        cin = 16
        for depth, (width, kernel, stride) in zip(depths, STAGES, strict=True):
            for place in range(depth):
                step = stride if place == 0 else 1
                blocks.append(InvertedResidual(cin, 6, width, kernel, step))
                cin = width
        self.stem = CappedUnit(3, 32, 4, 2)
        self.blocks = nn.Sequential(*blocks)
        self.last = CappedUnit(cin, channels, 1, relu=False)
        for module in self._kept():
            module.requires_grad_(False)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments of the shipped encoder's constructor."""
        return {"depths": list(self.depths), "channels": self.channels}

    def forward(self, x: Tensor) -> Tensor:
        """x: float [N, 3, H, W], normalised -> float [N, channels, H/16, W/16]."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            x = self.blocks[: self.frozen](self.stem(x))
        out: Tensor = self.last(self.blocks[self.frozen :](x))
        return out

    def train(self, mode: bool = True) -> InvertedEncoder:
        """Train what is not frozen."""
        super().train(mode)
        for module in self._kept():
            module.eval()
        return self

    def fold(self) -> InvertedEncoder:
        """Fold batch norms into convolutions, in place and irreversibly."""
        self.eval()
        for block in self.blocks:
            assert isinstance(block, InvertedResidual)
            block.fold()
        return self

    def shipped(self) -> list[nn.Module]:
        """The folded layers as the encoder in the package has them, without the last one."""
        return [*self.stem.plain(), *self.blocks]

    def start_from(self, name: str) -> None:
        """Begin with the weights of EfficientNet-Lite2, without the last blocks of each stage.

        Its strided convolutions look to the right and down. Here the first three keep that and the
        fourth looks to the left and up, which centres a cell to half a pixel.
        """
        net = timm.create_model(name, pretrained=True, features_only=True, out_indices=(3,)).eval()
        first, *stages = (list(stage.children()) for stage in net.blocks.children())
        kept = [b for stage, depth in zip(stages, self.depths, strict=False) for b in stage[:depth]]
        early = 1 + sum(self.depths[:2])  # the block that leads to stride 16
        with torch.no_grad():
            take(self.stem, net.conv_stem, net.bn1, late=True)
            ours: list[Any] = [as_units(block) for block in self.blocks]
            take(ours[0][0], first[0].conv_dw, first[0].bn1)
            take(ours[0][1], first[0].conv_pw, first[0].bn2)
            for place, (units, theirs) in enumerate(zip(ours[1:], kept, strict=True), start=1):
                take(units[0], theirs.conv_pw, theirs.bn1)
                take(units[1], theirs.conv_dw, theirs.bn2, late=place != early)
                take(units[2], theirs.conv_pwl, theirs.bn3)
            nn.init.dirac_(self.last.conv.weight)

    def _kept(self) -> list[nn.Module]:
        """The parts that are not trained."""
        return [self.stem, *self.blocks[: self.frozen]] if self.frozen else []


def as_units(block: nn.Module) -> list[CappedUnit]:
    """The units of a block."""
    assert isinstance(block, InvertedResidual)
    return [as_capped(unit) for unit in block.body]


def take(unit: ConvUnit, conv: nn.Conv2d, norm: nn.BatchNorm2d, late: bool = False) -> None:
    """Copy a convolution and its batch norm; a smaller kernel goes to one corner of a larger one.

    Args:
        unit: takes the weights.
        conv: is square and has as many channels.
        norm: the batch norm behind it.
        late: take the last rows and columns of the larger kernel, not the first ones.
    """
    extra = unit.conv.kernel_size[0] - conv.kernel_size[0]
    edge = (extra, 0, extra, 0) if late else (0, extra, 0, extra)
    unit.conv.weight.copy_(nn.functional.pad(conv.weight, edge))
    unit.norm.load_state_dict(norm.state_dict())
    assert unit.norm.running_var is not None
    unit.norm.running_var += norm.eps - unit.norm.eps
