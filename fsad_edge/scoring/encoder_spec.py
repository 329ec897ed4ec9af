"""What an encoder is: everything that is needed to build it again, apart from its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fsad_edge.errors import InputError, WeightsError
from fsad_edge.runtime.documents import Above, Range
from fsad_edge.runtime.files import exists, is_file

#: The fewest patches of an image: the score is the mean of the three worst patches.
MIN_PATCHES = 4


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that is needed to build an encoder again, apart from its weights.

    Attributes:
        architecture: timm's name for the network.
        indices: indices of the feature maps that are used.
        mean: mean of each channel, of pixels in 0 to 1.
        std: standard deviation of each channel, of pixels in 0 to 1.
        height: height of the input, pixels.
        width: width of the input, pixels.
        source: where the pretrained weights came from, in words.
        sha256: SHA-256 of the pretrained weights as they were loaded.
        arguments: further arguments of the network's constructor, such as the padding.
        final_norm: whether the network's last normalisation is applied to its maps (transformers).
        full_depth: whether the embedding of the whole image is of the network's full depth
            (:mod:`fsad_edge.training.full_depth`); otherwise it is the mean of the map.
    """

    architecture: Annotated[str, Range(1, 500)]
    indices: Annotated[list[Annotated[int, Range(-1000, 1000)]], Range(1, 100)]
    mean: Annotated[list[Annotated[float, Range(-1e3, 1e3)]], Range(3, 3)]
    std: Annotated[list[Annotated[float, Above(0), Range(1e-3, 1e3)]], Range(3, 3)]
    height: Annotated[int, Range(16, 16384)]
    width: Annotated[int, Range(16, 16384)]
    source: str
    sha256: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    final_norm: bool = False
    full_depth: bool = False


def check_weights_file(weights: Path | None) -> None:
    """Refuse a checkpoint that does not exist.

    Raises:
        WeightsError: names what ``--weights`` takes.
    """
    if weights is not None and not is_file(weights):
        why = "is not a file" if exists(weights) else "does not exist"
        raise WeightsError(f"{weights} {why}: --weights takes a .safetensors or .pth.")


def map_indices(reductions: list[int], strides: list[int], backbone: str) -> list[int]:
    """The index of the deepest feature map of each stride.

    Raises:
        InputError: the backbone has no map of a stride.
    """
    missing = [stride for stride in strides if stride not in reductions]
    if missing:
        raise InputError(
            f"{backbone} has no feature map at stride {missing[0]}: --strides takes "
            f"{_words(sorted(set(reductions)))} for it."
        )
    return [len(reductions) - 1 - reductions[::-1].index(stride) for stride in strides]


def _words(strides: list[int]) -> str:
    """Strides as ``--strides`` takes them: one, or several with commas between them."""
    if len(strides) == 1:
        return f"{strides[0]} alone"
    return f"one or several of {', '.join(map(str, strides))}"


def check_size(height: int, width: int, strides: list[int], backbone: str) -> None:
    """Refuse a size that the strides do not divide, or that gives too few patches.

    Raises:
        InputError: names the size to take.
    """
    step, finest = max(strides), min(strides)
    least = -(-2 * finest // step) * step  # of a side with two patches
    if height % step or width % step:
        raise InputError(
            f"--image-size {height} is not a multiple of {step}, the stride of {backbone}: "
            f"take {max(least, round(height / step) * step)}."
        )
    if len(set(strides)) < len(strides):
        raise InputError("--strides names a stride twice: name each once.")
    if (height // finest) * (width // finest) < MIN_PATCHES:
        raise InputError(
            f"--image-size {height} holds fewer than {MIN_PATCHES} patches of stride {finest}: "
            f"take {least} or more."
        )
