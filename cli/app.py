"""The commands put together, and what the end of each of them means."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from fsad_edge._version import __version__
from fsad_edge.cli.console import ANOMALY, ERROR, GOOD, NOT_JUDGED, STOPPED, fail, words_of
from fsad_edge.cli.main import COMMANDS
from fsad_edge.cli.stop import stopped
from fsad_edge.cli.streams import guarded_streams
from fsad_edge.errors import FsadEdgeError, InputError
from fsad_edge.runtime.cores import default_threads

#: Options that an empty text may be given to: of one it is a value, the others say what they take.
_MAY_BE_EMPTY = {"--root-path", "--batch", "--strides", "--threads", "--name"}


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


def run() -> int:
    """Run the command of ``sys.argv``; its exit code."""
    with guarded_streams():
        code = _exit_code(_run)
        written = _exit_code(sys.stdout.flush)
        # A decision that could not be printed is an error, whatever it is.
        return written or code if code in {GOOD, ANOMALY, NOT_JUDGED} else code


def _run() -> None:
    threads = default_threads()
    if threads:  # read by NumPy's BLAS and by torch when they are imported
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    asked = sys.argv[1:]
    app = make_app(asked[:1] if asked and asked[0] in COMMANDS else COMMANDS)
    _check_arguments(asked)
    code: Any = None
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        # Typer's usage errors; older versions of it have them from click.
        if not (hasattr(error, "show") and hasattr(error, "format_message")):
            raise
        _tell_usage(error)
    if code == STOPPED:  # Typer's answer to a KeyboardInterrupt, which says nothing
        raise KeyboardInterrupt
    sys.exit(code if isinstance(code, int) else GOOD)


def _check_arguments(arguments: Iterable[str]) -> None:
    """Refuse empty arguments, as an empty path would be the current folder, and two providers.

    Raises:
        InputError: an argument, or the value after the ``=`` of an option, is empty; or a command
            that runs a model on one provider is given two.
    """
    before, provider = "", ""
    arguments = list(arguments)
    for argument in arguments:
        option, equals, value = argument.partition("=")
        empty = not argument or (option.startswith("-") and equals and not value)
        if empty and not {before, option} & _MAY_BE_EMPTY:
            if argument:
                words = f"the value of {option}"
            elif before.startswith("-"):
                words = f"the argument after {before}"
            else:
                words = "an argument"
            raise InputError(
                f"{words} is empty: give a value, or leave it out. A variable of a script may be "
                "empty that should not be."
            )
        if option == "--provider" and arguments[0] != "bench":
            if provider:  # typer would take the last one
                raise InputError("--provider is given twice: give one;  bench  compares several.")
            provider = option
        if "\0" in argument:
            raise InputError("an argument holds a null byte, which no path and no option can.")
        before = argument


def _tell_usage(error: Any) -> None:
    """Say what is wrong with the arguments, and how to find out more."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        message = error.format_message().rstrip(".")
        context = getattr(error, "ctx", None)
        more = "" if context is None else f" For help:  {context.command_path} --help ."
        fail(f"{message}.{more}")
    sys.exit(ERROR)


def _exit_code(job: Callable[[], None]) -> int:
    """Do something; the exit code that its end means, which is explained on standard error."""
    try:
        job()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else GOOD
    except KeyboardInterrupt:
        return stopped.say()
    except Exception as error:
        # A library that was interrupted may fail with an error of its own.
        return stopped.say() if stopped.is_set() else _explain(error)
    return GOOD


def _explain(error: Exception) -> int:
    if isinstance(error, FsadEdgeError):
        fail(words_of(error))
    elif isinstance(error, OSError) and error.filename is not None:
        # A path that may not be looked at, wherever a command meets it.
        fail(f"{os.fsdecode(error.filename)} cannot be opened: {error.strerror or error}.")
    elif isinstance(error, MemoryError):
        fail("there is not enough memory for this.")
    else:  # Python's own exit code for it would mean that an anomaly was found
        traceback.print_exc()
        fail("this should not happen: please report it with the lines above.")
    return ERROR
