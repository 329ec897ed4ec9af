"""What a job tells its caller while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far one stage of a job is.

    Attributes:
        stage: what is being done, in a few words; a job has several stages, one after another.
        fraction: how much of the stage is done, 0 to 1; None where that cannot be told.
        note: a detail to show next to it, such as the loss.
    """

    stage: str
    fraction: float | None = None
    note: str = ""


#: Called with each step of a job. An exception that it raises, KeyboardInterrupt for instance,
#: stops the job; nothing is written then, but the first model of ``finetune`` stays.
OnProgress = Callable[[Progress], None]

#: Called with each warning, one sentence. The job's result lists them too.
OnWarning = Callable[[str], None]


def ignore_progress(progress: Progress) -> None:
    """The default for ``on_progress``: shows nothing."""


def ignore_warning(sentence: str) -> None:
    """The default for ``on_warning``: shows nothing."""
