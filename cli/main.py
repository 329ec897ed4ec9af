"""The ``fsad-edge`` command. Starts without torch, timm, onnx or an engine."""

from __future__ import annotations

import io
import signal
import sys
import traceback
from types import FrameType

import typer

from fsad_edge.cli import doctor, evaluate, export, finetune, info, score
from fsad_edge.cli.console import ERROR, STOPPED, fail, stopped
from fsad_edge.errors import FsadEdgeError

app = typer.Typer(
    name="fsad-edge",
    help="Few-shot visual anomaly detection for edge devices: a handful of photographs of good "
    "parts in, a file that a device scores with out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("finetune")(finetune.finetune)
app.command("export")(export.export)
app.command("score")(score.score)
app.command("eval")(evaluate.evaluate)
app.command("info")(info.info)
app.command("doctor")(doctor.doctor)


def _stop(number: int, frame: FrameType | None) -> None:
    stopped.set()
    raise KeyboardInterrupt


def main() -> None:
    """Run a command; an error on purpose is one sentence and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names can hold any bytes
    before = signal.signal(signal.SIGINT, _stop)
    try:
        app()
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
    except Exception:  # Python's own exit code for it would mean: an anomaly was found
        traceback.print_exc()
        fail("this should not happen: please report it with the lines above.")
        sys.exit(ERROR)
    finally:
        stopped.clear()
        signal.signal(signal.SIGINT, before)
