"""A server process for attacks: its log, its memory, and an honest client beside them."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.fuzz.children import PATIENCE, die_with_parent, limit_memory
from tests.fuzz.outcomes import Outcome, Verdict

#: Bytes that a service may take, the limit of its unit for systemd, and those at which it is ended.
BUDGET, MOST = 2_000_000_000, 2_600_000_000

#: Seconds on the clock after which an answer to a question for the health is late: twice what it
#: may take, for machines that are slow or busy.
LATE_ON_CLOCK = 10.0

#: Seconds for which a client waits that sends what takes long, beside others.
CLIENT_SECONDS = 2 * PATIENCE

#: Address space of a server: it starts many threads, each of which takes some and uses little.
ADDRESS_SPACE = 6 << 30


def _in_server() -> None:
    die_with_parent()
    limit_memory(ADDRESS_SPACE)


class Service:
    """``fsad-edge serve`` on a free port, watched from a thread.

    Attributes:
        port: where it listens.
        peak: the most bytes that it had in memory.
    """

    def __init__(self, folder: Path, *arguments: str | Path) -> None:
        self._log_file = folder / "serve.log"
        command = [sys.executable, "-m", "fsad_edge.cli", "serve", *map(str, arguments)]
        with self._log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--port", "0"],
                stderr=log,
                stdout=log,
                cwd=Path(__file__).parent.parent.parent,
                env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(folder / "state")},
                preexec_fn=_in_server,
            )
        self.peak, self._read = 0, 0
        self.port = self._wait_for_port()
        threading.Thread(target=self._watch, daemon=True).start()

    def _wait_for_port(self) -> int:
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            found = re.search(r"listening on http://[^:]+:(\d+)", self.log)
            if found:
                return int(found[1])
            time.sleep(0.05)
        raise RuntimeError(f"the service did not start: {self.log[-2000:]}")

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log_file.read_text("utf-8", "replace")

    def new_log(self) -> str:
        """What it has logged since the last call."""
        data = self._log_file.read_bytes()
        new, self._read = data[self._read :], len(data)
        return new.decode("utf-8", "replace")

    def _watch(self) -> None:
        status = Path(f"/proc/{self.process.pid}/status")
        while self.process.poll() is None:
            with contextlib.suppress(OSError, AttributeError, TypeError, ValueError):
                found = re.search(r"VmRSS:\s+(\d+)", status.read_text())
                now = int(found[1]) * 1024 if found else 0
                self.peak = max(self.peak, now)
                if now > MOST:
                    self.process.kill()
            time.sleep(0.03)

    def ask(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream"
    ) -> tuple[int, bytes]:
        """The status and body of an answer; 0 where none came in time."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=CLIENT_SECONDS)
        try:
            connection.request(method, path, body or None, {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            return 0, repr(error).encode()
        finally:
            connection.close()

    @contextlib.contextmanager
    def alive(self) -> Iterator[Callable[[], Verdict]]:
        """Ask for the health during the block; afterwards, whether the answers came in time."""
        times: list[float] = []
        unanswered, over = 0, threading.Event()

        def ask() -> None:
            nonlocal unanswered
            while not over.wait(0.1):
                start = time.monotonic()
                status, _ = self.ask("GET", "/healthz")
                times.append(time.monotonic() - start)
                unanswered += status == 0

        def verdict() -> Verdict:
            late = max(times, default=0.0) > LATE_ON_CLOCK or unanswered > len(times) / 2
            said = f"the health after {max(times, default=0.0):.1f} s"
            said += f", {unanswered} of {len(times)} times not at all"
            return Verdict(Outcome.HUNG if late else Outcome.SAME, said)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            yield verdict
        finally:
            over.set()
            asking.join()

    def check(self, honest: bytes) -> Verdict:
        """The state after an attack: it runs, logged no traceback, and scores an honest image.

        It is asked several times where it is busy: 429 and 503 are honest answers.
        """
        end = time.monotonic() + PATIENCE
        status, body = 0, b""
        while time.monotonic() < end and status != 200:
            status, body = self.ask("POST", "/v1/score", honest)
            if self.process.poll() is not None:
                break
            time.sleep(0.0 if status == 200 else 0.2)
        log = self.new_log()
        if self.peak > BUDGET:
            return Verdict(Outcome.MEMORY, f"the service took {self.peak / 1e6:,.0f} MB")
        if self.process.poll() is not None:
            why = f"the service ended ({self.process.returncode}): {log[-600:]}"
            return Verdict(Outcome.TRACEBACK, why)
        if "Traceback" in log:
            return Verdict(Outcome.TRACEBACK, log[log.index("Traceback") :][-600:])
        if status != 200:
            return Verdict(Outcome.HUNG, f"an honest request got {status} {body[:200]!r}")
        return Verdict(Outcome.SAME)

    def close(self) -> None:
        """End it; it is killed where SIGTERM does not end it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
