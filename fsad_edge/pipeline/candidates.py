"""What there is to choose for a part: image sizes, strides and turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fsad_edge.errors import InputError

if TYPE_CHECKING:
    from fsad_edge.calibration.selection import Trial

#: Sizes that auto tries, pixels: each costs about twice what the one before it does.
SIZES = (224, 320, 448, 640)

#: The largest of them that is tried with stride 8 beside 16, pixels.
FINE = 448


def shapes_to_try(
    image_size: str, strides: str, rotations: str
) -> tuple[list[int], list[int] | None, list[int]]:
    """Sizes, strides (None: choose) and turns to try."""
    from fsad_edge.calibration.calibrate import ROTATIONS

    try:
        sizes = list(SIZES) if image_size == "auto" else [int(image_size)]
        wanted = None if strides == "auto" else [int(part) for part in strides.split(",")]
        steps = [1, ROTATIONS] if rotations == "auto" else [int(rotations)]
    except ValueError:
        raise InputError(
            "--image-size and --rotations take a number or auto, --strides numbers such as 8,16 or "
            f"auto; not '{image_size}', '{rotations}', '{strides}'."
        ) from None
    if not 32 <= min(sizes) <= max(sizes) <= 2048:
        raise InputError(f"--image-size is 32 to 2048 pixels, not {image_size}.")
    if not 1 <= min(steps) <= max(steps) <= 360:
        raise InputError(f"--rotations is 1 to 360 steps, not {rotations}.")
    return sizes, wanted, steps


def sizes_held(sizes: Sequence[int], photographs: Sequence[tuple[int, int]]) -> list[int]:
    """The sizes that have no more pixels than the photographs: the others would show nothing new.

    Args:
        sizes: in ascending order, of a square's side, pixels.
        photographs: width and height of each, pixels.

    Returns:
        those of them, the first at least.
    """
    pixels = statistics.median(width * height for width, height in photographs)
    return [sizes[0], *(size for size in sizes[1:] if size * size <= pixels)]


def candidates(
    sizes: Sequence[int], strides: list[int] | None, offered: Sequence[int]
) -> list[tuple[int, int, list[int]]]:
    """Height, width and strides to try, from the cheapest to the dearest."""
    if strides is not None:
        few = [size for size in sizes if size <= FINE or min(strides) >= 16]
        return [(size, size, strides) for size in few or sizes[:1]]
    coarse = max((stride for stride in offered if stride <= 32), default=min(offered))
    single = [16] if 16 in offered else [coarse]
    fitting = [size for size in sizes if size % single[0] == 0] or list(sizes[:1])
    shapes = [(size, size, single) for size in fitting]
    if len(fitting) > 1 and 8 in offered and single == [16]:
        # Small parts want a finer map, and pixels to fill it; yet more pixels would cost too much.
        side = max(size for size in fitting if size <= FINE)
        shapes.insert(fitting.index(side) + 1, (side, side, [8, 16]))
    return shapes


def choices(trials: Sequence[Trial], chosen: Trial) -> dict[str, str]:
    """What was chosen, and what else was tried."""
    rest = {
        "beside it" if place == 0 else " " * place: trial.words()
        for place, trial in enumerate(trial for trial in trials if trial != chosen)
    }
    return {"chosen": chosen.words(), **rest}
