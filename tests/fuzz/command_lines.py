"""Every command with hostile paths and values: a sentence and a documented exit code."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import typer.main

from fsad_edge.cli.app import make_app
from fsad_edge.cli.main import main
from tests.fuzz.children import NOBODY, drop_rights, in_child
from tests.fuzz.outcomes import Outcome, Steps, Verdict
from tests.fuzz.subject import Subject, encoded, photograph

#: Exit codes of the README.
CODES = {0, 1, 2, 3, 130, 141, 143}

#: Commands that work for minutes, start others or never end when all they are given is good: they
#: are not given the good files.
LONG = {"finetune", "archive", "serve", "bench"}
_GOOD = {"part.onnx", "link", "shots", "shots/0.png", "probes", ".", "..", "*", "lines\nforged.png",
         "esc\x1b[31m.png", "no\udcffunicode.png", "part"}  # fmt: skip

#: Names in the folder in which a command runs: what each case may read and write.
_THERE = (
    *("part.onnx", "part", "shots", "shots/0.png", "probes", "engine", "table.json", "deep"),
    *("link", "loop", "pipe", "zero", "sparse", "secret", "empty", "text.png", "lines\nforged.png"),
    *("esc\x1b[31m.png", "cut.onnx", "no\udcffunicode.png", ".", "..", "deep/" * 30),
)
_NOT_THERE = (
    *("nothing", "nothing/below", "", " ", "-", "--", "-x", "n" * 300, "n/" * 3000, "~", "*", "%s"),
    *(
        "shots/0.png/below",
        "part.onnx/",
        "NAME=part.onnx",
        "=part.onnx",
        "a=b=c",
        "\x1b[2J",
        "[/b]",
    ),
    *("http://[", "nothing\nerror: forged", "\udcff", "ä" * 200, "a:b", ":", "part.onnx=part.onnx"),
)
_READ_ONLY = ("/dev/zero", "/dev/full", "/dev/null", "/proc/self/mem", "/proc/self/environ", "/")
_NUMBERS = (
    *("0", "-1", "1", "2", "nan", "inf", "-inf", "1e400", "1e-400", "9" * 50, "0x10", "1_0", "1,5"),
    *("", " ", "true", "1e308", "-0.0", "0.5", "2147483648", "9223372036854775808", "\u0663", "½"),
)

_WORDS = (
    "auto",
    "cpu",
    "threshold",
    "near",
    "fast",
    "accurate",
    "fp32",
    "fp16",
    "all",
    "other",
    "",
)


class Attack:
    """Runs commands in a folder of their own, as a user who can write nothing else."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._folder = Path(tempfile.mkdtemp(dir=subject.work))
        root = typer.main.get_command(make_app())
        self._commands = dict(_leaves(root, ()))

    def make(self, rng: random.Random) -> Steps:
        name = rng.choice(sorted(self._commands))
        command = self._commands[name]
        words = name.split()
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                count = rng.choice((1, 1, 1, 2)) if parameter.nargs == -1 else 1
                count = 0 if rng.random() < 0.05 and words[0] not in LONG else count
                values = [self._path(rng, reads=True) for _ in range(count)]
                words += ["nothing" if words[0] in LONG and one in _GOOD else one for one in values]
            elif rng.random() < 0.25 or parameter.required:
                words += self._option(rng, parameter)
        if rng.random() < 0.05:
            words[rng.randrange(len(words))] = rng.choice((*_NOT_THERE, *_NUMBERS))
        drawn = rng.random()
        stop = 0.1 + 4 * drawn if drawn < 0.05 else None  # seconds until SIGTERM
        return {"kind": name, "words": words, "stop": stop}

    def _option(self, rng: random.Random, parameter: Any) -> list[str]:
        option = rng.choice([*parameter.opts, *parameter.secondary_opts])
        if parameter.is_flag:
            return [option]
        # Typer's versions keep the type in different places.
        described = getattr(parameter, "type_descriptor", None)
        kind = str(getattr(described, "annotation", getattr(parameter, "type", ""))).lower()
        if "int" in kind or "float" in kind:
            return [option, rng.choice(_NUMBERS)]
        if "path" in kind or "str" in kind or "text" in kind:
            return [option, self._path(rng, reads=False)]
        return [option, rng.choice(_WORDS)]

    @staticmethod
    def _path(rng: random.Random, reads: bool) -> str:
        """A path; only where it is surely read, one outside of the folder of the case."""
        if rng.random() < 0.55:
            return str(rng.choice(_THERE))
        return str(rng.choice((*_NOT_THERE, *(_READ_ONLY if reads else ()))))

    def run(self, steps: Steps) -> Verdict:
        place = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            self._furnish(place)
            stop = None if steps["stop"] is None else partial(_stop_after, steps["stop"])
            ended = in_child(lambda: self._command(steps["words"], place), started=stop)
            found = ended.verdict(lambda code: _judge(code, ended.output))
            is_stopped = "(-15)" in found.detail and "Traceback" not in found.detail
            if found.outcome is Outcome.TRACEBACK and stop and is_stopped:
                return Verdict(Outcome.REFUSED, "stopped before it began")
            return found
        finally:
            _remove(place)

    def _command(self, words: list[str], place: Path) -> int:
        """The exit code of a command, run in this process by its entry point."""
        os.environ |= {"XDG_STATE_HOME": str(place / "state"), "HOME": str(place), "COLUMNS": "200"}
        os.chdir(place)
        drop_rights()
        sys.argv = ["fsad-edge", *words]
        sys.stdin = open(os.devnull)  # noqa: SIM115
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        return 0

    def _furnish(self, place: Path) -> None:
        """What a case finds in its folder, owned by the user as whom it runs."""
        shutil.copy(self._subject.file, place / "part.onnx")
        for name in ("part", "shots", "probes"):
            shutil.copytree(self._subject.folder / name, place / name)
        (place / "cut.onnx").write_bytes(self._subject.file.read_bytes()[:50_000])
        (place / "engine").write_bytes(b"FSADTRT1" + bytes(500))
        (place / "table.json").write_text("[" * 10_000)
        for name in ("lines\nforged.png", "esc\x1b[31m.png", "no\udcffunicode.png"):
            (place / name).write_bytes(encoded(photograph(52)))
        (place / "deep" / "deep").mkdir(parents=True)
        (place / "empty").mkdir()
        (place / "text.png").write_text("no image")
        (place / "link").symlink_to("part.onnx")
        (place / "loop").symlink_to("loop")
        (place / "zero").symlink_to("/dev/zero")
        os.mkfifo(place / "pipe")
        with (place / "sparse").open("wb") as file:
            file.truncate(10 << 30)  # a hole: it takes no room on disk
        (place / "secret").mkdir(0o000)
        if os.getuid() == 0:
            for path in [place, *place.rglob("*")]:
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)

    def close(self) -> None:
        _remove(self._folder)


def _leaves(command: Any, words: tuple[str, ...]) -> list[tuple[str, Any]]:
    """All commands that do something, by what is typed for them."""
    inner = getattr(command, "commands", None)
    if not inner:
        return [(" ".join(words), command)]
    return [leaf for name, one in inner.items() for leaf in _leaves(one, (*words, name))]


def _judge(code: int, output: str) -> Verdict:
    if "Traceback (most recent call last)" in output:
        return Verdict(Outcome.TRACEBACK, output[-700:])
    if code not in CODES:
        return Verdict(Outcome.TRACEBACK, f"exit code {code}: {output[-500:]}")
    if "\x1b[31m" in output or "\x1b[2J" in output:
        return Verdict(
            Outcome.SILENT, f"an escape sequence reaches the terminal: {output[-300:]!r}"
        )
    if "\nforged" in output or "\nerror: forged" in output:
        return Verdict(Outcome.SILENT, f"a name forges a line: {output[-300:]!r}")
    return Verdict(Outcome.ACCEPTED if code in {0, 1, 3} else Outcome.REFUSED, output[-200:])


def _stop_after(seconds: float, child: int) -> None:
    time.sleep(seconds)
    os.kill(child, signal.SIGTERM)


def _remove(place: Path) -> None:
    for path in place.rglob("secret"):
        path.chmod(0o700)
    shutil.rmtree(place, ignore_errors=True)
