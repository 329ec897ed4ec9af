"""A student: a small trunk that gives features, and one linear head for each teacher.

A head is a 1x1 convolution, and so is the last layer of the trunk. Together they are one such
layer, so that a trunk with its heads has the trunk's own architecture, only with other channels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from encoder_net import ConvUnit, EdgeEncoder, RepConv
from inverted_net import InvertedEncoder
from networks import CANDIDATES
from safetensors.torch import load_file
from torch import Tensor, nn

from fsad_edge.training.edge_encoder import AccurateEdgeEncoder


class Form(str, Enum):
    """What is exported of a student."""

    TRUNK = "trunk"
    """The trunk's own features, without the heads."""

    COMPACT = "compact"
    """The heads' outputs side by side, each of a mean squared length of 1, turned into as few
    channels as hold them: all lengths and angles stay."""


class Student(nn.Module):
    """A trunk and a linear head for each teacher.

    Args:
        net: the name of the trunk among the candidates.
        channels: the channels of each teacher.
    """

    def __init__(self, net: str, channels: Sequence[int]) -> None:
        super().__init__()
        self.trunk = CANDIDATES[net]()
        self.heads = nn.ModuleList(nn.Conv2d(self.trunk.channels, c, 1) for c in channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """x: float [N, 3, H, W], normalised -> for each teacher float [N, C, H/16, W/16]."""
        features = self.trunk(x)
        return [head(features) for head in self.heads]

    def start_heads(self, samples: Sequence[Tensor]) -> None:
        """Let each head begin with its teacher's mean and spread per channel.

        The trunk ends in a batch norm, so that its channels begin with a mean of 0 and a spread
        of 1.

        Args:
            samples: for each teacher some of its features, float [n, C].
        """
        with torch.no_grad():
            for head, sample in zip(self.heads, samples, strict=True):
                assert isinstance(head, nn.Conv2d)
                assert head.bias is not None
                spread = sample.std(0)[:, None, None, None] / head.in_channels**0.5
                head.weight.copy_(torch.randn_like(head.weight) * spread)
                head.bias.copy_(sample.mean(0))

    def start_from(self, weights: str, x: Tensor, targets: Sequence[Tensor]) -> None:
        """Begin with known features; the heads begin at the least squares solution.

        Args:
            weights: for a plain trunk the .safetensors file of an encoder of the same shape, for an
                inverted one timm's name of EfficientNet-Lite2.
            x: float [N, 3, H, W], normalised.
            targets: each teacher's features of them, float [N, C, H/16, W/16].
        """
        with torch.no_grad():
            if isinstance(self.trunk, EdgeEncoder):
                features = start_plain(self.trunk, load_file(weights), x)
            else:
                assert isinstance(self.trunk, InvertedEncoder)
                features = start_inverted(self.trunk, weights, x)
            columns = [features, torch.ones_like(features[:, :1])]
            rows = torch.cat(columns, 1).permute(0, 2, 3, 1).flatten(0, 2)
            for head, target in zip(self.heads, targets, strict=True):
                assert isinstance(head, nn.Conv2d)
                assert head.bias is not None
                wanted = target.float().permute(0, 2, 3, 1).flatten(0, 2)
                solution = torch.linalg.lstsq(rows, wanted).solution
                head.weight.copy_(solution[:-1].T[:, :, None, None])
                head.bias.copy_(solution[-1])


def start_plain(trunk: EdgeEncoder, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    """Let a trunk begin with folded weights; returns its features of `x`.

    Each batch norm is set to what it finds, so that it changes nothing at first, and the branches
    that were folded begin at zero.
    """
    names = sorted({n.rsplit(".", 1)[0] for n in tensors}, key=lambda n: int(n.split(".")[1]))
    for unit, name in zip(trunk.layers, names, strict=True):
        assert isinstance(unit, ConvUnit | RepConv)
        x = started(unit, tensors[f"{name}.weight"], tensors[f"{name}.bias"], x)
    return x


def start_inverted(trunk: InvertedEncoder, name: str, x: Tensor) -> Tensor:
    """Let a trunk begin with its teacher's weights; returns its features of `x`.

    Without some of the blocks, the batch norms of the others see other values: they are measured.
    """
    trunk.start_from(name)
    trunk.train()
    for part in x.split(32):
        trunk(part)
    features = torch.cat([trunk.eval()(part) for part in x.split(32)])
    trunk.train()
    return features


def started(unit: ConvUnit | RepConv, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """Let a unit begin as a plain convolution; returns its output of its input `x`."""
    main = unit.wide if isinstance(unit, RepConv) else unit
    main.conv.weight.copy_(weight)
    y = main.conv(x)
    variance, mean = torch.var_mean(y, (0, 2, 3), correction=0)
    main.norm.running_mean = mean
    main.norm.running_var = variance
    main.norm.weight.copy_((variance + main.norm.eps).sqrt())
    main.norm.bias.copy_(bias + mean)
    if isinstance(unit, RepConv):
        for norm in (unit.point.norm, unit.same):
            nn.init.zeros_(norm.weight)
    y = y + bias[:, None, None]
    return torch.relu(y) if unit.relu else y


def load_student(run: Path) -> tuple[Student, dict[str, Any]]:
    """The student of a run in eval mode, its trunk folded, its weights averaged; and its recipe."""
    recipe = json.loads((run / "recipe.json").read_text())
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    student = Student(recipe["net"], [teacher["channels"] for teacher in recipe["teachers"]])
    student.load_state_dict(state["average"])
    student.eval()
    student.trunk.fold()
    return student, {**recipe, "trained_steps": state["step"]}


def joined_heads(student: Student) -> nn.Conv2d:
    """All heads as one 1x1 convolution, each scaled so that they count alike.

    A teacher's features have a mean square of 1 in training. Divided by the root of its number of
    channels, its vectors have a mean squared length of 1.
    """
    heads = [head for head in student.heads if isinstance(head, nn.Conv2d)]
    joined = nn.Conv2d(heads[0].in_channels, sum(head.out_channels for head in heads), 1)
    with torch.no_grad():
        joined.weight.copy_(torch.cat([h.weight / h.out_channels**0.5 for h in heads]))
        biases = [h.bias / h.out_channels**0.5 for h in heads if h.bias is not None]
        assert joined.bias is not None
        joined.bias.copy_(torch.cat(biases))
    return joined


def merged(last: nn.Conv2d, head: nn.Conv2d) -> nn.Conv2d:
    """Two 1x1 convolutions, one after the other, as one."""
    both = nn.Conv2d(last.in_channels, head.out_channels, 1)
    assert last.bias is not None
    assert head.bias is not None
    assert both.bias is not None
    with torch.no_grad():
        weight = head.weight[:, :, 0, 0].double()
        both.weight.copy_((weight @ last.weight[:, :, 0, 0].double())[:, :, None, None])
        both.bias.copy_(weight @ last.bias.double() + head.bias)
    return both


def compact(conv: nn.Conv2d) -> nn.Conv2d:
    """A 1x1 convolution with the fewest channels whose outputs have the same inner products.

    The outputs W x + b lie in the space of the columns of W and b. An orthonormal basis of that
    space turns them without changing a length or an angle, and has at most C_in + 1 vectors.
    """
    assert conv.bias is not None
    columns = torch.cat([conv.weight[:, :, 0, 0], conv.bias[:, None]], 1).detach().double()
    left, values, _ = torch.linalg.svd(columns, full_matrices=False)
    basis = left[:, values > 1e-6 * values[0]].T
    small = nn.Conv2d(conv.in_channels, len(basis), 1)
    assert small.bias is not None
    with torch.no_grad():
        small.weight.copy_((basis @ columns[:, :-1])[:, :, None, None])
        small.bias.copy_(basis @ columns[:, -1])
    return small


def encoder_of(
    student: Student, form: Form
) -> tuple[EdgeEncoder | AccurateEdgeEncoder, dict[str, Any]]:
    """The folded encoder that is shipped of a student, and its constructor's arguments.

    Raises:
        ValueError: the heads cannot be merged into a trunk of this family.
    """
    trunk = student.trunk
    if not isinstance(trunk, EdgeEncoder | InvertedEncoder):
        raise ValueError("only encoders of encoder_net.py and inverted_net.py are exported")
    last = trunk.layers[-1] if isinstance(trunk, EdgeEncoder) else trunk.last.folded()
    assert isinstance(last, nn.Conv2d)
    final = last if form is Form.TRUNK else compact(merged(last, joined_heads(student)))
    config: dict[str, Any] = {**trunk.config, "channels": final.out_channels}
    layers = nn.Sequential(
        *(trunk.layers[:-1] if isinstance(trunk, EdgeEncoder) else trunk.shipped()), final
    )
    encoder = (
        EdgeEncoder(**config, deploy=True)
        if isinstance(trunk, EdgeEncoder)
        else AccurateEdgeEncoder(**config)
    )
    encoder.layers.load_state_dict(layers.state_dict())
    return encoder.eval(), config


class JoinedStudent(nn.Module):
    """A student of any family, whose map is that of its heads side by side."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.trunk, self.head = student.trunk, joined_heads(student)

    def forward(self, x: Tensor) -> Tensor:
        """x: float [N, 3, H, W], normalised -> float [N, sum of C, H/16, W/16]."""
        out: Tensor = self.head(self.trunk(x))
        return out
