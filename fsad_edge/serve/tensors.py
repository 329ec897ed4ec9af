"""A request of the Open Inference Protocol: from a body's bytes to images, and nothing trusted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.metadata import Metadata
from fsad_edge.runtime.model import Result
from fsad_edge.serve.body import NAME_LENGTH
from fsad_edge.serve.problems import ProblemError

#: Says how long the JSON document is, before the binary tensors.
HEADER_LENGTH = "Inference-Header-Content-Length"

#: Outputs, and their shapes without the batch's dimension, as Triton has them of the same file; a
#: map's sides depend on the model.
OUTPUTS: dict[str, list[int]] = {"score": [1], "anomaly_map": [-1, -1]}

#: Bytes of JSON beside the pixels, and for each of them: "255, ".
_JSON_REST, _JSON_PIXEL = 64 << 10, 5


@dataclass(frozen=True)
class InferRequest:
    """What a client asked for.

    Attributes:
        images: uint8 ``[N, H, W, 3]`` at the model's size.
        outputs: names in the order asked for, and whether each shall be binary.
        id: that the client gave.
    """

    images: UInt8Array
    outputs: dict[str, bool]
    id: str | None

    def arrays(self, results: Sequence[Result]) -> dict[str, npt.NDArray[np.float32]]:
        """The outputs asked for: ``score`` ``[N, 1]`` and ``anomaly_map`` ``[N, h, w]``."""
        made = {
            "score": np.array([[result.score] for result in results], np.float32),
            "anomaly_map": np.stack([result.anomaly_map for result in results]),
        }
        return {name: made[name] for name in self.outputs}


def read_request(body: bytes, header: str | None, metadata: Metadata, limit: int) -> InferRequest:
    """Read a body.

    Args:
        body: a JSON document, and binary tensors behind it where there are any.
        header: the value of ``HEADER_LENGTH``: how long the document is, if not all of it.
        metadata: of the model.
        limit: images at most.

    Raises:
        ProblemError: it is not what the protocol or the model asks for (400), or too much (413).
    """
    shape = (metadata.height, metadata.width, 3)
    length = len(body)
    if header is not None:
        if not (header.isascii() and header.isdigit() and len(header) < 19):
            _refuse(f"{HEADER_LENGTH} is no number.")
        length = int(header)
        if length > len(body):
            _refuse(f"{HEADER_LENGTH} is {length}, and the body has {len(body)} bytes.")
    # Nested lists take a hundred times their text: no more of it than images can need.
    if length > _JSON_REST + _JSON_PIXEL * limit * int(np.prod(shape)):
        raise ProblemError(413, "the JSON is longer than images can be: send binary tensors.")
    document = _parse(body[:length])
    tail = memoryview(body)[length:]
    name, parameters = document.get("id"), _object(document, "parameters")
    if name is not None and not (isinstance(name, str) and len(name) <= NAME_LENGTH):
        _refuse(f"'id' is no text of at most {NAME_LENGTH} characters.")
    outputs = _outputs(document, bool(parameters.get("binary_data_output", False)))
    return InferRequest(_images(document, tail, shape, limit), outputs, name)


def _parse(text: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    try:
        document = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        _refuse(f"the body does not begin with a JSON document ({error}).")
    if not isinstance(document, dict):
        _refuse("the JSON document is no object.")
    return document


def _outputs(document: dict[str, Any], binary: bool) -> dict[str, bool]:
    asked = document.get("outputs")
    if asked is None or asked == []:
        return dict.fromkeys(OUTPUTS, binary)
    outputs: dict[str, bool] = {}
    for entry in _objects(asked, "outputs"):
        name = entry.get("name")
        if not isinstance(name, str) or name not in OUTPUTS or name in outputs:
            _refuse(f"'outputs' may name each of {', '.join(OUTPUTS)} once.")
        parameters = _object(entry, "parameters")
        if "classification" in parameters:
            _refuse(f"output '{name}' is no classification.")
        if "shared_memory_region" in parameters:
            _refuse("shared memory is not to be had.")
        outputs[name] = bool(parameters.get("binary_data", binary))
    return outputs


def _images(
    document: dict[str, Any], tail: memoryview, shape: tuple[int, ...], limit: int
) -> UInt8Array:
    inputs = _objects(document.get("inputs"), "inputs")
    wanted = f"[N, {', '.join(map(str, shape))}]"
    if len(inputs) != 1 or inputs[0].get("name") != "image":
        _refuse(f"'inputs' is one tensor: 'image', UINT8 {wanted}.")
    tensor = inputs[0]
    given = tensor.get("shape")
    if tensor.get("datatype") != "UINT8":
        _refuse("'image' is not of datatype UINT8.")
    if (
        not isinstance(given, list)
        or len(given) != 4
        or any(type(side) is not int for side in given)
        or tuple(given[1:]) != shape
        or given[0] < 1
    ):
        _refuse(f"'image' is not of shape {wanted}, at least one of them.")
    if given[0] > limit:
        raise ProblemError(413, f"more images than the queue takes: send at most {limit} at once.")
    size = given[0] * int(np.prod(shape))
    parameters = _object(tensor, "parameters")
    if "shared_memory_region" in parameters:
        _refuse("shared memory is not to be had.")
    pixels: bytes | memoryview
    if "binary_data_size" in parameters:
        claimed = parameters["binary_data_size"]
        if type(claimed) is not int or claimed != size or "data" in tensor:
            _refuse(f"'image' has not the {size} bytes of its shape as its only data.")
        pixels = tail
    else:
        pixels = _flat(tensor.get("data"))
        if len(tail):
            _refuse(f"{len(tail)} bytes behind the JSON document belong to no tensor.")
    if len(pixels) != size:
        _refuse(f"'image' has {len(pixels)} values, and its shape {size}.")
    return np.frombuffer(pixels, np.uint8).reshape(given)


def _flat(data: Any) -> bytes:
    """Values of nested lists, which need not be nested as the shape says."""
    if not isinstance(data, list):
        _refuse("'image' has no 'data'.")
    while data and isinstance(data[0], list):
        if not all(isinstance(row, list) for row in data):
            _refuse("'data' holds numbers beside lists.")
        data = list(chain.from_iterable(data))
    try:
        return bytes(data)
    except (TypeError, ValueError):
        _refuse("'data' holds something else than whole numbers from 0 to 255.")


def _object(holder: dict[str, Any], key: str) -> dict[str, Any]:
    found = holder.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        _refuse(f"'{key}' is no object.")
    return found


def _objects(found: Any, key: str) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        _refuse(f"'{key}' is no list of objects.")
    return found


def _refuse(sentence: str) -> NoReturn:
    raise ProblemError(400, sentence)
