"""Warnings about a user's normal images before they are worked on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fsad_edge.synthesis import Shot

#: More shots than this take long and add little.
MANY = 50


def warnings_about(shots: Sequence[Shot]) -> Iterator[str]:
    """What is odd about the shots as a whole, a sentence for each finding."""
    if len(shots) > MANY:
        yield (
            f"{len(shots)} images: more than about {MANY} take long and add little; the memory "
            "bank keeps what differs."
        )
    areas = [shot.size[0] * shot.size[1] for shot in shots]
    shapes = [shot.size[0] / shot.size[1] for shot in shots]
    if max(areas) > 4 * min(areas) or max(shapes) > 1.5 * min(shapes):
        small, large = (shots[areas.index(pick(areas))] for pick in (min, max))
        yield (
            "the shots differ much in size or shape "
            f"({small.path.name} is {small.size[0]}x{small.size[1]}, "
            f"{large.path.name} is {large.size[0]}x{large.size[1]}): all are stretched to one "
            "square, so photograph all parts in the same way where you can."
        )
    if len({shot.sha256 for shot in shots}) < len(shots):
        yield "some shots are the same file twice: they add nothing and make the threshold too low."
