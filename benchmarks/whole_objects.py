"""Whether contrastive fine-tuning tells whole objects apart better, with COFT-AD's own protocol.

    python -m benchmarks.whole_objects CIFAR --backbone local-dir:FOLDER [--classes dog frog]

CIFAR holds train/<class> and test/<class>. One class is normal and the others are anomalies (the
controlled tasks of COFT-AD, arXiv 2402.18998): a network of full depth is fine-tuned on ten shots
of it, with the losses of :mod:`fsad_edge.training.losses`, and scored as ``--score image`` scores:
by a Gaussian of the embeddings of views of the shots. Every cell of a grid over learning rates,
epochs, the layers that are trained and the losses is one row, with the AUROC before and after.

With ``--shots-alone 5 10 20`` nothing is trained: every class, seed and number of shots is a row.

Rows are written to ``OUTPUT/whole_objects.jsonl`` as soon as they are measured, and a row that is
there is not measured again. Both kinds of rows have a table in ``OUTPUT/whole_objects.md``.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from benchmarks.accuracy.rows import Row, append_row, key, read_rows
from fsad_edge.calibration.calibrate import CalibrationSettings
from fsad_edge.errors import InputError
from fsad_edge.evaluation.metrics import image_auroc
from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.bank import WHOLE_PRIOR, fit_gaussian
from fsad_edge.runtime.folders import find_images
from fsad_edge.synthesis import Shot, Views, load_shot, random_view
from fsad_edge.training.encoder import Encoder, pretrained_encoder
from fsad_edge.training.loop import train_contrastively
from fsad_edge.training.settings import TrainingSettings

#: Views for training: an object may be nearer, farther, turned a little and in other light.
STRONG = Views(rotate=10, shift=0.1, zoom=0.2, brightness=0.2, contrast=0.2)

#: Weights of L_con, L_pp and L_np.
LOSSES = {
    "con": (1.0, 0.0, 0.0),
    "con+pp": (1.0, 1.0, 0.0),
    "con+pp+np": (1.0, 1.0, 1.0),
}

#: The settings of a row without training.
ALONE = "not trained"

#: Images that go through the network at once.
BATCH = 32


@dataclass(frozen=True)
class Cell:
    """One way to fine-tune.

    Attributes:
        layers: ``whole`` for all layers, ``last`` for the last quarter of the parameters' tensors.
        losses: a key of ``LOSSES``.
        rate: peak learning rate.
        epochs: passes over the shots.
    """

    layers: str
    losses: str
    rate: float
    epochs: int

    def __str__(self) -> str:
        return f"{self.layers} {self.losses} rate={self.rate:g} epochs={self.epochs}"

    @staticmethod
    def read(text: str) -> Cell:
        """The cell that :meth:`__str__` wrote.

        Example:
            >>> str(Cell.read("last con+pp rate=1e-05 epochs=5"))
            'last con+pp rate=1e-05 epochs=5'
        """
        layers, losses, rate, epochs = text.split()
        return Cell(layers, losses, float(rate.partition("=")[2]), int(epochs.partition("=")[2]))


@dataclass(frozen=True)
class Images:
    """A set at the network's size: each class's images for shots, and its test images."""

    normal: dict[str, list[Shot]]
    tested: dict[str, list[UInt8Array]]


def read_set(folder: Path, side: int, most: int) -> Images:
    """Read a set with a folder for each class; of each class ``most`` test images.

    Raises:
        InputError: it has fewer than two classes.
    """
    test = folder / "test"
    classes = sorted(path.name for path in test.iterdir() if path.is_dir()) if test.is_dir() else []
    if len(classes) < 2:
        raise InputError(f"{folder} needs train/<class> and test/<class> of two classes or more.")

    def shots(place: Path, most: int | None = None) -> list[Shot]:
        return [load_shot(file, side, side) for file in find_images(place).images[:most]]

    return Images(
        {name: shots(folder / "train" / name) for name in classes},
        {name: [shot.image for shot in shots(test / name, most)] for name in classes},
    )


@torch.inference_mode()
def embed(encoder: Encoder, images: Sequence[UInt8Array]) -> Float32Array:
    """L2-normalised embeddings, float32 ``[N, E]``, of images uint8 ``[H, W, 3]``."""
    found = []
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.stack(images[start : start + BATCH]))
        whole = encoder.with_embedding(batch.permute(0, 3, 1, 2).float())[1]
        found.append(torch.nn.functional.normalize(whole, dim=1).numpy())
    return np.concatenate(found)


def views_of(shot: Shot, rng: np.random.Generator) -> list[UInt8Array]:
    """The views of a shot behind the Gaussian, as calibration makes them: half of them mirrored."""
    settings = CalibrationSettings()
    height, width = shot.image.shape[:2]
    views = [
        random_view(shot.canvas, height, width, settings.views, rng)
        for _ in range(settings.gaussian_views)
    ]
    return [
        *(shot.image, np.fliplr(shot.image)),
        *views[::2],
        *(np.fliplr(view) for view in views[1::2]),
    ]


def auroc_of(shots: Float32Array, tested: Mapping[str, Float32Array], normal: str) -> float:
    """AUROC of one class against the others, from the embeddings ``[N, E]`` of views and images."""
    mean, whitening = fit_gaussian(shots, WHOLE_PRIOR)
    good: list[float] = []
    bad: list[float] = []
    for name, embeddings in tested.items():
        (good if name == normal else bad).extend(
            np.linalg.norm((embeddings - mean) @ whitening, axis=1)
        )
    found = image_auroc([*good, *bad], [False] * len(good) + [True] * len(bad))
    assert found is not None  # there are two classes
    return found


def measured_auroc(encoder: Encoder, shots: Sequence[Shot], images: Images, normal: str) -> float:
    """AUROC of the test images of one class against those of the others."""
    rng = np.random.default_rng(0)
    views = [view for shot in shots for view in views_of(shot, rng)]
    tested = {name: embed(encoder, group) for name, group in images.tested.items()}
    return auroc_of(embed(encoder, views), tested, normal)


def drawn(images: Images, name: str, seed: int) -> list[int]:
    """The images of a class in the order in which shots are drawn."""
    order: list[int] = np.random.RandomState(seed).permutation(len(images.normal[name])).tolist()
    return order


def fine_tuned(encoder: Encoder, shots: Sequence[Shot], cell: Cell, seed: int) -> Encoder:
    """A copy of an encoder after the training of a cell."""
    trained = copy.deepcopy(encoder)
    parameters = list(trained.parameters())
    frozen = 0 if cell.layers == "whole" else 3 * len(parameters) // 4
    for parameter in parameters[:frozen]:
        parameter.requires_grad_(False)
    con, pp, np_ = LOSSES[cell.losses]
    settings = TrainingSettings(
        cell.epochs, con, pp, np_, learning_rate=cell.rate, views=STRONG, seed=seed
    )
    train_contrastively(trained, shots, settings, torch.device("cpu"))
    return trained


def grid(args: argparse.Namespace) -> list[Cell]:
    """All cells, from the cheapest on."""
    return [
        Cell(layers, losses, rate, epochs)
        for epochs in sorted(args.epochs)
        for losses in args.losses
        for rate in args.rates
        for layers in args.layers
    ]


def network(args: argparse.Namespace) -> Encoder:
    """The network.

    Raises:
        InputError: it has no full depth.
    """
    encoder = pretrained_encoder(args.backbone, None, args.size, args.size, [16], full_depth=True)
    if not encoder.spec.full_depth:
        raise InputError(f"{args.backbone} has no full depth: take another --backbone.")
    return encoder.eval()


def measure_alone(args: argparse.Namespace, file: Path) -> None:
    """Append a row for each class, seed and number of shots without training."""
    encoder = network(args)
    images = read_set(args.folder, args.size, args.test_images)
    tested = {name: embed(encoder, group) for name, group in images.tested.items()}
    known = {key(row) for row in read_rows(file)}
    for name in args.classes or list(images.normal):
        rng = np.random.default_rng(0)
        views = [embed(encoder, views_of(shot, rng)) for shot in images.normal[name]]
        for seed in args.seeds:
            for count in args.shots_alone:
                row: Row = {
                    "dataset": name,
                    "system": f"{Path(args.backbone).name} at {args.size} px",
                    "settings": ALONE,
                    "shots": count,
                    "seed": seed,
                }
                if key(row) not in known:
                    shots = [views[index] for index in drawn(images, name, seed)[:count]]
                    auroc = round(auroc_of(np.concatenate(shots), tested, name), 4)
                    append_row(file, {**row, "before": auroc})
                    print(row, auroc, flush=True)


def measure(args: argparse.Namespace, file: Path) -> None:
    """Measure the cells that are not in the file yet, and append a row for each."""
    images = read_set(args.folder, args.size, args.test_images)
    encoder = network(args)
    known = {key(row) for row in read_rows(file)}
    before: dict[tuple[str, int], float] = {}
    for cell in [Cell.read(text) for text in args.cell] or grid(args):
        for name in args.classes or list(images.normal):
            for seed in args.seeds:
                row: Row = {
                    "dataset": name,
                    "system": f"{Path(args.backbone).name} at {args.size} px",
                    "settings": str(cell),
                    "shots": args.shots,
                    "seed": seed,
                }
                if key(row) in known:
                    continue
                order = drawn(images, name, seed)[: args.shots]
                shots = [images.normal[name][index] for index in order]
                if (name, seed) not in before:
                    before[name, seed] = measured_auroc(encoder, shots, images, name)
                start = time.perf_counter()
                trained = fine_tuned(encoder, shots, cell, seed)
                seconds = round(time.perf_counter() - start, 1)
                row["before"] = round(before[name, seed], 4)
                row["after"] = round(measured_auroc(trained, shots, images, name), 4)
                append_row(file, {**row, "seconds": seconds})
                print(row, flush=True)


def table_alone(rows: Sequence[Row]) -> list[str]:
    """The mean AUROC of each network and number of shots without training, in Markdown."""
    lines = [
        "| network | shots | first half of the classes | second half | all | lowest class |",
        "|---|---|---|---|---|---|",
    ]
    cells: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in rows:
        classes = cells.setdefault((row["system"], row["shots"]), {})
        classes.setdefault(row["dataset"], []).append(row["before"])
    for (system, shots), classes in sorted(cells.items()):
        means = [fmean(classes[name]) for name in sorted(classes)]
        halves = [means[: len(means) // 2] or means, means[len(means) // 2 :], means]
        lowest = min(classes, key=lambda name: fmean(classes[name]))
        lines.append(
            f"| {system} | {shots} | {' | '.join(f'{fmean(half):.3f}' for half in halves)} "
            f"| {lowest} {min(means):.3f} |"
        )
    return lines


def table_trained(rows: Sequence[Row]) -> list[str]:
    """The mean AUROC of each cell before and after, in Markdown."""
    lines = [
        "| network | layers, losses, rate, epochs | classes | not trained | trained | change "
        "| better in |",
        "|---|---|---|---|---|---|---|",
    ]
    cells: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        cells.setdefault((row["system"], row["settings"]), []).append(row)
    for (system, settings), group in sorted(cells.items(), key=lambda item: item[0]):
        before, after = (fmean(row[name] for row in group) for name in ("before", "after"))
        better = sum(row["after"] > row["before"] for row in group)
        names = sorted({row["dataset"] for row in group})
        lines.append(
            f"| {system} | {settings} | {len(names)} | {before:.3f} | {after:.3f} "
            f"| {after - before:+.3f} | {better} of {len(group)} |"
        )
    return lines


def tables(rows: Sequence[Row]) -> str:
    """The tables of all rows, in Markdown."""
    alone = [row for row in rows if row["settings"] == ALONE]
    trained = [row for row in rows if row["settings"] != ALONE]
    lines = ["# Whole objects", "", "Image AUROC, one class against the rest."]
    if alone:
        lines += ["", "## Not trained", "", *table_alone(alone)]
    if trained:
        lines += ["", "## Fine-tuned contrastively on the shots", "", *table_trained(trained)]
    return "\n".join(lines) + "\n"


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.whole_objects",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--classes", nargs="*", default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--shots-alone", nargs="+", type=int, default=[], help="without training")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--test-images", type=int, default=20, help="of each class")
    parser.add_argument("--layers", nargs="+", default=["whole", "last"], choices=["whole", "last"])
    parser.add_argument("--losses", nargs="+", default=["con+pp"], choices=list(LOSSES))
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-5, 1e-4, 1e-3])
    parser.add_argument("--epochs", nargs="+", type=int, default=[5, 20])
    parser.add_argument("--cell", action="append", default=[], help="a cell instead of the grid")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("benchmarks/results/whole_objects")
    )
    args = parser.parse_args(words)
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / "whole_objects.jsonl"
    try:
        (measure_alone if args.shots_alone else measure)(args, file)
    except InputError as error:
        sys.exit(f"error: {error}")
    (args.output / "whole_objects.md").write_text(tables(read_rows(file)))


if __name__ == "__main__":
    main()
