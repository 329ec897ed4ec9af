"""The ONNX file of an encoder alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np

from fsad_edge.errors import ModelFileError
from fsad_edge.runtime.documents import (
    Above,
    DocumentError,
    Range,
    from_document,
    parse_json,
    shorten,
)
from fsad_edge.scoring.encoder_graph import EMBEDDING, FEATURES, PLANES, EncoderGraph
from fsad_edge.scoring.onnx_graph import Graph, Value, read_graph

#: The key of the metadata that describes an encoder.
KEY = "encoder"

HALF, SINGLE = np.dtype("float16"), np.dtype("float32")

Number = Annotated[int, Range(1, 1 << 20)]


@dataclass(frozen=True)
class _About:
    """What a file says of its encoder; the fields are those of :class:`EncoderGraph`."""

    mean: Annotated[list[Annotated[float, Range(-1e3, 1e3)]], Range(3, 3)]
    std: Annotated[list[Annotated[float, Above(0), Range(1e-3, 1e3)]], Range(3, 3)]
    channels: Number
    embedding_channels: Number
    stride: Number
    step: Number


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
    about = {field.name: getattr(encoder, field.name) for field in fields(_About)}
    graph.metadata = {**(metadata or {}), KEY: json.dumps(about)}
    return graph.to_bytes()


def read_encoder(data: bytes) -> EncoderGraph:
    """The encoder in a file, in single precision.

    Raises:
        ModelFileError: the bytes are damaged, or are no encoder's.
    """
    graph = _in_precision(read_graph(data), SINGLE)
    inputs, outputs = ([one.name for one in values] for values in (graph.inputs, graph.outputs))
    known = outputs in ([FEATURES], [FEATURES, EMBEDDING])
    if inputs != [PLANES] or not known or not graph.is_whole():
        raise ModelFileError("the graph is not an encoder's, or not whole")
    for name, value in graph.constants.items():
        if value.dtype == SINGLE and not np.isfinite(value).all():
            raise ModelFileError(f"its '{shorten(name)}' holds values that are no finite numbers")
    try:
        about = from_document(_About, parse_json(graph.metadata.get(KEY, "")))
    except DocumentError as error:
        raise ModelFileError(f"the graph does not describe an encoder, {error}") from error
    return EncoderGraph(graph, **vars(about))


def _in_precision(graph: Graph, kind: np.dtype[Any]) -> Graph:
    """A graph of floating-point numbers in another precision."""
    constants = {
        name: value.astype(kind) if value.dtype in (HALF, SINGLE) else value
        for name, value in graph.constants.items()
    }
    inputs = [Value(value.name, kind, value.shape) for value in graph.inputs]
    outputs = [Value(value.name, kind, value.shape) for value in graph.outputs]
    return Graph(inputs, outputs, list(graph.nodes), constants, dict(graph.metadata))
