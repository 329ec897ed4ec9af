"""What was said of the examples after the last change, to tell what an update has turned."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from fsad_edge.learning.examples import ExampleState, SideChange, distinct, name_changes
from fsad_edge.options import Decision
from fsad_edge.runtime.documents import Sha256, write_document
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.provenance import package_versions

#: Packages that compute scores.
ENGINES = ("onnxruntime", "onnxruntime-gpu", "tensorrt")


@dataclass(frozen=True)
class Decided:
    """The document ``decisions.json`` of a learning store.

    Attributes:
        journal: SHA-256 of the last line of the journal that it was written for; with another one
            it says nothing, because a process was killed or an older journal was restored.
        made_with: versions of the packages, and what ran the model.
        decisions: the decision on each example, by its id.
        seal: SHA-256 of all this and of what it belongs to, by which damage is found.
    """

    journal: Sha256
    made_with: dict[str, str]
    decisions: dict[str, Decision]
    seal: str = ""

    @classmethod
    def of(cls, states: Sequence[ExampleState], journal: str, provider: str) -> Decided:
        """What is said now."""
        decisions = {str(one.entry.id): one.decision for one in states}
        return cls(journal, environment(provider), decisions)

    def sealed(self, model: str) -> Decided:
        """The same with a seal that holds beside a model file of this SHA-256 alone."""
        open_one = dataclasses.replace(self, seal="")
        seal = sha256(f"{model} {write_document(open_one)}".encode())
        return dataclasses.replace(self, seal=seal)


@dataclass(frozen=True)
class ExamplesCheck:
    """The examples that are decided otherwise than after the last change.

    Attributes:
        changes: these examples.
        count: how many examples were compared.
        updates: what is another than then, such as ``numpy 2.1.0 -> 2.2.0``.
    """

    changes: tuple[SideChange, ...]
    count: int
    updates: tuple[str, ...]

    @property
    def sentence(self) -> str | None:
        """What to tell a person; None where nothing has changed."""
        if not self.changes:
            return None
        since = f" ({', '.join(self.updates)})" if self.updates else ""
        return (
            f"{len(self.changes)} of {self.count} examples have changed sides since something was "
            f"taught last{since}: {name_changes(self.changes)}."
        )


def environment(provider: str) -> dict[str, str]:
    """What scores are computed with."""
    return {**package_versions(*ENGINES), "run by": provider}


def compare(then: Decided, states: Sequence[ExampleState], provider: str) -> ExamplesCheck:
    """The examples that are decided otherwise than then.

    Args:
        then: what was said of them.
        states: what is said now.
        provider: what runs the model.
    """
    known = [one for one in distinct(states) if str(one.entry.id) in then.decisions]
    before = [
        SideChange(one.entry, then.decisions[str(one.entry.id)], one.decision) for one in known
    ]
    now = environment(provider)
    updates = [
        f"{name} {then.made_with.get(name, 'none')} -> {now.get(name, 'none')}"
        for name in dict.fromkeys([*then.made_with, *now])
        if then.made_with.get(name) != now.get(name)
    ]
    changes = tuple(one for one in before if one.before is not one.after)
    return ExamplesCheck(changes, len(known), tuple(updates))
