"""The encoder inside the package, registered as a model of timm: it needs no hub and no network.

It has ten plain convolutions, the first of them with few channels, because large early maps take
the most time. This project trained its weights from random ones: ``pretraining/`` holds the recipe,
and ``MODEL_CARD.md`` describes the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("edge_encoder.safetensors")

default_cfgs = generate_default_cfgs(
    {
        "fsad_edge": {
            "file": str(WEIGHTS),
            "input_size": (3, 224, 224),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "num_classes": 0,
            "license": "apache-2.0",
        }
    }
)


class EdgeEncoder(nn.Module):
    """A network that gives one feature map at stride 16.

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
        super().__init__()
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
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, channels, 1))
        # timm's feature getter reads these.
        self.num_classes = 0
        self.feature_info = [{"num_chs": channels, "reduction": 16, "module": "layers"}]

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


@register_model
def fsad_edge(pretrained: bool = False, **kwargs: Any) -> EdgeEncoder:
    """The bundled encoder, under the name that timm registers."""
    return build_model_with_cfg(EdgeEncoder, "fsad_edge", pretrained, **kwargs)
