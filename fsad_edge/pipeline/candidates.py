"""The encoders, image sizes and strides that ``finetune`` chooses among."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fsad_edge.errors import InputError
from fsad_edge.options import BundledEncoder, ScoreKind
from fsad_edge.pipeline.options import FinetuneOptions
from fsad_edge.runtime.encoder_names import bundled_name
from fsad_edge.scoring.tiles import LARGEST_WHOLE, is_tiled

#: Image sizes that are tried, pixels: each takes two to four times as long as the one before it. At
#: the last the encoder runs over tiles (:mod:`fsad_edge.scoring.tiles`).
SIZES = (224, 320, 448, 640, 1024, 2048)

#: The largest of them that is tried with strides 8 and 16 together, pixels.
LARGEST_FINE_SIZE = 448

#: An input that is no square has so many cells of the coarsest map along a side at least.
LEAST_CELLS = 4

#: How many times photographs smaller than a network's own size are enlarged for the image score. Of
#: CIFAR-10, 32 pixels, MobileNetV2 tells classes apart best when they are enlarged four times.
ENLARGED = 4.0

#: The stride of the last map of most networks.
WHOLE_STEP = 32


@dataclass(frozen=True)
class Shape:
    """One input size and the strides of the feature maps that are used.

    Attributes:
        side: side of the square input, pixels; of the square of about as many pixels, where it is
            none.
        strides: strides of the feature maps, pixels.
        aspect: width of the input over its height, as far as its sides can be whole strides.
    """

    side: int
    strides: tuple[int, ...]
    aspect: float = 1.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input, pixels."""
        if self.aspect == 1:
            return self.side, self.side
        step = math.lcm(*self.strides)
        stretch = math.sqrt(self.aspect)
        height, width = (
            max(LEAST_CELLS, round(side / step)) * step
            for side in (self.side / stretch, self.side * stretch)
        )
        if not is_tiled(self.side, self.side):
            while is_tiled(height, width):  # whole strides may be a few pixels more
                height, width = (height, width - step) if width > height else (height - step, width)
        return height, width


def encoders_to_try(options: FinetuneOptions) -> list[str]:
    """timm's names of the encoders to try, from the fastest to the slowest.

    Args:
        options: the user's choices.
    """
    if options.backbone is not None:
        return [options.backbone]
    if options.weights is not None:
        return [bundled_name(options.encoder or BundledEncoder.FAST)]
    if options.score is ScoreKind.IMAGE:
        return [bundled_name(BundledEncoder.FAST)]  # the only one with full depth
    kinds = list(BundledEncoder) if options.encoder is None else [options.encoder]
    return [bundled_name(kind) for kind in kinds]


def check_trainable(options: FinetuneOptions) -> None:
    """Refuse to train the whole encoder on images that it only sees in tiles.

    Raises:
        InputError: names the option to leave out.
    """
    size = options.image_size
    if options.epochs and size is not None and is_tiled(size, size):
        raise InputError(
            f"--epochs {options.epochs} trains the whole encoder, on at most {LARGEST_WHOLE} "
            f"pixels, and --image-size is {size}: leave one of them out."
        )


def sizes_to_try(
    image_size: int | None, photographs: Sequence[tuple[float, float]], enlarged: float = 1.0
) -> list[int]:
    """The image sizes to try, ascending.

    A size with more pixels than the photographs have is left out, unless the user asks for it: an
    enlarged photograph shows nothing new. A part that was cut out may be enlarged, but not to a
    size that takes tiles: its patches are then as fine as those of a larger photograph of it.

    Args:
        image_size: the side that the user asks for, pixels; None chooses.
        photographs: width and height of what the model looks at in each shot, pixels.
        enlarged: how many times as long the sides may be as those of what the model looks at.
    """
    if image_size is not None:
        return [image_size]
    pixels = statistics.median(width * height for width, height in photographs)

    def most(size: int) -> float:
        return pixels if is_tiled(size, size) else enlarged**2 * pixels

    return [SIZES[0], *(size for size in SIZES[1:] if size * size <= most(size))]


def size_for_whole_objects(photographs: Sequence[tuple[float, float]], trained: int) -> int:
    """The image size at which a network tells whole objects apart, a multiple of ``WHOLE_STEP``.

    It is the size at which the network was trained. Small photographs are enlarged ``ENLARGED``
    times at most: what a network sees in more blurred ones is the blur.

    Args:
        photographs: width and height of each shot, pixels.
        trained: side at which the network was trained, pixels.

    Example:
        >>> size_for_whole_objects([(32, 32)], 224), size_for_whole_objects([(640, 480)], 224)
        (128, 224)
    """
    pixels = statistics.median(width * height for width, height in photographs)
    side = min(trained, int(ENLARGED * math.sqrt(pixels)))
    return max(side // WHOLE_STEP, 2) * WHOLE_STEP


def shapes_to_try(
    sizes: Sequence[int],
    strides: Sequence[int] | None,
    offered: Sequence[int],
    aspect: float = 1.0,
) -> list[Shape]:
    """Input sizes and strides to try, from the fastest to the slowest.

    Args:
        sizes: sides of the input, ascending, pixels.
        strides: the strides that the user asks for; None chooses.
        offered: the strides that the backbone has, ascending.
        aspect: width of the input over its height.
    """
    shapes = _square_shapes(sizes, strides, offered)
    return [replace(shape, aspect=aspect) for shape in shapes]


def _square_shapes(
    sizes: Sequence[int], strides: Sequence[int] | None, offered: Sequence[int]
) -> list[Shape]:
    if strides is not None:
        few = [size for size in sizes if size <= LARGEST_FINE_SIZE or min(strides) >= 16]
        return [Shape(size, tuple(strides)) for size in few or sizes[:1]]
    coarse = max((stride for stride in offered if stride <= 32), default=min(offered))
    single = 16 if 16 in offered else coarse
    fitting = [size for size in sizes if size % single == 0] or list(sizes[:1])
    shapes = [Shape(size, (single,)) for size in fitting]
    if len(fitting) > 1 and 8 in offered and single == 16:
        # Small parts need a finer map, and pixels to fill it; still more pixels would be too slow.
        side = max(size for size in fitting if size <= LARGEST_FINE_SIZE)
        shapes.insert(fitting.index(side) + 1, Shape(side, (8, 16)))
    return shapes
