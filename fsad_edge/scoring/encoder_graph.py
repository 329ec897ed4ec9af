"""An encoder as an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fsad_edge.scoring.onnx_graph import Graph

#: Names of the input and of the outputs.
PLANES, FEATURES, EMBEDDING = "planes", "features", "embedding"


@dataclass(frozen=True)
class EncoderGraph:
    """An encoder that the scoring graph is put around.

    Attributes:
        graph: takes ``planes``, float ``[N, 3, H, W]``, (pixel / 255 - mean) / std, and gives
            ``features``, float ``[N, D, H/stride, W/stride]``, and, with full depth,
            ``embedding``, float ``[N, E]``.
        mean: mean of each channel, of pixels in 0 to 1.
        std: standard deviation of each channel, of pixels in 0 to 1.
        channels: channels of the features, D.
        embedding_channels: length of the embedding of the whole image, E; D without full depth.
        stride: stride of the features, pixels.
        step: the largest stride within the encoder, pixels.
    """

    graph: Graph
    mean: Sequence[float]
    std: Sequence[float]
    channels: int
    embedding_channels: int
    stride: int
    step: int

    @property
    def full_depth(self) -> bool:
        """Whether it gives an embedding of the whole image."""
        return len(self.graph.outputs) > 1
