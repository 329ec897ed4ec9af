"""The encoders inside the package, as ONNX graphs that take images of any size.

The files hold weights in half precision, which is what the encoders were rounded to when they were
made; they are computed in single precision.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from fsad_edge.errors import ModelFileError
from fsad_edge.options import BundledEncoder
from fsad_edge.runtime.encoder_names import NAMES, WHOLE_ENCODER
from fsad_edge.runtime.files import read_bytes, sha256
from fsad_edge.scoring.encoder_file import read_encoder
from fsad_edge.scoring.encoder_graph import EncoderGraph

#: The file of each, by timm's name.
FILES = {
    NAMES[BundledEncoder.FAST]: Path(__file__).with_name("edge_encoder_fast.onnx"),
    NAMES[BundledEncoder.ACCURATE]: Path(__file__).with_name("edge_encoder_accurate.onnx"),
    WHOLE_ENCODER: Path(__file__).with_name("edge_encoder_whole.onnx"),
}


def is_bundled(architecture: str, encoder: EncoderGraph) -> bool:
    """Whether an encoder is the bundled one of a name, to the last weight."""
    bundled = bundled_encoder(architecture)
    if bundled is None or bundled.graph.nodes != encoder.graph.nodes:
        return False
    known, given = bundled.graph.constants, encoder.graph.constants
    return known.keys() == given.keys() and all(
        np.array_equal(values, given[name]) for name, values in known.items()
    )


#: The SHA-256 of each, so that a damaged installation makes no models.
_SHA256 = {
    NAMES[BundledEncoder.FAST]: "0a83588b378b1b9437e8a2f17e1edba79e3a9d17e5b1fa845c13b428c148124d",
    NAMES[BundledEncoder.ACCURATE]: (
        "48af4e92b7a398da7d718c9c72aaa84e0b67c49a558488c40ae5b87a105d6a83"
    ),
    WHOLE_ENCODER: "2b04e4e0d74ee6a5c1af11468b2ee1cf72e6ddcdaea1e5f7f0150969851bbb8d",
}


@cache
def bundled_encoder(architecture: str) -> EncoderGraph | None:
    """A bundled encoder by timm's name; None where it is none of them.

    Raises:
        ModelFileError: its file in the package is missing or damaged.

    Example:
        >>> encoder = bundled_encoder("fsad_edge")
        >>> encoder.channels, encoder.stride, encoder.full_depth
        (96, 16, False)
    """
    if architecture not in FILES:
        return None
    cure = "install fsad-edge again"
    data = read_bytes(FILES[architecture], ModelFileError, cure)
    if sha256(data) != _SHA256[architecture]:
        raise ModelFileError(
            f"{FILES[architecture]} is not the file of this version (its SHA-256 differs): {cure}."
        )
    return read_encoder(data)
