"""The choices that options offer, as enums: a command lists their values in ``--help``."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from fsad_edge.errors import InputError

#: More threads than any machine that is meant has cores; an engine starts as many as are asked for.
MAX_THREADS = 256

#: The rates of false alarms that can be asked for.
LEAST_RATE, MOST_RATE = 1e-6, 0.5


#: More workers than any cluster that is meant has cores for.
MAX_WORKERS = 4096


class Choice(str, Enum):
    """A choice among fixed words; a member is equal to its word and prints as it."""

    def __str__(self) -> str:
        return str(self.value)


class BundledEncoder(Choice):
    """The encoders inside the package: each takes more time than the one before it."""

    FAST = "fast"
    ACCURATE = "accurate"


class Provider(Choice):
    """What runs a model: ONNX Runtime's execution providers, or the best that is there."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


class Precision(Choice):
    """The number format of the exported encoder."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Target(Choice):
    """The engine that an int8 graph is written for: each wants its quantisation nodes elsewhere."""

    CPU = "cpu"
    TENSORRT = "tensorrt"


class ScoreKind(Choice):
    """The score that decides: of the worst patches, or of the whole image (COFT-AD)."""

    PATCH = "patch"
    IMAGE = "image"


class Turning(Choice):
    """Why shots go into the memory bank turned, so that turned parts count as good, or do not."""

    ASKED = "asked"
    ONE_SHOT = "one_shot"  # which cannot show at which angles parts lie: not turned
    NEARER = "nearer"  # a shot is nearer to the others where they are turned: turned
    NO_NEARER = "no_nearer"  # not turned
    UPRIGHT = "upright"  # each part is found and turned upright before: not turned
    WHOLE = "whole"  # whole objects are told apart as photographed: not turned


class Decision(Choice):
    """What is said of one image; ``error`` where it cannot be read."""

    GOOD = "good"
    ANOMALY = "anomaly"
    NOT_JUDGED = "not_judged"  # the model has no business deciding: see :class:`Doubt`
    ERROR = "error"

    @property
    def words(self) -> str:
        """The decision for people."""
        return self.value.replace("_", " ")


class Doubt(Choice):
    """Why an image is not judged."""

    UNLIKE = "unlike"  # it shows something else than the shots
    BLACK = "black"
    WHITE = "white"
    FLAT = "flat"
    DARK = "dark"
    BRIGHT = "bright"
    BLURRED = "blurred"
    NOISY = "noisy"
    SHAPE = "shape"  # its width and height are in another proportion than the shots'
    SIZE = "size"  # it has far fewer pixels than the shots
    NOT_FOUND = "not_found"  # the part is not found in it, or not as one whole part


class ComparePlaces(Choice):
    """Whether images are compared with the shots place by place."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Locate(Choice):
    """Whether the part is looked for in a photograph, so that the model looks at it alone."""

    AUTO = "auto"  # where the shots say that it can be found and that it pays
    OFF = "off"
    BOX = "box"  # always, and never turned


class HeatScale(Choice):
    """The colours of a heat map."""

    THRESHOLD = "threshold"  # what is near the threshold and above it
    NEAR = "near"  # also what lies well below it, in other colours


class Device(Choice):
    """What ``finetune`` computes on: what torch trains on, and where ONNX Runtime runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class TritonDevice(Choice):
    """What Triton runs a model on; ``auto`` leaves it to Triton, which takes the GPUs it finds."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"
    TENSORRT = "tensorrt"


class MaskMeaning(Choice):
    """How masks are meant that would be refused otherwise, because they could be misread."""

    INVERTED = "inverted"  # the defect is black and the rest is white
    LARGE = "large"  # a mask may mark more than half of its image
    SCALED = "scaled"  # a mask of another size but the image's shape is its image, resized


C = TypeVar("C", bound=Choice)


def to_choice(kind: type[C], value: C | str, option: str) -> C:
    """A member of an enum from its word.

    Args:
        kind: the enum.
        value: a member, or its word.
        option: what the user calls it, for the error's sentence.

    Raises:
        InputError: the enum has no such word.

    Example:
        >>> to_choice(Precision, "int8", "precision")
        <Precision.INT8: 'int8'>
    """
    try:
        return kind(value)
    except (ValueError, TypeError):  # an array is compared to each member by its own rules
        known = ", ".join(kind)
        raise InputError(f"there is no {option} '{value!s:.80}': take one of {known}.") from None
