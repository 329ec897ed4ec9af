"""The tool as users run it: its own commands, in this process so that imports are paid once."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy.systems import Figures, Run, SkipError, System, short
from fsad_edge.cli.main import make_app
from fsad_edge.errors import ExportError, InputError

#: What is kept of what the commands say.
FINETUNE = (
    *("training_seconds", "synthetic_auroc", "bank_rows", "reliability"),
    *("image_size", "strides", "rotations", "aligned", "alignment"),
)
EVAL = (
    *("image_auroc", "pixel_auroc", "aupro", "threshold", "false_alarm_rate_asked"),
    *("false_alarm_rate", "miss_rate", "false_alarms", "missed", "n_good", "n_defective"),
)


def ours(options: str) -> System:
    """finetune with these options, export with those after a ``--``, eval."""
    words = shlex.split(options)
    cut = words.index("--") if "--" in words else len(words)
    return System(short(options), lambda run: _figures(run, words[:cut], words[cut + 1 :]))


def _figures(run: Run, options: list[str], of_export: list[str]) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        try:
            made, exported = make(run, work, options, of_export)
        except ExportError as error:
            raise SkipError(str(error)) from error
        report = work / "report.png"
        found = command("eval", work / "part.onnx", run.data.folder, "--report", report)
    return {
        **{name: found[name] for name in EVAL},
        **{name: made.get(name) for name in FINETUNE},
        "parity": exported["largest_relative_difference"],
        "flips": exported["flips"],
        "bytes": exported["bytes"],
        "model_ms": exported["median_model_ms"],
        "by_defect": {row["defect"]: round(row["image_auroc"], 4) for row in found["by_defect"]},
    }


def make(
    run: Run, work: Path, options: Sequence[str], of_export: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make ``work/part.onnx``; what finetune and export say.

    Raises:
        FsadEdgeError: as the commands do.
    """
    (work / "shots").mkdir()
    # Numbered, for files of two folders can share a name.
    for index, file in enumerate(sorted(run.shots)):
        os.symlink(file.resolve(), work / "shots" / f"{index:03d}{file.suffix}")
    seed = ["--seed", str(run.seed)]
    made = command("finetune", work / "shots", "-o", work / "part", *seed, *options)
    return made, command("export", work / "part", *of_export)


def command(*arguments: object) -> dict[str, Any]:
    """The JSON document that a command prints.

    Raises:
        FsadEdgeError: as the command does.
        InputError: it does not take these arguments.
    """
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            make_app()([*map(str, arguments), "--json"])
    except SystemExit as stop:
        if stop.code == 2:
            said = err.getvalue().strip().splitlines()[-1].removeprefix("Error: ")
            raise InputError(f"{arguments[0]} does not take its arguments: {said}.") from None
        if stop.code:  # Typer's answer to Ctrl-C
            raise KeyboardInterrupt from None
    document: dict[str, Any] = json.loads(out.getvalue())
    return document
