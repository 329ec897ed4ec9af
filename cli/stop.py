"""What Ctrl-C, SIGTERM and the end of a terminal do. It is imported first, and imports little."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

#: Seconds that a command has to end after the first signal. Further ones are ignored for as long,
#: because they would disturb its clearing up; after that one more ends it at once.
PATIENCE = 2.0

#: The signals that stop a command, as far as the system has them.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Stop(threading.Event):
    """Set by Ctrl-C, by SIGTERM and by SIGHUP.

    An exception that is raised inside a callback of a library can be lost there, so long loops look
    here too.
    """

    number: int = signal.SIGINT
    since: float = 0.0

    @property
    def exit_code(self) -> int:
        """What a shell says of a command that this signal ended."""
        return 128 + self.number

    def say(self) -> int:
        """Say that the command was stopped; its exit code."""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
            sys.stderr.write("error: stopped before it was done.\n")
            sys.stderr.flush()
        return self.exit_code


stopped = Stop()


def _stop(number: int, frame: FrameType | None) -> None:
    if not stopped.is_set():
        stopped.number, stopped.since = number, time.monotonic()
        stopped.set()
        raise KeyboardInterrupt
    if time.monotonic() - stopped.since >= PATIENCE:
        os._exit(stopped.exit_code)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block at the first signal that stops a command."""
    # A command that was started with nohup goes on where its terminal is closed.
    wanted = [
        number
        for number in _SIGNALS
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN
    ]
    stopped.clear()
    before = [signal.signal(number, _stop) for number in wanted]
    show = sys.unraisablehook

    def show_others(lost: sys.UnraisableHookArgs) -> None:
        # Python tells of an exception that it can raise nowhere, as in a callback of its imports.
        if not (stopped.is_set() and lost.exc_type is KeyboardInterrupt):
            show(lost)

    sys.unraisablehook = show_others
    try:
        yield
    finally:
        if not stopped.is_set():
            sys.unraisablehook = show
        atexit.unregister(_finish)
        atexit.register(_finish)  # last, so that it is called first
        if stopped.is_set():
            # Python notes a KeyboardInterrupt that leaves code made of a text, as that of
            # dataclasses is, and ends as if nothing had caught it. Other such code clears the note.
            exec("")
        else:
            for number, handler in zip(wanted, before, strict=True):
                signal.signal(number, handler)


def _finish() -> None:
    """Let the interpreter end: all is done and said, and one more signal changes nothing."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
