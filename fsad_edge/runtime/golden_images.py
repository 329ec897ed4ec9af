"""Golden images: a few shots inside the model file, with the scores that every load must get.

They prove that an engine computes the same on this machine as where the model was made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fsad_edge.errors import GoldenImageError, ImageError, ModelFileError
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.documents import Range
from fsad_edge.runtime.preparation import Preparation

#: The number of golden images in a file.
GOLDEN_IMAGES = 2

#: Largest difference of a golden score on another machine, relative to the larger of the score and
#: a usual one. Kernels of other processors differ by 1e-5, JPEG decoders by a grey level here and
#: there; a wrong channel order or a wrong resize differs by far more.
FP32_TOLERANCE = 1e-3

#: The same for fp16 and int8 graphs: engines round at different places, by a step of 2^-11 or 2^-8.
REDUCED_TOLERANCE = 2e-2


@dataclass(frozen=True)
class GoldenImage:
    """An encoded image and the score that every load must get for it.

    Attributes:
        name: file name of the shot that it was made from.
        image: the encoded image, larger than the model's input.
        score: its score where the model was exported.
    """

    name: str
    image: bytes
    score: Annotated[float, Range(0, 1e12)]


def make_golden_images(
    paths: Sequence[Path],
    preparation: Preparation,
    score: Callable[[bytes], float],
) -> list[GoldenImage]:
    """Encode a few shots and score them as any image is scored.

    They become JPEGs that are larger than the model needs them, so that every load also tests
    decoding at a smaller scale, finding the part and resizing.

    Args:
        paths: the shots' files.
        preparation: how photographs are brought to the model's size; a golden image has 8 bits.
        score: returns the exported model's score of an encoded image.

    Example:
        >>> from pathlib import Path
        >>> from fsad_edge.runtime.preparation import Preparation
        >>> preparation = Preparation(height=64, width=64)
        >>> (golden,) = make_golden_images([Path(photograph)], preparation, lambda image: 0.1)
        >>> golden.score
        0.1
    """
    golden = []
    for path in paths[:GOLDEN_IMAGES]:
        encoded = preparation.golden_image(path)
        golden.append(GoldenImage(path.name, encoded, score(encoded)))
    return golden


def check_golden_images(
    golden_images: Sequence[GoldenImage],
    preparation: Preparation,
    score: Callable[[UInt8Array], float],
    usual: float,
    tolerance: float,
    provider: str,
) -> None:
    """Score golden images and compare the scores with the recorded ones.

    Args:
        golden_images: the golden images of the model's metadata.
        preparation: how photographs are brought to the model's size.
        score: returns the score of an image, uint8 ``[H, W, 3]`` at that size.
        usual: a score as good parts have it; differences are relative to it where a score is
            smaller.
        tolerance: the largest relative difference that is accepted.
        provider: what runs the model, for the error's sentence.

    Raises:
        GoldenImageError: a score differs from the recorded one.
        ModelFileError: a golden image cannot be decoded.
    """
    for golden in golden_images:
        try:
            found = score(preparation.load(golden.image).pixels)
        except ImageError as error:
            reason = str(error).removeprefix("the image ").removesuffix(".")
            raise ModelFileError(
                f"golden image {golden.name} of the model {reason}: export it again."
            ) from error
        difference = abs(found - golden.score) / max(abs(golden.score), usual)
        if not difference <= tolerance:
            raise GoldenImageError(
                f"golden image {golden.name} scores {found:.6g} here and {golden.score:.6g} where "
                f"the model was made ({provider}): do not trust this model on this machine; run  "
                "fsad-edge doctor  and export again."
            )
