"""Lay a region's surroundings over a shot: where the same surroundings are, the twin is.

The patch of a defect is like nothing that is good, so that the bank's row which is nearest to it
says little. The patches around it have rows of the bank that lead to places of the shots. Each of
them is a guess of where in a shot the surroundings are, and the pictures tell which guess is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from fsad_edge.runtime.arrays import BoolArray, Float32Array, IndexArray, UInt8Array

#: Samples along a side of the window that is compared.
SAMPLES = 32

#: Guesses of each shot that are tried, those with the most votes; and of all shots together, with
#: two of each at least.
TRIED, TRIED_IN_ALL = 12, 60

#: The most shots that are also turned by less than a step.
MOST_TURNED = 12

#: The region itself counts with this weight, what is around it with 1: it is what differs.
OWN = 0.25

#: Samples beyond the border of a shot count as if they differed by so many grey levels.
BEYOND = 64.0

#: Pixels by which the best guess is moved to a better place, at most.
REACH = 10

#: Parts of a step between two turns of the bank's shots by which the best guess is turned.
TURNS = (-0.34, -0.17, 0.17, 0.34)

#: Rows and columns of a picture.
Box = tuple[slice, slice]


class Guess(NamedTuple):
    """Where in a shot a region's surroundings may be.

    Attributes:
        view: the number of the view.
        down, across: how far below and to the right of the region, pixels of the small picture.
    """

    view: int
    down: int
    across: int


@dataclass(frozen=True)
class Aligned:
    """The place of a shot that a region was laid over.

    Attributes:
        picture: uint8 ``[h, w, 3]``, the view of the shot.
        guess: the place.
        cost: the mean difference of the surroundings, grey levels.
    """

    picture: UInt8Array
    guess: Guess
    cost: float

    def moved(self, box: Box) -> UInt8Array:
        """What the shot shows where a box of the photograph is, uint8 ``[h, w, 3]``; beyond its
        border it is continued as at its border."""
        down, across = (
            np.clip(np.arange(one.start, one.stop) + move, 0, side - 1)
            for one, move, side in zip(box, self.guess[1:], self.picture.shape, strict=False)
        )
        crop: UInt8Array = self.picture[np.ix_(down, across)]
        return crop

    def covered(self, place: BoolArray) -> BoolArray:
        """The pixels of a place of the photograph, moved to the shot, bool ``[h, w]``."""
        rows, columns = np.nonzero(place)
        height, width = place.shape
        rows, columns = rows + self.guess.down, columns + self.guess.across
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        moved = np.zeros_like(place)
        moved[rows[inside], columns[inside]] = True
        return moved


@dataclass(frozen=True)
class _View:
    """A view of a shot.

    Attributes:
        picture: uint8 ``[h, w, 3]``.
        shown: bool ``[h, w]``, which of its pixels show the shot.
        blurred: float32 ``[h, w, 3]``, the picture whose every so many pixels are compared.
    """

    picture: UInt8Array
    shown: BoolArray
    blurred: Float32Array


class Window:
    """A region with its surroundings, to be laid over shots.

    Args:
        picture: uint8 ``[h, w, 3]``, the small picture of the photograph.
        place: bool ``[h, w]``, the pixels of the region.
        box: what is compared.
    """

    def __init__(self, picture: UInt8Array, place: BoolArray, box: Box) -> None:
        self._step = max(1, *(-(-(one.stop - one.start) // SAMPLES) for one in box))
        self._rows, self._columns = (np.arange(one.start, one.stop, self._step) for one in box)
        grid = np.ix_(self._rows, self._columns)
        self._values = self._blurred(picture)[grid]
        self._weights = np.where(place[grid], np.float32(OWN), np.float32(1))
        self._sides = [(int(filled.min()), int(filled.max())) for filled in np.nonzero(place)]
        self._bounds = [
            (-first, side - 1 - last)
            for (first, last), side in zip(self._sides, place.shape, strict=True)
        ]

    def best(
        self,
        guesses: Iterable[Guess],
        view: Callable[[int], tuple[UInt8Array, BoolArray]],
        step: float,
    ) -> Aligned:
        """The best of some guesses, moved and turned to where it fits best.

        Args:
            guesses: at least one.
            view: gives a view of the shot by its number, and which of its pixels it shows.
            step: degrees from one turn of the bank's shots to the next; 0 where they are not
                turned.
        """
        views: dict[int, _View] = {}
        tried = list(dict.fromkeys(map(self._within, guesses)))
        for number in {guess.view for guess in tried}:
            views[number] = self._view(*view(number))
        cost, guess = min((self._cost(one, views[one.view]), one) for one in tried)
        cost, guess = min((cost, guess), self._near(guess, views[guess.view], REACH))
        best = views[guess.view]
        base, turns = best, [part * step for part in TURNS] if step else []
        for degrees in turns:
            turned = self._turned(base, guess, degrees)
            found = self._near(guess, turned, max(2, self._step))
            if found[0] < cost:
                (cost, guess), best = found, turned
        return Aligned(best.picture, guess, cost)

    def _near(self, guess: Guess, view: _View, reach: int) -> tuple[float, Guess]:
        """The best of the guesses around one, up to so many pixels away."""
        step = max(2, self._step)
        moves = range(-(reach // step) * step, reach + 1, step)
        near = {
            self._within(Guess(guess.view, guess.down + down, guess.across + across))
            for down in moves
            for across in moves
        }
        return min((self._cost(one, view), one) for one in near)

    def _turned(self, view: _View, guess: Guess, degrees: float) -> _View:
        """A view turned clockwise about the place of the region in it."""
        down, across = (
            (first + last) / 2 + move
            for (first, last), move in zip(self._sides, guess[1:], strict=True)
        )
        picture = Image.fromarray(view.picture).rotate(
            -degrees, Image.Resampling.BICUBIC, center=(across, down)
        )
        shown = Image.fromarray(view.shown).rotate(-degrees, center=(across, down))
        return self._view(np.asarray(picture), np.asarray(shown))

    def _view(self, picture: UInt8Array, shown: BoolArray) -> _View:
        return _View(picture, shown, self._blurred(picture))

    def _within(self, guess: Guess) -> Guess:
        """The same, moved so that the region's box stays within the shot."""
        (up, down), (left, right) = self._bounds
        return Guess(
            guess.view, min(max(guess.down, up), down), min(max(guess.across, left), right)
        )

    def _cost(self, guess: Guess, view: _View) -> float:
        height, width = view.shown.shape
        rows, columns = self._rows + guess.down, self._columns + guess.across
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
        grid = np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))
        inside &= view.shown[grid]
        differences = np.abs(view.blurred[grid] - self._values).mean(axis=2)
        differences = np.where(inside, differences, np.float32(BEYOND))
        return float((differences * self._weights).sum() / self._weights.sum())

    def _blurred(self, picture: UInt8Array) -> Float32Array:
        """A picture whose every ``step``-th pixel stands for those around it."""
        blur = ImageFilter.BoxBlur(max(1, self._step / 2))
        return np.asarray(Image.fromarray(picture).filter(blur), np.float32)


def most_voted(votes: Counter[Guess], shots: int) -> list[Guess]:
    """The guesses to try: those with the most votes, and the place where the region itself is.

    Args:
        votes: of one shot.
        shots: how many shots there are.
    """
    count = min(TRIED, max(2, TRIED_IN_ALL // shots))
    return [Guess(0, 0, 0), *(guess for guess, _ in votes.most_common(count))]


def votes_of(
    cells: IndexArray, places: IndexArray, grid: tuple[int, int], size: tuple[int, int]
) -> Counter[Guess]:
    """The guesses of some cells' places in a shot, with how many have made each.

    Args:
        cells: int ``[n]``, cells of the photograph's map, row by row.
        places: int ``[n]``, the place of each in the shot.
        grid: rows and columns of the map.
        size: height and width of the small picture.
    """
    views, there = np.divmod(places, grid[0] * grid[1])
    moves = [
        ((where - here) * side / count).round().astype(np.intp)
        for where, here, side, count in zip(
            np.divmod(there, grid[1]), np.divmod(cells, grid[1]), size, grid, strict=True
        )
    ]
    return Counter(map(Guess, views.tolist(), moves[0].tolist(), moves[1].tolist()))
