"""The candidates that were compared; the one that was chosen is in encoder_net.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from encoder_net import ConvUnit, EdgeEncoder, RepConv
from inverted_net import InvertedEncoder
from torch import Tensor, nn


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, linear 1x1 projection; a skip where shapes allow."""

    def __init__(self, cin: int, cout: int, expand: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        wide = cin * expand
        self.body = nn.Sequential(
            ConvUnit(cin, wide, 1),
            ConvUnit(wide, wide, kernel, stride, groups=wide),
            ConvUnit(wide, cout, 1, relu=False),
        )
        self.skip = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """x: float [N, cin, H, W] -> float [N, cout, H/stride, W/stride]."""
        out: Tensor = self.body(x)
        return x + out if self.skip else out


class Bottleneck(nn.Module):
    """1x1 to `narrow` channels, 3x3, 1x1 back; added to its input, then ReLU (ResNet)."""

    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvUnit(channels, narrow, 1),
            ConvUnit(narrow, narrow, 3),
            ConvUnit(narrow, channels, 1, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: float [N, C, H, W] -> float [N, C, H, W]."""
        return torch.relu(x + self.body(x))


def fold(net: nn.Module) -> None:
    """Replace all foldable units below `net` by plain convolutions, in place."""
    for name, child in net.named_children():
        if isinstance(child, ConvUnit | RepConv):
            plain: list[nn.Module] = [child.folded(), *([nn.ReLU()] if child.relu else [])]
            setattr(net, name, nn.Sequential(*plain))
        else:
            fold(child)


class Stack(nn.Module):
    """A sequence of layers with the attributes of an encoder."""

    stride = 16

    def __init__(self, layers: Sequence[nn.Module], channels: int = 96) -> None:
        super().__init__()
        self.channels = channels
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """x: float [N, 3, H, W], normalised -> float [N, channels, H/16, W/16]."""
        out: Tensor = self.layers(x)
        return out

    def fold(self) -> Stack:
        """Fold into plain convolutions, in place."""
        fold(self.eval())
        return self


def inverted(
    widths: tuple[int, int], depths: tuple[int, int], kernel: int, expand: tuple[int, int] = (3, 4)
) -> Stack:
    """MobileNet-like: a 4x4 stem with stride 4, inverted residuals at strides 8 and 16."""
    layers: list[nn.Module] = [ConvUnit(3, 32, 4, 4)]
    cin = 32
    for width, depth, ratio in zip(widths, depths, expand, strict=True):
        layers.append(InvertedResidual(cin, width, ratio, kernel + 1, stride=2))
        layers += [InvertedResidual(width, width, ratio, kernel) for _ in range(depth - 1)]
        cin = width
    return Stack([*layers, InvertedResidual(cin, 96, expand[-1], kernel)])


def pdn(w: tuple[int, int, int, int]) -> Stack:
    """Patch description network as in EfficientAD, narrowed, its first convolution strided."""
    pool = nn.AvgPool2d(2, 2)
    first: list[nn.Module] = [ConvUnit(3, w[0], 4, 2), pool, ConvUnit(w[0], w[1], 3), pool]
    second: list[nn.Module] = [ConvUnit(w[1], w[2], 3), pool, ConvUnit(w[2], w[3], 3)]
    return Stack([*first, *second, ConvUnit(w[3], w[3], 3), ConvUnit(w[3], 96, 1, relu=False)])


def mobile_half() -> Stack:
    """MobileNetV2 at half width, cut at stride 16: the usual choice, for comparison."""
    layers: list[nn.Module] = [ConvUnit(3, 16, 4, 2)]
    cin = 16
    for expand, width, depth, stride in ((1, 8, 1, 1), (6, 16, 2, 2), (6, 16, 3, 2), (6, 32, 4, 2)):
        for i in range(depth):
            s = stride if i == 0 else 1
            layers.append(InvertedResidual(cin, width, expand, 4 if s == 2 else 3, s))
            cin = width
    layers += [InvertedResidual(32, 48, 6, 3), InvertedResidual(48, 48, 6, 3)]
    return Stack([*layers, InvertedResidual(48, 96, 6, 3)])


def hybrid() -> Stack:
    """Plain 3x3 convolutions at stride 8, inverted residuals at stride 16."""
    layers: list[nn.Module] = [ConvUnit(3, 32, 4, 4), ConvUnit(32, 48, 4, 2)]
    layers += [RepConv(48), RepConv(48), InvertedResidual(48, 64, 4, 6, 2)]
    layers += [InvertedResidual(64, 64, 4, 5) for _ in range(5)]
    return Stack([*layers, InvertedResidual(64, 96, 4, 5)])


def stem(*widths: int) -> list[nn.Module]:
    """Layers down to a stride of 4: one convolution with stride 4, or two with stride 2."""
    kernels = zip((3, *widths[:-1]), widths, strict=True)
    return [ConvUnit(cin, cout, 4, 4 // len(widths)) for cin, cout in kernels]


def residual(
    first: Sequence[int], widths: Sequence[int], narrow: Sequence[int], depths: Sequence[int]
) -> Stack:
    """ResNet-like: a stem of widths `first`, bottlenecks at strides 8 and 16."""
    layers, cin = stem(*first), first[-1]
    for width, inner, depth in zip(widths, narrow, depths, strict=True):
        layers.append(ConvUnit(cin, width, 4, 2))
        layers += [Bottleneck(width, inner) for _ in range(depth)]
        cin = width
    return Stack([*layers, ConvUnit(cin, 96, 1, relu=False)])


def inverted_fine(depths: tuple[int, int]) -> Stack:
    """MobileNet-like with a thin stem of two strided convolutions."""
    layers: list[nn.Module] = [*stem(12, 24), InvertedResidual(24, 32, 3, 4, 2)]
    layers += [InvertedResidual(32, 32, 3, 3) for _ in range(depths[0] - 1)]
    layers += [InvertedResidual(32, 64, 4, 4, 2)]
    layers += [InvertedResidual(64, 64, 4, 3) for _ in range(depths[1] - 1)]
    return Stack([*layers, InvertedResidual(64, 96, 4, 3)])


CANDIDATES: dict[str, Callable[[], Stack | EdgeEncoder | InvertedEncoder]] = {
    "rep": lambda: EdgeEncoder((32,), (48, 96), (2, 3)),
    "rep_small": lambda: EdgeEncoder((24,), (48, 80), (2, 3)),
    "rep_large": lambda: EdgeEncoder((32,), (64, 128), (2, 2)),
    "rep_two": lambda: EdgeEncoder((16, 32)),
    "rep_fine": EdgeEncoder,
    # The shapes that are trained from several teachers; `fast` is `rep_fine`.
    "fast": EdgeEncoder,
    "accurate": InvertedEncoder,
    "rep_accurate": lambda: EdgeEncoder((12, 40), (64, 160), (1, 5), 160),
    "inverted3": lambda: inverted((32, 64), (3, 6), 3),
    "inverted5": lambda: inverted((32, 64), (3, 6), 5),
    "inverted3_deep": lambda: inverted((32, 64), (4, 9), 3),
    "inverted3_wide": lambda: inverted((48, 80), (3, 6), 3),
    "hybrid": hybrid,
    "mobile_half": mobile_half,
    "residual": lambda: residual((32,), (48, 128), (32, 64), (2, 6)),
    "residual_two": lambda: residual((8, 32), (48, 128), (32, 64), (2, 6)),
    "inverted_fine": lambda: inverted_fine((3, 8)),
    "pdn": lambda: pdn((16, 48, 64, 128)),
}
