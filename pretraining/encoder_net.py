"""The encoder that this project trained: plain 3x3 convolutions after a thin stem.

Early, large maps take the most time, so two thin 4x4 convolutions with stride 2 replace the first
two stages of other networks. Strided kernels are even with symmetric padding, so that cell (i, j)
of the map is centred on its own square of pixels. During training every 3x3 convolution has a 1x1
and an identity branch (RepVGG, arXiv 2101.03697); all branches fold into convolutions and ReLU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class ConvUnit(nn.Module):
    """Convolution, batch norm, ReLU (optional)."""

    def __init__(
        self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        pad = (kernel - stride + 1) // 2
        self.conv = nn.Conv2d(cin, cout, kernel, stride, pad, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(cout)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """x: float [N, cin, H, W] -> float [N, cout, H/stride, W/stride]."""
        out: Tensor = self.norm(self.conv(x))
        return torch.relu(out) if self.relu else out

    def folded(self) -> nn.Conv2d:
        """The unit without its ReLU as one convolution; the unit must be in eval mode."""
        return fuse_conv_bn_eval(self.conv, self.norm)


class RepConv(nn.Module):
    """3x3, 1x1 and identity branches, each with batch norm, summed, then ReLU."""

    relu = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = ConvUnit(channels, channels, 3, relu=False)
        self.point = ConvUnit(channels, channels, 1, relu=False)
        self.same = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: float [N, C, H, W] -> float [N, C, H, W]."""
        return torch.relu(self.wide(x) + self.point(x) + self.same(x))

    def folded(self) -> nn.Conv2d:
        """The three branches as one 3x3 convolution; the unit must be in eval mode."""
        one = self.wide.folded()
        channels = one.out_channels
        identity = nn.Conv2d(channels, channels, 1, bias=False)
        with torch.no_grad():
            identity.weight.copy_(torch.eye(channels)[:, :, None, None])
            assert one.bias is not None
            for branch in (self.point.folded(), fuse_conv_bn_eval(identity.eval(), self.same)):
                assert branch.bias is not None
                one.weight.add_(nn.functional.pad(branch.weight, (1, 1, 1, 1)))
                one.bias.add_(branch.bias)
        return one


class EdgeEncoder(nn.Module):
    """From a normalised image to one map at stride 16.

    Args:
        stem: channels down to stride 4, of one 4x4 convolution or of two with stride 2 each.
        widths: channels at stride 8 and at stride 16.
        depths: 3x3 convolutions at stride 8 and at stride 16, after the strided 4x4 of each.
        channels: channels of the map. Its values may be negative, as the last layer has no ReLU.
        deploy: build the folded form, only convolutions with bias and ReLU, which the shipped
            weights have.
    """

    stride = 16

    def __init__(
        self,
        stem: Sequence[int] = (8, 32),
        widths: Sequence[int] = (48, 96),
        depths: Sequence[int] = (1, 3),
        channels: int = 96,
        deploy: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.config = {
            "stem": list(stem),
            "widths": list(widths),
            "depths": list(depths),
            "channels": channels,
        }
        units: list[ConvUnit | RepConv] = []
        cin = 3
        for width in stem:
            units.append(ConvUnit(cin, width, 4, 4 // len(stem)))
            cin = width
        for width, depth in zip(widths, depths, strict=True):
            units.append(ConvUnit(cin, width, 4, 2))
            units += [RepConv(width) for _ in range(depth)]
            cin = width
        units += [ConvUnit(cin, cin, 3), ConvUnit(cin, channels, 1, relu=False)]
        self.layers = nn.Sequential(*units)
        if deploy:
            self.layers = self._plain()

    def forward(self, x: Tensor) -> Tensor:
        """x: float [N, 3, H, W], (pixel / 255 - mean) / std; -> float [N, channels, H/16, W/16].

        H and W are multiples of 16.
        """
        out: Tensor = self.layers(x)
        return out

    def fold(self) -> EdgeEncoder:
        """Fold branches and batch norms into plain convolutions, in place and irreversibly."""
        self.eval()
        if isinstance(self.layers[0], ConvUnit):
            self.layers = self._plain()
        return self

    def _plain(self) -> nn.Sequential:
        """The layers as convolutions with bias and ReLU."""
        plain: list[nn.Module] = []
        for unit in self.layers.eval():
            assert isinstance(unit, ConvUnit | RepConv)
            plain += [unit.folded(), *([nn.ReLU()] if unit.relu else [])]
        return nn.Sequential(*plain)
