"""Export anomalib's models as ONNX files for timing. Runs in the peers' environment.

    PEERS_PYTHON -m benchmarks.peers.latency JOB.json OUT.npz

JOB: ``folder``, into which ``patchcore-resnet18.onnx``, ``patchcore-wide_resnet50_2.onnx`` and
``efficientad-small.onnx`` are written, and ``seed``.

Weights and memory banks are random, because the cost of a graph depends only on their shapes, and
those are anomalib's own. PatchCore at 224 pixels has a bank of 784 rows, the patches of one image;
EfficientAD has its default of 256 pixels. The torch model of each is exported for one image: the
file that ``Engine.export`` writes scores only two images at once, which would double its time.
The caller must resize, and normalise for PatchCore.

OUT: ``names``, ``sizes`` (side of the input in pixels), ``normalise`` (whether the caller must) and
``about`` (a description), with one entry for each model; and the versions ``anomalib`` and
``torch``.
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any

from benchmarks.peers.__main__ import answer

KEYS = ("folder", "seed")

#: Rows of a memory bank, the patches of one image of 224 pixels at stride 8.
BANK_ROWS = 784
OPSET = 17


def run(job: dict[str, Any]) -> dict[str, Any]:
    """The arrays of OUT for a JOB, as described above."""
    import torch

    torch.manual_seed(job["seed"])
    folder = Path(job["folder"])
    made = [
        ("patchcore-resnet18", 224, True, *_patchcore("resnet18", 384)),
        ("patchcore-wide_resnet50_2", 224, True, *_patchcore("wide_resnet50_2", 1536)),
        ("efficientad-small", 256, False, *_efficientad()),
    ]
    for name, size, _, _, model in made:
        unfinished = folder / f".{name}.onnx"
        torch.onnx.export(
            model.eval(),
            (torch.rand(1, 3, size, size),),
            str(unfinished),
            dynamo=False,  # the file of the newer exporter took the same time
            opset_version=OPSET,
            input_names=["image"],
            output_names=["score", "anomaly_map"],
        )
        os.replace(unfinished, folder / f"{name}.onnx")
    return {
        "names": [row[0] for row in made],
        "sizes": [row[1] for row in made],
        "normalise": [row[2] for row in made],
        "about": [row[3] for row in made],
        "anomalib": importlib.metadata.version("anomalib"),
        "torch": importlib.metadata.version("torch"),
    }


def _patchcore(backbone: str, width: int) -> tuple[str, Any]:
    """PatchCore with anomalib's default layers and neighbours and a bank of random rows."""
    import torch
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model: Any = PatchcoreModel(["layer2", "layer3"], backbone, pre_trained=False)
    model.memory_bank = torch.randn(BANK_ROWS, width)
    return f"PatchCore, {backbone}, layer2 + layer3, bank {BANK_ROWS}x{width}", model


def _efficientad() -> tuple[str, Any]:
    """EfficientAD in its default size, small, with random statistics in place of trained ones."""
    import torch
    from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel

    model: Any = EfficientAdModel()
    with torch.no_grad():
        model.mean_std["mean"].normal_()
        model.mean_std["std"].uniform_(0.5, 1.5)
        for name, value in (("qa_st", 0.1), ("qb_st", 0.9), ("qa_ae", 0.1), ("qb_ae", 0.9)):
            model.quantiles[name].fill_(value)
    return "EfficientAD, small", model


if __name__ == "__main__":
    answer(KEYS, run)
