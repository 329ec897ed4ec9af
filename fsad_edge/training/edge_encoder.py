"""The encoders inside the package, registered as models of timm: they need no hub and no network.

``fast`` has ten plain convolutions, the first of them with few channels, because large early maps
take the most time; this project trained its weights from random ones. ``accurate`` has the blocks
of EfficientNet-Lite2 (arXiv 1905.11946), and its training began with that network's weights.
``pretraining/`` holds both recipes, and ``MODEL_CARD.md`` describes the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from fsad_edge.runtime.encoder_names import WHOLE_ENCODER, WHOLE_SIDE
from fsad_edge.scoring.bundled import FILES, bundled_encoder

#: Side of the input that timm names for each, pixels.
_SIDES = dict.fromkeys(FILES, 224) | {WHOLE_ENCODER: WHOLE_SIDE}

default_cfgs = generate_default_cfgs(
    {
        name: {
            "input_size": (3, side, side),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "num_classes": 0,
            "license": "apache-2.0",
        }
        for name, side in _SIDES.items()
    }
)


class OneMapEncoder(nn.Module):
    """Layers one after another that give one feature map at stride 16.

    Args:
        layers: the layers.
        channels: channels of the feature map.
    """

    def __init__(self, layers: Sequence[nn.Module], channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        # timm's feature getter reads these.
        self.num_classes = 0
        self.feature_info: list[dict[str, Any]] = [
            {"num_chs": channels, "reduction": 16, "module": "layers"}
        ]

    def forward(self, images: Tensor) -> Tensor:
        """The feature map of a batch.

        Args:
            images: float ``[N, 3, H, W]``, (pixel / 255 - mean) / std.

        Returns:
            float ``[N, C, H/16, W/16]``.
        """
        return cast(Tensor, self.layers(images))

    def forward_intermediates(
        self, images: Tensor, indices: Sequence[int] | None = None, **_: Any
    ) -> list[Tensor]:
        """The one feature map in a list, as timm's feature getter takes it."""
        return [self(images)]


class EdgeEncoder(OneMapEncoder):
    """The fast encoder: plain convolutions.

    Args:
        stem: channels down to stride 4, of one 4x4 convolution or of two with stride 2 each.
        widths: channels at stride 8 and at stride 16; a 4x4 convolution of stride 2 leads to each.
        depths: number of 3x3 convolutions that follow each of those.
        channels: channels of the feature map.
        _: further arguments that timm passes; they are for classifiers only.
    """

    def __init__(
        self,
        stem: Sequence[int] = (8, 32),
        widths: Sequence[int] = (48, 96),
        depths: Sequence[int] = (1, 3),
        channels: int = 96,
        **_: Any,
    ) -> None:
        step = 4 // len(stem)
        convolutions = []
        before = 3
        for width in stem:
            convolutions.append(nn.Conv2d(before, width, 4, step, (4 - step) // 2))
            before = width
        for width, depth in zip(widths, depths, strict=True):
            convolutions.append(nn.Conv2d(before, width, 4, 2, 1))
            convolutions += [nn.Conv2d(width, width, 3, 1, 1) for _ in range(depth)]
            before = width
        convolutions.append(nn.Conv2d(before, before, 3, 1, 1))
        # A ReLU follows each but the last: the map's values may be negative.
        layers = [layer for conv in convolutions for layer in (conv, nn.ReLU())]
        super().__init__([*layers, nn.Conv2d(before, channels, 1)], channels)


class WholeEdgeEncoder(EdgeEncoder):
    """The encoder with a tail to stride 32 that tells kinds of objects apart.

    It has the methods by which :class:`~fsad_edge.training.full_depth.FullDepthNet` takes a
    network's full depth. ``pretraining/whole.py`` trained the tail.

    Args:
        arguments: of the encoder.
    """

    #: Channels of the tail's two maps; the second is the length of the embedding.
    WIDTHS = (192, 384)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        middle, last = self.WIDTHS
        self.tail = nn.Sequential(
            nn.Conv2d(self.feature_info[0]["num_chs"], middle, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(middle, last, 3, 1, 1),
            nn.ReLU(),
        )
        self.head = nn.Linear(last, last, bias=False)
        self.num_features = last

    def forward_intermediates(
        self,
        images: Tensor,
        indices: Sequence[int] | None = None,
        intermediates_only: bool = False,
        **_: Any,
    ) -> Any:
        """The one feature map in a list; without ``intermediates_only`` it comes before it, too."""
        features = self(images)
        return [features] if intermediates_only else (features, [features])

    def forward_head(self, features: Tensor, pre_logits: bool = True) -> Tensor:
        """The embedding, float ``[N, 384]``, of feature maps ``[N, C, h, w]``."""
        return cast(Tensor, self.head(self.tail(features).mean(dim=(2, 3))))

    def reset_classifier(self, num_classes: int) -> None:
        """Nothing: there is no classifier."""


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, linear 1x1 convolution; added to its input if it fits.

    Args:
        cin: channels of its input.
        expand: how many times as many channels the depthwise convolution has; 1 has no expansion.
        cout: channels of its output.
        kernel: height and width of the depthwise kernel; one more where the stride is 2.
        stride: 1 or 2.
    """

    def __init__(self, cin: int, expand: int, cout: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide, side = cin * expand, kernel + stride - 1
        layers: list[nn.Module] = [nn.Conv2d(cin, wide, 1), nn.ReLU6()] if expand > 1 else []
        depthwise = nn.Conv2d(wide, wide, side, stride, (side - stride + 1) // 2, groups=wide)
        self.body = nn.Sequential(*layers, depthwise, nn.ReLU6(), nn.Conv2d(wide, cout, 1))
        self.is_added = stride == 1 and cin == cout

    def forward(self, features: Tensor) -> Tensor:
        """float ``[N, cin, H, W]`` -> float ``[N, cout, H/stride, W/stride]``."""
        out = cast(Tensor, self.body(features))
        return features + out if self.is_added else out


class AccurateEdgeEncoder(OneMapEncoder):
    """The accurate encoder: inverted residual blocks.

    Args:
        depths: blocks at stride 4, at stride 8, and of two widths at stride 16.
        channels: channels of the feature map.
        _: further arguments that timm passes; they are for classifiers only.
    """

    #: Channels, kernel and stride of the first block of each stage.
    STAGES = ((24, 3, 2), (48, 5, 2), (88, 3, 2), (120, 5, 1))

    def __init__(self, depths: Sequence[int] = (2, 2, 3, 3), channels: int = 121, **_: Any) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 4, 2, 1), nn.ReLU6()]
        layers.append(InvertedResidual(32, 1, 16, 3, 1))
        before = 16
        for depth, (width, kernel, stride) in zip(depths, self.STAGES, strict=True):
            for place in range(depth):
                step = stride if place == 0 else 1
                layers.append(InvertedResidual(before, 6, width, kernel, step))
                before = width
        super().__init__([*layers, nn.Conv2d(before, channels, 1)], channels)


def _built(
    kind: type[EdgeEncoder | AccurateEdgeEncoder], name: str, pretrained: bool, **kwargs: Any
) -> Any:
    """A network with random weights, those of the package, or those of a file that timm is told."""
    own = pretrained and not kwargs.get("pretrained_cfg_overlay")
    network = build_model_with_cfg(kind, name, pretrained and not own, **kwargs)
    encoder = bundled_encoder(name)
    if own and encoder is not None:
        constants = encoder.graph.constants
        names = network.state_dict().keys()
        network.load_state_dict({key: torch.from_numpy(constants[key]) for key in names})
    return network


@register_model
def fsad_edge_whole(pretrained: bool = False, **kwargs: Any) -> WholeEdgeEncoder:
    """The fast encoder with its tail, under the name that timm registers."""
    return cast(WholeEdgeEncoder, _built(WholeEdgeEncoder, WHOLE_ENCODER, pretrained, **kwargs))


@register_model
def fsad_edge(pretrained: bool = False, **kwargs: Any) -> EdgeEncoder:
    """The fast encoder, under the name that timm registers."""
    return cast(EdgeEncoder, _built(EdgeEncoder, "fsad_edge", pretrained, **kwargs))


@register_model
def fsad_edge_accurate(pretrained: bool = False, **kwargs: Any) -> AccurateEdgeEncoder:
    """The accurate encoder, under the name that timm registers."""
    return cast(
        AccurateEdgeEncoder, _built(AccurateEdgeEncoder, "fsad_edge_accurate", pretrained, **kwargs)
    )
