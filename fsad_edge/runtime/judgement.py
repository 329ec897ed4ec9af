"""When an image is not judged: it shows what the shots do not, and the model cannot know."""

from __future__ import annotations

from fsad_edge.options import Doubt
from fsad_edge.runtime.metadata import Judgement


def doubts_of(image_score: float, judgement: Judgement) -> tuple[Doubt, ...]:
    """Why an image is not judged; empty where it is.

    Args:
        image_score: its distance from the shots as a whole image.
        judgement: the bounds of the model file.
    """
    bound = judgement.image_score
    return (Doubt.UNLIKE,) if bound is not None and image_score > bound else ()
