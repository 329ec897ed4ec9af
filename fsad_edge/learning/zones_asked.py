"""A zone as a person asks for it, and what it would change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fsad_edge.errors import InputError
from fsad_edge.learning.examples import SideChange
from fsad_edge.learning.taught import Taught
from fsad_edge.learning.zones_in_effect import check_takes_zones, left_out_rejected
from fsad_edge.runtime.given import is_positive
from fsad_edge.runtime.metadata import Metadata
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.zones import (
    LEAST_WEIGHT,
    MOST_WEIGHT,
    Corner,
    Zone,
    ZoneEntry,
    ZoneKind,
    check_covers,
)

#: The most zones that count at once.
MOST_ZONES = 100


@dataclass(frozen=True)
class AskedZone:
    """A zone as a person asks for it.

    Attributes:
        kind: what it does.
        polygon: its corners, as fractions of what the model looks at.
        weight: of a zone of the kind ``weight``: above 1 is stricter.
        own_threshold: in place of a weight, the score above which a place in it is rejected.

    Example:
        >>> AskedZone(ZoneKind.IGNORE, ((0.0, 0.0), (0.2, 0.0), (0.2, 0.2))).weight is None
        True
    """

    kind: ZoneKind
    polygon: tuple[Corner, ...]
    weight: float | None = None
    own_threshold: float | None = None

    def __post_init__(self) -> None:
        """Refuse a weight where none belongs, and its absence where one does.

        Raises:
            InputError: it is so, or the corners or the weight are none.
        """
        given = [one for one in (self.weight, self.own_threshold) if one is not None]
        if self.kind is not ZoneKind.WEIGHT and given:
            raise InputError(f"a zone of the kind {self.kind} takes no weight and no threshold.")
        if self.kind is ZoneKind.WEIGHT and len(given) != 1:
            raise InputError("a zone that counts more or less takes a weight or a threshold.")
        if self.own_threshold is not None and not is_positive(self.own_threshold):
            raise InputError(
                f"the threshold of a zone is a number above 0, not {self.own_threshold!r}."
            )
        self.with_weight(1.0 if self.own_threshold is not None else self.weight)

    def with_weight(self, weight: float | None) -> Zone:
        """The zone with a weight; those of the other kinds have their own.

        Raises:
            InputError: it is none.
        """
        fixed = {ZoneKind.IGNORE: 0.0, ZoneKind.LOOK: 1.0}
        return Zone(self.kind, fixed.get(self.kind, weight or 0.0), self.polygon)


@dataclass(frozen=True)
class ZoneTrial:
    """What a zone changes.

    Attributes:
        before: the threshold before.
        after: the threshold with it.
        without_setting: the threshold that the scores would lead to with it, where a person set
            another one, which stays; None where nobody did.
        recomputed: whether the file keeps what the threshold is computed again from.
        share_before: the share of the part that counted, 0 to 1.
        share: the share that counts with it.
        beside: the share that does not count because it is beside what is ignored.
        zone: the zone; None where it was undone.
        left_out: how many left-out shots there are, or views of the only shot; 0 where the file
            does not keep how far they are from the others.
        rejected_before: how many of them were rejected before, each without itself.
        rejected: how many are with it.
        warning: what else a person must know of it, one sentence; None for nothing.
        changes: the examples whose decisions it turns.
    """

    before: float
    after: float
    without_setting: float | None
    recomputed: bool
    share_before: float
    share: float
    beside: float
    zone: Zone | None
    left_out: int
    rejected_before: int
    rejected: int
    warning: str | None
    changes: list[SideChange]

    @classmethod
    def of(
        cls,
        metadata: Metadata,
        before: Taught,
        after: Taught,
        changes: list[SideChange],
        zone: Zone | None = None,
    ) -> ZoneTrial:
        """Compare a model without and with the zone; None where one is undone."""
        then, now = before.setting, after.setting
        by_number = now is not None and now.false_alarm_rate is None
        stays = by_number and then is not None and now is not None and then.value == now.value
        found = [
            left_out_rejected(metadata, one.zones, one.threshold.value) or (0, 0)
            for one in (before, after)
        ]
        return cls(
            before=before.threshold.value,
            after=after.threshold.value,
            without_setting=after.learned_threshold.value if stays else None,
            recomputed=after.zones.recomputed,
            share_before=before.zones.share,
            share=after.zones.share,
            beside=after.zones.beside,
            zone=zone,
            left_out=found[1][1],
            rejected_before=found[0][0],
            rejected=found[1][0],
            warning=None if zone is None else why_no_following(metadata),
            changes=changes,
        )

    @property
    def in_zone(self) -> float | None:
        """The threshold in a zone that counts more or less; None where it is no such zone."""
        zone = self.zone
        return (
            None if zone is None or zone.kind is not ZoneKind.WEIGHT else self.after / zone.weight
        )

    @property
    def cost(self) -> str | None:
        """How many left-out shots would be rejected, in words; None where that is not known."""
        if not self.left_out:
            return None
        return (
            f"{self.rejected} of {self.left_out} left-out shots, each without itself, would be "
            f"rejected ({self.rejected_before} before)"
        )

    @property
    def sentences(self) -> list[str]:
        """What else is said of the threshold, as sentences."""
        said = [] if self.warning is None else [self.warning]
        if self.rejected > self.rejected_before:
            more = self.rejected - self.rejected_before
            said.append(
                f"With it {self.rejected} of {self.left_out} left-out shots, each without itself, "
                f"would be rejected, {more} more than without: good parts will be rejected."
            )
        if self.without_setting is not None and self.without_setting != self.after:
            said.append(
                f"A person set the threshold to {self.after:.4g}, and it stays there. From the "
                f"scores alone it would be {self.without_setting:.4g} now."
            )
        if not self.recomputed:
            said.append(
                "The file does not keep how far its shots are from one another, so that the "
                "threshold stays as it was: export it again to have it computed under the zones."
            )
        return said


def zone_of(
    model: Model,
    here: Sequence[ZoneEntry],
    threshold_with: Callable[[Zone], float],
    asked: AskedZone,
) -> Zone:
    """The zone that a person asks for.

    Args:
        model: the model.
        here: the zones that count already, of those that were set here.
        threshold_with: gives the threshold of the model with a zone.
        asked: the zone.

    Raises:
        InputError: the file takes no zones, the zone covers nothing, there are too many, or its own
            threshold is out of reach.
    """
    check_takes_zones(model)
    if len(here) >= MOST_ZONES:
        raise InputError(f"{len(here)} zones count already, and no more can: undo some.")
    zone = asked.with_weight(1.0 if asked.own_threshold is not None else asked.weight)
    check_covers(zone)
    if asked.own_threshold is None:
        return zone
    elsewhere = threshold_with(zone)
    weight = elsewhere / asked.own_threshold
    if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise InputError(
            f"the threshold of a zone is from {1 / MOST_WEIGHT:g} to {1 / LEAST_WEIGHT:g} times "
            f"that of the model, {elsewhere:.4g}, and {asked.own_threshold:.4g} is not: take one "
            f"from {elsewhere / MOST_WEIGHT:.4g} to {elsewhere / LEAST_WEIGHT:.4g}."
        )
    return asked.with_weight(weight)


def check_active(here: Sequence[ZoneEntry], ever: Sequence[ZoneEntry], number: int) -> None:
    """Refuse to undo a zone that does not count.

    Args:
        here: the zones that count.
        ever: all that were ever set.
        number: the id of the one to undo.

    Raises:
        InputError: it is undone already, or there is none of that id.
    """
    if number in {one.id for one in here}:
        return
    known = ", ".join(str(one.id) for one in here) or "none"
    done = any(one.id == number for one in ever)
    why = f"zone {number} is undone already" if done else f"no zone has the id {number}"
    raise InputError(f"{why}: the zones that count are {known}.")


def why_no_following(metadata: Metadata) -> str | None:
    """Why a zone does not follow the part though that may be turned, a sentence; None if not so."""
    if metadata.locator is not None or metadata.bank_rotations == 1:
        return None
    return (
        "Turned parts count as good here, and the model does not look for the part: the zone stays "
        "where it is in the photograph, whichever place of the part lies there. Make the model "
        "with  --locate box  or with parts that all lie alike."
    )
