"""The ``fsad-edge`` command. It starts without torch, timm, onnx or an engine."""

from __future__ import annotations

import importlib
import io
import signal
import sys
import traceback
from collections.abc import Iterable
from types import FrameType
from typing import Annotated

import typer

from fsad_edge._version import __version__
from fsad_edge.cli.console import ERROR, STOPPED, fail, stopped
from fsad_edge.errors import FsadEdgeError

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
    stopped.set()
    raise KeyboardInterrupt


def main() -> None:
    """Run a command; an expected error is one sentence and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names can hold any bytes
    before = signal.signal(signal.SIGINT, _stop)
    try:
        asked = sys.argv[1:2]
        make_app(asked if asked and asked[0] in COMMANDS else COMMANDS)()
    except FsadEdgeError as error:
        fail(str(error))
        sys.exit(ERROR)
    except SystemExit as stop:
        if stop.code == STOPPED:  # Typer's answer to Ctrl-C, which says nothing
            fail("stopped before it was done.")
        raise
    except KeyboardInterrupt:  # outside of a command
        fail("stopped before it was done.")
        sys.exit(STOPPED)
    except Exception:  # Python's own exit code for it would mean that an anomaly was found
        traceback.print_exc()
        fail("this should not happen: please report it with the lines above.")
        sys.exit(ERROR)
    finally:
        stopped.clear()
        signal.signal(signal.SIGINT, before)
