"""How ``fsad-edge threshold`` says what it shows and does."""

from __future__ import annotations

import dataclasses
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsad_edge.cli.console import counted, out, print_facts
from fsad_edge.cli.learned_model import (
    change_document,
    describe_set,
    describe_setting,
    describe_threshold,
    describe_under_zones,
    example_document,
    print_changes,
)

if TYPE_CHECKING:
    from fsad_edge.calibration.examples import Errors
    from fsad_edge.cli.threshold import Change
    from fsad_edge.learning.examples import ExampleState
    from fsad_edge.learning.journal import Setting
    from fsad_edge.learning.learner import Learner
    from fsad_edge.learning.weighed import WeighedExamples
    from fsad_edge.runtime.model import Model


def print_state(path: Path, model: Model, learner: Learner) -> None:
    """Print the threshold in effect, where it came from, the examples, and those of before."""
    threshold, examples = learner.threshold, learner.examples()
    out.print(str(path))
    facts = {"threshold": describe_threshold(model, learner), "from": _origin(learner)}
    if zoned := describe_under_zones(model, learner):
        facts["zones"] = zoned
    if not learner.errors().rejected.count:  # good examples tell more than the shots alone
        facts["reliability"] = threshold.reliability
    facts["good parts"] = _expected(model, learner)
    said = learner.errors().sentences
    facts.update(zip(("examples", ""), said, strict=False))
    print_facts(facts)
    if examples:
        _print_examples(examples)
    before = [one for one in learner.settings() if one != learner.setting]
    if before:
        _print_settings(before)


def print_change(path: Path, model: Model, learner: Learner, change: Change, dry_run: bool) -> None:
    """Print a threshold that was set or undone, or would be, and what that means."""
    words = "would be set" if dry_run else change.words
    if change.undone is not None:
        words = f"undone: {describe_set(change.undone)}"
    out.print(f"{path}: {words}")
    facts = {
        "threshold": f"{change.after:.4g} ({change.after / change.before:.2f} times the one "
        f"before, {change.before:.4g})",
        "from": change.method,
    }
    now, earlier = change.errors_after.sentences, change.errors_before.sentences
    facts.update(zip(("examples", " "), now, strict=False))
    facts.update(zip(("before", "  "), earlier, strict=False))
    print_facts(facts)
    if change.weighed is not None:
        for sentence in _notes_on_examples(change.weighed):
            out.print(f"  note: {sentence}.")
        held = model.metadata.in_banks
        new = sum(one.sha256 not in held for one in change.weighed.new)
        if not dry_run and change.kept < new:
            out.print(
                f"  note: {change.kept} of {new} new examples are kept, those nearest to the "
                "threshold: there is no room for more."
            )
    print_changes(change.changes)
    file = shlex.quote(str(path))
    if dry_run:
        out.print("Nothing was set: leave out --dry-run to set it.")
    elif change.undone is not None:
        _print_left(file, learner)
    elif change.words == "set":
        out.print(f"To undo it:  fsad-edge threshold {file} --undo")
        if math.isclose(change.after, change.before, rel_tol=1e-6):
            out.print("The threshold has the same value as before: undoing it does not move it.")
    else:
        out.print("It was set to that already: nothing was changed, and there is nothing to undo.")


def _notes_on_examples(weighed: WeighedExamples) -> list[str]:
    """What else is said of examples that a threshold was found from, without full stops."""
    found, kept = weighed.result, []
    if math.isclose(found.threshold.value, weighed.threshold, rel_tol=1e-6):
        kept = ["the threshold stays where it was: these examples are no reason to move it"]
    elif found.threshold.value > weighed.threshold:
        kept = ["the threshold rises, because good parts score higher than was known"]
    return [*kept, *found.overlap, *found.contradictions, *weighed.remarks]


def _print_left(file: str, learner: Learner) -> None:
    """Print which examples stay where a threshold was undone."""
    from fsad_edge.learning.examples import MOST_NAMED, NO_NAME

    left = [one for one in learner.active if one.role.is_example]
    if not left:
        return
    names = ", ".join(f"{one.id} ({one.name or NO_NAME})" for one in left[:MOST_NAMED])
    more = f" and {len(left) - MOST_NAMED} more" if len(left) > MOST_NAMED else ""
    out.print(
        f"{counted(len(left), 'example')} {'stays' if len(left) == 1 else 'stay'}, also those that "
        f"were given with it: {names}{more}. To remove one:  fsad-edge bank undo {file} "
        f"{left[0].id}",
    )


def notes_of(model: Model, learner: Learner, change: Change | None) -> list[str]:
    """Sentences below a picture of the threshold."""
    if change is None:
        errors = learner.errors().sentences
        return [f"{one}." for one in (f"Good parts: {_expected(model, learner)}", *errors)]
    notes = [f"{one}." for one in change.errors_after.sentences]
    if change.weighed is not None:
        notes += [f"{one}." for one in _notes_on_examples(change.weighed)]
    return notes


def document_of(
    path: Path, model: Model, learner: Learner, change: Change | None
) -> dict[str, Any]:
    """What is shown and what was done, for a JSON document."""
    threshold, own, setting = learner.threshold, model.metadata.threshold, learner.setting
    expected = learner.expected()
    document = {
        "model": str(path),
        "value": threshold.value,
        "file_value": own.value,
        "value_under_zones": learner.in_effect.threshold.value,
        "ratio": threshold.value / own.value,
        "false_alarm_rate": threshold.false_alarm_rate,
        "rate_promised": threshold.rate_promised,
        "expected_false_alarms": expected
        and (
            None
            if learner.errors().rejected.wrong
            else expected.share_above(threshold.value) + (_by_place(model, learner) or 0.0)
        ),
        "method": threshold.method,
        "reliability": threshold.reliability,
        "set_by": setting and setting.who,
        "set_when": setting and setting.when,
        "set_id": setting and setting.id,
        "scores": learner.in_effect.threshold.scores,
        "learned_scores": learner.learned_scores(),
        "examples": [example_document(one) for one in learner.examples()],
        "errors": _errors_document(learner.errors()),
        "settings": [dataclasses.asdict(one) for one in learner.settings()],
    }
    return document if change is None else {**document, **_change_document(change)}


def _change_document(change: Change) -> dict[str, Any]:
    found = change.weighed
    return {
        "done": change.words,
        "before": {"value": change.before, "errors": _errors_document(change.errors_before)},
        "after": {"value": change.after, "errors": _errors_document(change.errors_after)},
        "changes": [change_document(one) for one in change.changes],
        "overlap": [] if found is None else found.result.overlap,
        "contradictions": [] if found is None else found.result.contradictions,
        "remarks": [] if found is None else found.remarks,
        "new_examples": 0 if found is None else len(found.new),
        "kept": change.kept,
    }


def _errors_document(errors: Errors) -> dict[str, Any]:
    return {
        name: {**dataclasses.asdict(count), "bound": count.bound}
        for name, count in (("missed", errors.missed), ("rejected", errors.rejected))
    }


def _origin(learner: Learner) -> str:
    method, setting = learner.threshold.method, learner.setting
    return method if setting is None else f"{method} (id {setting.id})"


def _expected(model: Model, learner: Learner) -> str:
    """What the false alarm rate means at this threshold."""
    from fsad_edge.calibration.threshold import percent

    threshold, expected = learner.threshold, learner.expected()
    asked = f"{percent(threshold.false_alarm_rate)} was asked for"
    promise = asked if threshold.rate_promised else f"{asked}, not promised"
    good = learner.errors().rejected
    if good.wrong:  # what is rejected already is more than the scores of the shots foretell
        return (
            "how many are rejected is not known, because the threshold rejects "
            f"{good.wrong} of {counted(good.count, 'good example')}; {promise}"
        )
    forced = sum(one.forced for one in learner.normals)
    if forced:
        promise += f"; not counting {counted(forced, 'image')} learned with --force"
    if expected is None:
        return f"how many are rejected is not known from one shot; {promise}"
    share, by_place = expected.share_above(threshold.value), _by_place(model, learner)
    known = [counted(len(model.metadata.threshold.scores), "shot")]
    known *= model.metadata.shots.count > 1  # the views of a single shot say nothing of parts
    if learner.score_count:
        known.append(counted(learner.score_count, "learned image"))
    if good.count:
        known.append(counted(good.count, "good example"))
    said = f"{percent(share + (by_place or 0.0))} are expected to be rejected"
    if by_place is not None:
        said += (
            f", {percent(by_place)} of them because places are compared, if every kind of good "
            "part is among the shots"
        )
    return f"{said}, judging by {', '.join(known)}; {promise}"


def _by_place(model: Model, learner: Learner) -> float | None:
    """The share of good parts that the place score is expected to reject; None where it is not
    known, as where places are not compared.
    """
    from fsad_edge.calibration.placing import place_prediction

    metadata = model.metadata
    known = place_prediction(metadata.by_place, metadata.threshold.false_alarm_rate)
    # Where zones move the file's threshold, the places move with it.
    ratio = learner.threshold.value / learner.in_effect.threshold.value
    return None if known is None else known.share_above(ratio)


def _print_examples(examples: list[ExampleState]) -> None:
    out.print(f"{'id':>4}  {'called':<8}  {'score':>8}  {'ratio':>6}  {'decision':<10}  example")
    for one in examples:
        entry = one.entry
        out.print(
            f"{entry.id:4}  {entry.role:<8}  {one.score:8.4f}  {one.score / one.threshold:6.2f}  "
            f"{one.decision.words:<10}  {entry.name or '-'}{'' if one.right else '  WRONG'}",
            style=None if one.right else "bold red",
        )


def _print_settings(settings: list[Setting]) -> None:
    out.print(f"{counted(len(settings), 'threshold')} set before:")
    for one in settings:
        out.print(
            f"{one.id:4}  {one.when[:19]}Z  {one.who:<12}  {describe_setting(one)}",
            style=None if one.undone is None else "dim",
        )
