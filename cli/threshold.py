"""``fsad-edge threshold``: show the threshold of a model, and set it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsad_edge.cli.console import out, print_json
from fsad_edge.cli.learned_model import Who, opened, user
from fsad_edge.cli.shared_options import Json, SkipUnreadable
from fsad_edge.cli.unused_options import refuse_unused
from fsad_edge.errors import InputError
from fsad_edge.runtime.files import is_folder, write_bytes

if TYPE_CHECKING:
    from fsad_edge.calibration.examples import Errors
    from fsad_edge.learning.examples import SideChange
    from fsad_edge.learning.journal import Setting
    from fsad_edge.learning.learner import Learner, NamedImage
    from fsad_edge.learning.weighed import WeighedExamples
    from fsad_edge.runtime.model import Model


@dataclass(frozen=True)
class Change:
    """A threshold that was set or undone, or that a dry run would set.

    Attributes:
        words: what was done: ``set``, ``undone``, or ``unchanged`` where a person had set it to
            that already.
        method: how the new threshold was found.
        before: the threshold before.
        after: the threshold after it.
        changes: the examples that change sides.
        errors_before: what the threshold before makes of the examples that count.
        errors_after: what the new one makes of them.
        weighed: the examples that it was found from; None where it was given.
        kept: how many new examples are kept.
        undone: the threshold that was undone; None where one was set.
    """

    words: str
    method: str
    before: float
    after: float
    changes: list[SideChange]
    errors_before: Errors
    errors_after: Errors
    weighed: WeighedExamples | None = None
    kept: int = 0
    undone: Setting | None = None


def threshold(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="File that export wrote, or engine of build.")],
    good: Annotated[
        list[Path] | None,
        typer.Option(
            help="Photograph of a good part, or folder of them, not learned before. Repeatable."
        ),
    ] = None,
    bad: Annotated[
        list[Path] | None,
        typer.Option(help="Photograph of a bad part, or folder of them. Repeatable."),
    ] = None,
    value: Annotated[
        float | None, typer.Option(help="Set the threshold to this score, such as 0.23.")
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            help="Set it to this many times the present one: 0.9 finds more bad parts and "
            "rejects more good ones."
        ),
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(
            help="Set the share of good parts that may be rejected, such as 0.01; the threshold "
            "follows it when more is learned."
        ),
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Undo the threshold that was set last; examples stay.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be set, and set nothing.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Set it although examples would be decided wrongly then."),
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="PNG to write: the known scores on one axis, and the threshold among them. It "
            "replaces nothing but an older picture of fsad-edge."
        ),
    ] = None,
    who: Who = None,
    skip_unreadable: SkipUnreadable = False,
    json_: Json = False,
) -> None:
    """Show the threshold, the score above which a part is rejected, or set it.

    Without options it is shown. Set it by photographs of good and bad parts (--good, --bad), or by
    one number (--value, --ratio or --false-alarm-rate). The photographs are kept as examples: a
    later change that would decide one of them wrongly is refused, unless --force is given.
    """
    from fsad_edge.cli.threshold_words import document_of, print_change, print_state
    from fsad_edge.pipeline.example_files import read_examples
    from fsad_edge.runtime.folders import describe

    numbers = {"value": value, "ratio": ratio, "false_alarm_rate": false_alarm_rate}
    given = {name: number for name, number in numbers.items() if number is not None}
    examples = bool(good or bad)
    _check_options(len(given) + examples + undo, bool(given) or examples, dry_run)
    _check_unused(context, bool(given) or examples or undo, examples)
    if picture is not None:
        _check_picture(picture)
    found = read_examples(good or [], bad or [], skip_unreadable)
    name, write = who or user(), not dry_run and (bool(given) or examples or undo)
    with opened(model, write) as (loaded, learner):
        change = None
        if examples:
            change = _from_examples(learner, found.good, found.bad, name, force, dry_run)
        elif given:
            change = _by_number(learner, given, name, force, dry_run)
        elif undo:
            change = _undo(model, learner, name, force)
        if picture is not None:
            _draw(picture, model, loaded, learner, change, dry_run)
        if json_:
            skipped = [one.as_dict() for one in found.skipped]
            print_json({**document_of(model, loaded, learner, change), "skipped": skipped})
            return
        if change is None:
            print_state(model, loaded, learner)
        else:
            print_change(model, loaded, learner, change, dry_run)
    if found.skipped:
        out.print(describe(found.skipped))
    if picture is not None:
        out.print(f"The picture is {picture}.")


def _check_options(asked: int, tries: bool, dry_run: bool) -> None:
    if asked > 1:
        raise InputError(
            "these exclude one another: examples (--good and --bad), --value, --ratio, "
            "--false-alarm-rate, --undo; give one of them."
        )
    if dry_run and not tries:
        raise InputError("--dry-run tries examples or a number: give --good, --bad or --value.")


def _check_unused(context: typer.Context, changes: bool, examples: bool) -> None:
    if not changes:
        refuse_unused(context, "setting or undoing a threshold", "who", "force")
    if not examples:
        refuse_unused(context, "--good and --bad", "skip_unreadable")


def _check_picture(path: Path) -> None:
    from fsad_edge.runtime.own_pictures import check_own

    check_own(path)
    if path.suffix.lower() != ".png" or is_folder(path):
        raise InputError(f"the picture {path} must be a .png file.")


def _draw(
    path: Path, file: Path, model: Model, learner: Learner, change: Change | None, dry_run: bool
) -> None:
    from fsad_edge.cli.threshold_words import notes_of
    from fsad_edge.learning.threshold_picture import draw_threshold
    from fsad_edge.learning.threshold_view import Tried, view_threshold

    tried = None
    if change is not None:
        new = change.weighed.new if change.weighed is not None and dry_run else ()
        names = ("tried", "in effect") if dry_run else ("threshold", "before")
        tried = Tried(change.after, names[0], change.method, change.before, names[1], new)
    notes = notes_of(model, learner, change)
    view = view_threshold(f"Threshold of {file.name}", model.metadata, learner, tried, notes)
    write_bytes(path, draw_threshold(view))


def _from_examples(
    learner: Learner,
    good: Sequence[NamedImage],
    bad: Sequence[NamedImage],
    who: str,
    force: bool,
    dry_run: bool,
) -> Change:
    held, kept, present = len(learner.active), 0, learner.setting
    words = "set"
    if dry_run:
        found = learner.weigh_examples(good, bad)
        changes = learner.preview(found.result.threshold.value)
    else:
        if learner.set_threshold_from_examples(good, bad, who, force) == present:
            words = "unchanged"
        assert learner.weighed is not None  # by the line above
        found, changes, kept = learner.weighed, learner.changes, len(learner.active) - held
    new = found.result.threshold
    return Change(
        words=words,
        method=new.method,
        before=found.threshold,
        after=new.value,
        changes=changes,
        errors_before=found.present,
        errors_after=found.result.after,
        weighed=found,
        kept=kept,
    )


def _by_number(
    learner: Learner, given: dict[str, float], who: str, force: bool, dry_run: bool
) -> Change:
    before, errors, present = learner.threshold.value, learner.errors(), learner.setting
    if dry_run:
        setting = learner.plan_threshold(who, **given)
        changes = learner.preview(setting.value)
    else:
        setting = learner.set_threshold(who, **given, force=force)
        changes = learner.changes
    words = "unchanged" if setting == present else "set"
    # One by a rate follows what is learned.
    value = before if setting == present else setting.value
    after = learner.errors(value)
    return Change(words, setting.method, before, value, changes, errors, after)


def _undo(model: Path, learner: Learner, who: str, force: bool) -> Change:
    setting, before, errors = learner.setting, learner.threshold.value, learner.errors()
    if setting is None:
        raise InputError(f"nobody has set the threshold of {model} here: there is nothing to undo.")
    learner.undo(setting.id, who, force)
    threshold = learner.threshold
    return Change(
        words="undone",
        method=threshold.method,
        before=before,
        after=threshold.value,
        changes=learner.changes,
        errors_before=errors,
        errors_after=learner.errors(),
        undone=setting,
    )
