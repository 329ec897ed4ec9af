"""Talking to people and to programs.

What takes long to import is imported inside the functions: a device waits for it at every start.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from fsad_edge.cli.stop import stopped
from fsad_edge.errors import FsadEdgeError, NotNormalError
from fsad_edge.runtime.plain_text import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from fsad_edge.pipeline.events import OnProgress
    from fsad_edge.pipeline.events import Progress as Event
    from fsad_edge.runtime.folders import Skipped

#: Exit codes. Where several fit, an error goes before an anomaly, and that before an image that is
#: not judged.
GOOD, ANOMALY, ERROR, NOT_JUDGED, STOPPED = 0, 1, 2, 3, 130


#: How often a stage that takes long says how far it is, where there is no terminal.
SECONDS_BETWEEN_LINES = 30.0


class PlainConsole(Console):
    """A console for text of others: none of it is markup, and no character of it does anything."""

    def print(self, *objects: Any, **settings: Any) -> None:
        """Print each text in one line; a Rich object prints as it is."""
        shown = [printable(one) if isinstance(one, str) else one for one in objects]
        super().print(*shown, **{"markup": False, **settings})


out = PlainConsole(highlight=False, emoji=False, soft_wrap=True)
#: Progress, warnings and errors: standard output is for results.
err = PlainConsole(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def fail(sentence: str) -> None:
    """Print an error."""
    err.print(f"error: {sentence}", style="red")


def words_of(error: FsadEdgeError) -> str:
    """What an error says, with the option where the thing can be forced."""
    forcible = isinstance(error, NotNormalError) and "force it" in str(error)
    return f"{error} The option is --force." if forcible else str(error)


def warn(sentence: str) -> None:
    """Print a warning."""
    err.print(f"warning: {sentence}", style="yellow")


def exit_code(anomalies: int, not_judged: int) -> int:
    """The exit code where all images could be looked at, by the numbers of those not good."""
    if anomalies:
        return ANOMALY
    return NOT_JUDGED if not_judged else GOOD


def counted(number: int, word: str, plural: str = "") -> str:
    """A number with its word, such as ``1 image`` and ``2 images``."""
    return f"{number} {word if number == 1 else plural or word + 's'}"


def tell_unseen(skipped: Sequence[Skipped], meant: bool) -> None:
    """Say why a command fails, where files were not looked at and that was not asked for."""
    from fsad_edge.runtime.folders import describe

    unseen = [one for one in skipped if one.unseen]
    if unseen and not meant:
        fail(
            f"some files were not looked at ({describe(unseen)}): convert them, or add "
            "--skip-unreadable if that is meant."
        )


def print_json(document: Any) -> None:
    """Print one JSON document, and nothing else, on standard output."""
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")


def print_facts(facts: dict[str, str]) -> None:
    """Print names and values in two columns."""
    width = max(map(len, facts))
    for name, value in facts.items():
        out.print(f"  {name:<{width}}  {value}")


def progress_bar() -> Progress:
    """A bar that shows what is being done, how far it is and how long it will take."""
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
    )


class _StageLines:
    """A job's progress in a file or a pipe: a line for each stage, and one a while in long ones."""

    def __init__(self) -> None:
        self._stage, self._note, self._since, self._said = "", "", 0.0, 0.0

    def show(self, event: Event) -> None:
        """Say that the stage before is done, or how far a long one is."""
        now = time.monotonic()
        if event.stage != self._stage:
            self.end()
            self._stage, self._since, self._said = event.stage, now, now
        elif now - self._said >= SECONDS_BETWEEN_LINES and (event.fraction or 0) < 1:
            self._said = now
            done = "" if event.fraction is None else f"{event.fraction:.0%} "
            took = f"{now - self._since:.0f} s{_in_brackets(event.note)}"
            self._print(f"{event.stage}: {done}after {took}")
        self._note = event.note

    def end(self) -> None:
        """Say that the last stage is done."""
        if self._stage:
            took = f"{time.monotonic() - self._since:.1f} s{_in_brackets(self._note)}"
            self._print(f"{self._stage}: {took}")

    def _print(self, line: str) -> None:
        err.print(line)


def _in_brackets(note: str) -> str:
    return f" ({note})" if note else ""


@contextlib.contextmanager
def shown_progress() -> Iterator[OnProgress]:
    """Show a bar for each stage of a job, or lines where nobody sees bars move.

    Ctrl-C stops the job at its next step.
    """
    if err.is_terminal:
        with _shown_bars() as show_bars:
            yield show_bars
        return
    lines = _StageLines()

    def show(event: Event) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        lines.show(event)

    yield show
    lines.end()


@contextlib.contextmanager
def _shown_bars() -> Iterator[OnProgress]:
    tasks: dict[str, TaskID] = {}

    def show(event: Event) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        if event.stage not in tasks:
            for task in tasks.values():  # the stages before it are done
                bar.update(task, total=1.0, completed=1.0)
            tasks[event.stage] = bar.add_task(event.stage, total=None, note="")
        total, note = None if event.fraction is None else 1.0, printable(event.note)
        bar.update(tasks[event.stage], total=total, completed=event.fraction or 0, note=note)

    with progress_bar() as bar:
        yield show
