"""Read an inference request of the Open Inference Protocol (KServe v2) and check all of it."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.found_regions import region_document
from fsad_edge.runtime.metadata import Metadata
from fsad_edge.runtime.model import Result
from fsad_edge.serve.disposition import NAME_LENGTH
from fsad_edge.serve.json_pixels import PixelError, cut_pixels, flatten, read_pixels
from fsad_edge.serve.problems import ProblemError

#: The header with the length of the JSON document, which the binary tensors follow.
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class OutputKind:
    """What an output holds: the protocol's datatype, and the shape without the batch dimension."""

    datatype: Literal["FP32", "BOOL", "BYTES"]
    shape: list[int]

    @property
    def triton_type(self) -> str:
        """Triton's name of the datatype in configurations."""
        return "TYPE_STRING" if self.datatype == "BYTES" else f"TYPE_{self.datatype}"


#: The outputs. Triton serves those of type FP32 from the same file; the decision is made here, and
#: regions are a text of JSON. The sides of a map depend on the model.
OUTPUTS = {
    "score": OutputKind("FP32", [1]),
    "anomaly_map": OutputKind("FP32", [-1, -1]),
    "image_score": OutputKind("FP32", [1]),
    "good": OutputKind("BOOL", [1]),
    "decision": OutputKind("BYTES", [1]),
    "regions": OutputKind("BYTES", [1]),
}

#: Most bytes of JSON for everything but the pixels, and for each pixel value: "255, ".
_JSON_REST, _JSON_PIXEL = 64 << 10, 5

#: Memory that a JSON document takes for each of its bytes: its text once more, and the pixels.
_JSON_MEMORY = 4


def _region_text(result: Result) -> str:
    """The regions of an image as JSON, in pixels of the tensor."""
    return json.dumps([region_document(region) for region in result.regions])


@dataclass(frozen=True)
class InferRequest:
    """An inference request.

    Attributes:
        images: uint8 ``[N, H, W, 3]`` at the model's size.
        outputs: the names of the outputs in the order of the request, and whether each is sent as
            binary.
        id: the client's name for the request.
    """

    images: UInt8Array
    outputs: dict[str, bool]
    id: str | None

    def arrays(self, results: Sequence[Result]) -> dict[str, NDArray[Any]]:
        """The requested outputs: ``anomaly_map`` ``[N, h, w]``, all others ``[N, 1]``."""
        found: dict[str, NDArray[Any]] = {
            "score": np.array([[result.score] for result in results], np.float32),
            "anomaly_map": np.stack([result.patch_map for result in results]),
            "image_score": np.array([[result.image_score] for result in results], np.float32),
            "good": np.array([[result.good] for result in results]),
            "decision": np.array([[result.decision.value] for result in results]),
            "regions": np.array([[_region_text(result)] for result in results]),
        }
        return {name: found[name] for name in self.outputs}


class LongList(NamedTuple):
    """A list that was cut out of a document: the text in its place, and its own text."""

    name: str
    text: memoryview

    def read(self) -> bytes:
        """Its numbers. Raises ProblemError where they are no pixels (400)."""
        try:
            return read_pixels(self.text)
        except PixelError as error:
            _refuse(str(error))


def read_infer_request(
    body: bytes, header: str | None, metadata: Metadata, limit: int
) -> InferRequest:
    """Read the body of an inference request.

    Args:
        body: a JSON document, followed by its binary tensors if it has any.
        header: the value of ``HEADER_LENGTH``; None where the document is the whole body.
        metadata: the model's metadata.
        limit: most images.

    Raises:
        ProblemError: the request does not follow the protocol or does not fit the model (400), or
            it is too large (413).
    """
    if metadata.locator is not None:
        _refuse(
            "this model finds the part in each photograph, and tensors are at the model's size: "
            "post the photograph to /v1/score."
        )
    shape = (metadata.height, metadata.width, 3)
    length = len(body)
    if header is not None:
        if not (header.isascii() and header.isdigit() and len(header) < 19):
            _refuse(f"{HEADER_LENGTH} is not a number.")
        length = int(header)
        if length > len(body):
            _refuse(f"{HEADER_LENGTH} is {length}, but the body has {len(body)} bytes.")
    # Nested lists take a hundred times the memory of their text, so that is limited first.
    if length > _JSON_REST + _JSON_PIXEL * limit * int(np.prod(shape)):
        raise ProblemError(413, "the JSON document is too long for images: send binary tensors.")
    tail = memoryview(body)[length:]
    with GATE.admit(_JSON_MEMORY * length, "the JSON document"):
        document, pixels = _parse(body[:length])
        return _infer_request(document, tail, pixels, shape, limit)


def _infer_request(
    document: dict[str, Any],
    tail: memoryview,
    pixels: LongList,
    shape: tuple[int, ...],
    limit: int,
) -> InferRequest:
    name, parameters = document.get("id"), _object(document, "parameters")
    if name is not None and not (isinstance(name, str) and len(name) <= NAME_LENGTH):
        _refuse(f"'id' is not a text of at most {NAME_LENGTH} characters.")
    outputs = _outputs(document, bool(parameters.get("binary_data_output", False)))
    return InferRequest(_images(document, tail, pixels, shape, limit), outputs, name)


def _parse(text: bytes) -> tuple[dict[str, Any], LongList]:
    """A document, and the long list that was cut out of it: no list where it is short."""
    pixels = LongList("", memoryview(b""))
    try:
        if len(text) > _JSON_REST:
            text, name, cut = cut_pixels(text)
            pixels = LongList(name, cut)
            if len(text) > _JSON_REST:
                _refuse("the JSON document is too long besides the list 'data'.")
        document = from_json(text, allow_inf_nan=False)
    except PixelError as error:
        _refuse(str(error))
    except ValueError as error:
        _refuse(f"the body does not begin with a JSON document ({error}).")
    if not isinstance(document, dict):
        _refuse("the JSON document is not an object.")
    return document, pixels


def to_binary(array: NDArray[Any], datatype: str) -> bytes:
    """The bytes of an output as the protocol's extension for binary tensors has them.

    Each text is preceded by the number of its bytes, uint32, little-endian.
    """
    if datatype == "BYTES":
        texts = [text.encode() for text in array.ravel().tolist()]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return array.astype("<f4" if datatype == "FP32" else bool).tobytes()


def _outputs(document: dict[str, Any], binary: bool) -> dict[str, bool]:
    asked = document.get("outputs")
    if asked is None or asked == []:
        return dict.fromkeys(OUTPUTS, binary)
    outputs: dict[str, bool] = {}
    for entry in _objects(asked, "outputs"):
        name = entry.get("name")
        if not isinstance(name, str) or name not in OUTPUTS or name in outputs:
            _refuse(f"'outputs' can name each of {', '.join(OUTPUTS)} once.")
        parameters = _object(entry, "parameters")
        if "classification" in parameters:
            _refuse(f"output '{name}' is not a classification.")
        if "shared_memory_region" in parameters:
            _refuse("shared memory is not supported.")
        outputs[name] = bool(parameters.get("binary_data", binary))
    return outputs


def _images(
    document: dict[str, Any],
    tail: memoryview,
    cut: LongList,
    shape: tuple[int, ...],
    limit: int,
) -> UInt8Array:
    inputs = _objects(document.get("inputs"), "inputs")
    wanted = f"[N, {', '.join(map(str, shape))}]"
    if len(inputs) != 1 or inputs[0].get("name") != "image":
        _refuse(f"'inputs' must hold one tensor: 'image', UINT8 {wanted}.")
    tensor = inputs[0]
    given = tensor.get("shape")
    if tensor.get("datatype") != "UINT8":
        _refuse("'image' must have the datatype UINT8.")
    if (
        not isinstance(given, list)
        or len(given) != 4
        or any(type(side) is not int for side in given)
        or tuple(given[1:]) != shape
        or given[0] < 1
    ):
        _refuse(f"'image' must have the shape {wanted}, with N of 1 or more.")
    if given[0] > limit:
        raise ProblemError(413, f"the queue takes {limit} images at most: send fewer at once.")
    size = given[0] * int(np.prod(shape))
    parameters = _object(tensor, "parameters")
    if "shared_memory_region" in parameters:
        _refuse("shared memory is not supported.")
    pixels: bytes | memoryview
    if "binary_data_size" in parameters:
        claimed = parameters["binary_data_size"]
        if type(claimed) is not int or claimed != size or "data" in tensor:
            _refuse(f"the only data of 'image' must be the {size} bytes of its shape.")
        pixels = tail
    else:
        pixels = cut.read() if tensor.get("data") == cut.name else _flat(tensor.get("data"))
        if len(tail):
            _refuse(f"{len(tail)} bytes after the JSON document belong to no tensor.")
    if len(pixels) != size:
        _refuse(f"'image' has {len(pixels)} values, but its shape has {size}.")
    return np.frombuffer(pixels, np.uint8).reshape(given)


def _flat(data: Any) -> bytes:
    """The values of nested lists, whatever their nesting."""
    if not isinstance(data, list):
        _refuse("'image' has no 'data'.")
    pixels = bytearray()
    try:
        flatten(data, pixels)
    except PixelError as error:
        _refuse(str(error))
    return bytes(pixels)


def _object(holder: dict[str, Any], key: str) -> dict[str, Any]:
    found = holder.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        _refuse(f"'{key}' is not an object.")
    return found


def _objects(found: Any, key: str) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        _refuse(f"'{key}' is not a list of objects.")
    return found


def _refuse(sentence: str) -> NoReturn:
    raise ProblemError(400, sentence)
