"""The gate that every image passes before its pixels are decoded.

It bounds the memory of all that is decoded at once in this process. Each image says from its header
what it takes at most (:mod:`fsad_edge.runtime.decode_cost`), and waits until that is free.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fsad_edge.errors import BusyError, ImageTooLargeError

#: The memory for decoding, in bytes, unless another is set. It takes each image of as many pixels
#: as are decoded at all, but for JPEG 2000.
MEMORY = 2 << 30

#: The part of the memory up to which an image is small.
SMALL_PART = 16

#: Images that wait for memory, above which one that waits for a limited time is refused at once.
MOST_WAITING = 8


@dataclass
class _Work:
    """What one thread does with an image.

    Attributes:
        patience: seconds that it waits for memory; None waits without a limit.
        least: bytes that its use takes, whatever decoding takes.
        held: bytes that it holds.
    """

    patience: float | None
    least: int
    held: int = 0


class DecodeGate:
    """Memory for decoding, lent in the order in which it is asked for; small images pass others.

    Args:
        memory: bytes for all images together.

    Attributes:
        ask: in a process that decodes for another one, asks that one for the bytes of an image, by
            their number and its name, before they are taken here; it raises as :meth:`admit`. None
            in any other process.

    Example:
        >>> gate = DecodeGate(1000)
        >>> with gate.working():  # keeps what is admitted in it until its end
        ...     with gate.admit(600, "a.png"):
        ...         pass
        ...     print(gate.free)
        400
        >>> gate.free
        1000
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._held = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()
        self._here = threading.local()
        self.ask: Callable[[int, str], None] | None = None

    @property
    def free(self) -> int:
        """Bytes that are not lent."""
        return self._memory - self._held

    @property
    def memory(self) -> int:
        """Bytes for all images together. What is lent stays lent when this is changed."""
        return self._memory

    @memory.setter
    def memory(self, memory: int) -> None:
        with self._changed:
            self._memory = memory
            self._changed.notify_all()

    @contextlib.contextmanager
    def working(self, patience: float | None = None, least: int = 0) -> Iterator[None]:
        """Keep the memory of what this thread decodes in the block until its end.

        A block around the decoding and the use of one image bounds both. Two images in one block
        are taken for one that is as large as the larger one.

        Args:
            patience: seconds to wait for memory; None waits until it is free.
            least: bytes that the use of the image takes, whatever decoding it takes.
        """
        if getattr(self._here, "work", None) is not None:  # the outer block keeps it
            yield
            return
        work = self._here.work = _Work(patience, least)
        try:
            yield
        finally:
            self._here.work = None
            self._give(work.held)

    @contextlib.contextmanager
    def admit(self, need: int, name: str) -> Iterator[None]:
        """Wait until there is memory for an image, and hold it while the block lasts.

        Args:
            need: bytes that it takes at most.
            name: of the image, for errors.

        Raises:
            ImageTooLargeError: it takes more than there is.
            BusyError: the memory did not become free in the time of :meth:`working`.
        """
        if need > self._memory:
            raise ImageTooLargeError(
                f"{name} takes up to {need >> 20:,} MB to decode, more than the "
                f"{self._memory >> 20:,} MB that there are for it: make it smaller or save it "
                "with 8 bits, or start the service with a larger --decode-memory-mb."
            )
        with self.working():
            work: _Work = self._here.work
            need = max(need, min(work.least, self._memory))
            if need > work.held:
                if self.ask is not None:
                    self.ask(need, name)
                # Who holds some already must not wait for others that may wait for it.
                self._take(need - work.held, work.patience, wait=not work.held)
                work.held = need
            yield

    def _take(self, size: int, patience: float | None, wait: bool) -> None:
        turn = object()
        with self._changed:
            if patience is not None and len(self._waiting) >= MOST_WAITING:
                raise _busy()
            self._waiting.append(turn)
            try:
                # A small image passes those that wait for much, which it delays by next to nothing.
                small = size <= self._memory // SMALL_PART
                if wait and not self._changed.wait_for(
                    lambda: (small or self._waiting[0] is turn) and size <= self.free, patience
                ):
                    raise _busy()
                self._held += size
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()

    def _give(self, size: int) -> None:
        with self._changed:
            self._held -= size
            self._changed.notify_all()


def _busy() -> BusyError:
    return BusyError("the memory for images is in use: try again.")


#: The gate of this process: its memory is that of all who decode in it.
GATE = DecodeGate(MEMORY)
