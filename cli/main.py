"""The ``fsad-edge`` command. It starts without torch, timm, onnx or an engine.

What takes long to import is imported where Ctrl-C already ends the command as it should.
"""

from __future__ import annotations

import sys

from fsad_edge.cli.stop import stoppable, stopped

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
    "region": "region",
    "bank": "bank",
    "bench": "bench",
    "triton": "triton",
    "info": "info",
    "doctor": "doctor",
}


def main() -> None:
    """Run a command; an expected error is one sentence and exit code 2."""
    with stoppable():
        try:
            from fsad_edge.cli.app import run

            code = run()
        except KeyboardInterrupt:  # while modules were imported
            code = stopped.say()
        except Exception:
            if not stopped.is_set():
                raise
            code = stopped.say()  # a module that was interrupted may fail with another error
        sys.exit(code)
