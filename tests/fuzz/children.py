"""Work in a child process with limits on its time and memory, and how that work ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import resource
import selectors
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsad_edge.errors import FsadEdgeError
from tests.fuzz.outcomes import Outcome, Verdict

#: Address space of a child in bytes.
ADDRESS_SPACE = 3 << 30

#: Bytes by which a child may grow: what one image of the largest size may take.
GROWTH = 1 << 30

#: Seconds of processor time after which an answer is late. A machine that does other things too
#: adds to the time on the clock and not to these.
LATE = 5.0

#: Seconds on the clock after which a child hangs.
PATIENCE = 20.0

#: The user without rights, as whom a child runs where the superuser runs the attacks: what it
#: writes can hit nothing but the attacks' own folder.
NOBODY = 65534


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        value: what the job returned; None where it did not return.
        fault: what went wrong instead; None where it returned.
        seconds: processor time.
        grown: bytes by which it grew at most.
        output: its standard output and error.
    """

    value: Any
    fault: Verdict | None
    seconds: float
    grown: int
    output: str

    def verdict(self, judge: Callable[[Any], Verdict]) -> Verdict:
        """The outcome: of its limits, else of ``judge`` by what it returned."""
        if self.fault is not None and self.fault.outcome is not Outcome.REFUSED:
            return self.fault
        if self.seconds > LATE:
            return Verdict(Outcome.HUNG, f"it took {self.seconds:.1f} s of processor time")
        if self.grown > GROWTH:
            return Verdict(Outcome.MEMORY, f"it took {self.grown / 1e6:,.0f} MB")
        return judge(self.value) if self.fault is None else self.fault


def die_with_parent() -> None:
    """Let the calling process end when the one that started it does (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def drop_rights() -> None:
    """Become a user who may read everything and owns nothing, where the superuser runs this."""
    if os.getuid() != 0:
        return
    keep_capabilities, version, read_search = 8, 0x20080522, 1 << 2  # prctl(2), capabilities(7)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(keep_capabilities, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    header = (ctypes.c_uint32 * 2)(version, 0)
    sets = (ctypes.c_uint32 * 6)(read_search, read_search, 0, 0, 0, 0)
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "the rights of a child cannot be reduced")
    die_with_parent()  # another user's process has forgotten it


def limit_memory(size: int = ADDRESS_SPACE) -> None:
    """Limit the address space of the calling process; it leaves no core file."""
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def in_child(
    job: Callable[[], Any], patience: float = PATIENCE, started: Callable[[int], None] | None = None
) -> Ended:
    """Do a job in a child of this process.

    Args:
        job: returns something that can be pickled.
        patience: seconds on the clock after which it is killed, with all its children.
        started: is called with the child's number, in this process.
    """
    before = _resident()
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as output:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _be_child(job, writing, output.fileno())
        os.close(writing)
        data, in_time = b"", True
        try:
            if started is not None:
                started(child)
            data, in_time = _read(reading, patience)
        finally:
            os.close(reading)
            if not in_time or not data:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)
        output.seek(0)
        said = output.read(1 << 20).decode("utf-8", "backslashreplace")
    seconds, grown = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 - before
    if not in_time:
        fault = Verdict(Outcome.HUNG, f"no end after {patience:.0f} s; {said[-300:]}")
        return Ended(None, fault, seconds, grown, said)
    if not data:
        how = f"the process died ({os.waitstatus_to_exitcode(status)}); {said[-800:]}"
        return Ended(None, Verdict(Outcome.TRACEBACK, how), seconds, grown, said)
    value, fault = pickle.loads(data)
    return Ended(value, fault, seconds, grown, said)


def _be_child(job: Callable[[], Any], writing: int, output: int) -> None:
    """What the child does; it never returns."""
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent()
        limit_memory()
        os.dup2(output, 1)
        os.dup2(output, 2)
        try:
            found: tuple[Any, Verdict | None] = (job(), None)
        except FsadEdgeError as error:
            found = (None, Verdict(Outcome.REFUSED, str(error)))
        except MemoryError:
            found = (None, Verdict(Outcome.MEMORY, traceback.format_exc(-3)))
        except BaseException:
            found = (None, Verdict(Outcome.TRACEBACK, traceback.format_exc(-3)))
        sys.stdout.flush()
        sys.stderr.flush()
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(found, pipe)
    finally:
        os._exit(0)


def _read(reading: int, patience: float) -> tuple[bytes, bool]:
    """All that a child writes, and whether it closed the pipe in time."""
    end, data = time.monotonic() + patience, b""
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, end - time.monotonic())):
                return data, False
            piece = os.read(reading, 1 << 20)
            if not piece:
                return data, True
            data += piece


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
