"""The command line as a whole: help, quick starts, missing extras and Ctrl-C."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fsad_edge
from fsad_edge.cli.main import COMMANDS
from tests.commands import BLOCKED, ENTRY, all_files, assert_refused, run_process
from tests.conftest import Cli, Job

HEAVY = ["torch", "timm", "onnx", "onnxruntime", "scipy", "sklearn", "matplotlib", "fastapi", "ray"]


def test_the_help_names_every_command(cli: Cli) -> None:
    done = cli("--help")
    assert done.code == 0
    assert {"finetune", "export", "build", "score", "eval", "serve"} <= set(COMMANDS)
    for command in COMMANDS:
        assert re.search(rf"^ *{command}\b", done.out, re.MULTILINE), command


def test_the_help_of_no_command_imports_anything_heavy() -> None:
    """In one process: what one command imports, the next has too."""
    script = (
        "import sys\n"
        "from fsad_edge.cli.main import main\n"
        f"for command in {[[], *([name] for name in COMMANDS)]}:\n"
        "    sys.argv = ['fsad-edge', *command, '--help']\n"
        "    try:\n        main()\n"
        "    except SystemExit as stop:\n"
        f"        print('after', stop.code, set({HEAVY}) & set(sys.modules))\n"
    )
    done = run_process(script=script)
    assert done.code == 0, done.err
    found = [line for line in done.out.splitlines() if line.startswith("after")]
    assert found == ["after 0 set()"] * (len(COMMANDS) + 1)


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [
        ("onnxruntime", "score", "cpu"),
        ("onnxruntime", "info", "cpu"),
        ("onnxruntime", "finetune", "cpu"),
        ("torch", "finetune", "train"),
        ("onnx", "export", "train"),
        ("scipy", "eval", "eval"),
    ],
)
def test_a_missing_extra_is_named(
    job: Job, backbones: dict[str, str], tmp_path: Path, module: str, command: str, extra: str
) -> None:
    arguments: dict[str, list[str | Path]] = {
        "score": [job.file, job.shots],
        "info": [job.file],
        "finetune": [job.shots, "-o", tmp_path / "part", "--backbone", backbones["conv"]],
        "export": [job.part, "-o", tmp_path / "part.onnx"],
        "eval": [job.file, job.dataset, "--report", tmp_path / "report.png"],
    }
    done = run_process(command, *arguments[command], script=BLOCKED.format(module=module))
    assert_refused(done, f"pip install 'fsad-edge[{extra}]'")
    assert all_files(tmp_path) == {}


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT as a terminal does")
def test_ctrl_c_during_training_keeps_the_first_model(
    job: Job, backbones: dict[str, str], tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENTRY, "finetune", str(job.shots), "-o", str(tmp_path / "part"),
         "--backbone", backbones["conv"], "--image-size", "64", "--rotations", "1",
         "--epochs", "100000"],
        stderr=subprocess.PIPE, bufsize=0, env={**os.environ, "FORCE_COLOR": "1"},
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            shown = b""
            while b"loss" not in shown:  # the bar: training has begun
                ready, _, _ = select.select([process.stderr], [], [], 120)
                assert ready
                more = os.read(process.stderr.fileno(), 65536)
                assert more, shown
                shown += more
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert b"stopped before it was done" in rest
    assert b"part holds the first model" in rest
    assert b"Traceback" not in rest
    assert [path.name for path in tmp_path.iterdir()] == ["part"]
    assert fsad_edge.export(tmp_path / "part").golden_images == 2


def test_where_nobody_sees_a_bar_each_stage_has_a_line_with_its_time(
    cli: Cli, job: Job, backbones: dict[str, str], tmp_path: Path
) -> None:
    small = ("--backbone", backbones["conv"], "--image-size", 64, "--rotations", 1, "--epochs", 0)
    made = cli("finetune", job.shots, "-o", tmp_path / "part", *small)
    report = tmp_path / "report.png"
    measured = run_process("eval", job.file, job.dataset, "--report", report)
    for done, stages in (
        (made, ["checking the shots", "first model", "memory bank and threshold"]),
        (measured, ["scoring", "computing the figures", "drawing the report"]),
    ):
        assert done.code == 0, done.err
        found = re.findall(r"^([a-z ]+): \d+\.\d s(?: \(.*\))?$", done.err, re.MULTILINE)
        assert [stage for stage in found if stage in stages] == stages
        assert not {"\r", "\x1b", "━"} & set(done.err)


def test_a_long_stage_says_now_and_then_how_far_it_is(
    cli: Cli, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsad_edge.cli.console.SECONDS_BETWEEN_LINES", 0.0)
    done = cli("eval", job.file, job.dataset, "--report", tmp_path / "report.png")
    assert re.search(r"^scoring: 14% after \d+ s$", done.err, re.MULTILINE), done.err  # 1 of 7
    assert "\nscoring: 100%" not in done.err
