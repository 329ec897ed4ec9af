"""The last step of an export: golden images and metadata into the graph."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
from PIL import Image

from fsad_edge.runtime.images import load_resized
from fsad_edge.runtime.metadata import KEY, GoldenImage, Metadata

#: Golden images in a file.
GOLDEN_IMAGES = 2

#: Largest drift of a golden score on another machine. Kernels of other processors differ by 1e-5,
#: JPEG decoders by a grey level here and there; a wrong channel order or resize by far more.
GOLDEN_TOLERANCE = 1e-3

#: The same of fp16 and int8 graphs: another engine rounds elsewhere, by one step of 2^-11 or 2^-8.
REDUCED_TOLERANCE = 2e-2


def golden_images(
    paths: Sequence[Path],
    height: int,
    width: int,
    score: Callable[[bytes], float],
) -> list[GoldenImage]:
    """Encode a few shots and score them as any image is scored.

    They are JPEG and more than twice the model's size, so that every load tests decoding at a
    smaller scale and resizing too.

    Args:
        paths: of the shots.
        height: of the model's input, pixels.
        width: of the model's input, pixels.
        score: of encoded bytes, by the exported model.
    """
    golden = []
    for path in paths[:GOLDEN_IMAGES]:
        image = load_resized(path, height * 9 // 4, width * 9 // 4)
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=90)
        encoded = buffer.getvalue()
        golden.append(GoldenImage(path.name, encoded, score(encoded)))
    return golden


def set_metadata(model: onnx.ModelProto, metadata: Metadata) -> None:
    """Put the description into the model, in place of an older one, and name its producer."""
    model.producer_name = "fsad-edge"
    model.producer_version = json.dumps(metadata.versions)
    model.doc_string = "few-shot visual anomaly detection; see the metadata key fsad_edge"
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=metadata.to_json())
