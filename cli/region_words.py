"""How ``fsad-edge region`` says what it shows and does."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsad_edge.cli.console import counted, out, print_facts
from fsad_edge.cli.learned_model import (
    change_document,
    describe_threshold,
    describe_under_zones,
    describe_zone,
    print_changes,
)
from fsad_edge.runtime.documents import to_document
from fsad_edge.runtime.zones import MARGINS

if TYPE_CHECKING:
    from fsad_edge.learning.learner import Learner
    from fsad_edge.learning.zones_asked import ZoneTrial
    from fsad_edge.learning.zones_proposal import ZoneProposal
    from fsad_edge.runtime.model import Model
    from fsad_edge.runtime.zones import ZoneEntry

#: A polygon of more corners is not printed in a list.
_MOST_SHOWN = 6


@dataclass(frozen=True)
class Done:
    """A zone that was set or undone, or that a dry run would set.

    Attributes:
        words: what was done.
        entry: the zone; None for a dry run.
        trial: what it changed.
    """

    words: str
    entry: ZoneEntry | None
    trial: ZoneTrial


def print_zones(path: Path, model: Model, learner: Learner) -> None:
    """Print the zones in effect, those that were undone, and what counts."""
    out.print(str(path))
    baked, here = model.metadata.zones, learner.zones()
    if not (baked or here):
        out.print("No zone is set: all of the part counts the same.")
    if here or baked:
        out.print(f"{'id':>4}  {'where':<44}  {'when':<20}  {'who':<12}  what")
    threshold = learner.threshold.value
    for entry in baked:
        out.print(_line(entry, threshold) + " (in the file)", style="dim")
    for entry in here:
        out.print(_line(entry, threshold), style=None if entry.undone is None else "dim")
    print_facts(_facts(model, learner))


def print_done(file: str, model: Model, learner: Learner, done: Done) -> None:
    """Print what was set or undone, or would be, and what that changes."""
    trial, entry = done.trial, done.entry
    number = "the zone" if entry is None else f"zone {entry.id}"
    what = "" if entry is None else f": {entry.zone.words}"
    out.print(f"{file}: {number} {'is ' if entry else ''}{done.words}{what}")
    facts = {
        "threshold": f"{trial.after:.4g} ({trial.after / trial.before:.2f} times the one before, "
        f"{trial.before:.4g})",
        "counts": f"{trial.share:.0%} of the part ({trial.share_before:.0%} before)",
        **_beside(trial.beside),
    }
    if trial.in_zone is not None:
        facts["in the zone"] = f"{trial.in_zone:.4g} is the threshold; elsewhere {trial.after:.4g}"
    if trial.cost is not None:
        facts["good parts"] = trial.cost
    print_facts(facts)
    for sentence in trial.sentences:
        out.print(f"  note: {sentence}")
    print_changes(trial.changes)
    if entry is None:
        out.print("Nothing was set: leave out --dry-run to set it.")
    elif done.words == "set":
        out.print(f"To undo it:  fsad-edge region {file} --undo {entry.id}")


def print_proposal(file: str, proposal: ZoneProposal, warning: str | None) -> None:
    """Print which places could be ignored, and the commands that would do it."""
    from fsad_edge.learning.zones_proposal import joined

    out.print(proposal.sentence)
    if not proposal.zones:
        return
    if warning is not None:
        out.print(f"  note: {warning}")
    polygon = joined([one.polygon for one in proposal.zones])
    assert polygon is not None  # as there are zones
    place = " ".join(f"{x:.3f},{y:.3f}" for x, y in polygon)
    out.print("Nothing was set. To ignore it, after a look at the part (--picture draws it):")
    out.print(f'  fsad-edge region {file} --ignore "{place}"')


def document_of(
    path: Path, model: Model, learner: Learner, done: Done | None, proposal: ZoneProposal | None
) -> dict[str, Any]:
    """What is shown and what was done, for a JSON document."""
    from fsad_edge.learning.zones_asked import why_no_following
    from fsad_edge.learning.zones_in_effect import grid_of

    zones = learner.in_effect
    rows, columns = grid_of(model)
    document: dict[str, Any] = {
        "model": str(path),
        "threshold": learner.threshold.value,
        "share": zones.share,
        "beside": zones.beside,
        "warning": why_no_following(model.metadata),
        "zones": [to_document(one) for one in learner.zones()],
        "file_zones": [to_document(one) for one in model.metadata.zones],
        "rows": rows,
        "columns": columns,
        "weights": zones.weights_on(rows, columns).tolist(),
    }
    if done is not None:
        changes = [change_document(one) for one in done.trial.changes]
        told = done.trial
        trial = {
            **vars(told),
            "zone": None if told.zone is None else to_document(told.zone),
            "threshold_in_zone": told.in_zone,
            "changes": changes,
            "notes": told.sentences,
        }
        document["done"] = done.words
        document["zone"] = None if done.entry is None else to_document(done.entry)
        document["trial"] = trial
    if proposal is not None:
        document["proposal"] = {
            **dataclasses.asdict(proposal),
            "zones": [to_document(one) for one in proposal.zones],
        }
    return document


def _line(entry: ZoneEntry, threshold: float) -> str:
    corners = entry.zone.polygon
    where = " ".join(f"{x:.3f},{y:.3f}" for x, y in corners)
    if len(corners) > _MOST_SHOWN or len(where) > 44:
        across, down = ([one[axis] for one in corners] for axis in (0, 1))
        where = (
            f"{counted(len(corners), 'corner')}, {min(across):.2f},{min(down):.2f} to "
            f"{max(across):.2f},{max(down):.2f}"
        )
    what = describe_zone(entry, threshold)
    return f"{entry.id:4}  {where:<44}  {entry.when[:19]}Z  {entry.who:<12}  {what}"


def _facts(model: Model, learner: Learner) -> dict[str, str]:
    zones = learner.in_effect
    facts = {
        "counts": f"{zones.share:.0%} of the part",
        **_beside(zones.beside),
        "threshold": describe_threshold(model, learner),
    }
    if zoned := describe_under_zones(model, learner):
        facts["zones"] = zoned.partition(";")[0]
    return facts


def _beside(share: float) -> dict[str, str]:
    """The share of the part that does not count because it is beside what is ignored."""
    if share <= 0:
        return {}
    return {
        "beside": f"{share:.0%} of the part, up to {MARGINS[-1]:g} cells around what is ignored, "
        "does not count either: it sees what is there"
    }
