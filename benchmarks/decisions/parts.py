"""One part made from a draw of shots by the commands' own functions, and its test images scored."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import fsad_edge
from benchmarks.accuracy.datasets import DataSet
from fsad_edge import FinetuneOptions, Model
from fsad_edge.evaluation import Sample
from fsad_edge.pipeline.finetune import FinetuneResult
from fsad_edge.runtime.arrays import Float64Array
from fsad_edge.runtime.model import Result


@dataclass(frozen=True)
class Part:
    """A part and what its model says of the test images.

    Attributes:
        data: the data set.
        made: what ``finetune`` printed.
        model: the exported file, loaded.
        samples: the test images, at most so many good and defective ones as were asked for.
        results: their results.
    """

    data: DataSet
    made: FinetuneResult
    model: Model
    samples: list[Sample]
    results: list[Result]

    @property
    def good(self) -> Float64Array:
        """Scores of the good test images, float64 ``[G]``."""
        return self._scores(defective=False)

    @property
    def bad(self) -> Float64Array:
        """Scores of the defective test images, float64 ``[B]``."""
        return self._scores(defective=True)

    def _scores(self, defective: bool) -> Float64Array:
        both = zip(self.samples, self.results, strict=True)
        return np.array([r.score for s, r in both if (s.defect is not None) == defective])


def make_part(
    data: DataSet, shots: int, seed: int, size: int | None, images: int, folder: Path
) -> Part:
    """Draw shots, make and export a model, and score the test images.

    Args:
        data: the data set.
        shots: how many shots are drawn.
        seed: of the draw.
        size: side of the model's input in pixels; None lets ``finetune`` choose.
        images: the most good and the most defective test images.
        folder: an empty folder to work in.
    """
    chosen = _copied(data.draw(shots, seed), folder / "shots")
    # Random draws hold parts unlike the rest, as a user's own shots seldom do.
    options = FinetuneOptions(image_size=size, keep_outliers=True)
    made = fsad_edge.finetune(chosen, folder / "part", options)
    file = fsad_edge.export(made, folder / "part.onnx")
    model = Model.load(file, "cpu")
    samples = data.subset(images)
    return Part(data, made, model, samples, [model.score(sample.path) for sample in samples])


def _copied(files: Sequence[Path], folder: Path) -> Path:
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    return folder
