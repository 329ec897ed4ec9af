"""The encoder inside the package, as a model timm can make: no hub, no network.

Ten plain convolutions, the first of them thin, because large early maps cost most. Its weights
were trained by this project from random ones; ``pretraining/`` holds the recipe and
``MODEL_CARD.md`` beside the weights says what they are.
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
    """A normalised image in, one map at stride 16 out.

    Args:
        stem: channels down to stride 4: of one 4x4 convolution, or of two with stride 2 each.
        widths: channels at stride 8 and at stride 16, each reached by a 4x4 with stride 2.
        depths: 3x3 convolutions that follow each of those.
        channels: of the map.

    timm passes further arguments that are of classifiers only.
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
        # What timm's feature getter asks of a model.
        self.num_classes = 0
        self.feature_info = [{"num_chs": channels, "reduction": 16, "module": "layers"}]

    def forward(self, images: Tensor) -> Tensor:
        """float ``[N, 3, H, W]``, (pixel / 255 - mean) / std, to float ``[N, C, H/16, W/16]``."""
        return cast(Tensor, self.layers(images))

    def forward_intermediates(
        self, images: Tensor, indices: Sequence[int] | None = None, **_: Any
    ) -> list[Tensor]:
        """The one map there is, in a list, as timm's feature getter wants it."""
        return [self(images)]


@register_model
def fsad_edge(pretrained: bool = False, **kwargs: Any) -> EdgeEncoder:
    """The bundled encoder, by the name timm knows it by."""
    return build_model_with_cfg(EdgeEncoder, "fsad_edge", pretrained, **kwargs)
