"""A zone as a person asks for it, and what it would change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fsad_edge.errors import InputError
from fsad_edge.learning.examples import SideChange
from fsad_edge.learning.journal import Setting
from fsad_edge.learning.taught import Taught
from fsad_edge.learning.zones_in_effect import check_takes_zones, zones_in_effect
from fsad_edge.runtime.given import is_positive
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

#: Halvings by which the weight of an own threshold is found.
_HALVINGS = 30


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
        changes: the examples whose decisions it turns.
    """

    before: float
    after: float
    without_setting: float | None
    recomputed: bool
    share_before: float
    share: float
    changes: list[SideChange]

    @classmethod
    def of(cls, before: Taught, after: Taught, changes: list[SideChange]) -> ZoneTrial:
        """Compare a model without and with the zone."""
        then, now = before.setting, after.setting
        by_number = now is not None and now.false_alarm_rate is None
        stays = by_number and then is not None and now is not None and then.value == now.value
        return cls(
            before.threshold.value,
            after.threshold.value,
            after.learned_threshold.value if stays else None,
            after.zones.recomputed,
            before.zones.share,
            after.zones.share,
            changes,
        )

    @property
    def sentences(self) -> list[str]:
        """What else is said of the threshold, as sentences."""
        said = []
        if self.without_setting is not None:
            said.append(
                f"The threshold that a person set stays at {self.after:.4g}; without that it would "
                f"be {self.without_setting:.4g}."
            )
        if not self.recomputed:
            said.append(
                "The file does not keep how far its shots are from one another, so that the "
                "threshold stays as it was: export it again to have it computed under the zones."
            )
        return said


def zone_of(
    model: Model, here: Sequence[ZoneEntry], setting: Setting | None, asked: AskedZone
) -> Zone:
    """The zone that a person asks for.

    Args:
        model: the model.
        here: the zones that count already, of those that were set here.
        setting: the threshold that a person set; None where nobody did.
        asked: the zone.

    Raises:
        InputError: the file takes no zones, the zone covers nothing, there are too many, or its own
            threshold cannot be reached.
    """
    check_takes_zones(model)
    if len(here) >= MOST_ZONES:
        raise InputError(f"{len(here)} zones count already, and no more can: undo some.")
    if asked.own_threshold is not None:
        check_covers(asked.with_weight(1.0))
        return asked.with_weight(
            _weight_for(model, here, setting, asked.polygon, asked.own_threshold)
        )
    zone = asked.with_weight(asked.weight)
    check_covers(zone)
    return zone


def _weight_for(
    model: Model,
    here: Sequence[ZoneEntry],
    setting: Setting | None,
    polygon: tuple[Corner, ...],
    own: float,
) -> float:
    """The weight under which a place in the zone is rejected above its own threshold.

    The threshold of the model is computed again under that weight, so that it is looked for.
    """
    if setting is not None and setting.false_alarm_rate is None:
        weight = setting.value / own
        if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
            raise InputError(_out_of_reach(own, setting.value / MOST_WEIGHT, setting.value))
        return weight

    def threshold_inside(weight: float) -> float:
        entry = ZoneEntry(1, "", "", Zone(ZoneKind.WEIGHT, weight, polygon))
        return zones_in_effect(model, [*here, entry]).threshold.value / weight

    least, most = math.log(LEAST_WEIGHT), math.log(MOST_WEIGHT)
    lowest, highest = threshold_inside(MOST_WEIGHT), threshold_inside(LEAST_WEIGHT)
    if not lowest <= own <= highest:
        raise InputError(_out_of_reach(own, lowest, highest))
    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        if threshold_inside(math.exp(middle)) > own:
            least = middle
        else:
            most = middle
    return math.exp((least + most) / 2)


def _out_of_reach(own: float, lowest: float, highest: float) -> str:
    return (
        f"a threshold of {own:.4g} cannot be had in this zone: the shots differ there so much that "
        f"{lowest:.4g} is the least, and {highest:.4g} is the most that a weight gives. Take one "
        "between these, or set a weight."
    )
