"""Find the twin of a region: the place of the shots that is most like it.

The bank's row that is nearest to the region's most unusual patch leads there: the model file says
which place of each shot the row is most like (:mod:`fsad_edge.runtime.origins`), and holds a small
picture of each shot. All is computed when it is asked for, and nothing of it when an image is
scored.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from fsad_edge.calibration.row_origins import view_of
from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.runtime.arrays import BoolArray, Float64Array, IndexArray, UInt8Array
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.found_regions import Region
from fsad_edge.runtime.images import load_image, resize
from fsad_edge.runtime.model import ImageSource, Model
from fsad_edge.runtime.origins import TAUGHT, Origins, small_picture
from fsad_edge.runtime.preparation import Prepared
from fsad_edge.twin.alignment import MOST_TURNED, Aligned, Box, Window, most_voted, votes_of
from fsad_edge.twin.comparison import Difference, compare
from fsad_edge.twin.measures import measured
from fsad_edge.twin.sentence import sentence_of

#: Regions whose twins are found, those with the highest peaks.
MOST = 3

#: A crop shows this share of the region's sides around it, and so many pixels of the small picture
#: at least.
AROUND, LEAST_AROUND = 0.5, 12

#: What is compared to find its place in a shot reaches so many times as far; less where the shots
#: are turned in steps, since what is farther away does not fit at an angle between two of them.
FARTHER, TURNED = 2.5, 1.25

#: Views of shots that are kept for the next region.
VIEWS = 128

#: Pixels of the longer side of a crop.
CROP = 240


@dataclass(frozen=True)
class Twin:
    """A region beside the good place of the shots that is most like it.

    Attributes:
        region: the region.
        shot: which shot the place is in, counted from 0.
        name: the file name of the shot.
        crop: uint8 ``[h, w, 3]``, the region and what is around it, as the model sees it.
        good: uint8 ``[h, w, 3]``, the place in the shot, turned as its row of the bank was, so that
            both line up.
        difference: uint8 ``[h, w, 3]``, the crop minus the place: grey (128) where they are equal,
            lighter where the crop is brighter.
        compared: what was measured of the region and of such a place in each shot.
        sentence: how they differ, for people.
    """

    region: Region
    shot: int
    name: str
    crop: UInt8Array
    good: UInt8Array
    difference: UInt8Array
    compared: Difference
    sentence: str


def check_has_twins(model: Model) -> Origins:
    """Refuse a model whose file holds no pictures of its shots.

    Raises:
        InputError: it does not; the sentence says why, and what to do about it.
    """
    origins, name = model.metadata.origins, model.metadata.name
    if origins is None:
        raise InputError(
            f"the file of {name} does not say where the rows of its memory bank come from, because "
            "an earlier version exported it:  fsad-edge export  writes one that does."
        )
    if not origins.pictures:
        raise InputError(
            f"the file of {name} holds no pictures of its shots, because it was exported with "
            "--no-golden: export it again without that."
        )
    return origins


def find_twins(
    model: Model,
    photograph: ImageSource,
    regions: Sequence[Region],
    mm_per_px: float | None = None,
) -> list[Twin]:
    """The twins of the first regions of a photograph.

    The photograph is decoded and the graph runs once more, for its features.

    Args:
        model: the model.
        photograph: as :meth:`Model.score` takes it.
        regions: those of its result; the first ``MOST`` are taken.
        mm_per_px: millimetres of a pixel of the photograph, for the sentence; None says pixels.

    Raises:
        ImageError: the photograph cannot be decoded.
        InputError: the model's file holds no pictures of its shots; it says what to do about that.
        ModelFileError: they, or what the file says of the rows, are damaged.

    Example:
        >>> with Model.load(part_file) as model:
        ...     result = model.score(photograph)
        ...     find_twins(model, photograph, result.regions)  # it is good, and has no regions
        []
    """
    origins = check_has_twins(model)
    if not regions:
        return []
    with GATE.working():
        image = model.decode(photograph)
        prepared = model.prepared(image)
        del image  # its memory is given back
    search = _Search(model, origins, prepared)
    return [search.twin(region, mm_per_px) for region in regions[:MOST]]


class _Search:
    """What the twins of one photograph share."""

    def __init__(self, model: Model, origins: Origins, prepared: Prepared) -> None:
        self._model, self._origins, self._prepared = model, origins, prepared
        self._view = functools.lru_cache(VIEWS)(self._make_view)
        shots = [origins.picture(shot) for shot in range(origins.count)]
        # All are as large as the smallest of them, and have gone through a JPEG: what is compared
        # is equally sharp.
        height, width = min(one.shape[:2] for one in shots)
        self._shots = [resize(one, height, width) for one in shots]
        self._photograph = resize(load_image(small_picture(prepared.pixels)), height, width)
        self._patches = model.embed(prepared.pixels[None])["patches"][0]
        if len(self._patches) != origins.rows * origins.columns:
            raise ModelFileError(
                f"the file of {model.metadata.name} is damaged (its origins are of another map): "
                "export it again."
            )
        known = origins.row_shots != TAUGHT  # the others were learned on a device
        self._rows = model.reference.patches[known, :-1]
        self._places = origins.row_places[known]

    @property
    def _shape(self) -> tuple[int, int]:
        return self._photograph.shape[0], self._photograph.shape[1]

    def twin(self, region: Region, mm_per_px: float | None) -> Twin:
        """The twin of a region."""
        place = self._place(region)
        box = self._box(place)
        is_turned = self._model.metadata.bank_rotations > 1
        there = self._aligned(place, self._box(place, TURNED if is_turned else FARTHER))
        compared = compare(
            measured(self._photograph, place),
            np.stack([measured(one.picture, one.covered(place)) for one in there]),
        )
        shot = min(range(len(there)), key=lambda shot: there[shot].cost)
        crop, good = self._photograph[box], there[shot].moved(box)
        names = self._origins.names
        return Twin(
            region,
            shot,
            names[shot] if names else "",
            self._enlarged(self._sharp(box), crop),
            self._enlarged(good, crop),
            self._enlarged(_difference(crop, good), crop),
            compared,
            sentence_of(region, compared, mm_per_px),
        )

    def _place(self, region: Region) -> BoolArray:
        """The pixels of a region in the small picture, bool ``[h, w]``; at least one."""
        height, width = self._shape
        points = [
            (across * width, down * height)
            for across, down in self._fractions(np.array(region.polygon, np.float64))
        ]
        mask = Image.new("1", (width, height))
        ImageDraw.Draw(mask).polygon([(x - 0.5, y - 0.5) for x, y in points], fill=1)
        place = np.array(mask)
        across, down = self._fractions(np.array([region.centroid]))[0]
        if not place.any():  # the region lies at the border of what the model looks at
            x, y = (
                min(max(int(one), 0), side - 1)
                for one, side in ((across * width, width), (down * height, height))
            )
            place[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
        return place

    def _fractions(self, points: Float64Array) -> Float64Array:
        """Points ``[n, 2]`` of the photograph as fractions of what the model looks at."""
        located = self._prepared.located
        fractions: Float64Array = points / np.array(self._prepared.full_size)
        if located is None:
            return fractions
        where = located.placement
        # What was decoded may be smaller than the photograph.
        scaled = fractions * np.array(where.photograph)
        angle = math.radians(where.angle)
        cos, sin = math.cos(angle), math.sin(angle)
        x, y = scaled[:, 0] - where.x, scaled[:, 1] - where.y
        across, down = (x * cos + y * sin) / where.width, (y * cos - x * sin) / where.height
        fractions = np.stack([across, down], axis=1) + 0.5
        return fractions

    def _aligned(self, place: BoolArray, box: Box) -> list[Aligned]:
        """For each shot the place that the region is laid over."""
        origins, rotations = self._origins, self._model.metadata.bank_rotations
        grid, window = (origins.rows, origins.columns), Window(self._photograph, place, box)
        step = 360 / rotations if rotations > 1 and origins.count <= MOST_TURNED else 0.0
        cells = self._cells(box)
        rows = (self._patches[cells, :-1] @ self._rows.T).argmax(axis=1)
        found = []
        for shot in range(origins.count):
            votes = votes_of(cells, self._places[rows, shot], grid, self._shape)
            guesses = most_voted(votes, origins.count)
            found.append(window.best(guesses, functools.partial(self._view, shot), step))
        return found

    def _make_view(self, shot: int, number: int) -> tuple[UInt8Array, BoolArray]:
        """A view of a shot, and which of its pixels show it."""
        metadata = self._model.metadata
        return view_of(
            self._shots[shot],
            number,
            metadata.bank_rotations,
            metadata.bank_flip,
            metadata.height == metadata.width,
        )

    def _cells(self, box: Box) -> IndexArray:
        """The cells of the map that see something of a box of the small picture."""
        grid = self._origins.rows, self._origins.columns
        shifts = self._model.metadata.cell_shift[::-1]
        down, across = (
            np.arange(
                min(max(math.floor(one.start * count / side - shift), 0), count - 1),
                min(max(math.ceil(one.stop * count / side - shift), 1), count),
            )
            for one, count, side, shift in zip(box, grid, self._shape, shifts, strict=True)
        )
        cells: IndexArray = (down[:, None] * grid[1] + across).ravel()
        return cells

    def _box(self, place: BoolArray, farther: float = 1.0) -> Box:
        """A region and what is around it: slices of the small picture."""
        sides = []
        for filled, side in zip(np.nonzero(place), self._shape, strict=True):
            first, last = int(filled.min()), int(filled.max()) + 1
            around = round(farther * max(LEAST_AROUND, AROUND * (last - first)))
            sides.append(slice(max(first - around, 0), min(last + around, side)))
        return sides[0], sides[1]

    def _sharp(self, box: Box) -> UInt8Array:
        """The crop at the model's own resolution."""
        pixels = self._prepared.pixels
        factors = [whole / small for whole, small in zip(pixels.shape, self._shape, strict=False)]
        down, across = (
            slice(round(one.start * factor), max(round(one.stop * factor), 1))
            for one, factor in zip(box, factors, strict=True)
        )
        return pixels[down, across]

    @staticmethod
    def _enlarged(picture: UInt8Array, crop: UInt8Array) -> UInt8Array:
        """A picture at the size in which the crop is shown."""
        height, width = crop.shape[:2]
        factor = CROP / max(height, width)
        size = max(1, round(width * factor)), max(1, round(height * factor))
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def _difference(crop: UInt8Array, good: UInt8Array) -> UInt8Array:
    """One picture minus another, uint8 of their shape: grey (128) where they are equal.

    Where they differ by more than there is room for, all differences are made smaller.
    """
    difference = crop.astype(np.float32) - good
    largest = float(np.percentile(np.abs(difference), 99))
    shown: UInt8Array = (difference * min(1.0, 127 / max(largest, 1)) + 128).clip(0, 255)
    return shown.astype(np.uint8)
