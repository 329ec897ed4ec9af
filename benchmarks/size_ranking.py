"""Whether drawn defects rank image sizes as the real defects do.

    python -m benchmarks.size_ranking OUT --data DATASET ... [--seeds 0 1 2] [--shots 5]

``finetune`` chooses among image sizes by how well drawn defects are told from the shots. For each
set and seed, every size that it would offer is measured with stride 16: that estimate, and the
image AUROC on the test split. The part is located and the shots turned as ``finetune`` does it; the
encoder is not fine-tuned and not aligned. Of a test split, at most ``--images`` good and as many
defective images are scored.

Rows are written to ``OUT/size_ranking.jsonl`` as soon as they are measured, the smallest sizes of
all sets first, and a row that is there is not measured again. ``OUT/size_ranking.md`` has the
table: Spearman's rank correlation of estimate and AUROC over the sizes, the size that ``finetune``
would choose, and the AUROC that this choice loses against the best size.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from scipy.stats import spearmanr

from benchmarks.accuracy.datasets import DataSet, mvtec_style
from benchmarks.accuracy.rows import Row, append_row, key, read_rows
from fsad_edge.calibration.batches import batch_size, run_batches
from fsad_edge.calibration.calibrate import CalibrationSettings, bank_size_for, calibrate
from fsad_edge.calibration.locating import find_locator
from fsad_edge.calibration.selection import (
    Trial,
    best_trial,
    choose_turning,
    is_worth_a_trial,
)
from fsad_edge.calibration.synthetic_task import SyntheticTask, draw_on
from fsad_edge.errors import InputError
from fsad_edge.evaluation.metrics import image_auroc
from fsad_edge.graph.scoring_graph import ScoringGraph, build_graph
from fsad_edge.options import BundledEncoder, Locate, ScoreKind
from fsad_edge.pipeline.candidates import SIZES, Shape, shapes_to_try, sizes_to_try
from fsad_edge.pipeline.choosing import PART_ENLARGED
from fsad_edge.pipeline.finetune_job import median_ms
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.encoder_names import bundled_name
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.images import load_image
from fsad_edge.synthesis import load_shot
from fsad_edge.training.encoder import pretrained_encoder

#: The stride of the feature map at every size.
STRIDE = 16

#: The columns of a row that are measured.
MEASURED = ("drawn_auroc", "drawn_found", "latency_ms", "image_auroc")


@dataclass(frozen=True)
class Draw:
    """The shots of one set and seed, and what ``finetune`` finds out about them before it chooses.

    Attributes:
        data: the set.
        seed: of the draw and of all that is random.
        files: the shots.
        settings: with the locator and the angles of the bank.
        shapes: the inputs that are measured, ascending.
    """

    data: DataSet
    seed: int
    files: list[Path]
    settings: CalibrationSettings
    shapes: list[Shape]


class Benchmark:
    """Measures sizes with one encoder.

    Args:
        backbone: as ``finetune --backbone`` takes it.
        threads: threads of the model.
        images: the most good, and the most defective, test images.
    """

    def __init__(self, backbone: str, threads: int, images: int) -> None:
        self.backbone, self.threads, self.images = backbone, threads, images

    def draw(self, data: DataSet, seed: int, shots: int, largest: int) -> Draw:
        """Draw shots; find the part in them, its angles, and the sizes that they allow."""
        files = data.draw(shots, seed)
        photographs = [load_image(file) for file in files]
        locator = find_locator(photographs, [file.name for file in files], Locate.AUTO).locator
        settings = CalibrationSettings(
            bank_size=bank_size_for(shots), align=False, seed=seed, locator=locator
        )
        aspect = 1.0 if locator is None else locator.width / locator.height
        [first] = shapes_to_try(sizes_to_try(None, [(0, 0)]), (STRIDE,), [STRIDE], aspect)
        loaded = [load_shot(file, *first.size, locator=locator) for file in files]
        if locator is None or not locator.turned:
            steps, _ = choose_turning(self.session(first, settings), loaded)
            settings = replace(settings, bank_rotations=steps)
        looked_at = [shot.size if locator is None else locator.sides(shot.size) for shot in loaded]
        enlarged = 1.0 if locator is None else PART_ENLARGED
        sizes = [size for size in sizes_to_try(None, looked_at, enlarged) if size <= largest]
        shapes = shapes_to_try(sizes, (STRIDE,), [STRIDE], aspect)
        return Draw(data, seed, files, settings, shapes)

    def session(self, shape: Shape, settings: CalibrationSettings) -> OnnxSession:
        """The scoring graph of a shape."""
        encoder = pretrained_encoder(self.backbone, None, *shape.size, [STRIDE])
        graph = ScoringGraph(encoder, ScoreKind.PATCH, settings.locator)
        model = build_graph(graph, settings.bank_size)
        return OnnxSession(model.SerializeToString(), "the graph just built", threads=self.threads)

    def measure(self, draw: Draw, shape: Shape) -> Row:
        """The estimate and the truth at one size."""
        settings, locator = draw.settings, draw.settings.locator
        session = self.session(shape, settings)
        shots = [load_shot(file, *shape.size, locator=locator) for file in draw.files]
        task = SyntheticTask(shots, settings, draw_on(draw.files, draw.seed, locator=locator))
        solved = task.solve(session, settings)
        reference = calibrate(session, shots, settings).reference.as_inputs()
        samples, scores = draw.data.subset(self.images), list[float]()
        count = batch_size(*shape.size)
        for start in range(0, len(samples), count):
            batch = [
                load_shot(sample.path, *shape.size, locator=locator).image
                for sample in samples[start : start + count]
            ]
            scores += run_batches(session, batch, ["patch_score"], reference)[0].tolist()
        truth = image_auroc(scores, [sample.defect is not None for sample in samples])
        found = (solved.auroc, solved.found, median_ms(session, shots[0].image), truth)
        return dict(zip(MEASURED, found, strict=True))


def run_of(draw: Draw, shape: Shape, backbone: str) -> Row:
    """What identifies a row."""
    return {
        "dataset": draw.data.name,
        "system": Path(backbone).name,
        "settings": shape.side,
        "shots": len(draw.files),
        "seed": draw.seed,
    }


def trial_of(row: Row) -> Trial:
    """What ``finetune`` sees of a size."""
    figures = (row[name] for name in MEASURED[:-1])
    return Trial(row["settings"], (STRIDE,), row["rotations"], *figures)


def chosen_size(rows: Sequence[Row]) -> int:
    """The size that ``finetune`` takes of those of one draw, which it tries in ascending order."""
    trials: list[Trial] = []
    for row in sorted(rows, key=lambda row: row["settings"]):
        if not is_worth_a_trial(row["settings"], trials):
            break
        trials.append(trial_of(row))
    return best_trial(trials).image_size


def rank_correlation(estimates: Sequence[float], truths: Sequence[float]) -> float:
    """Spearman's rank correlation, ties with their mean rank; not a number where all are equal.

    Example:
        >>> rank_correlation([0.5, 0.6, 0.8], [0.7, 0.9, 0.8])
        0.5
    """
    if len(set(estimates)) < 2 or len(set(truths)) < 2:
        return math.nan
    return round(float(spearmanr(estimates, truths).statistic), 4)


def table(rows: Sequence[Row]) -> str:
    """A line for each draw, and what the choices lose on the mean, in Markdown.

    The rank correlation over all is that of the differences from each draw's own means.
    """
    draws: dict[tuple[object, ...], dict[int, Row]] = defaultdict(dict)
    for row in rows:
        draws[row["dataset"], row["system"], row["shots"], row["seed"]][row["settings"]] = row
    sizes = sorted({row["settings"] for row in rows})
    lines = [
        "# Image sizes, ranked by drawn defects and by real ones",
        "",
        "At each size: the estimate from the shots alone / image AUROC on the test split. The size",
        "that `finetune` would choose is in bold letters.",
        "",
        f"| set | encoder | shots | seed | {' | '.join(f'{size} px' for size in sizes)} "
        "| rank correlation | AUROC lost |",
        "|---" * (len(sizes) + 6) + "|",
    ]
    estimates, truths = list[float](), list[float]()
    figures = defaultdict[str, list[float]](list)
    for name, by_size in sorted(draws.items(), key=lambda item: str(item[0])):
        chosen = chosen_size(list(by_size.values()))
        cells = [_cell(by_size.get(size), size == chosen) for size in sizes]
        if len(by_size) == 1:
            lines.append(f"| {' | '.join([*map(str, name), *cells])} | one size | |")
            continue
        seen = {size: trial_of(row).selection_score for size, row in by_size.items()}
        true = {size: row["image_auroc"] for size, row in by_size.items()}
        correlation = rank_correlation(list(seen.values()), [true[size] for size in seen])
        lost = max(true.values()) - true[chosen]
        lines.append(
            f"| {' | '.join([*map(str, name), *cells])} | {_signed(correlation)} | {lost:.3f} |"
        )
        # Rounded, so that equal differences are ties.
        estimates += [round(value - fmean(seen.values()), 6) for value in seen.values()]
        truths += [round(true[size] - fmean(true.values()), 6) for size in seen]
        figures["rank correlation"].append(correlation)
        figures["chosen"].append(true[chosen])
        figures["best"].append(max(true.values()))
        figures["smallest"].append(true[min(true)])
        figures["largest"].append(true[max(true)])
    return "\n".join([*lines, *_over_all(figures, estimates, truths)]) + "\n"


def _over_all(
    figures: dict[str, list[float]], estimates: list[float], truths: list[float]
) -> list[str]:
    if not figures:
        return []
    known = [value for value in figures["rank correlation"] if not math.isnan(value)]
    means = {name: fmean(figures[name]) for name in ("chosen", "best", "smallest", "largest")}
    return [
        "",
        f"Over {len(figures['chosen'])} draws with several sizes: rank correlation "
        f"{_signed(fmean(known) if known else math.nan)} on the mean of the draws, "
        f"{_signed(rank_correlation(estimates, truths))} of all differences from a draw's means. "
        f"Mean AUROC {means['chosen']:.3f} as chosen, {means['best']:.3f} with the best size of "
        f"each draw, {means['smallest']:.3f} with the smallest, {means['largest']:.3f} with the "
        "largest.",
    ]


def _cell(row: Row | None, chosen: bool) -> str:
    if row is None:
        return "–"
    text = f"{trial_of(row).selection_score:.3f} / {row['image_auroc']:.3f}"
    return f"**{text}**" if chosen else text


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.2f}"


def measure(arguments: argparse.Namespace, file: Path) -> None:
    """Measure what is not in the file yet, the smallest inputs first, and append a row for each."""
    benchmark = Benchmark(arguments.backbone, arguments.threads, arguments.images)
    sets = list(_sets(arguments.data))
    if len({data.name for data in sets}) < len(sets):
        raise InputError("two sets have the same name: the folders of --data need different ones.")
    known = {key(row) for row in read_rows(file)}
    for seed in arguments.seeds:
        draws: dict[str, Draw] = {}
        for place in range(len(SIZES)):
            for data in sets:
                # When it is its turn: a draw takes as long as the smallest size.
                if data.name not in draws:
                    draws[data.name] = benchmark.draw(
                        data, seed, arguments.shots, arguments.largest
                    )
                draw = draws[data.name]
                if place >= len(draw.shapes):
                    continue
                row = run_of(draw, draw.shapes[place], arguments.backbone)
                if key(row) not in known:
                    _append(benchmark, draw, draw.shapes[place], row, file)


def _sets(folders: Sequence[Path]) -> Iterator[DataSet]:
    """The sets that can be measured; why others cannot is printed."""
    for folder in folders:
        if not folder.is_dir():
            print(f"skipped: {folder} is not there.")
            continue
        try:
            yield mvtec_style(folder)
        except InputError as error:
            print(f"skipped: {error}")


def _append(benchmark: Benchmark, draw: Draw, shape: Shape, row: Row, file: Path) -> None:
    """Measure one size and append its row."""
    started = time.perf_counter()
    row |= benchmark.measure(draw, shape)
    settings = draw.settings
    row |= {"rotations": settings.bank_rotations, "located": settings.locator is not None}
    append_row(file, {**row, "seconds": round(time.perf_counter() - started, 1)})
    print(f"{draw.data.name}, seed {draw.seed}, {shape.side} px: {_cell(row, False)}", flush=True)


def main(words: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.size_ranking",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="folders like MVTec AD's"
    )
    parser.add_argument(
        "--backbone",
        default=bundled_name(BundledEncoder.FAST),
        help="encoder, as finetune --backbone takes it",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="size, pixels")
    parser.add_argument("--images", type=int, default=100, help="of each kind, at most")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "size_ranking.jsonl"
    try:
        measure(arguments, file)
    except InputError as error:
        sys.exit(f"error: {error}")
    if not (rows := read_rows(file)):
        print("nothing was measured.")
        return 0
    text = table(rows)
    write_bytes(arguments.out / "size_ranking.md", text.encode())
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
