"""How well shots are checked as a set, on folders in the layout of MVTec AD.

    python -m benchmarks.shots DATASETS [--images 80] [--draws 200] [--first-half]

DATASETS holds a folder for each material. The second half of the good images in a shuffled order is
measured, with --first-half the first; the bounds were chosen with draws from both halves in view.
For each material and number of shots it prints how often random good shots are refused and at least
named, how often one broken part and one part of another material among them is, how many good parts
are found near-identical to another, and how often five exposures of one part are one shot.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from fsad_edge.pipeline.check_shots import SIDE, checking_session
from fsad_edge.pipeline.options import FinetuneOptions
from fsad_edge.pipeline.same_photograph import find_same
from fsad_edge.pipeline.shot_outliers import (
    Features,
    features_of,
    nearest_patches,
    part_distances,
    unlike_among,
)
from fsad_edge.runtime.arrays import Float32Array, IndexArray, UInt8Array
from fsad_edge.runtime.folders import Skipped, walk
from fsad_edge.runtime.images import load_image
from fsad_edge.synthesis import Shot, load_shot

COUNTS = (3, 5, 10, 20)
BROKEN = 40
OTHERS = 4
EXPOSED = 15


@dataclass(frozen=True)
class Material:
    """The images of one material: good ones of which the second half is measured, broken ones."""

    name: str
    good: list[Shot]
    broken: list[Shot]


def read(folder: Path, most: int) -> Material:
    """A material from a folder with ``train/good``, ``test/good`` and ``test/<defect>``."""
    rng = np.random.default_rng(7)

    def some(folders: Sequence[Path], most: int) -> list[Shot]:
        files = sorted(
            file
            for place in folders
            if place.is_dir()
            for file in walk(place)
            if not isinstance(file, Skipped)
        )
        return [load_shot(files[i], SIDE, SIDE) for i in rng.permutation(len(files))[:most]]

    good = some([folder / "train/good", folder / "test/good"], most)
    kinds = [place for place in sorted((folder / "test").iterdir()) if place.name != "good"]
    return Material(folder.name, good, some(kinds, BROKEN))


def exposures(shot: Shot, rng: np.random.Generator) -> list[Shot]:
    """Five more photographs of a part in its place: moved by 2 pixels at most, relit, noisy."""
    image, shots = load_image(shot.path).astype(np.float32), []
    height, width = image.shape[:2]
    for _ in range(5):
        down, right = rng.integers(0, 5, 2)
        moved = np.pad(image, ((2, 2), (2, 2), (0, 0)), "edge")
        moved = moved[down : down + height, right : right + width] * rng.uniform(0.97, 1.03)
        moved += rng.normal(0, rng.uniform(1, 3), moved.shape)
        shots.append(again(shot, moved.clip(0, 255).astype(np.uint8), int(rng.integers(75, 96))))
    return shots


def again(shot: Shot, pixels: UInt8Array, quality: int) -> Shot:
    """A shot with other pixels, through JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    decoded = Image.open(buffer)
    canvas = np.asarray(decoded.resize((2 * SIDE, 2 * SIDE), Image.Resampling.BILINEAR))
    image = np.asarray(decoded.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return replace(shot, image=image, canvas=canvas, sha256=f"{quality}{pixels.sum()}")


def refused_and_named(
    places: IndexArray, nearest: Float32Array, distances: Float32Array, odd: bool
) -> tuple[bool, bool]:
    """Whether a draw is refused and whether one is at least named; of an odd last one, whether it
    is that one."""
    here = np.ix_(places, places)
    found = unlike_among(nearest[here], distances[here])
    if odd:
        found = [one for one in found if one.index == len(places) - 1]
    return any(one.refused for one in found), bool(found)


def measure(
    material: Material, others: list[Shot], draws: int, embed: FinetuneOptions, first_half: bool
) -> None:
    """Print the lines of one material."""
    rng = np.random.default_rng(1)
    half = len(material.good) // 2
    good = material.good[:half] if first_half else material.good[half:]
    shots = [*good, *material.broken, *others]
    features: Features = features_of(checking_session(embed), [shot.image for shot in shots])
    nearest = nearest_patches(features.patches)
    distances = part_distances(features, nearest)
    end = len(good) + len(material.broken)
    groups = [range(len(good)), range(len(good), end), range(end, len(shots))]
    for count in (count for count in COUNTS if count <= len(good)):
        rates: list[float] = []
        for kind, group in enumerate(groups):
            hits = []
            for _ in range(draws if len(group) else 0):
                places = rng.permutation(len(good))[:count]
                if kind:
                    places[-1] = rng.choice(group)
                hits.append(refused_and_named(places, nearest, distances, kind > 0))
            rates += np.mean(hits, axis=0).tolist() if hits else [float("nan")] * 2
        print(f"{material.name:16s} {count:3d} " + " ".join(f"{rate:7.1%}" for rate in rates))
    same = sum(len(one.copies) + len(one.exposures) for one in find_same(good))
    exposed = [find_same(exposures(shot, rng)) for shot in good[:EXPOSED]]
    one_shot = [bool(g) and len(g[0].copies) + len(g[0].exposures) == 4 for g in exposed]
    print(
        f"{material.name:16s} near-identical: {same} of {len(good)} good parts; "
        f"five exposures are one shot: {sum(one_shot)} of {len(one_shot)}",
        flush=True,
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", type=Path)
    parser.add_argument("--images", type=int, default=80, help="good images of each material")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--first-half", action="store_true", help="measure the other half")
    arguments = parser.parse_args(argv)
    folders = [
        folder
        for folder in (sorted(arguments.datasets.iterdir()) if arguments.datasets.is_dir() else [])
        if (folder / "train/good").is_dir() and (folder / "test").is_dir()
    ]
    if len(folders) < 2:
        print(f"skipped: {arguments.datasets} does not hold two data sets.")
        return 0
    materials = [read(folder, arguments.images) for folder in folders]
    print("material       shots | good: refused, named | broken: refused, named | other part")
    for material in materials:
        others = [
            shot for other in materials if other is not material for shot in other.good[:OTHERS]
        ]
        measure(material, others, arguments.draws, FinetuneOptions(), arguments.first_half)
    return 0


if __name__ == "__main__":
    sys.exit(main())
