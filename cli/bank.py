"""``fsad-edge bank``: what a model learned on this device, also while a service runs."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsad_edge.cli.console import ERROR, counted, fail, out, print_facts, print_json, warn
from fsad_edge.cli.shared_options import Force, Json
from fsad_edge.errors import ImageError, InputError, NotNormalError
from fsad_edge.runtime.files import check_output, exists, is_folder, read_bytes, write_bytes

if TYPE_CHECKING:
    from fsad_edge.learning.journal import Entry
    from fsad_edge.learning.learner import Learner
    from fsad_edge.runtime.model import Model

bank = typer.Typer(
    help="What a model learned on this device: list, add, undo, export.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ModelFile = Annotated[Path, typer.Argument(help="File that export wrote.")]
Who = Annotated[str | None, typer.Option(help="Name for the journal; the user's by default.")]


@bank.command("list")
def list_(model: ModelFile, json_: Json = False) -> None:
    """List the images that were learned, and those that were undone."""
    with _opened(model, write=False) as (loaded, learner):
        entries = learner.entries()
    if json_:
        print_json(
            {
                "model": str(model),
                "threshold": learner.threshold.value,
                "exported_threshold": loaded.metadata.threshold.value,
                "entries": [vars(entry) for entry in entries],
            }
        )
        return
    if not entries:
        out.print(f"{model} has learned nothing here.", markup=False)
        return
    out.print(f"{'id':>4}  {'ratio':>6}  {'rows':>5}  {'when':<20}  {'who':<12}  image")
    for entry in entries:
        out.print(
            f"{entry.id:4}  {entry.score / entry.threshold:6.2f}  {entry.rows:5}  "
            f"{entry.when[:19]}Z  {entry.who:<12}  {_describe_image(learner, entry)}",
            markup=False,
            style=None if entry.undone is None else "dim",
        )
    print_facts(_facts(loaded, learner))


@bank.command()
def add(
    model: ModelFile,
    images: Annotated[list[Path], typer.Argument(help="Good images, or folders of them.")],
    who: Who = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Learn even images that score like defects, are bad photographs, or are learned "
            "or among the shots already.",
        ),
    ] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Learn the images in subfolders, too.")
    ] = False,
    json_: Json = False,
) -> None:
    """Learn images as normal. Exit code 2: one was not learned; the others are."""
    from fsad_edge.pipeline.shot_folder import collect_shots
    from fsad_edge.runtime.folders import describe

    found = collect_shots(images, recursive)
    rows: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    with _opened(model) as (loaded, learner):
        for path in found.images:
            words = ""  # the error of a file that cannot be read names it
            try:
                image = read_bytes(path, ImageError)
                words = f"{path}: "
                # A file name need not be valid text.
                name = path.name.encode("utf-8", "backslashreplace").decode()
                entry = learner.add(image, who or _user(), force, name)
            except (ImageError, NotNormalError) as error:
                fail(f"{words}{error}")  # the others are still learned
                refused.append({"image": str(path), "error": str(error)})
                continue
            rows.append({"image": str(path), **vars(entry)})
            if not json_:
                ratio = entry.score / entry.threshold
                out.print(
                    f"learned {path} as {entry.id}: ratio {ratio:.2f}, {entry.rows} rows",
                    markup=False,
                )
    if json_:
        facts = {"model": str(model), "threshold": learner.threshold.value}
        skipped = [one.as_dict() for one in found.skipped]
        print_json({**facts, "learned": rows, "not_learned": refused, "skipped": skipped})
    else:
        print_facts(_facts(loaded, learner))
        if found.skipped:
            out.print(describe(found.skipped), markup=False)
    unseen = [one for one in found.skipped if one.unseen]
    if unseen:
        fail(f"some files were not looked at: {describe(unseen)}.")
    raise typer.Exit(ERROR if refused or unseen else 0)


@bank.command()
def undo(
    model: ModelFile,
    number: Annotated[
        int | None, typer.Argument(help="Id of the image; the last one by default.", metavar="[ID]")
    ] = None,
    who: Who = None,
    json_: Json = False,
) -> None:
    """Unlearn one image."""
    with _opened(model) as (loaded, learner):
        entry = learner.undo(number, who or _user())
    if json_:
        print_json({"model": str(model), "threshold": learner.threshold.value, **vars(entry)})
        return
    out.print(f"{entry.id} is undone.")
    print_facts(_facts(loaded, learner))


@bank.command()
def export(
    model: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    force: Force = False,
    json_: Json = False,
) -> None:
    """Write a self-contained file that includes what was learned."""
    from fsad_edge.learning.export import export_learned

    check_output(output, force)
    if is_folder(output):
        raise InputError(f"{output} is a folder: name a file, such as part2.onnx.")
    if exists(output) and output.samefile(model):
        raise InputError(
            f"{output} is the model that what was learned belongs to: name another file."
        )
    with _opened(model, write=False) as (loaded, learner):
        if not learner.active:
            raise InputError(f"{model} has learned nothing here: there is nothing to export.")
        data = export_learned(model, loaded, learner)
    write_bytes(output, data)
    if json_:
        print_json(
            {
                "output": str(output),
                "bytes": len(data),
                "learned": len(learner.active),
                "threshold": learner.threshold.value,
            }
        )
        return
    out.print(f"Wrote {output} ({len(data) / 1e6:.1f} MB).", markup=False)
    print_facts(_facts(loaded, learner))


@contextlib.contextmanager
def _opened(path: Path, write: bool = True) -> Iterator[tuple[Model, Learner]]:
    """A model with what it learned."""
    from fsad_edge.learning.learner import Learner
    from fsad_edge.runtime.model import Model

    provider = "auto" if path.suffix == ".engine" else "cpu"
    with Model.load(path, provider) as model, Learner.open(path, model, write) as learner:
        if learner.notice:
            warn(learner.notice)
        yield model, learner


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"


def _describe_image(learner: Learner, entry: Entry) -> str:
    from fsad_edge.learning.examples import NO_NAME

    words = entry.name or NO_NAME
    if entry.undone is not None:
        return f"{words}, undone {entry.undone[:19]}Z by {entry.undone_by}"
    if not entry.name:
        words += f", stored as {learner.image_path(entry)}"
    return words + (" (forced)" if entry.forced else "")


def _facts(model: Model, learner: Learner) -> dict[str, str]:
    own = model.metadata.threshold.value
    return {
        "learned": f"{counted(len(learner.active), 'image')} in {learner.folder}",
        "threshold": f"{learner.threshold.value:.4g} ({learner.threshold.value / own:.2f} times "
        "the exported one)",
        "from": learner.threshold.method,
    }
