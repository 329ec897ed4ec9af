"""The encoders inside the package, as ONNX graphs that take images of any size.

The files hold weights in half precision, which is what the encoders were rounded to when they were
made; they are computed in single precision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fsad_edge.options import BundledEncoder
from fsad_edge.runtime.encoder_names import NAMES, WHOLE_ENCODER
from fsad_edge.scoring.encoder_graph import EncoderGraph
from fsad_edge.scoring.onnx_graph import Graph, Value, read_graph

#: The file of each, by timm's name.
FILES = {
    NAMES[BundledEncoder.FAST]: Path(__file__).with_name("edge_encoder_fast.onnx"),
    NAMES[BundledEncoder.ACCURATE]: Path(__file__).with_name("edge_encoder_accurate.onnx"),
    WHOLE_ENCODER: Path(__file__).with_name("edge_encoder_whole.onnx"),
}

#: The key of the metadata that describes an encoder.
KEY = "encoder"

_HALF, _SINGLE = np.dtype("float16"), np.dtype("float32")


@cache
def bundled_encoder(architecture: str) -> EncoderGraph | None:
    """A bundled encoder by timm's name; None where it is none of them.

    Example:
        >>> encoder = bundled_encoder("fsad_edge")
        >>> encoder.channels, encoder.stride, encoder.full_depth
        (96, 16, False)
    """
    if architecture not in FILES:
        return None
    graph = in_precision(read_graph(FILES[architecture].read_bytes()), _SINGLE)
    about = json.loads(graph.metadata[KEY])
    return EncoderGraph(
        graph,
        tuple(about["mean"]),
        tuple(about["std"]),
        about["channels"],
        about["embedding_channels"],
        about["stride"],
        about["step"],
    )


def encoder_file(encoder: EncoderGraph, metadata: Mapping[str, str]) -> bytes:
    """The file of an encoder, which :func:`bundled_encoder` reads.

    Args:
        encoder: the encoder; what it computes does not depend on the size of its input.
        metadata: what else the file says of it, such as how it was trained.
    """
    graph = in_precision(encoder.graph, _HALF)
    graph.metadata |= metadata
    about = {
        name: getattr(encoder, name)
        for name in ("mean", "std", "channels", "embedding_channels", "stride", "step")
    }
    graph.metadata[KEY] = json.dumps(about)
    return graph.to_bytes()


def in_precision(graph: Graph, kind: np.dtype[Any]) -> Graph:
    """A graph of floating-point numbers in another precision."""
    constants = {
        name: value.astype(kind) if value.dtype in (_HALF, _SINGLE) else value
        for name, value in graph.constants.items()
    }
    inputs = [Value(value.name, kind, value.shape) for value in graph.inputs]
    outputs = [Value(value.name, kind, value.shape) for value in graph.outputs]
    return Graph(inputs, outputs, list(graph.nodes), constants, dict(graph.metadata))
