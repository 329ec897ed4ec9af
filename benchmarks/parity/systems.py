"""What is compared: each system's score of an image before and after its export."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.parity.camera import Photo
from fsad_edge.errors import InputError
from fsad_edge.graph.parity import torch_scores
from fsad_edge.graph.scoring_graph import ScoringGraph
from fsad_edge.runtime.images import load_resized
from fsad_edge.runtime.model import Model
from fsad_edge.training.model_directory import read_encoder, read_manifest, read_reference

REPOSITORY = Path(__file__).parents[2]

#: How each path brings an image to the model's size, by the first words of its name.
HOW = {
    "fsad-edge": (
        "before: Pillow's bilinear resize with antialiasing on uint8, then torch, bank and "
        "threshold of the model directory; after: JPEG or PNG bytes through `Model.score`, which "
        "is the same resize, then ONNX Runtime and the file's own threshold. No resize is in the "
        "graph."
    ),
    "anomalib PatchCore": (
        "before: `Engine.predict`, whose pre-processor resizes float pixels in torch with "
        "`antialias=True`; after: `Engine.export` to ONNX with its defaults, whole images in 0 to "
        "1 fed as its `OpenVINOInferencer` does: the graph resizes, with `antialias=False`. The "
        "threshold is the one its Engine sets on labelled images at their own size."
    ),
    "anomalib PatchCore, resized before": (
        "the same two models, but the exported one is fed images that the pre-processor's own "
        "`Resize(antialias=True)` has brought to the model's size, as a user who knows of this "
        "can do: what is left is the difference between torch and ONNX Runtime."
    ),
}


@dataclass(frozen=True)
class Scored:
    """One image before and after export, by one system; thresholds as each path has them."""

    system: str
    size: str
    image: str
    before: float
    after: float
    threshold_before: float
    threshold_after: float

    @property
    def drift(self) -> float:
        """Relative to the score, or to the threshold where the score is smaller."""
        scale = max(abs(self.before), self.threshold_before)
        drift = abs(self.after - self.before) / scale
        return drift if np.isfinite(drift) else float("inf")

    @property
    def flipped(self) -> bool:
        return (self.before > self.threshold_before) != (self.after > self.threshold_after)


def score_ours(part: Path, files: Sequence[Path], photos: Sequence[Photo]) -> list[Scored]:
    """The model directory in torch against each exported file through the runtime's public door."""
    manifest = read_manifest(part)
    height, width = manifest.encoder.height, manifest.encoder.width
    graph = ScoringGraph(read_encoder(part, manifest), manifest.calibration["score"]).eval()
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
    """anomalib's PatchCore before and after its own export, see ``benchmarks.peers.parity``.

    Args:
        python: of the peers' environment.
        job: all of it but ``test``.
        photos: to score.

    Returns:
        The scores, and what else is to be said of its export, in sentences.

    Raises:
        InputError: it failed; the message is its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder) / "job.json", Path(folder) / "out.npz"
        asked.write_text(json.dumps({**job, "test": [str(photo.path) for photo in photos]}))
        # The interpreter's own name is kept: what it links to is not in the environment.
        line = [str(python.absolute()), "-m", "benchmarks.peers.parity", str(asked), str(answer)]
        ran = subprocess.run(
            line, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if ran.returncode:
            said = ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}."]
            raise InputError(f"anomalib failed: {said[-1]}")
        with np.load(answer) as arrays:
            got: dict[str, npt.NDArray[Any]] = dict(arrays)
    threshold = float(got["threshold"])
    notes = []
    if got["batch"] != 1:
        notes.append(
            f"anomalib's exported file takes {got['batch']} images at once and no other number "
            f"(anomalib {got['anomalib']}, torch {got['torch']}): each image was repeated."
        )
    scored = [
        Scored(
            f"anomalib {got['anomalib']} PatchCore{note}",
            photo.size,
            photo.name,
            float(before),
            float(after),
            threshold,
            threshold,
        )
        for key, note in (("after", ""), ("after_resized", ", resized before"))
        for photo, before, after in zip(photos, got["before"], got[key], strict=True)
    ]
    return scored, notes
