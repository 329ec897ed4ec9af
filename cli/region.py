"""``fsad-edge region``: where on the part a model looks, and how strictly."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsad_edge.cli.console import out, print_json
from fsad_edge.cli.learned_model import Who, opened, user
from fsad_edge.cli.shared_options import Json
from fsad_edge.cli.unused_options import refuse_unused
from fsad_edge.errors import ImageError, InputError
from fsad_edge.runtime.files import is_folder, read_bytes, write_bytes

if TYPE_CHECKING:
    from fsad_edge.cli.region_words import Done
    from fsad_edge.learning.learner import Learner
    from fsad_edge.learning.zones_asked import AskedZone
    from fsad_edge.learning.zones_placed import MarkedPhotograph
    from fsad_edge.learning.zones_proposal import ZoneProposal
    from fsad_edge.runtime.model import Model
    from fsad_edge.runtime.zones import Corner

#: What one of them sets a zone of.
_SETTING = "--ignore, --look, --weight or --own-threshold"


def region(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="File that export wrote, or engine of build.")],
    ignore: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help="What is in this place does not count."),
    ] = None,
    look: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Only what is in this place counts, or in another one that was given so.",
        ),
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option(
            help="How strictly to look at the place of --polygon: 2 halves the threshold there, "
            "0.5 doubles it. Elsewhere it stays."
        ),
    ] = None,
    own_threshold: Annotated[
        str | None,
        typer.Option(
            metavar="SCORE",
            help="In place of a weight, the threshold in the place of --polygon: a score such as "
            "0.3, or a multiple such as 1.5x of the threshold elsewhere.",
        ),
    ] = None,
    polygon: Annotated[
        str | None,
        typer.Option(
            "--polygon", "--mask", metavar="PLACE", help="The place of --weight or --own-threshold."
        ),
    ] = None,
    on: Annotated[
        Path | None,
        typer.Option(
            metavar="PHOTO",
            help="Photograph of a part, on which the place is given in pixels or painted. Where "
            "the model looks for the part, the zone follows it.",
        ),
    ] = None,
    note: Annotated[str, typer.Option(help="Why, for the journal.")] = "",
    propose: Annotated[
        bool,
        typer.Option(
            "--propose", help="Say where the shots differ most from one another, and set nothing."
        ),
    ] = False,
    undo: Annotated[
        int | None, typer.Option(metavar="ID", help="Undo the zone of this id.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what a zone would change, and set nothing.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Do it although examples would be decided wrongly then."),
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="PNG to write: the zones, and what --propose found as ?1 and so on, over the "
            "photograph of --on or over a shot. It replaces nothing but an older picture of "
            "fsad-edge."
        ),
    ] = None,
    who: Who = None,
    json_: Json = False,
) -> None:
    """Say where on the part to look: show the zones, or set one.

    A PLACE is a polygon, as "120,80 300,80 300,200": in pixels of the photograph of --on, or
    without that as fractions, from 0,0 to 1,1, of what the model looks at. Or it is a PNG of the
    size of that photograph in which the place is painted: what is neither transparent nor black.

    Zones count from then on in every command. Where the model looks for the part in a photograph
    (info says so), they follow it; else they stay where they are in the photograph. What is
    ignored reaches 2 to 3 cells of the heat map further, because those see what is in it, and the
    threshold is computed again from what is left; it never rises. Where zones overlap, the later
    one wins; outside all places of --look nothing counts.
    """
    from fsad_edge.cli.region_words import document_of, print_done, print_proposal, print_zones
    from fsad_edge.learning.zones_asked import why_no_following

    place = _place(ignore, look, weight, own_threshold, polygon)
    _check_options(context, place is not None, undo is not None, propose)
    if picture is not None:
        _check_picture(picture)
    photograph = None if on is None else _read_photograph(on)
    name, writes = who or user(), not dry_run and (place is not None or undo is not None)
    with opened(model, writes) as (loaded, learner):
        marked = None if photograph is None else _marked(loaded, photograph, on)
        done = None
        if place is not None:
            asked = _asked(loaded, learner, ignore, look, weight, own_threshold, place, marked)
            done = _set(learner, asked, name, note, force, dry_run)
        elif undo is not None:
            done = _undo(learner, undo, name, force)
        proposal = None
        if propose:
            from fsad_edge.learning.zones_proposal import propose_zones

            proposal = propose_zones(loaded, learner)
        if picture is not None:
            _draw(picture, loaded, learner, proposal, photograph, marked)
        if json_:
            print_json(document_of(model, loaded, learner, done, proposal))
            return
        if done is not None:
            print_done(shlex.quote(str(model)), loaded, learner, done)
        elif proposal is not None:
            print_proposal(shlex.quote(str(model)), proposal, why_no_following(loaded.metadata))
        else:
            print_zones(model, loaded, learner)
    if picture is not None:
        out.print(f"The picture is {picture}.")


def _place(
    ignore: str | None,
    look: str | None,
    weight: float | None,
    own_threshold: str | None,
    polygon: str | None,
) -> str | None:
    """The place that is asked for; None where none is."""
    given = [one for one in (ignore, look, weight, own_threshold) if one is not None]
    if len(given) > 1:
        raise InputError(f"these exclude one another: {_SETTING}; set one zone at a time.")
    needs = weight is not None or own_threshold is not None
    if needs and polygon is None:
        raise InputError("--weight and --own-threshold need a place: give it with --polygon.")
    if polygon is not None and not needs:
        raise InputError(
            "--polygon is a place, and it is not said what for: give it to --ignore or --look "
            "instead, or add --weight or --own-threshold."
        )
    return polygon if needs else ignore or look


def _check_options(context: typer.Context, sets: bool, undoes: bool, proposes: bool) -> None:
    if sets + undoes + proposes > 1:
        raise InputError(
            f"these exclude one another: a zone ({_SETTING}), --undo, --propose; give one of them."
        )
    if not sets:
        refuse_unused(context, "setting a zone", "note", "dry_run")
    if not (sets or undoes):
        refuse_unused(context, "setting or undoing a zone", "who", "force")
    if not sets and context.params.get("picture") is None:
        refuse_unused(context, "setting a zone, or for --picture", "on")


def _check_picture(path: Path) -> None:
    from fsad_edge.runtime.own_pictures import check_own

    check_own(path)
    if path.suffix.lower() != ".png" or is_folder(path):
        raise InputError(f"the picture {path} must be a .png file.")


def _read_photograph(path: Path) -> bytes:
    if is_folder(path):
        raise InputError(f"{path} is a folder: name one photograph with --on.")
    return read_bytes(path, ImageError, "name a photograph of a part")


def _marked(model: Model, photograph: bytes, on: Path | None) -> MarkedPhotograph:
    from fsad_edge.learning.zones_placed import MarkedPhotograph

    return MarkedPhotograph.of(model, photograph, str(on))


def _asked(
    model: Model,
    learner: Learner,
    ignore: str | None,
    look: str | None,
    weight: float | None,
    own_threshold: str | None,
    place: str,
    marked: MarkedPhotograph | None,
) -> AskedZone:
    from fsad_edge.learning.zones_asked import AskedZone
    from fsad_edge.runtime.zones import LEAST_WEIGHT, MOST_WEIGHT, ZoneKind

    corners = _corners(model, place, marked)
    if ignore is not None:
        return AskedZone(ZoneKind.IGNORE, corners)
    if look is not None:
        return AskedZone(ZoneKind.LOOK, corners)
    if own_threshold is None:
        return AskedZone(ZoneKind.WEIGHT, corners, weight)
    number, times = own_threshold.rstrip("xX"), own_threshold[-1:] in {"x", "X"}
    try:
        value = float(number)
    except ValueError:
        raise InputError(
            f"--own-threshold is a score such as 0.3, or a multiple such as 1.5x, not "
            f"{shlex.quote(own_threshold)}."
        ) from None
    if times:
        if not 1 / MOST_WEIGHT <= value <= 1 / LEAST_WEIGHT:
            raise InputError(
                f"the threshold of a zone is from {1 / MOST_WEIGHT:g}x to {1 / LEAST_WEIGHT:g}x "
                f"that of the model, not {shlex.quote(own_threshold)}."
            )
        return AskedZone(ZoneKind.WEIGHT, corners, 1 / value)
    return AskedZone(ZoneKind.WEIGHT, corners, own_threshold=value)


def _corners(model: Model, place: str, marked: MarkedPhotograph | None) -> tuple[Corner, ...]:
    """The polygon of a place: corners, or a painted PNG."""
    from fsad_edge.learning.zones_placed import corners_of, fractions_of

    if place.lower().endswith(".png"):
        path = Path(place)
        data = read_bytes(path, ImageError, "name a painted PNG, or give corners")
        if marked is None:
            raise InputError(
                f"name the photograph that {path} was painted on, with --on: the PNG has its size."
            )
        return marked.painted_in_frame(model, data, str(path))
    corners = corners_of(place)
    return fractions_of(corners) if marked is None else marked.in_frame(corners)


def _set(
    learner: Learner, asked: AskedZone, who: str, note: str, force: bool, dry_run: bool
) -> Done:
    from fsad_edge.cli.region_words import Done

    if dry_run:
        return Done("would be set", None, learner.try_zone(asked))
    entry = learner.add_zone(asked, who, note, force)
    assert learner.zone_trial is not None  # by the line above
    return Done("set", entry, learner.zone_trial)


def _undo(learner: Learner, number: int, who: str, force: bool) -> Done:
    from fsad_edge.cli.region_words import Done
    from fsad_edge.learning.zones_asked import check_active
    from fsad_edge.runtime.zones import ZoneEntry

    check_active(learner.in_effect.here, learner.zones(), number)
    undone = learner.undo(number, who, force)
    assert isinstance(undone, ZoneEntry)  # as was looked up
    assert learner.zone_trial is not None
    return Done("undone", undone, learner.zone_trial)


def _draw(
    path: Path,
    model: Model,
    learner: Learner,
    proposal: ZoneProposal | None,
    photograph: bytes | None,
    marked: MarkedPhotograph | None,
) -> None:
    from fsad_edge.learning.zones_in_effect import grid_of
    from fsad_edge.learning.zones_picture import draw_zones, frame_shown

    shown, shape = frame_shown(model, photograph, marked)
    zones = learner.in_effect
    rows, columns = grid_of(model)
    weights = zones.weights_on(rows, columns)
    drawn = [(str(entry.id), entry.zone) for entry in (*model.metadata.zones, *zones.here)]
    if proposal is not None:
        asked = enumerate(proposal.zones, 1)
        drawn += [(f"?{number}", one.with_weight(None)) for number, one in asked]
    write_bytes(path, draw_zones(shown, weights, drawn, shape))
