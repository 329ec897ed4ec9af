"""The encoder of a part: a graph for ONNX Runtime, and in PyTorch only where that is needed.

The bundled encoders are in the package as graphs. Another backbone, other weights and the training
of a whole encoder need PyTorch and timm, which are imported here and nowhere before.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from fsad_edge.errors import MissingExtraError, needs_extra
from fsad_edge.options import BundledEncoder, ScoreKind
from fsad_edge.runtime.encoder_names import WHOLE_ENCODER, WHOLE_SIDE, bundled_name
from fsad_edge.runtime.environment import has_modules
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.locator import Locator
from fsad_edge.scoring.bundled import FILES, bundled_encoder
from fsad_edge.scoring.encoder_graph import EncoderGraph
from fsad_edge.scoring.encoder_spec import EncoderSpec, check_size, check_weights_file, map_indices
from fsad_edge.scoring.onnx_graph import Graph
from fsad_edge.scoring.scoring_graph import build_scoring_graph

if TYPE_CHECKING:
    from fsad_edge.training.encoder import Encoder

_FAST = bundled_name(BundledEncoder.FAST)


@dataclass(frozen=True)
class PartEncoder:
    """An encoder for one input size.

    Attributes:
        spec: what it is.
        graph: what it computes.
        network: the same in PyTorch; None for a bundled encoder with its own weights.
    """

    spec: EncoderSpec
    graph: EncoderGraph
    network: Encoder | None = None

    def scoring_graph(
        self, score: ScoreKind, locator: Locator | None, bank_size: int, places: bool = False
    ) -> Graph:
        """The scoring graph of this encoder, with an empty reference model."""
        spec = self.spec
        return build_scoring_graph(
            self.graph, spec.height, spec.width, score, locator, bank_size, places
        )


def import_torch_encoders() -> ModuleType:
    """Import :mod:`fsad_edge.training.encoder`.

    Raises:
        MissingExtraError: PyTorch or another package of the extra is not installed.
    """
    if not has_modules("torch"):
        raise MissingExtraError("PyTorch", "train")  # and not the package that it imports first
    with needs_extra("train"):
        from fsad_edge.training import encoder
    return encoder


def pretrained(
    backbone: str,
    weights: Path | None,
    height: int,
    width: int,
    strides: Sequence[int],
    full_depth: bool = False,
) -> PartEncoder:
    """An encoder with pretrained weights.

    Args:
        backbone: a model in one of timm's forms: its name, ``hf-hub:NAME`` or ``local-dir:FOLDER``.
        weights: a checkpoint (.safetensors or .pth) to load instead of the hub's.
        height: height of the input, pixels.
        width: width of the input, pixels.
        strides: strides of the feature maps to use.
        full_depth: give an embedding of the network's full depth, too, where it has one.

    Raises:
        InputError: the backbone has no feature map at such a stride or size.
        WeightsError: there is no such backbone, or its weights cannot be loaded.
        MissingExtraError: it is no bundled encoder, and PyTorch or timm is not installed.
    """
    check_weights_file(weights)
    name = WHOLE_ENCODER if full_depth and backbone == _FAST else backbone
    graph = bundled_encoder(name) if weights is None else None
    if graph is None:
        encoders = import_torch_encoders()
        network: Encoder = encoders.pretrained_encoder(
            backbone, weights, height, width, list(strides), full_depth
        )
        return of_network(network)
    indices = map_indices([graph.stride], list(strides), backbone)
    check_size(height, width, list(strides), backbone)
    spec = EncoderSpec(
        architecture=name,
        indices=indices,
        mean=list(graph.mean),
        std=list(graph.std),
        height=height,
        width=width,
        source=backbone,
        sha256=sha256(FILES[name].read_bytes()),
        full_depth=graph.full_depth,
    )
    return PartEncoder(spec, graph)


def of_network(network: Encoder) -> PartEncoder:
    """An encoder of PyTorch, which is switched to evaluation mode."""
    from fsad_edge.graph.encoder_graph import encoder_graph

    return PartEncoder(network.spec, encoder_graph(network), network)


def trainable(encoder: PartEncoder) -> Encoder:
    """A copy of an encoder in PyTorch, whose weights may be changed.

    Raises:
        MissingExtraError: PyTorch or timm is not installed.
    """
    if encoder.network is not None:
        return copy.deepcopy(encoder.network)
    spec, strides = encoder.spec, [encoder.graph.stride]
    network: Encoder = import_torch_encoders().pretrained_encoder(
        spec.source, None, spec.height, spec.width, strides, spec.full_depth
    )
    network.spec = replace(network.spec, sha256=spec.sha256)
    return network


def strides_of(backbone: str, weights: Path | None) -> list[int]:
    """The strides of a backbone's feature maps, ascending; a transformer has one.

    Raises:
        WeightsError: there is no such backbone.
    """
    check_weights_file(weights)
    bundled = bundled_encoder(backbone)
    if bundled is not None:
        return [bundled.stride]
    found: list[int] = import_torch_encoders().strides_of(backbone, weights)
    return found


def trained_size_of(backbone: str, weights: Path | None) -> int | None:
    """The side at which a network of full depth was trained, pixels; None without full depth.

    Raises:
        WeightsError: there is no such backbone.
    """
    if weights is None and bundled_encoder(backbone) is not None:
        return WHOLE_SIDE if backbone == _FAST else None
    size: int | None = import_torch_encoders().trained_size_of(backbone, weights)
    return size
