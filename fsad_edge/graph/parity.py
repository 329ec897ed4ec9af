"""Proof that the exported graph is the trained model: torch and the graph score the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fsad_edge.graph.scoring_graph import ScoringGraph
from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.bank import ReferenceModel

#: The largest difference allowed to an fp32 graph, relative to the score, or to the threshold where
#: the score is smaller: a score near zero has no digits to compare.
TOLERANCE = 1e-4

#: Number of random images that are scored together with the shots.
RANDOM_IMAGES = 8


@dataclass(frozen=True)
class Parity:
    """How far the exported graph is from the trained model.

    Attributes:
        images: number of images that were compared.
        largest_difference: largest relative difference of two scores, see ``TOLERANCE``.
        flips: number of images whose two scores are on different sides of the threshold.
    """

    images: int
    largest_difference: float
    flips: int

    @property
    def holds(self) -> bool:
        """Whether the graph may be written."""
        return self.largest_difference <= TOLERANCE and self.flips == 0


def random_images(height: int, width: int, seed: int) -> list[UInt8Array]:
    """Images of noise at several scales, uint8 ``[H, W, 3]`` each."""
    rng = np.random.default_rng(seed)
    images = []
    for index in range(RANDOM_IMAGES):
        cell = 1 << (index % 6)
        grid = rng.integers(0, 256, (-(-height // cell), -(-width // cell), 3), np.uint8)
        images.append(grid.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width])
    return images


def torch_scores(
    graph: ScoringGraph, images: Sequence[UInt8Array], reference: ReferenceModel
) -> Float32Array:
    """Score images with torch.

    Args:
        graph: the graph, in evaluation mode, on the CPU.
        images: uint8 ``[H, W, 3]`` each, at the model's size.
        reference: the normal parts to score against.

    Returns:
        float32 ``[len(images)]``.
    """
    inputs = [torch.from_numpy(value) for value in reference.as_inputs().values()]
    with torch.inference_mode():
        scores = [graph(torch.from_numpy(image.copy())[None], *inputs)[0] for image in images]
    return torch.cat(scores).numpy()


def compare(expected: Float32Array, got: Float32Array, threshold: float) -> Parity:
    """Compare two arrays of scores of the same images, float32 ``[N]`` each."""
    scale = np.maximum(np.abs(expected), threshold)
    difference = np.abs(expected.astype(np.float64) - got) / scale
    # NaN must not count as equal.
    largest = float(np.nan_to_num(difference, nan=np.inf).max())
    flips = int(((expected > threshold) != (got > threshold)).sum())
    return Parity(len(expected), largest, flips)
