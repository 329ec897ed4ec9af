"""Ctrl-C, SIGTERM and SIGHUP at any time: a word, the conventional exit code and nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import ENTRY
from tests.conftest import Job

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals as a shell does")

#: The command, which tells that it takes signals before it imports what takes long.
TELLING = (
    "import fsad_edge.cli.main as main, sys\n"
    "class Tell:\n"
    "    def find_spec(self, name, *rest):\n"
    "        if name == 'fsad_edge.cli.app':\n"
    "            print('begun', flush=True)\n"
    "sys.meta_path.insert(0, Tell())\n"
    "main.main()\n"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("seconds", [0, 0.05, 0.2])
def test_a_command_that_is_stopped_while_it_starts(
    job: Job, number: signal.Signals, seconds: float
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TELLING, "bench", str(job.file), "--seconds", "1000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # also where nohup runs the tests
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        time.sleep(seconds)
        process.send_signal(number)
        time.sleep(0.01)
        process.send_signal(number)  # while it ends
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert err.endswith(b"error: stopped before it was done.\n")
    assert b"Traceback" not in err


def test_a_command_that_ignores_the_end_of_its_terminal_goes_on(job: Job) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does

    with subprocess.Popen(
        [sys.executable, "-c", ENTRY, "score", str(job.file), *[str(job.shots)] * 3],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=ignore,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def test_what_a_killed_process_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    writing = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from fsad_edge.runtime.temporary_files import temporary_file\n"
        "with temporary_file(Path(sys.argv[1])) as (file, name):\n"
        "    print(name.name, flush=True)\n"
        "    time.sleep(60)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", writing, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        names = [process.stdout.readline().strip() for process in processes if process.stdout]
        processes[0].kill()
        processes[0].wait()
        for mine in (".fsad-edge.notes.tmp", ".a.png.x8d3k2_a"):
            (tmp_path / mine).write_text("mine")
        (tmp_path / ".fsad-edge.0123456789abcdef.tmp").symlink_to(tmp_path / ".fsad-edge.notes.tmp")
        kept = {names[1], *os.listdir(tmp_path)} - {names[0]}
        script = "import sys; from pathlib import Path; from fsad_edge.runtime.files import *\n"
        script += "write_bytes(Path(sys.argv[1]) / 'new', b'')\n"
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)
        assert set(os.listdir(tmp_path)) == kept | {"new"}
    finally:
        for process in processes:
            process.kill()
            process.communicate()
