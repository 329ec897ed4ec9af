"""``fsad-edge bank``: what a model learned beside its file, offline."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsad_edge.cli.console import ERROR, fail, out, print_facts, print_json, warn
from fsad_edge.errors import ImageError, InputError, NotNormalError
from fsad_edge.runtime.files import check_output, write_bytes

if TYPE_CHECKING:
    from fsad_edge.learning.learner import Entry, Learner
    from fsad_edge.runtime.model import Model

bank = typer.Typer(
    help="What a model learned on this device: list, add, undo, export.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ModelFile = Annotated[Path, typer.Argument(help="File that export wrote.")]
Who = Annotated[str | None, typer.Option(help="Who says so; the user's name by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@bank.command("list")
def list_(model: ModelFile, json_: Json = False) -> None:
    """List what was learned, and undone."""
    with _load(model) as loaded, _open(model, loaded, write=False) as learned:
        entries, threshold = learned.entries(), learned.threshold
    if json_:
        print_json(
            {
                "model": str(model),
                "threshold": threshold.value,
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
            f"{entry.when[:19]}Z  {entry.who:<12}  {_place(learned, entry)}",
            markup=False,
            style=None if entry.undone is None else "dim",
        )
    print_facts(_state(loaded, learned))


@bank.command()
def add(
    model: ModelFile,
    images: Annotated[list[Path], typer.Argument(help="Good images, or folders of them.")],
    who: Who = None,
    force: Annotated[
        bool, typer.Option("--force", help="Learn even what scores like a gross defect.")
    ] = False,
    json_: Json = False,
) -> None:
    """Learn images as normal."""
    from fsad_edge.runtime.images import find_images

    paths = [
        path for given in images for path in (find_images(given) if given.is_dir() else [given])
    ]
    rows: list[dict[str, Any]] = []
    errors = 0
    with _load(model) as loaded, _open(model, loaded) as learned:
        for path in paths:
            try:
                entry = learned.add(_read(path), who or _user(), force)
            except (ImageError, NotNormalError) as error:
                fail(f"{path}: {error}")  # the others are still learned
                errors += 1
                continue
            rows.append({"image": str(path), **vars(entry)})
            if not json_:
                ratio = entry.score / entry.threshold
                out.print(
                    f"learned {path} as {entry.id}: ratio {ratio:.2f}, {entry.rows} rows",
                    markup=False,
                )
    if json_:
        print_json({"model": str(model), "threshold": learned.threshold.value, "learned": rows})
    else:
        print_facts(_state(loaded, learned))
    raise typer.Exit(ERROR if errors else 0)


@bank.command()
def undo(
    model: ModelFile,
    number: Annotated[
        int | None, typer.Argument(help="Its id; the last one by default.", metavar="[ID]")
    ] = None,
    who: Who = None,
    json_: Json = False,
) -> None:
    """Unlearn one image."""
    with _load(model) as loaded, _open(model, loaded) as learned:
        entry = learned.undo(number, who or _user())
    if json_:
        print_json({"model": str(model), "threshold": learned.threshold.value, **vars(entry)})
        return
    out.print(f"{entry.id} is undone.")
    print_facts(_state(loaded, learned))


@bank.command()
def export(
    model: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an older output.")] = False,
    json_: Json = False,
) -> None:
    """Write a self-contained file with what was learned in it."""
    from fsad_edge.learning.export import export_learned

    check_output(output, force)
    if output.is_dir():
        raise InputError(f"{output} is a folder: name a file, such as part2.onnx.")
    if output.exists() and output.samefile(model):
        raise InputError(
            f"{output} is the model itself, which what was learned belongs to: name another file."
        )
    with _load(model) as loaded, _open(model, loaded, write=False) as learned:
        if not learned.active:
            raise InputError(f"{model} has learned nothing here: there is nothing to export.")
        data = export_learned(model, loaded, learned)
        write_bytes(output, data)
    if json_:
        print_json(
            {
                "output": str(output),
                "bytes": len(data),
                "learned": len(learned.active),
                "threshold": learned.threshold.value,
            }
        )
        return
    out.print(f"Wrote {output} ({len(data) / 1e6:.1f} MB).", markup=False)
    print_facts(_state(loaded, learned))


def _load(path: Path) -> Model:
    from fsad_edge.runtime.model import Model

    return Model.load(path, "auto" if path.suffix == ".engine" else "cpu")


def _open(path: Path, model: Model, write: bool = True) -> Learner:
    from fsad_edge.learning.learner import Learner

    learned = Learner.open(path, model, write)
    if learned.notice:
        warn(learned.notice)
    return learned


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}.") from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"


def _place(learned: Learner, entry: Entry) -> str:
    if entry.undone is not None:
        return f"undone {entry.undone[:19]}Z by {entry.undone_by}"
    return str(learned.image_path(entry)) + (" (forced)" if entry.forced else "")


def _state(model: Model, learned: Learner) -> dict[str, str]:
    own = model.metadata.threshold.value
    return {
        "learned": f"{len(learned.active)} images in {learned.folder}",
        "threshold": f"{learned.threshold.value:.4g} ({learned.threshold.value / own:.2f} times "
        "the exported one)",
        "from": learned.threshold.method,
    }
