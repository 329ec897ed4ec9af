"""Golden images: a few shots inside the model file with the scores that every load must get.

They prove that an engine computes on this machine what it computed where the model was made.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fsad_edge.errors import GoldenImageError, ImageError, ModelFileError
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.images import load_resized

#: Golden images in a file.
GOLDEN_IMAGES = 2

#: Largest difference of a golden score on another machine, relative to the larger of the score and
#: the threshold. Kernels of other processors differ by 1e-5, JPEG decoders by a grey level here and
#: there; a wrong channel order or resize differs by far more.
FP32_TOLERANCE = 1e-3

#: The same of fp16 and int8 graphs: another engine rounds elsewhere, by one step of 2^-11 or 2^-8.
REDUCED_TOLERANCE = 2e-2


@dataclass(frozen=True)
class GoldenImage:
    """An encoded image and the score that every load must get for it.

    Attributes:
        name: file name of the shot that it was made from.
        image: encoded bytes, at a size that is not the model's.
        score: what the exporting runtime got.
    """

    name: str
    image: bytes
    score: float


def make_golden_images(
    paths: Sequence[Path], height: int, width: int, score: Callable[[bytes], float]
) -> list[GoldenImage]:
    """Encode a few shots and score them as any image is scored.

    They are JPEG and more than twice the model's size, so that every load tests decoding at a
    smaller scale and resizing too.

    Args:
        paths: the shots' files.
        height: height of the model's input, pixels.
        width: width of the model's input, pixels.
        score: gives the exported model's score of encoded bytes.
    """
    golden = []
    for path in paths[:GOLDEN_IMAGES]:
        image = load_resized(path, height * 9 // 4, width * 9 // 4)
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=90)
        encoded = buffer.getvalue()
        golden.append(GoldenImage(path.name, encoded, score(encoded)))
    return golden


def check_golden_images(
    golden_images: Sequence[GoldenImage],
    size: tuple[int, int],
    score: Callable[[UInt8Array], float],
    threshold: float,
    tolerance: float,
    provider: str,
) -> None:
    """Score golden images and compare with the scores on record.

    Args:
        golden_images: from the model's metadata.
        size: height and width of the model's input, pixels.
        score: gives the score of an image uint8 ``[H, W, 3]`` at that size.
        threshold: the file's own; differences are relative to it where a score is smaller.
        tolerance: the largest relative difference that is accepted.
        provider: what runs the model, for the error's sentence.

    Raises:
        GoldenImageError: a score differs from the one on record.
        ModelFileError: a golden image cannot be decoded.
    """
    for golden in golden_images:
        try:
            found = score(load_resized(golden.image, *size))
        except ImageError as error:
            reason = str(error).removeprefix("the image ").removesuffix(".")
            raise ModelFileError(
                f"golden image {golden.name} of the model {reason}: export it again."
            ) from error
        difference = abs(found - golden.score) / max(abs(golden.score), threshold)
        if not difference <= tolerance:
            raise GoldenImageError(
                f"golden image {golden.name} scores {found:.6g} here and {golden.score:.6g} where "
                f"the model was made ({provider}): do not trust this model on this machine; run  "
                "fsad-edge doctor  and export again."
            )
