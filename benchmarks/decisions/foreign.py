"""What is not judged: of pictures of something else, of altered photographs, of good and bad parts.

A model scores black, white, grey, noise, gradients, photographs of the world, test images of the
other data sets, and good test images that were altered: blurred, half out of view, cropped to
another shape, reduced to a thumbnail, without a part on the ground. Of these, the table gives the
share that is not judged and the share that is called good; of good parts and defects, the share not
judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.accuracy.datasets import DataSet
from benchmarks.accuracy.rows import Row
from benchmarks.decisions.parts import Part
from fsad_edge.options import Decision
from fsad_edge.runtime.arrays import Float64Array, UInt8Array
from fsad_edge.runtime.folders import find_images
from fsad_edge.runtime.images import load_image
from fsad_edge.runtime.model import ImageSource

#: Images of each other data set, photographs, and good images that are altered.
OTHERS, PHOTOS, ALTERED = 20, 40, 10

#: A corner of this fraction of the sides shows the ground, where all four are alike.
CORNER = 0.09

#: Kinds that are altered photographs of the part; all others are pictures of something else.
ALTERATIONS = ("blurred", "half out", "half out, border", "cropped", "thumbnail", "no part")


def plain_pictures(side: int) -> dict[str, list[UInt8Array]]:
    """Black, white, grey, noise and gradients, with a sensor's noise and without."""
    rng = np.random.default_rng(5)
    shape = (side, side, 3)

    def around(level: float, noise: float) -> UInt8Array:
        return _levels(level + rng.normal(0, noise, shape))

    angles = np.indices(shape[:2]) / side
    ramps = [np.cos(a) * angles[1] + np.sin(a) * angles[0] for a in range(4)]
    return {
        "black": [around(3, noise) for noise in (0, 1, 2, 3)],
        "white": [around(252, noise) for noise in (0, 1, 2, 3)],
        "grey": [around(level, noise) for level in (60, 100, 128, 160, 200) for noise in (0, 2)],
        "noise": [around(128, noise) for noise in (10, 20, 40, 80)],
        "gradient": [
            _levels(40 + 170 * (ramp - ramp.min())[:, :, None].repeat(3, 2) / np.ptp(ramp))
            for ramp in ramps
        ],
    }


def altered(photograph: UInt8Array) -> Iterator[tuple[str, UInt8Array]]:
    """The photograph of a part as it must not be judged, by the kinds in ``ALTERATIONS``."""
    height, width = photograph.shape[:2]
    image, side = Image.fromarray(photograph), min(height, width)
    yield "blurred", np.asarray(image.filter(ImageFilter.GaussianBlur(side / 28)))
    frame = [photograph[0], photograph[-1], photograph[:, 0], photograph[:, -1]]
    ground = np.median(np.concatenate(frame), axis=0)
    noise = np.random.default_rng(0).normal(0, 2, (height, width, 1))
    moved = _levels(ground + noise)
    moved[:, width // 2 :] = photograph[:, : width - width // 2]
    yield "half out", moved
    moved = photograph[np.maximum(np.arange(height) - height // 2, 0)]
    yield "half out, border", moved
    yield "cropped", photograph[:, width // 4 : 3 * width // 4]
    yield "thumbnail", np.asarray(image.resize((width * 48 // side, height * 48 // side)))
    if has_ground(photograph):
        corner = photograph[: int(CORNER * height), : int(CORNER * width)]
        block = np.concatenate([corner, corner[:, ::-1]], axis=1)
        block = np.concatenate([block, block[::-1]])
        tiles = (-(-height // len(block)), -(-width // block.shape[1]), 1)
        yield "no part", np.tile(block, tiles)[:height, :width]


def has_ground(photograph: UInt8Array) -> bool:
    """Whether the four corners are alike and far plainer than the whole: a part on a ground."""
    height, width = (int(CORNER * length) for length in photograph.shape[:2])
    corners = np.stack(
        [
            photograph[rows, columns]
            for rows in (slice(height), slice(-height, None))
            for columns in (slice(width), slice(-width, None))
        ]
    )
    return float(corners.std()) < 0.2 * float(photograph.std())


def not_judged(part: Part, pictures: dict[str, list[ImageSource]]) -> Row:
    """The shares of one part, by kind.

    Args:
        part: the part and its scored test images.
        pictures: pictures of something else by kind.

    Returns:
        ``not_judged`` and ``called_good``: for each kind the share of its images. The kinds are
        those of ``pictures``, ``ALTERATIONS``, ``good`` and the data set's defects.
    """
    shown: dict[str, list[ImageSource]] = {kind: list(some) for kind, some in pictures.items()}
    good = [sample.path for sample in part.samples if sample.defect is None]
    for path in good[:: -(-len(good) // ALTERED)]:
        for kind, image in altered(load_image(path)):
            shown.setdefault(kind, []).append(image)
    decisions = {
        kind: [part.model.score(one).decision for one in some] for kind, some in shown.items()
    }
    for sample, result in zip(part.samples, part.results, strict=True):
        decisions.setdefault(sample.defect or "good", []).append(result.decision)
    return {
        name: {kind: some.count(decision) / len(some) for kind, some in decisions.items()}
        for name, decision in (("not_judged", Decision.NOT_JUDGED), ("called_good", Decision.GOOD))
    }


def pictures_for(
    data: DataSet, sets: Sequence[DataSet], photos: Path | None, side: int
) -> dict[str, list[ImageSource]]:
    """Pictures of something else than a data set's part, by kind."""
    pictures: dict[str, list[ImageSource]] = {
        kind: list(some) for kind, some in plain_pictures(side).items()
    }
    if photos is not None:
        files = find_images(photos).images
        pictures["photographs"] = list(files[:: -(-len(files) // PHOTOS)])
    for other in sets:
        if other.name != data.name:
            pictures[other.name] = [sample.path for sample in other.subset(OTHERS // 2)]
    return pictures


def table(rows: Sequence[Row]) -> str:
    """Means over the seeds in Markdown: what must not be judged, and what must be."""
    sets = list(dict.fromkeys(row["dataset"] for row in rows))
    seeds = len({row["seed"] for row in rows})
    lines = [
        f"{len(rows)} models of {len(sets)} data sets, {seeds} draws of the shots. Shares that are "
        "not judged; in brackets, shares that are called good.",
        "",
        f"| shown | {' | '.join(sets)} | mean |",
        "|---" * (len(sets) + 2) + "|",
    ]
    kinds = dict.fromkeys(kind for row in rows for kind in row["not_judged"])
    defects = [kind for kind in kinds if kind in {d for row in rows for d in row["defects"]}]
    foreign = [kind for kind in kinds if kind not in {*ALTERATIONS, *defects, "good"}]
    for kind in [*foreign, *(kind for kind in ALTERATIONS if kind in kinds)]:
        lines.append(_line(kind, [_shares(rows, name, [kind]) for name in sets], True))
    own = {row["dataset"]: [kind for kind in row["not_judged"] if kind in foreign] for row in rows}
    of_set = [_shares(rows, name, own[name]) for name in sets]
    lines.append(_line("**all pictures of something else**", of_set, True))
    broken = {row["dataset"]: row["defects"] for row in rows}
    lines.append(_line("**defects**", [_shares(rows, n, broken[n]) for n in sets], False))
    lines.append(_line("**good parts**", [_shares(rows, name, ["good"]) for name in sets], False))
    worst = max((row["not_judged"][k], row["dataset"], k) for row in rows for k in row["defects"])
    lines += ["", f"Of the defects, most are not judged of {worst[1]}, {worst[2]}: {worst[0]:.1%}."]
    return "\n".join([*lines, ""])


def _shares(rows: Sequence[Row], name: str, kinds: Sequence[str]) -> tuple[float, float] | None:
    """Means over seeds and kinds, each kind alike: not judged, and called good."""
    some = [
        (row["not_judged"][kind], row["called_good"][kind])
        for row in rows
        for kind in kinds
        if row["dataset"] == name and kind in row["not_judged"]
    ]
    return (fmean(a for a, _ in some), fmean(b for _, b in some)) if some else None


def _line(kind: str, shares: Sequence[tuple[float, float] | None], called_good: bool) -> str:
    known = [share for share in shares if share is not None]
    every = [*shares, (fmean(a for a, _ in known), fmean(b for _, b in known))]
    cells = [
        "" if one is None else f"{one[0]:.1%} ({one[1]:.1%})" if called_good else f"{one[0]:.1%}"
        for one in every
    ]
    return f"| {kind} | {' | '.join(cells)} |"


def row_of(part: Part, seed: int, pictures: dict[str, list[ImageSource]]) -> Row:
    """One row: keys as :mod:`benchmarks.accuracy.rows` wants them, and :func:`not_judged`."""
    return {
        "dataset": part.data.name,
        "system": "fsad-edge",
        "settings": f"{part.model.metadata.width} px",
        "shots": part.made.shots,
        "seed": seed,
        "turned": part.model.metadata.bank_rotations > 1,
        "defects": sorted({s.defect for s in part.samples if s.defect is not None}),
        **not_judged(part, pictures),
    }


def _levels(values: Float64Array) -> UInt8Array:
    levels: UInt8Array = values.clip(0, 255).round().astype(np.uint8)
    return levels
