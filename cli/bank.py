"""``fsad-edge bank``: what a model was taught on this device, also while a service runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsad_edge.cli.console import ERROR, counted, fail, out, print_facts, print_json, warn
from fsad_edge.cli.learned_model import (
    Who,
    change_document,
    describe_set,
    describe_setting,
    describe_threshold,
    describe_zone,
    opened,
    print_changes,
    user,
)
from fsad_edge.cli.shared_options import Force, Json
from fsad_edge.errors import InputError
from fsad_edge.runtime.documents import to_document
from fsad_edge.runtime.files import check_no_input, check_output, exists, is_folder
from fsad_edge.runtime.model_output import check_model_output

if TYPE_CHECKING:
    from fsad_edge.cli.teach_images import Job
    from fsad_edge.learning.journal import Entry, Setting
    from fsad_edge.learning.learner import Learner
    from fsad_edge.learning.taught_elsewhere import LeftOut
    from fsad_edge.runtime.folders import Skipped
    from fsad_edge.runtime.model import Model
    from fsad_edge.runtime.zones import ZoneEntry

bank = typer.Typer(
    help="What a model was taught on this device: list, add, reject, undo, export.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ModelFile = Annotated[Path, typer.Argument(help="File that export wrote.")]


@bank.command("list")
def list_(model: ModelFile, json_: Json = False) -> None:
    """List what was taught, and what of that was undone."""
    with opened(model, write=False) as (loaded, learner):
        entries, settings, zones = learner.entries(), learner.settings(), learner.zones()
        wrong = {one.entry.id for one in learner.examples() if not one.right}
    if json_:
        print_json(
            {
                "model": str(model),
                "threshold": learner.threshold.value,
                "exported_threshold": loaded.metadata.threshold.value,
                "entries": [vars(entry) for entry in entries],
                "settings": [vars(setting) for setting in settings],
                "zones": [to_document(zone) for zone in zones],
                "wrong": sorted(wrong),
                "lost": dict(learner.lost),
            }
        )
        return
    if not (entries or settings or zones):
        out.print(f"{model} has learned nothing here.")
        return
    out.print(f"{'id':>4}  {'as':<9}  {'ratio':>6}  {'rows':>5}  {'when':<20}  {'who':<12}  image")
    taught: list[Entry | Setting | ZoneEntry] = [*entries, *settings, *zones]
    for one in sorted(taught, key=lambda one: one.id):
        out.print(
            _line(learner, one)
            + ("  WRONG" if one.id in wrong else "")
            + ("  DOES NOT COUNT" if one.id in learner.lost else ""),
            style=None if one.undone is None else "dim",
        )
    print_facts(_facts(loaded, learner))


@bank.command()
def add(
    model: ModelFile,
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Good images, or folders of them; or NAME.learned of another file, whose images "
            "are taught as what they were there."
        ),
    ],
    who: Who = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Learn even images that score like defects, are bad photographs, are learned or "
            "among the shots already, or would make an example be decided wrongly.",
        ),
    ] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Learn the images in subfolders, too.")
    ] = False,
    json_: Json = False,
) -> None:
    """Learn images as normal. Exit code 2: one was not learned; the others are.

    From NAME.learned each image is taken once. It keeps the name of the person who taught it there,
    unless --who is given. An image that is taught here already, or was undone since, is left out.
    """
    from fsad_edge.cli.teach_images import jobs_of_files, jobs_of_folders
    from fsad_edge.learning.taught_elsewhere import find_taught
    from fsad_edge.pipeline.shot_folder import collect_shots

    name = who or user()
    elsewhere = {path: find_taught(path) for path in images}
    for folder in filter(None, elsewhere.values()):
        for fault in folder.faults:
            warn(f"{fault}: what it said is not taught here.")
    found = collect_shots([path for path in images if elsewhere[path] is None], recursive)
    folders = [one for one in elsewhere.values() if one is not None]
    jobs = jobs_of_files(
        found.images, lambda learner, image, title: learner.add(image, name, force, title)
    )

    def find_jobs(learner: Learner) -> tuple[list[Job], list[LeftOut]]:
        along, left_out = jobs_of_folders(learner, folders, who, force)
        return [*along, *jobs], left_out

    code = _teach(model, find_jobs, found.skipped, json_)
    for folder in folders:
        if folder.setting is not None and not json_:
            out.print(
                f"The threshold that {folder.setting.who} set in {folder.folder} does not come "
                "along: the scores of this file may differ. Set it with  fsad-edge threshold .",
            )
        if folder.zones and not json_:
            out.print(
                f"{counted(folder.zones, 'zone')} of {folder.folder} "
                f"{'does' if folder.zones == 1 else 'do'} not come along: this file may look at "
                "another frame. Set them with  fsad-edge region .",
            )
    raise typer.Exit(code)


@bank.command()
def reject(
    model: ModelFile,
    images: Annotated[list[Path], typer.Argument(help="Images of bad parts that were missed.")],
    box: Annotated[
        str | None,
        typer.Option(
            metavar="L,T,R,B",
            help="Where the part is bad, if one image is given: left, top, right and bottom in "
            "pixels of the photograph. By default the place where the heat map is worst.",
        ),
    ] = None,
    who: Who = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Do it although an example would be decided wrongly then, or although the image "
            "was called bad before.",
        ),
    ] = False,
    json_: Json = False,
) -> None:
    """Say that parts are bad which passed, so that their like is rejected sooner.

    Each image is kept as an example, and what looks like its bad place is rejected at a lower score
    from now on. To undo it: fsad-edge bank undo MODEL ID. Exit code 2: an image was not taken; the
    others were.
    """
    from fsad_edge.cli.teach_images import jobs_of_files

    name, place = who or user(), _read_box(box)
    if place is not None and len(images) > 1:
        raise InputError("--box is a place in one image: give one image with it.")
    for path in images:
        if is_folder(path):
            raise InputError(
                f"{path} is a folder: name the images in it that were missed; a folder of bad "
                "parts is an example for  fsad-edge threshold --bad ."
            )
    jobs = jobs_of_files(
        images, lambda learner, image, title: learner.reject(image, name, place, force, title)
    )
    raise typer.Exit(_teach(model, lambda learner: (jobs, []), [], json_))


@bank.command()
def undo(
    model: ModelFile,
    number: Annotated[
        int | None,
        typer.Argument(
            help="Id of the image, threshold or zone; the last one by default.", metavar="[ID]"
        ),
    ] = None,
    who: Who = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Undo it although another example would be decided wrongly."),
    ] = False,
    json_: Json = False,
) -> None:
    """Undo one image, a threshold that was set, or a zone."""
    with opened(model) as (loaded, learner):
        undone = learner.undo(number, who or user(), force)
    if json_:
        changes = [change_document(one) for one in learner.changes]
        facts = {"model": str(model), "threshold": learner.threshold.value}
        print_json({**facts, **to_document(undone), "changes": changes})
        return
    out.print(f"{undone.id} is undone: {_what(undone)}.")
    print_changes(learner.changes)
    print_facts(_facts(loaded, learner))


@bank.command()
def export(
    model: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    force: Force = False,
    allow_lost: Annotated[
        bool,
        typer.Option(
            "--allow-lost",
            help="Write the file although it would decide examples wrongly that a file there "
            "decides rightly.",
        ),
    ] = False,
    json_: Json = False,
) -> None:
    """Write a self-contained file that includes what was taught.

    The examples go into a folder beside it, so that they guard the new file, too.
    """
    from fsad_edge.deploy.stale_engines import find_stale_engines, stale_sentence
    from fsad_edge.learning.export import export_learned, write_learned
    from fsad_edge.pipeline.regression_sets import refuse_lost, try_regression_sets

    check_output(output, force)
    if is_folder(output):
        raise InputError(f"{output} is a folder: name a file, such as part2.onnx.")
    if exists(output) and output.samefile(model):
        raise InputError(
            f"{output} is the model that what was learned belongs to: name another file."
        )
    with opened(model, write=False) as (loaded, learner):
        if learner.fault is not None:
            raise InputError(f"nothing that was taught can be exported: {learner.fault}")
        if not (learner.active or learner.setting or learner.in_effect.here):
            raise InputError(f"{model} has learned nothing here: there is nothing to export.")
        check_no_input(output, learner.folder.rglob("*"))
        check_model_output(output, force)
        data = export_learned(model, loaded, learner)
        tried = try_regression_sets(output, data, lambda share: None)
        if not allow_lost:
            refuse_lost(output, tried)
        folder = write_learned(output, data, learner, loaded.provider)
    for engine in find_stale_engines(output, data):
        warn(stale_sentence(engine, output))
    changes = [one.sentence for one in tried if one.sentence]
    if json_:
        print_json(
            {
                "output": str(output),
                "bytes": len(data),
                "examples_tried": changes,
                "learned": learner.summary.learned,
                "zones": learner.summary.zones,
                "examples": folder and str(folder),
                "threshold": learner.threshold.value,
            }
        )
        return
    out.print(f"Wrote {output} ({len(data) / 1e6:.1f} MB).")
    for sentence in changes:
        out.print(sentence)
    print_facts(_facts(loaded, learner))
    if folder is not None:
        out.print(
            f"The examples are in {folder}: copy that folder along with the file. Where it is "
            "missing, nothing is said of an example that is lost.",
        )


def _teach(
    model: Path,
    find_jobs: Callable[[Learner], tuple[Sequence[Job], Sequence[LeftOut]]],
    skipped: Sequence[Skipped],
    json_: bool,
) -> int:
    """Teach images, and print what that did; the exit code."""
    from fsad_edge.cli.teach_images import teach
    from fsad_edge.runtime.folders import describe

    with opened(model) as (loaded, learner):
        jobs, left_out = find_jobs(learner)
        done, refused = teach(learner, jobs, quiet=json_)
        if not json_:
            for one in left_out:
                out.print(f"left out {one.path}: {one.why}")
            print_facts(_facts(loaded, learner))
    if json_:
        facts = {"model": str(model), "threshold": learner.threshold.value}
        left = [{"image": str(one.path), "why": one.why} for one in left_out]
        ignored = [one.as_dict() for one in skipped]
        print_json(
            {**facts, "learned": done, "not_learned": refused, "left_out": left, "skipped": ignored}
        )
    elif skipped:
        out.print(describe(skipped))
    unseen = [one for one in skipped if one.unseen]
    if unseen:
        fail(f"some files were not looked at: {describe(unseen)}.")
    return ERROR if refused or unseen else 0


def _read_box(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    try:
        left, top, right, bottom = map(int, text.split(","))
    except ValueError:
        raise InputError(
            f"--box is four whole numbers, such as 120,80,180,130, not {shlex.quote(text)}."
        ) from None
    return left, top, right, bottom


def _line(learner: Learner, one: Entry | Setting | ZoneEntry) -> str:
    """One image, threshold or zone of the journal."""
    from fsad_edge.learning.journal import Setting
    from fsad_edge.runtime.zones import ZoneEntry

    person = f"{one.when[:19]}Z  {one.who:<12}"
    if isinstance(one, ZoneEntry):
        line = f"{one.id:4}  {'zone':<9}  {'':>6}  {'':>5}  {person}  "
        return line + describe_zone(one, learner.threshold.value)
    if isinstance(one, Setting):
        return f"{one.id:4}  {'threshold':<9}  {'':>6}  {'':>5}  {person}  {describe_setting(one)}"
    return (
        f"{one.id:4}  {one.role:<9}  {one.score / one.threshold:6.2f}  {one.rows:5}  {person}  "
        f"{_describe_image(learner, one)}"
    )


def _what(one: Entry | Setting | ZoneEntry) -> str:
    """What an image, a threshold or a zone of the journal is, in a sentence."""
    from fsad_edge.learning.examples import NO_NAME
    from fsad_edge.learning.journal import Setting
    from fsad_edge.runtime.zones import ZoneEntry

    if isinstance(one, ZoneEntry):
        return f"the zone that {one.who} set ({one.zone.words})"
    if isinstance(one, Setting):
        return describe_set(one)
    return f"the image {one.name or NO_NAME}, which {one.who} {one.role.words}"


def _describe_image(learner: Learner, entry: Entry) -> str:
    from fsad_edge.learning.examples import NO_NAME

    words = entry.name or NO_NAME
    if entry.undone is not None:
        return f"{words}, undone {entry.undone[:19]}Z by {entry.undone_by}"
    if not entry.name:
        words += f", stored as {learner.image_path(entry)}"
    return words + (" (forced)" if entry.forced else "")


def _facts(model: Model, learner: Learner) -> dict[str, str]:
    return {
        "taught": f"{learner.summary.words}, in {learner.folder}",
        "threshold": describe_threshold(model, learner),
        "from": learner.threshold.method,
    }
