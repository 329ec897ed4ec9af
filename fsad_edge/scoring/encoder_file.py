"""The ONNX file of an encoder alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fsad_edge.errors import ModelFileError
from fsad_edge.scoring.encoder_graph import PLANES, EncoderGraph
from fsad_edge.scoring.onnx_graph import Graph, Value, read_graph

#: The key of the metadata that describes an encoder.
KEY = "encoder"

HALF, SINGLE = np.dtype("float16"), np.dtype("float32")


def encoder_file(
    encoder: EncoderGraph, kind: np.dtype[Any] = SINGLE, metadata: Mapping[str, str] | None = None
) -> bytes:
    """The file of an encoder, which :func:`read_encoder` reads.

    Args:
        encoder: the encoder.
        kind: the type of the weights in the file.
        metadata: what else the file says of it, such as how it was trained.
    """
    graph = _in_precision(encoder.graph, kind)
    about = {
        name: getattr(encoder, name)
        for name in ("mean", "std", "channels", "embedding_channels", "stride", "step")
    }
    graph.metadata = {**(metadata or {}), KEY: json.dumps(about)}
    return graph.to_bytes()


def read_encoder(data: bytes) -> EncoderGraph:
    """The encoder in a file, in single precision.

    Raises:
        ModelFileError: the bytes are damaged, or are no encoder's.
    """
    graph = _in_precision(read_graph(data), SINGLE)
    if [value.name for value in graph.inputs] != [PLANES] or not graph.is_whole():
        raise ModelFileError("the graph is not an encoder's, or not whole")
    try:
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
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"the graph does not describe an encoder, {error}") from error


def _in_precision(graph: Graph, kind: np.dtype[Any]) -> Graph:
    """A graph of floating-point numbers in another precision."""
    constants = {
        name: value.astype(kind) if value.dtype in (HALF, SINGLE) else value
        for name, value in graph.constants.items()
    }
    inputs = [Value(value.name, kind, value.shape) for value in graph.inputs]
    outputs = [Value(value.name, kind, value.shape) for value in graph.outputs]
    return Graph(inputs, outputs, list(graph.nodes), constants, dict(graph.metadata))
