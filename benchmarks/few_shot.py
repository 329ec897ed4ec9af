"""Few-shot accuracy of the whole tool: fine-tune, export and evaluate over seeds, as a user would.

    python -m benchmarks.few_shot DATASET --backbone NAME --shots 5 --seeds 0 1 2 --epochs 0 30

Shots are drawn from DATASET/train/good by ``RandomState(seed).permutation`` of the sorted files;
the whole test split is scored. Prints a row a run and the mean, and writes them as JSON lines; a
run that is already in the file is not done again. ``--options`` goes to ``finetune`` as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fsad_edge.runtime.images import find_images

FIGURES = ["image_auroc", "pixel_auroc", "aupro", "false_alarm_rate", "miss_rate"]


def run(
    dataset: Path, backbone: str, shots: int, seed: int, epochs: int, options: str
) -> dict[str, Any]:
    """One model of one draw of shots: its figures on the test split."""
    files = find_images(dataset / "train" / "good")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "shots").mkdir()
        for index in np.random.RandomState(seed).permutation(len(files))[:shots]:
            file = files[index]
            os.symlink(file.absolute(), work / "shots" / file.name)
        choices = ["--backbone", backbone, "--epochs", str(epochs), "--seed", str(seed)]
        made = _command("finetune", work / "shots", "-o", work / "part", *choices, *options.split())
        exported = _command("export", work / "part")
        evaluated = _command("eval", work / "part.onnx", dataset, "--report", work / "report.png")
    return {
        "dataset": dataset.name,
        "backbone": Path(backbone).name,
        "shots": shots,
        "seed": seed,
        "epochs": epochs,
        "options": options,
        **{figure: evaluated[figure] for figure in FIGURES},
        "training_seconds": made["training_seconds"],
        "synthetic_auroc": made["synthetic_auroc"],
        "parity": exported["largest_relative_difference"],
        "flips": exported["flips"],
        "bytes": exported["bytes"],
        "model_ms": exported["median_model_ms"],
    }


def _command(*arguments: object) -> dict[str, Any]:
    line = [sys.executable, "-m", "fsad_edge.cli", *map(str, arguments), "--json"]
    answer = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    document: dict[str, Any] = json.loads(answer.stdout)
    return document


def _row(row: dict[str, Any]) -> str:
    choice = row["synthetic_auroc"]
    kept = f"; {'kept' if choice['kept'] else 'not kept'}" if row["epochs"] else ""
    figures = " ".join(
        f"{figure} {row[figure]:.4f}" for figure in FIGURES if row[figure] is not None
    )
    return (
        f"{row['dataset']} {row['backbone']} {row['shots']} shots, seed {row['seed']}, "
        f"{row['epochs']} epochs {row['options']}: "
        f"{figures}; trained {row['training_seconds']} s{kept}, parity "
        f"{row['parity']:.1e}, {row['flips']} flips, {row['bytes'] / 1e6:.2f} MB, "
        f"{row['model_ms']} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--backbone", default="fsad_edge")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, nargs="+", default=[0, 30])
    parser.add_argument("--options", default="", help="such as '--lambda-con 0'")
    parser.add_argument("--output", type=Path, default=Path("few_shot.jsonl"))
    chosen = parser.parse_args()
    known: list[dict[str, Any]] = []
    if chosen.output.exists():
        known = [json.loads(line) for line in chosen.output.read_text().splitlines()]
    for epochs in chosen.epochs:
        rows = []
        for seed in chosen.seeds:
            key = {
                "dataset": chosen.dataset.name,
                "backbone": Path(chosen.backbone).name,
                "shots": chosen.shots,
                "seed": seed,
                "epochs": epochs,
                "options": chosen.options,
            }
            found = [row for row in known if key.items() <= row.items()]
            row = (
                found[0]
                if found
                else run(
                    chosen.dataset, chosen.backbone, chosen.shots, seed, epochs, chosen.options
                )
            )
            if not found:
                with chosen.output.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            rows.append(row)
            print(_row(row), flush=True)
        mean = statistics.mean(row["image_auroc"] for row in rows)
        print(f"mean image AUROC at {epochs} epochs: {mean:.4f}", flush=True)


if __name__ == "__main__":
    main()
