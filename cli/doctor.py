"""``fsad-edge doctor``: what is installed, what is missing, and the command that installs it."""

from __future__ import annotations

from fsad_edge.cli.console import err, out, print_facts, print_json
from fsad_edge.cli.shared_options import Json


def doctor(
    json_: Json = False,
) -> None:
    """Print what is installed, and how to install the rest."""
    from fsad_edge.bench.machine import describe_gpu
    from fsad_edge.runtime.environment import check_environment

    with err.status("checking"):
        environment = check_environment()
        found = {**environment.found, "gpu": describe_gpu()}
    if json_:
        print_json({"found": found, "missing": environment.missing})
        return
    print_facts(found)
    for what, command in environment.missing.items():
        out.print(f"missing: {what}")
        out.print(f"  {command}")
    if not environment.missing:
        out.print("Nothing is missing.")
