"""What the commands share that show or change what a model was taught."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsad_edge.cli.console import counted, out, warn
from fsad_edge.errors import FsadEdgeError

if TYPE_CHECKING:
    from fsad_edge.learning.examples import ExampleState, SideChange
    from fsad_edge.learning.journal import Setting
    from fsad_edge.learning.learner import Learner
    from fsad_edge.learning.summary import TaughtSummary
    from fsad_edge.runtime.metadata import Metadata
    from fsad_edge.runtime.model import Model
    from fsad_edge.runtime.zones import ZoneEntry

Who = Annotated[str | None, typer.Option(help="Name for the journal; the user's by default.")]


@dataclass(frozen=True)
class TaughtBeside:
    """What a model file was taught on this device, and the folder that holds it.

    Attributes:
        summary: what.
        folder: where.
        share: the share of the part that counts under the zones.
        shots_threshold: what the zones make of the file's threshold.
    """

    summary: TaughtSummary
    folder: Path
    share: float
    shots_threshold: float | None


@contextlib.contextmanager
def opened(path: Path, write: bool = True) -> Iterator[tuple[Model, Learner]]:
    """A model with what it was taught; warnings tell which examples an update has turned."""
    from fsad_edge.learning.learner import Learner
    from fsad_edge.runtime.model import Model

    provider = "auto" if path.suffix == ".engine" else "cpu"
    with Model.load(path, provider) as model, Learner.open(path, model, write) as learner:
        if model.unsealed:
            warn(model.unsealed)
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
        out.print(f"  {words}: {change}", style=style)


def describe_setting(setting: Setting) -> str:
    """A threshold that a person set, in words."""
    words = f"{setting.value:.4g}, {setting.method}"
    if setting.undone is not None:
        words += f", undone {setting.undone[:19]}Z by {setting.undone_by}"
    return words


def describe_set(setting: Setting) -> str:
    """Which threshold a person set, when and how."""
    when = setting.when[:16].replace("T", " ")
    return (
        f"the threshold {setting.value:.4g} that {setting.who} set on {when} UTC (id {setting.id}: "
        f"{setting.method})"
    )


def describe_zone(entry: ZoneEntry, threshold: float | None = None) -> str:
    """A zone that a person set, in words.

    Args:
        entry: the zone.
        threshold: that of the model, where the one in the zone is to be told.
    """
    words, asked = entry.zone.words, entry.own_threshold
    if entry.zone.kind.value == "weight" and threshold is not None and entry.undone is None:
        here = threshold / entry.zone.weight
        words += f", {here:.4g} is the threshold in it"
        if asked is not None and abs(here - asked) > 0.01 * asked:
            words += f" ({asked:.4g} was asked for when it was set)"
    elif asked is not None:
        words += f", for a threshold of {asked:.4g}"
    if entry.note:
        words += f": {entry.note}"
    if entry.undone is not None:
        words += f", undone {entry.undone[:19]}Z by {entry.undone_by}"
    return words


def describe_under_zones(model: Model, learner: Learner) -> str | None:
    """What the zones that were set here make of the threshold, in words; None where nothing."""
    zones, own = learner.in_effect, model.metadata.threshold.value
    if not zones.here or zones.threshold.value == own:
        return None
    return (
        f"{counted(len(zones.here), 'zone')} set here moved the threshold of the shots from "
        f"{own:.4g} to {zones.threshold.value:.4g};  fsad-edge region  shows "
        f"{'it' if len(zones.here) == 1 else 'them'}"
    )


def describe_threshold(model: Model, learner: Learner) -> str:
    """The threshold and its ratio to the one in the file, in words."""
    value, own = learner.threshold.value, model.metadata.threshold.value
    if value == own:
        return f"{value:.4g}, the file's own"
    return f"{value:.4g} ({value / own:.2f} times the file's own, {own:.4g})"


def taught_beside(path: Path, metadata: Metadata | None = None) -> TaughtBeside | None:
    """What a file was taught on this device, without loading it; None where that is nothing.

    Args:
        path: the model file or engine.
        metadata: its metadata. With that, what is wrong with the folder is a warning; without, it
            is left to the command that scores.
    """
    from fsad_edge.learning.learner import content_sha256
    from fsad_edge.learning.store import LearningStore
    from fsad_edge.learning.summary import TaughtSummary
    from fsad_edge.learning.zones_in_effect import shares_of, shots_threshold

    known = frozenset[str]() if metadata is None else metadata.contained
    try:
        store = LearningStore(path, content_sha256(path), known)
        store.read()
    except FsadEdgeError as error:
        if metadata is not None:
            warn(str(error))
        return None
    if metadata is not None and store.notice:
        warn(store.notice)
    summary = TaughtSummary.of(store.active, store.setting, len(store.zones_without()))
    if summary == TaughtSummary():
        return None
    here = store.zones_without()
    if metadata is None or not here:
        return TaughtBeside(summary, store.path, 1.0, None)
    share, _ = shares_of(metadata, here)
    return TaughtBeside(summary, store.path, share, shots_threshold(metadata, here))
