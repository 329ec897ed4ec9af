"""The JSON documents of zones: places on the part that do not count, alone count, or count more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fsad_edge.learning.learner import Learner
from fsad_edge.learning.zones_asked import ZoneTrial, why_no_following
from fsad_edge.learning.zones_in_effect import check_takes_zones, grid_of
from fsad_edge.learning.zones_proposal import ZoneProposal, joined
from fsad_edge.runtime.documents import Above, Range
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.zones import MOST_CORNERS, MOST_WEIGHT, ZoneEntry, ZoneKind
from fsad_edge.serve.learning_schemas import ExampleChange
from fsad_edge.serve.schemas import doc

#: A corner over HTTP: across and down, as fractions of the picture that it is meant on.
Fraction = Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class ZoneBody:
    """A zone as it is asked for, in the body of a request.

    Attributes:
        kind: what it does.
        polygon: its corners, as fractions of the picture that it was drawn on.
        weight: of the kind ``weight``; for the others it is 0 or 1, or left out.
        own_threshold: in place of a weight.
        note: why, in the person's words.
        result: the result whose photograph it was drawn on; left out, it was drawn on a shot.
        shot: which shot; all show the same frame.
    """

    kind: ZoneKind
    polygon: Annotated[list[tuple[Fraction, Fraction]], Range(0, MOST_CORNERS)]
    weight: Annotated[float, Range(0, MOST_WEIGHT)] | None = None
    own_threshold: Annotated[float, Above(0)] | None = None
    note: Annotated[str, Range(0, 1000)] = ""
    result: int | None = None
    shot: int | None = None


@dataclass(frozen=True)
class ZoneState:
    """A zone that was set."""

    id: int
    kind: ZoneKind
    weight: Annotated[float, doc("What distances in it are multiplied by.")]
    polygon: Annotated[
        list[tuple[float, float]],
        doc(
            "Corners, across and down, as fractions of what the model looks at. Several patches "
            "are joined by lines without breadth: fill it by the rule of odd crossings."
        ),
    ]
    who: str
    time: Annotated[str, doc("UTC, ISO 8601.")]
    note: str
    own_threshold: Annotated[
        float | None, doc("The threshold that was asked for in it, in place of a weight.")
    ]
    undone: Annotated[str | None, doc("When it was undone; null where it counts.")]
    undone_by: str | None

    @classmethod
    def of(cls, entry: ZoneEntry) -> ZoneState:
        """What a journal holds."""
        zone = entry.zone
        return cls(
            entry.id, zone.kind, zone.weight, list(zone.polygon), entry.who, entry.when, entry.note,
            entry.own_threshold, entry.undone, entry.undone_by,
        )  # fmt: skip


@dataclass(frozen=True)
class ZoneList:
    """All zones of a model and what they make of its map."""

    zones: Annotated[list[ZoneState], doc("Those set here, oldest first, undone ones too.")]
    file_zones: Annotated[list[ZoneState], doc("Those that the model file holds.")]
    rows: Annotated[int, doc("Rows of the map.")]
    columns: int
    weights: Annotated[
        list[list[float]], doc("What each cell's distance is multiplied by, row by row.")
    ]
    share: Annotated[float, doc("The share of the part that counts, 0 to 1.")]
    beside: Annotated[
        float, doc("The share that does not count because it is beside what is ignored, 0 to 1.")
    ]
    threshold: float
    warning: Annotated[
        str | None, doc("Why zones do not follow the part here, in a sentence; else null.")
    ]
    shots: Annotated[int, doc("How many pictures of shots there are to draw on.")]

    @classmethod
    def of(cls, model: Model, learner: Learner) -> ZoneList:
        """The zones of a model.

        Raises:
            InputError: its file takes no zones.
        """
        check_takes_zones(model)
        zones, metadata = learner.in_effect, model.metadata
        rows, columns = grid_of(model)
        return cls(
            [ZoneState.of(entry) for entry in learner.zones()],
            [ZoneState.of(entry) for entry in metadata.zones],
            rows,
            columns,
            zones.weights_on(rows, columns).tolist(),
            zones.share,
            zones.beside,
            learner.threshold.value,
            why_no_following(metadata),
            0 if metadata.origins is None else len(metadata.origins.pictures),
        )


@dataclass(frozen=True)
class ZoneChange(ZoneState):
    """A zone that was set or undone, and what that changed."""

    threshold: Annotated[float, doc("Before the change.")]
    threshold_after: float
    share_before: Annotated[float, doc("The share of the part that counted, 0 to 1.")]
    share: Annotated[float, doc("The share that counts from now on.")]
    beside: Annotated[
        float, doc("The share that does not count because it is beside what is ignored, 0 to 1.")
    ]
    threshold_in_zone: Annotated[
        float | None, doc("The threshold in a zone that counts more or less; else null.")
    ]
    left_out: Annotated[
        int, doc("How many left-out shots are known, or views of the only shot; 0 for none.")
    ]
    rejected_before: Annotated[
        int, doc("How many of them, each without itself, were rejected before.")
    ]
    rejected: Annotated[int, doc("How many are rejected from now on.")]
    notes: Annotated[list[str], doc("What else is to be said of the threshold, in sentences.")]
    changes: Annotated[list[ExampleChange], doc("The examples whose decisions this has turned.")]

    @classmethod
    def done(cls, entry: ZoneEntry, trial: ZoneTrial) -> ZoneChange:
        """What a learner tells."""
        return cls(
            **vars(ZoneState.of(entry)),
            threshold=trial.before,
            threshold_after=trial.after,
            share_before=trial.share_before,
            share=trial.share,
            beside=trial.beside,
            threshold_in_zone=trial.in_zone,
            left_out=trial.left_out,
            rejected_before=trial.rejected_before,
            rejected=trial.rejected,
            notes=trial.sentences,
            changes=[ExampleChange.of(one) for one in trial.changes],
        )


@dataclass(frozen=True)
class ProposedZones:
    """Places that a person may want to ignore; nothing is set."""

    sentence: Annotated[str, doc("Why, with figures; or why nothing is proposed.")]
    polygon: Annotated[
        list[tuple[float, float]] | None,
        doc("All of them as one polygon, as of a zone; null where nothing is proposed."),
    ]
    polygons: Annotated[list[list[tuple[float, float]]], doc("The same, each by itself.")]
    area: Annotated[float, doc("The share of what counts that they cover, 0 to 1.")]
    largest: Annotated[
        float, doc("The share of the largest distances of left-out shots that lie in them, 0 to 1.")
    ]
    threshold: Annotated[float, doc("The threshold of the shots as it is; 0 without a proposal.")]
    threshold_after: Annotated[float, doc("What it would be without these places.")]
    warning: Annotated[
        str | None, doc("Why zones do not follow the part here, in a sentence; else null.")
    ]

    @classmethod
    def of(cls, found: ZoneProposal, warning: str | None) -> ProposedZones:
        """What the library proposes, and :func:`why_no_following`."""
        polygons = [list(one.polygon) for one in found.zones]
        return cls(
            found.sentence, joined(polygons), polygons, found.area, found.largest, found.before,
            found.after, warning,
        )  # fmt: skip
