"""What the commands share in talking to people and to programs.

What takes long to import stands inside the functions: a device waits for it at every start.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

#: Exit codes.
GOOD, ANOMALY, ERROR, STOPPED = 0, 1, 2, 130

#: Set by Ctrl-C: an exception raised inside a callback of a library can be lost there, so that long
#: loops look here too.
stopped = threading.Event()

out = Console(highlight=False, emoji=False, soft_wrap=True)
#: Progress, warnings and errors: standard output is for results.
err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def fail(sentence: str) -> None:
    """Print an error."""
    err.print(f"error: {sentence}", markup=False, style="red")


#: What this process warned of, for whoever started it where its screen is not seen.
warned: list[str] = []


def warn(sentence: str) -> None:
    """Print a warning."""
    warned.append(sentence)
    err.print(f"warning: {sentence}", markup=False, style="yellow")


def print_json(document: Any) -> None:
    """Print one JSON document, and nothing else, on standard output."""
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")


def print_facts(facts: dict[str, str]) -> None:
    """Print names and values in two columns."""
    width = max(map(len, facts))
    for name, value in facts.items():
        out.print(f"  {name:<{width}}  {value}", markup=False)


def progress_bar() -> Progress:
    """A bar with what is going on, how far it is and how long it will take."""
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
    )


def versions(*packages: str) -> dict[str, str]:
    """Versions of this package, Python and those of ``packages`` that are installed."""
    found = {"python": sys.version.split()[0]}
    for package in ("fsad-edge", "numpy", "pillow", *packages):
        version = package_version(package)
        if version is not None:
            found[package] = version
    return found


def package_version(package: str) -> str | None:
    """The version of an installed distribution, None where it is not installed."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
