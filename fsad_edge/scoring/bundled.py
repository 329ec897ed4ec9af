"""The encoders inside the package, as ONNX graphs that take images of any size.

The files hold weights in half precision, which is what the encoders were rounded to when they were
made; they are computed in single precision.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

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


@cache
def bundled_encoder(architecture: str) -> EncoderGraph | None:
    """A bundled encoder by timm's name; None where it is none of them.

    Example:
        >>> encoder = bundled_encoder("fsad_edge")
        >>> encoder.channels, encoder.stride, encoder.full_depth
        (96, 16, False)
    """
    return read_encoder(FILES[architecture].read_bytes()) if architecture in FILES else None
