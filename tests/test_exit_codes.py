"""Exit codes where the results, the messages or the pictures cannot be written."""

from __future__ import annotations

import csv
import errno
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import ENTRY, assert_refused
from tests.conftest import Cli, Job, Outcome

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="asks for a POSIX shell")
resource = pytest.importorskip("resource")  # not on Windows

#: Commands that print a table, JSON, CSV, facts, help or one line.
PRINTING = (
    "score {file} {bad}",
    "score {file} {bad} --json",
    "score {file} {bad} --csv",
    "info {file}",
    "bank list {file} --json",
    "score --help",
    "--version",
)


def in_shell(
    job: Job, command: str, redirections: str = "", stdout: int = subprocess.PIPE
) -> Outcome:
    """Run ``fsad-edge`` with its standard streams redirected by a shell."""
    names = {"file": job.file, "good": job.shots, "bad": job.scratched}
    quoted = {name: shlex.quote(str(path)) for name, path in names.items()}
    script = f'exec "$0" -c "$1" {command.format(**quoted)} {redirections}'
    done = subprocess.run(
        ["/bin/sh", "-c", script, sys.executable, ENTRY],
        stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout or "", done.stderr)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file can hold a picture, as where the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("command", PRINTING)
def test_results_that_cannot_be_written_are_an_error(job: Job, command: str) -> None:
    assert_refused(in_shell(job, command, ">/dev/full"), "standard output", "No space left")


@pytest.mark.parametrize("command", ["score {file} {good}", "--help"])
def test_a_closed_standard_output_is_an_error(job: Job, command: str) -> None:
    before = job.file.read_bytes()
    assert_refused(in_shell(job, command, "<&- >&-"), "standard output", "closed")
    assert job.file.read_bytes() == before


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
@pytest.mark.parametrize(("images", "code"), [("{good}", 0), ("{bad}", 1), ("nowhere.png", 2)])
def test_messages_that_cannot_be_written_change_no_exit_code(
    job: Job, where: str, images: str, code: int
) -> None:
    done = in_shell(job, f"score {{file}} {images} --csv", where)
    assert done.code == code
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["decision"] for row in rows] == {
        0: ["good"] * 5, 1: ["anomaly"] * 2, 2: ["error"],
    }[code]  # fmt: skip


@pytest.mark.parametrize("command", PRINTING)
def test_a_reader_that_has_left_is_no_anomaly(job: Job, command: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = in_shell(job, command, stdout=write)
    finally:
        os.close(write)
    assert (done.code, done.err) == (141, "")


@pytest.mark.usefixtures("full_disk")
def test_scores_are_printed_where_a_heat_map_cannot_be_written(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    asked = ("score", job.file, job.shots, job.scratched, "--heatmaps", tmp_path / "maps")
    done = cli(*asked, "--json")
    assert_refused(done, "0.png.heatmap.png cannot be written")
    assert "7 of 7 heat maps could not be written" in done.err
    rows = done.json["images"]
    assert [row["decision"] for row in rows] == ["good"] * 5 + ["anomaly"] * 2
    assert all("cannot be written" in row["heatmap_error"] for row in rows)
    done = cli(*asked)
    assert done.code == 2
    assert "7 images scored: 5 good, 2 anomalies" in done.out
    assert "Heat maps are in" not in done.out


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_figures_are_printed_where_their_picture_cannot_be_written(
    cli: Cli, job: Job, tmp_path: Path, options: list[str]
) -> None:
    picture = tmp_path / "picture.png"
    done = cli("eval", job.file, job.dataset, "--report", picture, *options)
    assert_refused(done, "picture.png cannot be written")
    assert "auroc" in done.out.lower()
    assert "The report is" not in done.out
    done = cli("bench", job.file, "--runs", 8, "--plot", picture, *options)
    assert_refused(done, "picture.png cannot be written")
    assert "p50" in done.out
    assert "The plot is" not in done.out
    assert not picture.exists()


def test_an_error_that_typer_answers_with_1_is_no_anomaly(
    cli: Cli, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connection_lost(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("fsad_edge.runtime.model.Model.load", connection_lost)
    done = cli("score", job.file, job.shots)
    assert done.code == 2
    assert "this should not happen" in done.err


def test_sigterm_ends_a_command_as_ctrl_c_does(job: Job) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENTRY, "bench", str(job.file), "--seconds", "1000"],
        stderr=subprocess.PIPE, bufsize=0, env={**os.environ, "FORCE_COLOR": "1"},
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            shown = b""
            while b"measuring" not in shown:
                more = os.read(process.stderr.fileno(), 65536)
                assert more, shown
                shown += more
            process.terminate()
            _, rest = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 143
    assert b"stopped before it was done" in rest
    assert b"Traceback" not in rest
