"""The encoders inside the package, as ONNX graphs that take images of any size.

The files hold weights in half precision, which is what the encoders were rounded to when they were
made; they are computed in single precision.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from fsad_edge.options import BundledEncoder
from fsad_edge.runtime.encoder_names import NAMES, WHOLE_ENCODER
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


@cache
def bundled_encoder(architecture: str) -> EncoderGraph | None:
    """A bundled encoder by timm's name; None where it is none of them.

    Example:
        >>> encoder = bundled_encoder("fsad_edge")
        >>> encoder.channels, encoder.stride, encoder.full_depth
        (96, 16, False)
    """
    return read_encoder(FILES[architecture].read_bytes()) if architecture in FILES else None
