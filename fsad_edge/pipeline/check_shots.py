"""What the commands say of a user's normal images before they work on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fsad_edge.cli.console import warn

if TYPE_CHECKING:
    from fsad_edge.synthesis import Shot


def warn_of_shots(shots: Sequence[Shot]) -> None:
    """Say what is odd about the shots as a whole."""
    if len(shots) > 50:
        warn(
            f"{len(shots)} images: more than about 50 take long and add little; the memory bank "
            "keeps what differs."
        )
    areas = [shot.size[0] * shot.size[1] for shot in shots]
    shapes = [shot.size[0] / shot.size[1] for shot in shots]
    if max(areas) > 4 * min(areas) or max(shapes) > 1.5 * min(shapes):
        small, large = (shots[areas.index(pick(areas))] for pick in (min, max))
        warn(
            "the shots differ much in size or shape "
            f"({small.path.name} is {small.size[0]}x{small.size[1]}, "
            f"{large.path.name} is {large.size[0]}x{large.size[1]}): all are stretched to "
            "one square, so photograph parts alike where you can."
        )
    if len({shot.sha256 for shot in shots}) < len(shots):
        warn("some shots are the same file twice: they add nothing and make the threshold too low.")
