"""Each system's score of an image before and after its export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parity.camera import Photo
from benchmarks.peers.client import run_job
from fsad_edge.graph.parity import torch_scores
from fsad_edge.graph.scoring_graph import ScoringGraph
from fsad_edge.pipeline.model_directory import (
    read_encoder,
    read_manifest,
    read_network,
    read_reference,
)
from fsad_edge.pipeline.part_encoder import trainable
from fsad_edge.runtime.images import load_resized
from fsad_edge.runtime.model import Model

#: How each path resizes an image to the model's size, by the first words of its name.
RESIZING = {
    "fsad-edge": (
        "before: Pillow's bilinear resize with antialiasing on uint8, then torch, bank and "
        "threshold of the model directory; after: JPEG or PNG bytes through `Model.score`, which "
        "resizes in the same way, then ONNX Runtime and the file's own threshold. The graph does "
        "not resize."
    ),
    "anomalib PatchCore": (
        "before: `Engine.predict`, whose pre-processor resizes float pixels in torch with "
        "`antialias=True`; after: `Engine.export` to ONNX with its defaults, whole images in 0 to "
        "1 given as by its `OpenVINOInferencer`: the graph resizes, with `antialias=False`. The "
        "threshold is the one its Engine sets on labelled images at their own size."
    ),
    "anomalib PatchCore, resized before": (
        "the same two models, but the exported one gets images that the pre-processor's own "
        "`Resize(antialias=True)` resized to the model's size, as a user who knows of this can do: "
        "the remaining drift is the difference between torch and ONNX Runtime."
    ),
}


@dataclass(frozen=True)
class Scored:
    """Score and threshold of one image before and after export, by one system."""

    system: str
    size: str
    image: str
    before: float
    after: float
    threshold_before: float
    threshold_after: float

    @property
    def drift(self) -> float:
        """Difference relative to the score, or to the threshold if the score is smaller."""
        scale = max(abs(self.before), self.threshold_before)
        drift = abs(self.after - self.before) / scale
        return drift if np.isfinite(drift) else float("inf")

    @property
    def flipped(self) -> bool:
        """Whether the decision changed."""
        return (self.before > self.threshold_before) != (self.after > self.threshold_after)


def score_own(part: Path, files: Sequence[Path], photos: Sequence[Photo]) -> list[Scored]:
    """Score with the model directory in torch and with each exported file in ``Model``."""
    manifest = read_manifest(part)
    height, width = manifest.encoder.height, manifest.encoder.width
    network = read_network(part, manifest) or trainable(read_encoder(part, manifest))
    graph = ScoringGraph(network, manifest.calibration.score).eval()
    images = [load_resized(photo.path, height, width) for photo in photos]
    before = torch_scores(graph, images, read_reference(part, manifest))
    scored = []
    for file in files:
        with Model.load(file, provider="cpu") as model:
            for photo, score in zip(photos, before, strict=True):
                result = model.score(photo.path.read_bytes())
                scored.append(
                    Scored(
                        f"fsad-edge {model.metadata.precision}",
                        photo.size,
                        photo.name,
                        float(score),
                        result.score,
                        manifest.threshold.value,
                        result.threshold,
                    )
                )
    return scored


def score_anomalib(
    python: Path, job: dict[str, Any], photos: Sequence[Photo]
) -> tuple[list[Scored], list[str]]:
    """Score with anomalib's PatchCore before and after its own export.

    Args:
        python: interpreter of the peers' environment.
        job: the job of ``benchmarks.peers.parity`` without ``test``.
        photos: images to score.

    Returns:
        The scores, and notes on its export, in sentences.

    Raises:
        InputError: it failed; it says why.
    """
    job = {**job, "test": [str(photo.path) for photo in photos]}
    arrays = run_job(python, "benchmarks.peers.parity", job)
    threshold = float(arrays["threshold"])
    notes = []
    if arrays["batch"] != 1:
        notes.append(
            f"anomalib's exported file takes {arrays['batch']} images at once and no other number "
            f"(anomalib {arrays['anomalib']}, torch {arrays['torch']}): each image was repeated."
        )
    scored = [
        Scored(
            f"anomalib {arrays['anomalib']} PatchCore{note}",
            photo.size,
            photo.name,
            float(before),
            float(after),
            threshold,
            threshold,
        )
        for key, note in (("after", ""), ("after_resized", ", resized before"))
        for photo, before, after in zip(photos, arrays["before"], arrays[key], strict=True)
    ]
    return scored, notes
