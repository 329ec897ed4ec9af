"""How a region differs from the places of the shots that are most like it, in figures and words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from fsad_edge.runtime.arrays import Float64Array
from fsad_edge.twin.measures import MEASURES, Measure, Part, Quantity

#: A difference is clear from so many times the spread of the shots on.
CLEAR = 3.0

#: Of many shots, so many may be beyond the region all the same.
BEYOND = 0.05

#: The mean tells a difference better than the twentieth, unless that differs so much more.
RATHER_MEAN = 3.0

#: Without being clear, a difference is told from so many times what is taken for none on.
TOLD = 2.0


class _Name(NamedTuple):
    """What having more or less of a quantity is called, and what its figures are."""

    more: str
    most: str
    less: str
    least: str
    figures: str


#: Of what is above zero and of what is below it.
_NAMES = {
    Quantity.BRIGHTNESS: (_Name("brighter", "brightest", "darker", "darkest", ""),),
    Quantity.RED: (
        _Name("redder", "reddest", "less red", "least red", "red over green "),
        _Name("greener", "greenest", "less green", "least green", "green over red "),
    ),
    Quantity.BLUE: (
        _Name("bluer", "bluest", "less blue", "least blue", "blue over yellow "),
        _Name("yellower", "yellowest", "less yellow", "least yellow", "yellow over blue "),
    ),
    Quantity.DETAIL: (_Name("rougher", "roughest", "smoother", "smoothest", "fine detail "),),
}

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Figures:
    """One measure of a region and of the place in each shot that is most like it.

    Attributes:
        quantity: what is measured: brightness, red less green, blue less the mean of both, or fine
            detail, all in grey levels.
        part: of which pixels: their mean, or the twentieth with the most or the least.
        value: of the region.
        shots: of the place in each shot.
        spread: the standard deviation over the shots; None for one shot, which has none.
        times: the difference from the shots' mean over their spread, to which what is taken for no
            difference and what so few shots leave open are added.
    """

    quantity: Quantity
    part: Part
    value: float
    shots: tuple[float, ...]
    spread: float | None
    times: float

    @property
    def mean(self) -> float:
        """The mean over the shots."""
        return sum(self.shots) / len(self.shots)

    @property
    def beyond(self) -> int:
        """In how many shots the value is not reached."""
        more = self.value > self.mean
        return sum(self.value > one if more else self.value < one for one in self.shots)

    @property
    def clear(self) -> bool:
        """Whether the region differs clearly from the shots."""
        few = len(self.shots) - self.beyond
        return abs(self.times) >= CLEAR and few <= BEYOND * len(self.shots)

    @property
    def large(self) -> bool:
        """Whether the region's mean differs so much that it would be clear, if the shots did not
        differ among themselves."""
        if self.part is not Part.MEAN or self.quantity is Quantity.DETAIL:
            return False
        noticed = next(one.noticed for one in MEASURES if one.quantity is self.quantity)
        return abs(self.value - self.mean) >= TOLD * noticed


@dataclass(frozen=True)
class Difference:
    """How a region differs from the places of the shots that are most like it.

    Attributes:
        figures: all that was measured.
        main: what differs most; None where nothing differs clearly.
    """

    figures: tuple[Figures, ...]
    main: Figures | None

    @property
    def words(self) -> str:
        """The difference in words, without a full stop."""
        if self.main is None:
            return self._pattern
        shots = _shots(self.main.beyond, len(self.main.shots))
        return f"{_words(self.main)} {shots}: {_against(self.main)}"

    @property
    def _pattern(self) -> str:
        unclear = [one for one in self.figures if one.large]
        if unclear:
            main = max(unclear, key=lambda one: abs(one.times))
            return (
                f"{_words(main)} the mean of {_all(len(main.shots))}, but not clearly, because "
                f"these differ much from one another there: {_against(main)}"
            )
        light = self.figures[0]
        return (
            "Differs in its pattern, not clearly in brightness, colour or fine detail: brightness "
            f"{_against(light)} in {_all(len(light.shots))}"
        )


def compare(region: Float64Array, shots: Float64Array) -> Difference:
    """Compare the measures of a region with those of places of the shots.

    Args:
        region: float64 ``[len(MEASURES)]``.
        shots: float64 ``[S, len(MEASURES)]``; at least one.

    Example:
        >>> import numpy as np
        >>> from fsad_edge.twin.measures import MEASURES
        >>> shots = np.full((5, len(MEASURES)), 140.0)
        >>> shots[:, 0] = 126, 133, 140, 147, 154
        >>> region = shots[0].copy()
        >>> region[0] = 212
        >>> compare(region, shots).words
        'Brighter than in any of five shots: 212 against 140 ± 11'
    """
    figures = tuple(
        _figures(measure, float(value), column)
        for measure, value, column in zip(MEASURES, region, shots.T, strict=True)
    )
    clear = [one for one in figures if one.clear]
    if not clear:
        return Difference(figures, None)
    main = max(clear, key=lambda one: abs(one.times))
    for one in clear:
        same = one.quantity is main.quantity and (one.times > 0) == (main.times > 0)
        if one.part is Part.MEAN and same and RATHER_MEAN * abs(one.times) >= abs(main.times):
            main = one
    return Difference(figures, main)


def _figures(measure: Measure, value: float, shots: Float64Array) -> Figures:
    count, mean = len(shots), float(shots.mean())
    spread = float(shots.std(ddof=1)) if count > 1 else None
    # The next good part's place differs by the spread of the shots and by how little they tell of
    # their mean. One shot tells nothing of a spread: it takes more for a difference.
    own = measure.noticed / CLEAR * (2 if spread is None else 1)
    if measure.quantity is Quantity.DETAIL:
        own += 0.1 * mean
    usual = math.hypot(own, (spread or 0.0) * math.sqrt(1 + 1 / count))
    return Figures(
        measure.quantity,
        measure.part,
        value,
        tuple(shots.tolist()),
        spread,
        (value - mean) / usual,
    )


def _below(one: Figures) -> bool:
    """Whether a colour is told by its opposite: what is not red at all, by how green it is."""
    return len(_NAMES[one.quantity]) > 1 and one.value + one.mean < 0


def _words(one: Figures) -> str:
    """The beginning of the sentence: "Brighter than", "Has brighter spots than"."""
    below = _below(one)
    name = _NAMES[one.quantity][below]
    is_more = (one.value > one.mean) is not below
    compared = name.more if is_more else name.less
    if one.part is Part.MEAN:
        return f"{compared.capitalize()} than"
    # The pixels that have the most of it, or the least.
    is_most = (one.part is Part.MOST) is not below
    if is_most is is_more and " " not in compared:
        return f"Has {compared} spots than"
    return f"Its {name.most if is_most else name.least} parts are {compared} than"


def _against(one: Figures) -> str:
    digits = 1 if one.quantity is Quantity.DETAIL else 0
    spread = ""
    if one.spread is not None:
        # Shots that are alike have a spread all the same.
        spread = f" ± {one.spread:.{1 if one.spread < 0.95 else digits}f}"
    sign = -1 if _below(one) else 1
    value, mean = (f"{sign * number:.{digits}f}" for number in (one.value, one.mean))
    return f"{_NAMES[one.quantity][_below(one)].figures}{value} against {mean}{spread}"


def _shots(beyond: int, count: int) -> str:
    """The shots in a sentence that begins with "brighter than"."""
    if beyond < count:
        return f"in {beyond} of {count} shots"
    return {1: "in the one shot", 2: "in either of two shots"}.get(
        count, f"in any of {_number(count)} shots"
    )


def _all(count: int) -> str:
    return "the one shot" if count == 1 else f"{_number(count)} shots"


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)
