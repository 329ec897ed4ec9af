"""A service in its own process, to be measured."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = 4096


@dataclass(frozen=True)
class Service:
    """The address of the service and its process id."""

    host: str
    port: int
    pid: int

    def resident(self) -> float:
        """The resident memory in MB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE / 1e6

    def busy_seconds(self) -> float:
        """The core seconds that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def serving(model: Path, threads: int, *options: str, provider: str = "cpu") -> Iterator[Service]:
    """``fsad-edge serve`` on a free port while the block lasts."""
    command = [sys.executable, "-m", "fsad_edge.cli", "serve", str(model), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--threads", str(threads), "--provider", provider, *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    found = None
    for line in process.stderr:
        found = re.search(r"listening on http://([\d.]+):(\d+)", line)
        if found:
            break
        sys.stderr.write(line)
    if found is None:
        raise RuntimeError("the service did not start")
    try:
        yield Service(found[1], int(found[2]), process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[1]
        if process.returncode != 0 or "Traceback" in rest:
            raise RuntimeError(f"the service ended with {process.returncode}:\n{rest}")
