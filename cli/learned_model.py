"""What the commands share that show or change what a model was taught."""

from __future__ import annotations

import contextlib
import getpass
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsad_edge.cli.console import counted, out, warn

if TYPE_CHECKING:
    from fsad_edge.learning.examples import ExampleState, SideChange
    from fsad_edge.learning.journal import Setting
    from fsad_edge.learning.learner import Learner
    from fsad_edge.learning.taught_model import TaughtModel
    from fsad_edge.runtime.model import Model

Who = Annotated[str | None, typer.Option(help="Name for the journal; the user's by default.")]


@contextlib.contextmanager
def opened(path: Path, write: bool = True) -> Iterator[tuple[Model, Learner]]:
    """A model with what it was taught; warnings tell which examples an update has turned."""
    from fsad_edge.learning.learner import Learner
    from fsad_edge.runtime.model import Model

    provider = "auto" if path.suffix == ".engine" else "cpu"
    with Model.load(path, provider) as model, Learner.open(path, model, write) as learner:
        if learner.notice:
            warn(learner.notice)
        check = learner.check_examples()
        if check is not None and check.sentence is not None:
            warn(check.sentence)
        yield model, learner


def user() -> str:
    """The name of whoever runs the command."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"


def example_document(one: ExampleState) -> dict[str, Any]:
    """An example for a JSON document."""
    return {
        "id": one.entry.id,
        "name": one.entry.name,
        "role": one.entry.role,
        "score": one.score,
        "ratio": one.score / one.threshold,
        "decision": one.decision,
        "right": one.right,
    }


def change_document(change: SideChange) -> dict[str, Any]:
    """An example that changed sides, for a JSON document."""
    return {
        "id": change.entry.id,
        "name": change.entry.name,
        "role": change.entry.role,
        "before": change.before,
        "after": change.after,
        "lost": change.lost,
    }


def print_changes(changes: Sequence[SideChange], verb: str = "changes sides") -> None:
    """Print the examples that changed sides, if any."""
    for change in changes:
        words = "lost" if change.lost else verb
        style = "bold red" if change.lost else None
        out.print(f"  {words}: {change}", markup=False, style=style)


def describe_setting(setting: Setting) -> str:
    """A threshold that a person set, in words."""
    words = f"{setting.value:.4g}, {setting.method}"
    if setting.undone is not None:
        words += f", undone {setting.undone[:19]}Z by {setting.undone_by}"
    return words


def describe_threshold(model: Model, learner: Learner) -> str:
    """The threshold and its ratio to the one in the file, in words."""
    value, own = learner.threshold.value, model.metadata.threshold.value
    if value == own:
        return f"{value:.4g}, the file's own"
    return f"{value:.4g} ({value / own:.2f} times the file's own, {own:.4g})"


def describe_taught(learner: TaughtModel) -> str:
    """The images that count by what they were taught as, in words."""
    from fsad_edge.learning.journal import Role

    roles = Counter(entry.role for entry in learner.active)
    words = [f"{counted(roles[Role.NORMAL], 'image')} learned"] if roles[Role.NORMAL] else []
    if roles[Role.REJECTED]:
        words.append(f"{roles[Role.REJECTED]} called bad")
    if examples := roles[Role.GOOD] + roles[Role.BAD]:
        words.append(f"{examples} kept as {'an example' if examples == 1 else 'examples'}")
    return ", ".join(words) or "no image"
