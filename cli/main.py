"""The ``fsad-edge`` command. It starts without torch, timm, onnx or an engine."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Annotated

import typer

from fsad_edge._version import __version__
from fsad_edge.cli.console import ANOMALY, ERROR, GOOD, NOT_JUDGED, STOPPED, fail, stopped, words_of
from fsad_edge.cli.streams import guarded_streams
from fsad_edge.errors import FsadEdgeError
from fsad_edge.runtime.cores import default_threads

#: Commands and their modules, as ``--help`` lists them; a module holds its command under its own
#: name. A start imports the one that it runs: importing all of them takes longer than a score.
COMMANDS = {
    "finetune": "finetune",
    "export": "export",
    "build": "build",
    "score": "score",
    "eval": "evaluate",
    "archive": "archive",
    "serve": "serve",
    "threshold": "threshold",
    "bank": "bank",
    "bench": "bench",
    "triton": "triton",
    "info": "info",
    "doctor": "doctor",
}


def make_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with these commands in it."""
    app = typer.Typer(
        name="fsad-edge",
        help="Few-shot visual anomaly detection for edge devices: photographs of a few good parts "
        "become a file that a device rejects bad parts with.",
        no_args_is_help=True,
        invoke_without_command=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_options)  # without it a single command would lose its name
    for name in names:
        module = importlib.import_module(f"fsad_edge.cli.{COMMANDS[name]}")
        command = getattr(module, COMMANDS[name])
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        sys.stdout.write(f"fsad-edge {__version__}\n")
        raise typer.Exit


def _stop(number: int, frame: FrameType | None) -> None:
    stopped.number = number
    stopped.set()
    raise KeyboardInterrupt


def main() -> None:
    """Run a command; an expected error is one sentence and exit code 2."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, _stop) for number in signals]
    try:
        with guarded_streams():
            code = _exit_code(_run)
            written = _exit_code(sys.stdout.flush)
            # A decision that could not be printed is an error, whatever it is.
            sys.exit(written or code if code in {GOOD, ANOMALY, NOT_JUDGED} else code)
    finally:
        stopped.clear()
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _run() -> None:
    threads = default_threads()
    if threads:  # read by NumPy's BLAS and by torch when they are imported
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    asked = sys.argv[1:2]
    make_app(asked if asked and asked[0] in COMMANDS else COMMANDS)()


def _exit_code(job: Callable[[], None]) -> int:
    """Do something; the exit code that its end means, which is explained on standard error."""
    try:
        job()
    except FsadEdgeError as error:
        fail(words_of(error))
        return ERROR
    except SystemExit as end:
        if end.code == STOPPED:  # Typer's answer to a KeyboardInterrupt, which says nothing
            return _say_stopped()
        if end.code == ANOMALY and not isinstance(end.__context__, typer.Exit):
            return _say_unexpected()  # Typer's answer to some errors
        return end.code if isinstance(end.code, int) else GOOD
    except KeyboardInterrupt:  # outside of a command
        return _say_stopped()
    except OSError as error:  # a path that may not be looked at, wherever a command meets it
        if error.filename is None:
            return _say_unexpected()
        fail(f"{os.fsdecode(error.filename)} cannot be opened: {error.strerror or error}.")
        return ERROR
    except Exception:  # Python's own exit code for it would mean that an anomaly was found
        return _say_unexpected()
    return GOOD


def _say_stopped() -> int:
    fail("stopped before it was done.")
    return stopped.exit_code


def _say_unexpected() -> int:
    traceback.print_exc()
    fail("this should not happen: please report it with the lines above.")
    return ERROR
