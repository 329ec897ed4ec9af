"""A directory is replaced so that at each moment a whole one is under its name, or comes back."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fsad_edge.errors import InputError
from fsad_edge.runtime import directories
from fsad_edge.runtime.directories import new_directory, restore_directory
from tests.conftest import Cli, Job

#: How often a process is killed while it replaces a directory again and again.
KILLS = 15

#: Files in a directory that is replaced, all of one content.
FILES = 5

REPLACE = """
import sys
from pathlib import Path
from fsad_edge.runtime import directories

if sys.argv[2] == "two steps":
    directories._exchange = lambda one, other: False
turn = 0
while True:
    with directories.new_directory(Path(sys.argv[1])) as folder:
        for number in range({files}):
            (folder / str(number)).write_text(str(turn))
    turn += 1
    print(turn, flush=True)
"""


def write(path: Path, text: str) -> None:
    with new_directory(path) as folder:
        for number in range(FILES):
            (folder / str(number)).write_text(text)


def contents(path: Path) -> set[str]:
    """The contents of the files of a whole directory; all are the same."""
    files = sorted(path.iterdir())
    assert len(files) == FILES
    return {file.read_text() for file in files}


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("how", ["as the system can", "two steps"])
def test_kill_9_at_any_moment_leaves_a_whole_directory(tmp_path: Path, how: str) -> None:
    path, rng, turns = tmp_path / "part", random.Random(1), 0
    write(path, "-1")
    for _ in range(KILLS):
        with subprocess.Popen(
            [sys.executable, "-c", REPLACE.format(files=FILES), path, how], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"1\n"
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            turns += 1 + len(process.stdout.read().splitlines())
        if how == "two steps":
            restore_directory(path)  # as each command does that looks for a directory
        assert len(contents(path)) == 1
    assert turns > 1.5 * KILLS  # else they prove nothing
    write(path, "at last")
    assert contents(path) == {"at last"}
    assert [one.name for one in tmp_path.iterdir()] == ["part"]  # what was left is gone


def test_a_directory_that_another_process_is_making_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "part"
    with new_directory(path) as first:
        (first / "first").touch()
        with new_directory(path) as second:
            (second / "second").touch()
        assert [one.name for one in path.iterdir()] == ["second"]
    assert [one.name for one in path.iterdir()] == ["first"]
    assert [one.name for one in tmp_path.iterdir()] == ["part"]


@pytest.mark.parametrize("step", ["files", "rename"])
def test_a_directory_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "part"
    write(path, "old")
    rename = Path.rename

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    def refuse(self: Path, target: Path) -> Path:
        if target == path and ".new-" in self.name:
            full()
        return rename(self, target)

    if step == "files":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(directories, "_exchange", lambda *paths: False)
        monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(InputError, match="cannot be written: No space left"):
        write(path, "new")
    assert contents(path) == {"old"}
    assert [one.name for one in tmp_path.iterdir()] == ["part"]


def test_a_command_puts_a_model_directory_back_that_was_taken_away(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    shutil.copytree(job.part, tmp_path / ".part.old-abc")
    assert cli("info", tmp_path / "part", "--json").json["name"]
    assert [one.name for one in tmp_path.iterdir()] == ["part"]
