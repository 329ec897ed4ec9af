"""What the tests of commands share: commands in a process of their own, and how a refusal looks."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import Outcome

ENTRY = "from fsad_edge.cli.main import main; main()"
#: The command where a module is not installed: what is None there cannot be imported.
BLOCKED = "import sys; sys.modules[{module!r}] = None; " + ENTRY


def run_process(
    *arguments: str | Path,
    script: str = ENTRY,
    environment: dict[str, str] | None = None,
    privileged: bool = True,
) -> Outcome:
    """Run ``fsad-edge``, or another script, in a process of its own.

    Without privileges, even the superuser's command is refused what belongs to others.
    """
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, **(environment or {})},
        preexec_fn=None if privileged else without_privileges,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


def assert_refused(done: Outcome, *words: str) -> None:
    """A command was refused with one sentence that holds these words, and exit code 2."""
    assert done.code == 2, done
    assert "Traceback" not in done.err
    sentence = next(line for line in done.err.splitlines() if line.startswith("error: "))
    assert sentence.endswith(".")
    for word in words:
        assert word in sentence


def all_files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, hidden files too, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def without_privileges() -> None:
    """Give up the superuser's right to open what belongs to others, in the process that runs."""
    bounding_set_drop, override, search = 24, 1, 2  # prctl(2), capabilities(7)
    libc = ctypes.CDLL(None)
    for capability in (override, search):
        libc.prctl(bounding_set_drop, capability, 0, 0, 0)
