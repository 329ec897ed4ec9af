"""What an exported file holds beside its graph: the description, the reference model, the seal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsad_edge.errors import ModelFileError
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.bank import REJECTED_ROWS, ReferenceModel, why_no_weights
from fsad_edge.runtime.engine_file import cure_of
from fsad_edge.runtime.folders import is_image
from fsad_edge.runtime.metadata import KEY, Metadata
from fsad_edge.runtime.onnx_file import read_initializers, read_metadata, replace
from fsad_edge.runtime.own_pictures import HEAD
from fsad_edge.runtime.seal import check_seal, sealed

#: Names of the graph's inputs for the reference model: those that compare images place by place,
#: which a graph has or not; the others; and all. Graphs of earlier versions lack the weights, too.
PLACES = ("place_bank", "place_projection", "place_scale")
REFERENCE_INPUTS = tuple(one for one in ReferenceModel.__dataclass_fields__ if one not in PLACES)
ALL_REFERENCE_INPUTS = (*REFERENCE_INPUTS, *PLACES)
WEIGHTS = "weights"


@dataclass(frozen=True)
class ModelFile:
    """An ONNX file after it was read and checked.

    Attributes:
        document: its description of itself, one JSON object.
        metadata: the same document, parsed.
        reference: the reference model, the defaults of the graph's inputs.
        sealed: whether it has a seal, which fits it then.
    """

    document: str
    metadata: Metadata
    reference: ReferenceModel
    sealed: bool


def read_model_file(data: bytes, source: str) -> ModelFile:
    """Read and check the bytes of an ONNX file that ``fsad-edge export`` wrote.

    Args:
        data: all of the file.
        source: where it came from, for the error's sentence.

    Raises:
        ModelFileError: the file is damaged, newer than this version, or not one of this project.
    """
    cure = _cure(source)
    if not data:
        raise ModelFileError(f"{source} is empty: {cure}.")
    has_seal = check_seal(data, source)
    try:
        document = read_metadata(data).get(KEY)
        arrays = read_initializers(data, ALL_REFERENCE_INPUTS)
    except ModelFileError as error:
        if is_image(data[:HEAD]):
            raise ModelFileError(
                f"{source} is an image and not a model file: the model file comes first, then the "
                "images."
            ) from error
        reason = str(error).partition(":")[0]
        raise ModelFileError(
            f"{source} is not a model file, or damaged ({reason}): {cure}."
        ) from error
    if document is None:
        raise ModelFileError(
            f"{source} is an ONNX file, but not one that  fsad-edge export  wrote."
        )
    metadata = Metadata.from_json(document, source)
    return ModelFile(document, metadata, to_reference(arrays, metadata, source, cure), has_seal)


def _cure(source: str) -> str:
    """What to do about a damaged file, for the end of an error's sentence, by its name."""
    is_engine = Path(source).suffix.lower() == ".engine"
    return cure_of(source) if is_engine else "export it again"


def write_model_file(graph: bytes, metadata: Metadata) -> bytes:
    """The bytes of a graph's file with another description of itself, and with a seal.

    Raises:
        ModelFileError: the bytes of the graph are damaged.
    """
    return sealed(replace(graph, {}, {KEY: metadata.to_json()}))


def to_reference(
    arrays: Mapping[str, Float32Array], metadata: Metadata, source: str, cure: str
) -> ReferenceModel:
    """The reference model of a file, checked.

    Args:
        arrays: its arrays by name.
        metadata: what the file says of itself.
        source: where they came from, for the error's sentence.
        cure: what to do about it, for the end of the sentence.

    Raises:
        ModelFileError: an array is missing, not of finite numbers, or of a shape that does not fit
            the others; or the bank does not hold as many rows as the file says, or the weights are
            not of a map as it says.
    """
    reference = check_arrays(arrays, source, cure)
    if reference.rows != metadata.bank_rows:
        raise ModelFileError(
            f"{source} is damaged (bank_rows is {metadata.bank_rows}, and 'bank' holds "
            f"{reference.rows} rows): {cure}."
        )
    origins = metadata.origins
    if origins is not None and len(origins.row_shots) != reference.rows:
        raise ModelFileError(
            f"{source} is damaged ('origins' is of {len(origins.row_shots)} rows, and 'bank' holds "
            f"{reference.rows}): {cure}."
        )
    kept, weights = metadata.left_out, reference.weights
    if kept is not None and (weights is None or len(weights) != kept.rows * kept.columns):
        raise ModelFileError(
            f"{source} is damaged (left_out is of maps of {kept.rows} x {kept.columns} cells, and "
            f"'{WEIGHTS}' holds {0 if weights is None else len(weights)}): {cure}."
        )
    return reference


def check_arrays(arrays: Mapping[str, Float32Array], source: str, cure: str) -> ReferenceModel:
    """Arrays by name as a reference model; takes and raises what :func:`to_reference` does."""
    for name in ALL_REFERENCE_INPUTS:
        if name not in arrays:
            if name == WEIGHTS or (name in PLACES and not set(PLACES) & set(arrays)):
                continue
            raise ModelFileError(f"{source} holds no '{name}': {cure}.")
        if not np.isfinite(arrays[name]).all():
            raise ModelFileError(
                f"{source} is damaged ('{name}' holds values that are no finite numbers): {cure}."
            )
    capacity, depth = (*arrays["bank"].shape, 0, 0)[:2]
    (length,) = (*arrays["gaussian_mean"].shape, 0)[:1]
    cells = arrays[WEIGHTS].size if WEIGHTS in arrays else 0
    expected = {
        "bank": (capacity, depth),
        "bank_bias": (capacity,),
        "gaussian_mean": (length,),
        "gaussian_whitening": (length, length),
        "projection": (depth, depth),
        "rejected": (REJECTED_ROWS, depth),
        "rejected_bias": (REJECTED_ROWS,),
        **({WEIGHTS: (cells,)} if WEIGHTS in arrays else {}),
        **_shapes_of_places(arrays, depth),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape or 0 in shape:
            raise ModelFileError(
                f"{source} is damaged ('{name}' is of shape {list(arrays[name].shape)}, which does "
                f"not fit the others): {cure}."
            )
    weights = arrays.get(WEIGHTS)
    why_not = None if weights is None else why_no_weights(weights)
    if why_not is not None:
        raise ModelFileError(f"{source} is damaged ({why_not}): {cure}.")
    return ReferenceModel(**{name: arrays[name] for name in ALL_REFERENCE_INPUTS if name in arrays})


def _shapes_of_places(arrays: Mapping[str, Float32Array], depth: int) -> dict[str, tuple[int, ...]]:
    """The shapes that the arrays of places must have; empty where there are none."""
    if PLACES[0] not in arrays:
        return {}
    places, rows = (*arrays[PLACES[0]].shape, 0, 0)[:2]
    return dict(zip(PLACES, ((places, rows, depth), (depth, depth), (places,)), strict=True))
