"""Processes that prepare images, each for one thread of the service at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from multiprocessing import Pipe

from fsad_edge.errors import FsadEdgeError, ImageError
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.serve import image_preparation
from fsad_edge.serve.image_preparation import PreparedImage

log = logging.getLogger("fsad_edge.serve")

#: Seconds in which a process must end when its connection is closed.
END_SECONDS = 5.0


#: What a process runs. It imports its module by name, so that both ends know its classes.
PROGRAM = f"from {image_preparation.__name__} import main; main()"


class EndedError(Exception):
    """A process has ended while it prepared an image."""


class PreparingProcess:
    """A process that prepares one image at a time.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        self._has_begun = False
        # Its arithmetic is small, and each process has a core.
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **one_thread, "PYTHONPATH": path},
            )

    def prepare(self, recipe: bytes, data: bytes, max_pixels: int) -> PreparedImage:
        """Prepare an image, in memory that the gate of this process lends.

        Args:
            recipe: a pickled :class:`~fsad_edge.serve.image_preparation.Recipe`.
            data: the encoded image.
            max_pixels: most pixels of it.

        Raises:
            ImageError: as :func:`~fsad_edge.serve.image_preparation.prepare_image`.
            EndedError: the process has ended.
            OSError: it has never begun.
        """
        if not self._has_begun:
            try:
                self._connection.recv()
            except (EOFError, OSError):
                raise OSError("it ended at its start") from None
            self._has_begun = True
        with GATE.working():
            try:
                self._connection.send((recipe, data, max_pixels, GATE.memory))
                while isinstance(answer := self._connection.recv(), tuple):
                    self._connection.send(_refusal(*answer))
            except (EOFError, OSError):
                raise EndedError from None
            except BaseException:
                self.close()  # an answer may still come, and would be taken for that to another
                raise
        if isinstance(answer, Exception):
            raise answer
        prepared: PreparedImage = answer
        return prepared

    def close(self) -> None:
        """Close the connection, which ends the process."""
        self._connection.close()

    def stop(self) -> None:
        """End the process, and wait for its end."""
        self.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
            return
        self._process.kill()
        self._process.wait()


def _refusal(need: int, name: str) -> Exception | None:
    """Take memory for an image until the caller's block ends; why not, where there is none."""
    try:
        with GATE.admit(need, name):
            return None
    except FsadEdgeError as error:
        return error


class PreparingProcesses:
    """Processes that prepare images. Safe to use from several threads.

    Args:
        count: most processes. Where one cannot be started, there are fewer, and the log says so.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._idle: list[PreparingProcess] = []
        self._lock = threading.Lock()
        self._stopped = False

    def start(self) -> None:
        """Start the processes, which takes none of the caller's time."""
        for _ in range(self._count):
            self._put(self._started())

    def stop(self) -> None:
        """End the processes; those that prepare an image end after it."""
        with self._lock:
            self._stopped, idle, self._idle = True, self._idle, []
        for process in idle:
            process.close()
        for process in idle:
            process.stop()

    def prepare(self, recipe: bytes, data: bytes, max_pixels: int) -> PreparedImage | None:
        """Prepare an image in a process; arguments and errors as of the process.

        A process that ends, as for want of memory, is replaced, and the image is tried once more.

        Returns:
            None where no process is free, so that the caller prepares the image itself.
        """
        ended = 0
        while ended < 2:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            if process is None:
                return None
            try:
                return process.prepare(recipe, data, max_pixels)
            except OSError as error:
                _tell(error)
                process.stop()
                process = None
            except EndedError:
                ended += 1
                log.warning("a process that prepared an image has ended; another one is started.")
                process.stop()
                process = self._started()
            finally:
                self._put(process)
        raise ImageError("the image ended two processes that decoded it: save it again.")

    def _started(self) -> PreparingProcess | None:
        try:
            return PreparingProcess()
        except OSError as error:
            _tell(error)
            return None

    def _put(self, process: PreparingProcess | None) -> None:
        """Make a process ready for the next image."""
        with self._lock:
            if process is not None and not self._stopped:
                self._idle.append(process)
                return
        if process is not None:
            process.stop()


def _tell(error: OSError) -> None:
    log.warning("a process to prepare images cannot be started (%s): a thread does it.", error)
